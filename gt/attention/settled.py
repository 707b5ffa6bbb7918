"""Close calls among backends: a table read between its points tells them apart less well than a look at the clock.

What was settled for batches of one kind holds for those alike, see `alike`, and stands above the table in `choose`.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from gt.attention.costs import Demand, is_near, kind_of
from gt.masks import Pairs

CLOSE = 1.5  # times the least of the expected costs, up to which another backend may be the fastest in truth
GAIN = 0.07  # share of its time by which the table's choice must be beaten: less is the machine's noise
STEPS_OF_TWO = 2  # classes of batches for each doubling of a size


def asked(demand: Demand) -> str:
    """The name of what is asked, apart from what was settled."""
    return " ".join(f"{name}={value}" for name, value in vars(demand).items() if name not in ("settled", "backend"))


def alike(pairs: Pairs, demand: Demand) -> str:
    """The name of a demand and of batches for which one backend is fastest: their sizes are within a factor of 1.4."""
    batch, nodes = pairs.batch, max(pairs.batch.num_nodes, 1)
    sizes = (batch.max_nodes, batch.num_graphs, nodes, pairs.count / nodes)
    classes = [round(STEPS_OF_TWO * math.log2(max(size, 1))) for size in sizes]
    near = "near" if is_near(pairs) else "far"
    return f"{asked(demand)} {kind_of(pairs, demand)} {near} {'x'.join(map(str, classes))}"


def close_calls(costs_or_reasons: Mapping[str, float | str]) -> list[str]:
    """The backends that may be the fastest by what they are expected to cost, the expected one first.

    One that the cost table does not know is none of them.
    """
    costs = {name: cost for name, cost in costs_or_reasons.items() if not isinstance(cost, str)}
    expected, *others = sorted(costs, key=costs.__getitem__)
    return [expected, *(name for name in others if costs[name] <= CLOSE * costs[expected] < math.inf)]


def fastest(times: Mapping[str, Sequence[float]]) -> str:
    """The one to take of several that were timed in turn, the expected one first: it stays unless it is beaten well."""
    expected, *_ = times
    medians = {name: statistics.median(repeats) for name, repeats in times.items()}
    best = min(medians, key=medians.__getitem__)
    return best if medians[best] < (1 - GAIN) * medians[expected] else expected

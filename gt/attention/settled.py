"""Close calls among backends, where timing them is more reliable than interpolating the cost table.

A result holds for all batches of the same class, see `case_key`, and takes precedence over the table in `choose`.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from gt.attention.costs import Demand, is_near, kind_of
from gt.masks import Pairs

CLOSE = 1.5  # multiple of the lowest expected cost up to which another backend may in fact be fastest
GAIN = 0.07  # relative improvement over the table's choice needed to replace it: less is noise
STEPS_OF_TWO = 2  # classes of batches per doubling of a size


def demand_key(demand: Demand) -> str:
    """The name of a demand, leaving out the backend and settled results."""
    return " ".join(f"{name}={value}" for name, value in vars(demand).items() if name not in ("settled", "backend"))


def case_key(pairs: Pairs, demand: Demand) -> str:
    """The name of a demand and a class of batches that share a fastest backend: sizes within a factor of 1.4."""
    batch, nodes = pairs.batch, max(pairs.batch.num_nodes, 1)
    sizes = (batch.max_nodes, batch.num_graphs, nodes, pairs.count / nodes)
    classes = [round(STEPS_OF_TWO * math.log2(max(size, 1))) for size in sizes]
    near = "near" if is_near(pairs) else "far"
    return f"{demand_key(demand)} {kind_of(pairs, demand)} {near} {'x'.join(map(str, classes))}"


def close_calls(costs_or_reasons: Mapping[str, float | str]) -> list[str]:
    """The backends that may be fastest according to their expected costs, cheapest first.

    Excludes backends that the cost table does not cover.
    """
    costs = {name: cost for name, cost in costs_or_reasons.items() if not isinstance(cost, str)}
    expected, *others = sorted(costs, key=costs.__getitem__)
    return [expected, *(name for name in others if costs[name] <= CLOSE * costs[expected] < math.inf)]


def fastest(times: Mapping[str, Sequence[float]]) -> str:
    """The choice among timed backends, the expected one first: it stays unless another is clearly faster."""
    expected, *_ = times
    medians = {name: statistics.median(repeats) for name, repeats in times.items()}
    best = min(medians, key=medians.__getitem__)
    return best if medians[best] < (1 - GAIN) * medians[expected] else expected

"""Measure the cost table of `gt.attention.costs` on this machine."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from gt.attention import costs
from gt.attention.blocks import SIDE
from gt.attention.costs import CostTable, Demand
from gt.attention.dispatch import BACKENDS, Backend
from gt.graph import path_graphs
from gt.lottery.timing import attention_step, timed
from gt.lottery.workloads import inputs, random_graphs
from gt.masks import Causal, Complete, Hops, Pairs, Window

TURNS = 3  # measurements of each case
BUDGET = 0.01  # minimum seconds per measurement, so that short steps are repeated often
PATIENCE = 25.0  # total seconds per backend, compilation included; the rest of its grid is extrapolated


@dataclass(frozen=True)
class Case:
    """One point of the grids.

    Attributes:
        key: name of the grid, appended to that of the backend.
        row, column: position in the grid.
    """

    key: str
    row: int
    column: int
    pairs: Pairs
    heads: int
    channels: int


def padded_cases(device: str) -> Iterator[Case]:
    """Cases by length and stack (graphs times heads), except those that are too large."""
    for i, length in enumerate(costs.LENGTHS):
        for j, stack in enumerate(costs.STACKS):
            if length * length * stack > costs.MAX_ENTRIES or length * stack > costs.MAX_ROWS:
                continue
            heads = min(stack, costs.HEADS)
            graphs = stack // heads
            sizes = [length - (number % 2) for number in range(graphs)] if graphs > 1 else [length]
            for kind, mask, graph_sizes in (
                ("free", Complete(), [length] * graphs),
                ("causal", Causal(), [length] * graphs),
                ("masked", Hops(1), sizes),
                ("even", Hops(1), [length] * graphs),
            ):
                pairs = mask(random_graphs(graph_sizes, 2).to(device))
                for channels in costs.CHANNELS:
                    yield Case(f"{kind}/{channels}", i, j, pairs, heads, channels)


def listed_cases(device: str) -> Iterator[Case]:
    """Cases by pairs per node and number of nodes, except those that are too large."""
    for i, read in enumerate(costs.DEGREES):
        for j, nodes in enumerate(costs.NODES):
            if read * nodes > costs.MAX_PAIRS or read > nodes:
                continue
            scattered = Hops(1)(random_graphs([nodes], read - 1).to(device))
            near = (Window(read - 1) & Causal())(path_graphs([nodes]).to(device))
            for channels in costs.CHANNELS:
                yield Case(f"{channels}", i, j, scattered, costs.HEADS, channels)
                yield Case(f"near/{channels}", i, j, near, costs.HEADS, channels)


def blocked_cases(device: str) -> Iterator[Case]:
    """Cases by block entries per node and number of nodes, except those that are too large."""
    for i, area in enumerate(costs.AREA):
        for j, nodes in enumerate(costs.NODES):
            if area > max(nodes, SIDE) or area * nodes > costs.MAX_BLOCKED:
                continue
            size = min(area, nodes)
            pairs = Hops(1)(random_graphs([size] * (nodes // size), 4).to(device))
            for channels in costs.CHANNELS:
                yield Case(f"blocks/{channels}", i, j, pairs, costs.HEADS, channels)


def fill_gaps(grid: list[list[float]], axes: tuple[Any, Any], power: int) -> list[list[float]]:
    """Fill gaps by scaling the nearest smaller case by the work, in which rows count with the given power."""
    rows, columns = axes
    for i in range(len(rows)):
        for j in range(len(columns)):
            if grid[i][j] == 0.0:
                near = (i, j - 1) if j and grid[i][j - 1] else (i - 1, j)
                work = (rows[i] / rows[near[0]]) ** power * columns[j] / columns[near[1]]
                grid[i][j] = grid[near[0]][near[1]] * max(work, 1.0)
    return grid


def supporting(device: str, dtype: torch.dtype, layouts: Sequence[str]) -> list[str]:
    """The backends with one of these layouts that support plain attention here."""
    demand = Demand(device=device, half=dtype in (torch.float16, torch.bfloat16))

    def supports(backend: Backend) -> bool:
        return backend.layout in layouts and not (backend.obstacle(demand) or backend.drawback(demand))

    return [name for name, backend in BACKENDS.items() if supports(backend)]


def measure(device: str, dtype: torch.dtype = torch.float32, show: Callable[[Any], Any] = iter) -> CostTable:
    """Measure the cost table of this machine, which takes about a minute.

    Each case is measured several times, interleaved with all others, as the speed of a program can vary by a third with
    the placement of its memory.

    Args:
        device: ``cpu`` or ``cuda``.
        dtype: dtype of queries, keys and values.
        show: wraps the iterable of cases, such as a progress bar.
    """

    fastest: dict[str, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    spent: dict[str, float] = defaultdict(float)
    grids = ((padded_cases, ("padded", "packed")), (listed_cases, ("listed",)), (blocked_cases, ("blocks",)))
    for cases, layouts in grids:
        if not supporting(device, dtype, layouts):
            continue
        for case in show(list(cases(device)) * TURNS):
            step = partial(attention_step, case.pairs, inputs(case.pairs, case.heads, case.channels, dtype))
            for name in supporting(device, dtype, layouts):
                if BACKENDS[name].pairs_obstacle(case.pairs) or spent[name] > PATIENCE:
                    continue
                started = time.perf_counter()
                repeats = timed(step(name), device, minimum=1, seconds=BUDGET)
                # other load can only slow a measurement down
                fastest[f"{name}/{case.key}"][case.row, case.column].append(min(repeats))
                spent[name] += time.perf_counter() - started
    times = {}
    for name, turns in fastest.items():
        axes = costs.axes_of(name)
        grid = [[0.0] * len(axes[1]) for _ in axes[0]]
        for (row, column), seconds in turns.items():
            grid[row][column] = statistics.median(seconds)
        times[name] = fill_gaps(grid, axes, 2 if axes == costs.PADDED else 1)
    source = {
        "device": costs.device_name(device),
        "torch": torch.__version__,
        "dtype": str(dtype).removeprefix("torch."),
        "date": datetime.now(UTC).date().isoformat(),
    }
    return CostTable(times, source)

"""Measure the cost table of `gt.attention.costs` on this machine."""

import statistics
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import torch

from gt.attention import costs
from gt.attention.costs import CostTable, Demand
from gt.attention.dispatch import BACKENDS, Backend
from gt.lottery.timing import attention_step, timed
from gt.lottery.workloads import inputs, random_graphs
from gt.masks import Causal, Complete, Hops, Pairs

BUDGET = 0.04  # seconds that the repeats of one measurement take at least, so that short ones are many


def padded_cases(device: str) -> Iterator[tuple[str, int, int, Pairs, int, int]]:
    """(kind, row, column, pairs, heads, channels) of the grid over lengths and stacks, but for what is too large."""
    for i, length in enumerate(costs.LENGTHS):
        for j, stack in enumerate(costs.STACKS):
            if length * length * stack > costs.MOST_ENTRIES:
                continue
            heads = min(stack, costs.HEADS)
            graphs = stack // heads
            sizes = [length - (number % 2) for number in range(graphs)] if graphs > 1 else [length]
            for kind, mask, of in (
                ("free", Complete(), [length] * graphs),
                ("causal", Causal(), [length] * graphs),
                ("masked", Hops(1), sizes),
            ):
                pairs = mask(random_graphs(of, 2).to(device))
                for channels in costs.CHANNELS:
                    yield kind, i, j, pairs, heads, channels


def listed_cases(device: str) -> Iterator[tuple[int, int, Pairs, int]]:
    """(row, column, pairs, channels) of the grid over pairs a node and nodes, but for what is too large."""
    for i, read in enumerate(costs.READ):
        for j, nodes in enumerate(costs.NODES):
            if read * nodes > costs.MOST_PAIRS or read > nodes:
                continue
            pairs = Hops(1)(random_graphs([nodes], read - 1).to(device))
            for channels in costs.CHANNELS:
                yield i, j, pairs, channels


def filled(grid: list[list[float]], axes: tuple[Any, Any], power: int) -> list[list[float]]:
    """The grid with its gaps scaled up from the nearest smaller case by the work, rows to the given power."""
    rows, columns = axes
    for i in range(len(rows)):
        for j in range(len(columns)):
            if grid[i][j] == 0.0:
                near = (i, j - 1) if j and grid[i][j - 1] else (i - 1, j)
                work = (rows[i] / rows[near[0]]) ** power * columns[j] / columns[near[1]]
                grid[i][j] = grid[near[0]][near[1]] * max(work, 1.0)
    return grid


def serving(device: str, dtype: torch.dtype, padded: bool) -> list[str]:
    """The backends of one kind that can serve plain attention here."""
    demand = Demand(device=device, half=dtype in (torch.float16, torch.bfloat16))

    def serves(backend: Backend) -> bool:
        return backend.padded == padded and not (backend.obstacle(demand) or backend.avoided(demand))

    return [name for name, backend in BACKENDS.items() if serves(backend)]


def measure(device: str, dtype: torch.dtype = torch.float32, show: Callable[[Any], Any] = iter) -> CostTable:
    """The cost table of this machine; takes some 30 s.

    Args:
        device: ``cpu`` or ``cuda``.
        dtype: of queries, keys and values.
        show: wraps what is iterated over, such as a progress bar.
    """

    def blank(axes: tuple[Any, Any]) -> list[list[float]]:
        return [[0.0] * len(axes[1]) for _ in axes[0]]

    times: dict[str, list[list[float]]] = {}
    for kind, i, j, pairs, heads, channels in show(list(padded_cases(device))):
        given = inputs(pairs, heads, channels, dtype)
        for name in serving(device, dtype, padded=True):
            grid = times.setdefault(f"{name}/{kind}/{channels}", blank(costs.PADDED))
            grid[i][j] = statistics.median(timed(attention_step(pairs, given, name), device, least=3, seconds=BUDGET))
    for i, j, pairs, channels in show(list(listed_cases(device))):
        given = inputs(pairs, costs.HEADS, channels, dtype)
        for name in serving(device, dtype, padded=False):
            grid = times.setdefault(f"{name}/{channels}", blank(costs.LISTED))
            grid[i][j] = statistics.median(timed(attention_step(pairs, given, name), device, least=3, seconds=BUDGET))
    for name, grid in times.items():
        padded = name.count("/") == 2
        filled(grid, costs.PADDED if padded else costs.LISTED, 2 if padded else 1)
    source = {
        "device": costs.device_name(device),
        "torch": torch.__version__,
        "dtype": str(dtype).removeprefix("torch."),
        "date": datetime.now(UTC).date().isoformat(),
    }
    return CostTable(times, source)

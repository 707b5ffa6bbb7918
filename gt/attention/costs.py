"""The cost of each backend on this machine: times measured on a small grid and interpolated between its points.

``python -m gt.lottery`` measures a table and stores it in the user's cache folder; a machine without one uses the table
that comes with the package.
"""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from platformdirs import user_cache_path
from torch import Tensor

from gt.attention.blocks import SIDE, blocks_of
from gt.attention.scores import Hint, Score
from gt.masks import Pairs

SHIPPED = Path(__file__).parent / "tables"
VERSION = 2  # increase when the measurements change

LENGTHS = (8, 24, 64, 192, 512, 1536)  # nodes per graph, L
STACKS = (1, 8, 64, 512, 4096)  # graphs times heads, B * H
DEGREES = (1, 4, 16, 64, 256)  # pairs per node, P / N
AREA = (128, 512, 2048, 8192)  # entries of the non-empty blocks per node
NODES = (64, 512, 4096, 32768)  # N
HEADS = 4  # of measurements on the list of pairs, whose cost is proportional to the heads
CHANNELS = (16, 64)  # D
Axes = tuple[Sequence[float], Sequence[float]]
PADDED: Axes = (LENGTHS, STACKS)
LISTED: Axes = (DEGREES, NODES)
BLOCKED: Axes = (AREA, NODES)
# larger cases are not measured but extrapolated from smaller ones
MAX_ENTRIES, MAX_ROWS, MAX_PAIRS, MAX_BLOCKED = 20_000_000, 90_000, 1_000_000, 1 << 26
KINDS = ("free", "causal", "masked", "even")
# pairs of a class of batches, see `gt.attention.settled`, and the backend timed to be the fastest for it
Settled = frozenset[tuple[str, str]]
NEAR = 512  # span in rows of the sources of a node, up to which caches hold the rows that nearby nodes read


@dataclass(frozen=True)
class Demand:
    """What a layer requires of attention, apart from the batch.

    Attributes:
        device: ``cpu``, ``cuda``, ...
        half: whether it computes in float16 or bfloat16.
        heads, channels: H and D.
        dropout: whether attention weights are dropped.
        bias: whether scores have a bias; trained: whether the bias also requires a gradient.
        scored: whether scores are other than the scaled dot product.
        pair_value: whether values have a term for each pair.
        gradients: whether gradients are required.
        hops: the largest hop distance that the bias uses; listed: whether some tensor has a row per pair or edge.
        backend: the backend that the layer requests, or ``auto``.
        compiled: whether the layer is compiled, see `gt.train.compile`.
        settled: results of timed close calls, which take precedence over the table.
    """

    device: str = "cpu"
    half: bool = False
    heads: int = 4
    channels: int = 16
    dropout: bool = False
    bias: bool = False
    trained: bool = False
    scored: bool = False
    pair_value: bool = False
    gradients: bool = True
    hops: int | None = None
    listed: bool = False
    backend: str = "auto"
    compiled: bool = False
    settled: Settled = frozenset()

    @classmethod
    def of(
        cls,
        device: str,
        half: bool,
        heads: int,
        channels: int,
        dropout: float = 0.0,
        bias: Tensor | Hint | None = None,
        score: Score | None = None,
        pair: bool = False,
        pair_value: bool = False,
        gradients: bool = True,
        backend: str = "auto",
        compiled: bool = False,
        settled: Settled = frozenset(),
    ) -> Self:
        """The demand of a call to `gt.attention.attend`, known ahead of it: only the presence of pair terms counts."""
        hint = bias if isinstance(bias, Hint) else None
        return cls(
            device=device,
            half=half,
            heads=heads,
            channels=channels,
            dropout=dropout > 0,
            bias=bias is not None or pair,
            trained=pair or hint is not None or (isinstance(bias, Tensor) and bias.requires_grad),
            scored=score is not None,
            pair_value=pair_value,
            gradients=gradients,
            hops=hint.most if hint is not None else None,
            listed=pair or pair_value,
            backend=backend,
            compiled=compiled,
            settled=settled,
        )


def axes_of(name: str) -> Axes:
    """The axes of the grid of times with this name."""
    _, *rest = name.split("/")
    if len(rest) == 1 or rest[0] == "near":
        return LISTED
    return BLOCKED if rest[0] == "blocks" else PADDED


def kind_of(pairs: Pairs, demand: Demand) -> str:
    """``free`` if nothing is masked or padded, ``causal`` if the mask is purely causal, else ``even`` or ``masked``.

    ``even`` if all graphs have the same size: without padding there are no copies to make.
    """
    if demand.bias or demand.scored:
        return "masked"
    if pairs.limits == (None, None) and pairs.batch.equal_sizes:
        return "free"
    if pairs.limits == (None, 0):
        return "causal"
    return "even" if pairs.batch.equal_sizes else "masked"


def is_near(pairs: Pairs) -> bool:
    """Whether nodes only read nearby rows: each graph is small, or the mask limits the difference of positions."""
    back, ahead = pairs.limits or (None, None)
    spread = pairs.batch.max_nodes if back is None or ahead is None else min(back + ahead, pairs.batch.max_nodes)
    return spread <= NEAR


def locate(axis: Sequence[float], value: float) -> tuple[int, float]:
    """The interval of an ascending axis that contains ``value``, and its logarithmic position there in [0, 1]."""
    value = min(max(value, axis[0]), axis[-1])
    low = max(i for i in range(len(axis) - 1) if axis[i] <= value)
    return low, math.log(value / axis[low]) / math.log(axis[low + 1] / axis[low])


def interpolate(
    grid: Sequence[Sequence[float]], axes: tuple[Sequence[float], Sequence[float]], at: tuple[float, float]
) -> float:
    """Interpolate a grid of positive numbers, linearly in logarithms; outside the grid, by the value at its edge."""
    (i, a), (j, b) = (locate(axis, value) for axis, value in zip(axes, at, strict=True))
    low = (1 - b) * math.log(grid[i][j]) + b * math.log(grid[i][j + 1])
    high = (1 - b) * math.log(grid[i + 1][j]) + b * math.log(grid[i + 1][j + 1])
    return math.exp((1 - a) * low + a * high)


@dataclass(frozen=True)
class CostTable:
    """Measured times.

    Attributes:
        times: grids of seconds, forward and backward: ``backend/kind/channels`` over `PADDED`; for backends on the list
            of pairs ``backend/channels`` over `LISTED`, and ``backend/near/channels`` for pairs that are near, see
            `is_near`; for backends on blocks ``backend/blocks/channels`` over `BLOCKED`.
        source: what was measured, when and with which version of torch.
    """

    times: Mapping[str, Sequence[Sequence[float]]]
    source: Mapping[str, Any]

    @cached_property
    def _headings(self) -> dict[str, set[str]]:
        """The second part of each backend's grid names: kinds, ``near``, ``blocks`` or channels."""
        headings: dict[str, set[str]] = {}
        for name in self.times:
            backend, heading, *_ = name.split("/")
            headings.setdefault(backend, set()).add(heading)
        return headings

    def seconds(self, backend: str, pairs: Pairs, demand: Demand) -> float:
        """The expected time of a backend, forward and backward; infinite if it was not measured."""
        batch = pairs.batch
        heading = self._headings.get(backend, ())
        axes, at = PADDED, (float(batch.max_nodes), float(batch.num_graphs * demand.heads))
        if not heading:
            return math.inf
        if KINDS[0] in heading:
            kind = kind_of(pairs, demand)
            if kind == "even" and kind not in heading:
                kind = "masked"
            kind = kind if kind in heading else KINDS[0]
            names = [f"{backend}/{kind}/{d}" for d in CHANNELS]
            scale = max(1.0, at[0] / axes[0][-1]) ** 2 * max(1.0, at[1] / axes[1][-1])
        else:
            nodes = float(max(batch.num_nodes, 1))
            if "blocks" in heading:
                axes, at = BLOCKED, (blocks_of(pairs).count * SIDE**2 / nodes, nodes)
                names = [f"{backend}/blocks/{d}" for d in CHANNELS]
            else:
                axes, at = LISTED, (pairs.count / nodes, nodes)
                near = "near/" if "near" in heading and is_near(pairs) else ""
                names = [f"{backend}/{near}{d}" for d in CHANNELS]
            scale = max(1.0, at[0] / axes[0][-1]) * max(1.0, at[1] / axes[1][-1]) * demand.heads / HEADS
        if not all(name in self.times for name in names):
            return math.inf
        narrow, wide = (interpolate(self.times[name], axes, at) for name in names)
        share = math.log(max(demand.channels, CHANNELS[0]) / CHANNELS[0]) / math.log(CHANNELS[1] / CHANNELS[0])
        return scale * narrow * (wide / narrow) ** share

    def write(self, path: Path) -> None:
        """Write the table atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"version": VERSION, "source": self.source, "times": self.times}, indent=1))
        os.replace(part, path)


def device_name(device: str) -> str:
    """The hardware that a table describes: the GPU, or the processor and its number of threads."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, {torch.get_num_threads()} threads"


@lru_cache
def capability() -> tuple[int, int] | None:
    """The compute capability of the current GPU, None without one."""
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cached_path(kind: str, device: str) -> Path:
    """The cache file of measurements of a kind on a device of this machine."""
    name = "".join(c if c.isalnum() else "-" for c in device_name(device)).strip("-")
    return user_cache_path("gt") / f"{kind}-{device}-{name}.json"


def table_path(device: str, half: bool) -> Path:
    """The file of this machine's own table of times, in float32 or, with ``half``, in 16 bits."""
    return cached_path(f"costs-{16 if half else 32}-bit", device)


def read_table(path: Path) -> CostTable | None:
    """The table in a file; None if it is missing, damaged or of another version."""
    try:
        content = json.loads(path.read_text())
        return CostTable(content["times"], content["source"]) if content["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache
def cost_table(device: str, half: bool) -> CostTable:
    """This machine's own table if one was measured, else the one that comes with the package.

    The own table of the same precision comes first: the fastest backend in 16 bits may take three times as long in 32.
    """
    shipped = SHIPPED / f"{device}.json"
    # the last path is that of earlier versions
    measured = (table_path(device, half), table_path(device, not half), cached_path("costs", device))
    for path in (*measured, shipped if shipped.exists() else SHIPPED / "cpu.json"):
        if (table := read_table(path)) is not None:
            return table
    raise RuntimeError(f"{shipped} is damaged: reinstall the package")

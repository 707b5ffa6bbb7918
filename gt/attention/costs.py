"""What each backend costs on this machine: times measured on a small grid, and read between its points.

``python -m gt.lottery`` measures and keeps a table in the user's cache folder; a machine without one goes by the table
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
VERSION = 2  # raise when what is measured changes

LENGTHS = (8, 24, 64, 192, 512, 1536)  # nodes a graph, L
STACKS = (1, 8, 64, 512, 4096)  # graphs times heads, B * H
READ = (1, 4, 16, 64, 256)  # pairs a node, P / N
AREA = (128, 512, 2048, 8192)  # entries of the blocks that hold pairs, for each node
NODES = (64, 512, 4096, 32768)  # N
HEADS = 4  # of the list of pairs: its cost grows with the heads
CHANNELS = (16, 64)  # D
Axes = tuple[Sequence[float], Sequence[float]]
PADDED: Axes = (LENGTHS, STACKS)
LISTED: Axes = (READ, NODES)
BLOCKED: Axes = (AREA, NODES)
# larger cases are not measured but scaled up from smaller ones
MOST_ENTRIES, MOST_ROWS, MOST_PAIRS, MOST_BLOCKED = 20_000_000, 90_000, 1_000_000, 1 << 26
KINDS = ("free", "causal", "masked", "even")
# of classes of batches, see `gt.attention.settled`, the backend that was timed to be the fastest
Settled = frozenset[tuple[str, str]]
NEAR = 512  # nodes from the first to the last that a node may read, below which a cache holds what its neighbours read


@dataclass(frozen=True)
class Demand:
    """What a layer asks of attention, apart from the batch.

    Attributes:
        device: ``cpu``, ``cuda``, ...
        half: in 16 bits.
        heads, channels: H and D.
        dropout: weights are dropped.
        bias: scores have a bias; trained: and it asks for a gradient.
        scored: scores are not the scaled dot product.
        pair_value: values have a term for each pair.
        gradients: it is asked for gradients.
        hops: the bias goes by hop distances up to so many; listed: something has a row for each pair, or each edge.
        backend: the one that the layer insists on, or ``auto``.
        compiled: the layer is compiled, see `gt.train.compile`.
        settled: close calls that were timed, which stand above the table.
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
        """That of a call of `gt.attention.attend`, ahead of it too: whether there are pair features is all it takes."""
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
    """What a grid of times with this name is over."""
    _, *rest = name.split("/")
    if len(rest) == 1 or rest[0] == "near":
        return LISTED
    return BLOCKED if rest[0] == "blocks" else PADDED


def kind_of(pairs: Pairs, demand: Demand) -> str:
    """``free`` where nothing is masked or padded, ``causal`` where the order alone masks, else ``masked``.

    ``even`` where a mask needs no padding, for all graphs have one size, which saves the copies.
    """
    if demand.bias or demand.scored:
        return "masked"
    if pairs.limits == (None, None) and pairs.batch.equal_sizes:
        return "free"
    if pairs.limits == (None, 0):
        return "causal"
    return "even" if pairs.batch.equal_sizes else "masked"


def is_near(pairs: Pairs) -> bool:
    """Whether nodes read others close by among the rows: each graph is small, or positions allow only so many."""
    back, ahead = pairs.limits or (None, None)
    spread = pairs.batch.max_nodes if back is None or ahead is None else min(back + ahead, pairs.batch.max_nodes)
    return spread <= NEAR


def place(axis: Sequence[float], value: float) -> tuple[int, float]:
    """The interval of a rising axis where ``value`` stands, and how far into it on a logarithmic scale, in [0, 1]."""
    value = min(max(value, axis[0]), axis[-1])
    low = max(i for i in range(len(axis) - 1) if axis[i] <= value)
    return low, math.log(value / axis[low]) / math.log(axis[low + 1] / axis[low])


def between(
    grid: Sequence[Sequence[float]], axes: tuple[Sequence[float], Sequence[float]], at: tuple[float, float]
) -> float:
    """A grid of positive numbers read between its points, linear in logarithms; beyond its edges the edge's value."""
    (i, a), (j, b) = (place(axis, value) for axis, value in zip(axes, at, strict=True))
    low = (1 - b) * math.log(grid[i][j]) + b * math.log(grid[i][j + 1])
    high = (1 - b) * math.log(grid[i + 1][j]) + b * math.log(grid[i + 1][j + 1])
    return math.exp((1 - a) * low + a * high)


@dataclass(frozen=True)
class CostTable:
    """Measured times.

    Attributes:
        times: a grid of seconds, forward and backward, for each ``backend/kind/channels`` over `PADDED`, of those that
            work on the list of pairs ``backend/channels`` over `LISTED`, and ``backend/near/channels`` where
            `is_near`, of those that work on its blocks ``backend/blocks/channels`` over `BLOCKED`.
        source: what was measured, when and with which torch.
    """

    times: Mapping[str, Sequence[Sequence[float]]]
    source: Mapping[str, Any]

    @cached_property
    def _headings(self) -> dict[str, set[str]]:
        """What follows each backend's name: kinds, ``blocks`` or channels."""
        headings: dict[str, set[str]] = {}
        for name in self.times:
            backend, heading, *_ = name.split("/")
            headings.setdefault(backend, set()).add(heading)
        return headings

    def seconds(self, backend: str, pairs: Pairs, demand: Demand) -> float:
        """The time that a backend is expected to take, forward and backward; infinite where it was not measured."""
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
        narrow, wide = (between(self.times[name], axes, at) for name in names)
        share = math.log(max(demand.channels, CHANNELS[0]) / CHANNELS[0]) / math.log(CHANNELS[1] / CHANNELS[0])
        return scale * narrow * (wide / narrow) ** share

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"version": VERSION, "source": self.source, "times": self.times}, indent=1))
        os.replace(part, path)


def device_name(device: str) -> str:
    """What a table belongs to: the card, or the processor and how many threads work on it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, {torch.get_num_threads()} threads"


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cached_path(what: str, device: str) -> Path:
    """Where what was measured on a device of this machine is kept."""
    name = "".join(c if c.isalnum() else "-" for c in device_name(device)).strip("-")
    return user_cache_path("gt") / f"{what}-{device}-{name}.json"


def table_path(device: str, half: bool) -> Path:
    """Where this machine's own table of times in 32 or, with ``half``, in 16 bits is kept."""
    return cached_path(f"costs-{16 if half else 32}-bit", device)


def read_table(path: Path) -> CostTable | None:
    """The table in a file; None where there is none, it is damaged or of another version."""
    try:
        content = json.loads(path.read_text())
        return CostTable(content["times"], content["source"]) if content["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache
def cost_table(device: str, half: bool) -> CostTable:
    """This machine's own table where it was measured, else the one that comes with the package.

    Of its own two the one in as many bits goes first: what is fastest in 16 may take three times as long in 32.
    """
    shipped = SHIPPED / f"{device}.json"
    own = (table_path(device, half), table_path(device, not half), cached_path("costs", device))  # of earlier versions
    for path in (*own, shipped if shipped.exists() else SHIPPED / "cpu.json"):
        if (table := read_table(path)) is not None:
            return table
    raise RuntimeError(f"{shipped} is damaged: install the package again")

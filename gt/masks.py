"""Who reads whom. A mask is a graph over the nodes of each graph of a batch, apart from any model and any data.

In the pictures row i is the reader, column j the node that is read, on the path graph 0 - 1 - 2 - 3:

    Hops(0)     Hops(1)     Hops(2)     Complete()  Causal()    Window(1)
    # . . .     # # . .     # # # .     # # # #     # . . .     # # . .
    . # . .     # # # .     # # # #     # # # #     # # . .     # # # .
    . . # .     . # # #     # # # #     # # # #     # # # .     . # # #
    . . . #     . . # #     . # # #     # # # #     # # # #     . . # #

``a | b`` allows what either allows, ``a & b`` what both do, `PerHead` gives each attention head a mask of its own.
Masks are frozen values: equal masks hash alike, so a batch keeps what each of them said of it.
A new mask is one frozen dataclass with a method ``keys``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gt.graph import GraphBatch
from gt.hops import contains, hop_distances, hop_matrix, hops_between, ranges


class Mask(ABC):
    """A rule that says, for any batch, which node reads which; it never crosses graphs."""

    @abstractmethod
    def keys(self, batch: GraphBatch) -> Tensor:
        """(P,) int64, sorted and without repeats: ``reader * N + source`` of each allowed pair."""

    def count(self, batch: GraphBatch) -> int:
        """Number of pairs P, a Python int: ask on the CPU."""
        return self(batch).edges.shape[1]

    @property
    def heads(self) -> int:
        """1 where all heads share the mask, else the number of heads that it tells apart."""
        return 1

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        """Whether each target (P,) may read its source (P,), both of one graph: (P, heads) bool."""
        return contains(self.keys(batch), target * batch.num_nodes + source)[:, None]

    def dense(self, batch: GraphBatch) -> Tensor:
        """(B, heads, L, L) bool, [b, h, i, j] True where i reads j; False at padding."""
        return scatter_pairs(batch, self.keys(batch))

    def __call__(self, batch: GraphBatch) -> Pairs:
        """The pairs of this batch; the batch keeps them, so asking again costs nothing."""
        if self not in batch.pairs:
            batch.pairs[self] = Pairs(batch, self)
        return batch.pairs[self]

    def __or__(self, other: Mask) -> Mask:
        return Union((self, other))

    def __and__(self, other: Mask) -> Mask:
        return Intersection((self, other))


def scatter_pairs(batch: GraphBatch, keys: Tensor) -> Tensor:
    """(P,) keys to (B, 1, L, L) bool."""
    target, source = keys // batch.num_nodes, keys % batch.num_nodes
    size = batch.max_nodes
    dense = torch.zeros(batch.num_graphs * size * size, dtype=torch.bool, device=batch.device)
    dense[batch.slot[target] * size + batch.position[source]] = True
    return dense.view(batch.num_graphs, 1, size, size)


class Band(Mask):
    """Masks that go by position alone: i reads j where ``-back <= j - i <= ahead``; None sets no limit."""

    @property
    @abstractmethod
    def limits(self) -> tuple[int | None, int | None]:
        """How many positions back and ahead a node reads."""

    def within(self, offset: Tensor) -> Tensor:
        """Whether ``j - i`` is allowed, for a tensor of any shape."""
        back, ahead = self.limits
        allowed = torch.ones_like(offset, dtype=torch.bool)
        if back is not None:
            allowed &= offset >= -back
        if ahead is not None:
            allowed &= offset <= ahead
        return allowed

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        return self.within(source - target)[:, None]

    def _sources(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """(N,) the first node that each node reads, and how many it reads."""
        back, ahead = self.limits
        node = torch.arange(batch.num_nodes, device=batch.device)
        first, last = batch.ptr[:-1][batch.batch], batch.ptr[1:][batch.batch] - 1
        if back is not None:
            first = torch.maximum(first, node - back)
        if ahead is not None:
            last = torch.minimum(last, node + ahead)
        return first, last - first + 1

    def keys(self, batch: GraphBatch) -> Tensor:
        first, lengths = self._sources(batch)
        node = torch.arange(batch.num_nodes, device=batch.device)
        return node.repeat_interleave(lengths) * batch.num_nodes + ranges(first, lengths)

    def count(self, batch: GraphBatch) -> int:
        return int(self._sources(batch)[1].sum())

    def dense(self, batch: GraphBatch) -> Tensor:
        place = torch.arange(batch.max_nodes, device=batch.device)
        real = place < batch.sizes[:, None]  # (B, L)
        allowed = self.within(place[None, :] - place[:, None])  # (L, L)
        return (allowed & real[:, :, None] & real[:, None, :])[:, None]


def _not_negative(what: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{what} must be 0 or more, not {value}")


@dataclass(frozen=True)
class Complete(Band):
    """Every node reads every node of its graph, itself included: a Transformer."""

    limits = (None, None)


@dataclass(frozen=True)
class Causal(Band):
    """A node reads itself and what comes before it in its graph: GPT, on a path."""

    limits = (None, 0)


@dataclass(frozen=True)
class Window(Band):
    """A node reads at most ``width`` positions to each side: a sliding window, the width-hop mask of a path."""

    width: int

    def __post_init__(self) -> None:
        _not_negative("the width of a window", self.width)

    @property
    def limits(self) -> tuple[int, int]:
        return self.width, self.width


@dataclass(frozen=True)
class Hops(Mask):
    """A node reads all within ``hops`` hops, itself included: 0 a set, 1 the input graph, None the complete graph.

    A hop follows an edge's direction: with an edge j -> i, node i reads j.
    """

    hops: int | None = None

    def __post_init__(self) -> None:
        if self.hops is not None:
            _not_negative("hops", self.hops)

    def keys(self, batch: GraphBatch) -> Tensor:
        return Complete().keys(batch) if self.hops is None else hop_distances(batch, self.hops)[0]

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        if self.hops is None:
            return Complete().allows(batch, source, target)
        return super().allows(batch, source, target)

    def count(self, batch: GraphBatch) -> int:
        return Complete().count(batch) if self.hops is None else super().count(batch)

    def dense(self, batch: GraphBatch) -> Tensor:
        return Complete().dense(batch) if self.hops is None else super().dense(batch)


@dataclass(frozen=True)
class Combined(Mask):
    """Several masks taken as one."""

    masks: Sequence[Mask]

    def __post_init__(self) -> None:
        if not self.masks:
            raise ValueError(f"{type(self).__name__} needs at least one mask")
        object.__setattr__(self, "masks", tuple(self.masks))  # a list from a configuration would not hash
        told_apart = {mask.heads for mask in self.masks} - {1}
        if len(told_apart) > 1:
            raise ValueError(f"masks for {' and '.join(map(str, sorted(told_apart)))} heads do not combine")

    @property
    def heads(self) -> int:
        return max(mask.heads for mask in self.masks)


class Union(Combined):
    """Allows what any of its masks allows."""

    def keys(self, batch: GraphBatch) -> Tensor:
        return torch.unique(torch.cat([mask.keys(batch) for mask in self.masks]))

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        return _reduce(torch.logical_or, [mask.allows(batch, source, target) for mask in self.masks])

    def dense(self, batch: GraphBatch) -> Tensor:
        return _reduce(torch.logical_or, [mask.dense(batch) for mask in self.masks])


class Intersection(Combined):
    """Allows what all of its masks allow."""

    def keys(self, batch: GraphBatch) -> Tensor:
        # list the pairs of one mask, the others only filter: a band, which may hold every pair, is listed last
        listed = min(self.masks, key=lambda mask: isinstance(mask, Band))
        keys = listed.keys(batch)
        allowed = self.allows(batch, keys % batch.num_nodes, keys // batch.num_nodes)
        return keys[allowed.any(-1)]

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        return _reduce(torch.logical_and, [mask.allows(batch, source, target) for mask in self.masks])

    def dense(self, batch: GraphBatch) -> Tensor:
        return _reduce(torch.logical_and, [mask.dense(batch) for mask in self.masks])


class PerHead(Combined):
    """The h-th attention head reads by the h-th mask."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(mask.heads > 1 for mask in self.masks):
            raise ValueError("a mask for one head cannot itself tell heads apart")

    @property
    def heads(self) -> int:
        return len(self.masks)

    def keys(self, batch: GraphBatch) -> Tensor:
        return torch.unique(torch.cat([mask.keys(batch) for mask in self.masks]))

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        return torch.cat([mask.allows(batch, source, target) for mask in self.masks], dim=1)

    def dense(self, batch: GraphBatch) -> Tensor:
        return torch.cat([mask.dense(batch) for mask in self.masks], dim=1)


def _reduce(combine: Callable[[Tensor, Tensor], Tensor], parts: list[Tensor]) -> Tensor:
    first, *rest = parts
    for part in rest:
        first = combine(first, part)
    return first


class Pairs:
    """What a mask says of one batch, in whichever form is asked for; each form is computed once.

    Attributes:
        edges: (2, P) int64, row 0 the source that is read, row 1 the target that reads, sorted by (target, source).
        edge_heads: (P, H) bool, the heads that use each pair; None where all do.
        dense: (B, 1 or H, L, L) bool, [b, h, i, j] True where i reads j.
    """

    def __init__(self, batch: GraphBatch, mask: Mask) -> None:
        self.batch, self.mask = batch, mask
        self.choices: dict[Hashable, str] = {}  # the backend for each demand

    @cached_property
    def edges(self) -> Tensor:
        keys = self.mask.keys(self.batch)
        return torch.stack([keys % self.batch.num_nodes, keys // self.batch.num_nodes])

    @cached_property
    def edge_heads(self) -> Tensor | None:
        return self.mask.allows(self.batch, *self.edges) if self.mask.heads > 1 else None

    @cached_property
    def dense(self) -> Tensor:
        return self.mask.dense(self.batch)

    @property
    def heads(self) -> int:
        return self.mask.heads

    @cached_property
    def limits(self) -> tuple[int | None, int | None] | None:
        """How far back and ahead a node reads where position alone decides, else None."""
        if isinstance(self.mask, Band):
            return self.mask.limits
        return (None, None) if self.mask == Hops(None) else None

    @cached_property
    def count(self) -> int:
        """Number of pairs P; a Python int, so ask first on the CPU."""
        return self.mask.count(self.batch)

    @cached_property
    def rowptr(self) -> Tensor:
        """(N + 1,) offsets into ``edges`` of each target."""
        nodes = torch.arange(self.batch.num_nodes + 1, device=self.batch.device)
        return torch.searchsorted(self.edges[1].contiguous(), nodes)

    @cached_property
    def by_source(self) -> Tensor:
        """(P,) the order that sorts ``edges`` by (source, target)."""
        return self.edges[0].argsort(stable=True)

    @cached_property
    def colptr(self) -> Tensor:
        """(N + 1,) offsets into ``edges[:, by_source]`` of each source."""
        nodes = torch.arange(self.batch.num_nodes + 1, device=self.batch.device)
        return torch.searchsorted(self.edges[0][self.by_source], nodes)

    @cached_property
    def dense_entry(self) -> Tensor:
        """(P,) where each pair stands in a flattened (B, L, L)."""
        source, target = self.edges
        return self.batch.slot[target] * self.batch.max_nodes + self.batch.position[source]

    @cached_property
    def readers(self) -> Tensor:
        """(B, 1 or H, L, 1) bool: nodes that read somebody; the others get zeros."""
        return self.dense.any(-1, keepdim=True)

    @cached_property
    def safe_dense(self) -> Tensor:
        """`dense`, with rows that read nobody opened: a softmax over nothing would be NaN. Their result is dropped."""
        return self.dense | ~self.readers

    @cached_property
    def all_read(self) -> bool:
        """Every real node reads somebody, under every head."""
        if isinstance(self.mask, Band | Hops):
            return True  # these let a node read itself
        return bool(self.batch.to_packed(self.readers.transpose(1, 2)).all())

    def hops(self, most: int) -> Tensor:
        """(P,) how many hops each target is from its source; ``most + 1`` where further or out of reach."""
        source, target = self.edges
        return self._kept(f"hops_{most}", lambda: hops_between(self.batch, source, target, most))

    def dense_hops(self, most: int) -> Tensor:
        """(B, L, L) the same for every two nodes of a graph."""
        return self._kept(f"dense_hops_{most}", lambda: hop_matrix(self.batch, most))

    def _kept(self, name: str, made: Callable[[], Tensor]) -> Tensor:
        if name not in vars(self):
            vars(self)[name] = made()
        return vars(self)[name]

    @cached_property
    def of_edges(self) -> Tensor:
        """(E,) which pair each edge of the batch is; P where the mask does not allow it."""
        source, target = self.edges
        wanted = self.batch.edge_index[1] * self.batch.num_nodes + self.batch.edge_index[0]
        keys = target * self.batch.num_nodes + source
        return torch.where(contains(keys, wanted), torch.searchsorted(keys, wanted), keys.numel())

    def moved(self, batch: GraphBatch, move: Callable[[Tensor], Tensor]) -> Pairs:
        """The same pairs for a batch on another device, with every form that is already known."""
        out = Pairs(batch, self.mask)
        for name, value in vars(self).items():
            if name not in ("batch", "mask", "choices"):
                vars(out)[name] = move(value) if isinstance(value, Tensor) else value
        return out

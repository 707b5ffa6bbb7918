"""The interface of a mask, and combinations of masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gt.errors import UserError
from gt.graph import GraphBatch
from gt.hops import contains, ranges
from gt.masks.pairs import Pairs


class Mask:
    """A rule for which node of a batch reads which; it never crosses graphs.

    A subclass defines `keys` or `allows`, and may define both if that is much faster than deriving one from the other.
    The methods cover real nodes only and take a batch without virtual nodes; ``mask(batch)`` takes any batch.
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        if cls.__hash__ is None:
            raise UserError(
                f"{cls.__name__} is not hashable, but a batch caches pairs by mask: use @dataclass(frozen=True)"
            )
        return super().__new__(cls)

    def keys(self, batch: GraphBatch) -> Tensor:
        """(P,) int64, sorted and unique: ``reader * N + source`` of each allowed pair.

        Raises:
            TypeError: the class defines neither `keys` nor `allows`.
        """
        if type(self).allows is Mask.allows:
            raise TypeError(f"{type(self).__name__} defines neither keys nor allows: a mask needs one of them")
        size = batch.sizes[batch.batch]
        reader = torch.arange(batch.num_nodes, device=batch.device).repeat_interleave(size)
        source = ranges(batch.ptr[batch.batch], size)
        return (reader * batch.num_nodes + source)[self.allowed(batch, source, reader).any(-1)]

    def pair_count(self, batch: GraphBatch) -> int | None:
        """The number of pairs P if it is known without listing them: a Python int, so call this on the CPU."""
        return None

    @property
    def heads(self) -> int:
        """1 if all heads share the mask, else the number of heads that it distinguishes."""
        return 1

    @property
    def virtual_per_head(self) -> tuple[int, ...]:
        """(heads,) the number of virtual nodes of each graph, from the first, that a head uses in both directions."""
        return (0,) * self.heads

    @property
    def virtual_nodes(self) -> int:
        """The number of virtual nodes that a batch needs per graph."""
        return max(self.virtual_per_head)

    @property
    def limits(self) -> tuple[int | None, int | None] | None:
        """How many positions back and ahead a node reads (None: unbounded), if that is the whole rule."""
        return None

    @property
    def reads_itself(self) -> bool:
        """Whether every node is known to read itself, under every head."""
        return False

    @property
    def grows(self) -> bool:
        """Whether the pairs of a path are known to remain the same when the path grows."""
        return False

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        """Whether each target (P,) may read its source (P,), both of one graph: (P, heads) bool."""
        return contains(self.keys(batch), target * batch.num_nodes + source)[:, None]

    def allowed(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        """The checked result of `allows`: a shape (P,) without a head dimension would broadcast and allow every pair.

        Raises:
            UserError: it is not (P, heads or 1) bool.
        """
        rows: object = self.allows(batch, source, target)
        if isinstance(rows, Tensor):
            if rows.dtype == torch.bool and rows.dim() == 2 and rows.shape[1] in (1, self.heads):
                return rows
            actual = f"{tuple(rows.shape)} of {rows.dtype}"
        else:
            actual = f"a {type(rows).__name__}"
        expected = f"({len(source)}, {self.heads}) of torch.bool, a row for each pair and a column for each head"
        raise UserError(f"{type(self).__name__}.allows returns {actual}, expected {expected}")

    def dense(self, batch: GraphBatch) -> Tensor:
        """(B, heads, L, L) bool, [b, h, i, j] True where i reads j; False at padding."""
        keys = self.keys(batch)
        target, source = keys // batch.num_nodes, keys % batch.num_nodes
        by_head = None if self.heads == 1 else self.allowed(batch, source, target)
        return scatter_pairs(batch, source, target, by_head)

    def __call__(self, batch: GraphBatch) -> Pairs:
        """The pairs of this batch, cached in the batch."""
        return batch.cached(self, lambda: Pairs(batch, self))

    def __or__(self, other: Mask) -> Mask:
        return Union((self, other))

    def __and__(self, other: Mask) -> Mask:
        return Intersection((self, other))


def scatter_pairs(batch: GraphBatch, source: Tensor, target: Tensor, by_head: Tensor | None = None) -> Tensor:
    """(P,) pairs to (B, H, L, L) bool; ``by_head`` (P, H) are the heads that use a pair, None: all, and H is 1."""
    size, heads = batch.max_nodes, 1 if by_head is None else by_head.shape[1]
    dense = torch.zeros(batch.num_graphs * size * size, heads, dtype=torch.bool, device=batch.device)
    dense[batch.slot[target] * size + batch.position[source]] = True if by_head is None else by_head
    return dense.view(batch.num_graphs, size, size, heads).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Combined(Mask):
    """Base class of combinations of masks; by default the union of their pairs."""

    masks: Sequence[Mask]
    sign: ClassVar[str] = ", "

    def __str__(self) -> str:
        return "(" + self.sign.join(map(str, self.masks)) + ")"

    def __post_init__(self) -> None:
        if not self.masks:
            raise ValueError(f"{type(self).__name__} needs at least one mask")
        object.__setattr__(self, "masks", tuple(self.masks))  # a list from a configuration is not hashable
        if invalid := [type(mask).__name__ for mask in self.masks if not isinstance(mask, Mask)]:
            raise ValueError(f"a {invalid[0]} is not a mask: only masks can be combined")
        head_counts = {mask.heads for mask in self.masks} - {1}
        if len(head_counts) > 1:
            raise ValueError(f"masks for {' and '.join(map(str, sorted(head_counts)))} heads cannot be combined")

    @property
    def heads(self) -> int:
        return max(mask.heads for mask in self.masks)

    @property
    def reads_itself(self) -> bool:
        return all(mask.reads_itself for mask in self.masks)

    @property
    def grows(self) -> bool:
        return all(mask.grows for mask in self.masks)

    def keys(self, batch: GraphBatch) -> Tensor:
        return torch.unique(torch.cat([mask.keys(batch) for mask in self.masks]))

    def _by_head(self) -> Iterator[tuple[int, ...]]:
        """The `virtual_per_head` of all masks, head by head."""
        return zip(*(mask.virtual_per_head * (self.heads // mask.heads) for mask in self.masks), strict=True)


class Union(Combined):
    """Allows the pairs that any of its masks allows."""

    sign = " | "

    @property
    def reads_itself(self) -> bool:
        return any(mask.reads_itself for mask in self.masks)

    @property
    def virtual_per_head(self) -> tuple[int, ...]:
        return tuple(map(max, self._by_head()))

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        return _reduce(torch.logical_or, [mask.allowed(batch, source, target) for mask in self.masks])

    def dense(self, batch: GraphBatch) -> Tensor:
        return _reduce(torch.logical_or, [mask.dense(batch) for mask in self.masks])


class Intersection(Combined):
    """Allows the pairs that all of its masks allow."""

    sign = " & "

    @property
    def limits(self) -> tuple[int | None, int | None] | None:
        limits = [mask.limits for mask in self.masks]
        bands = [band for band in limits if band is not None]
        if len(bands) < len(limits):
            return None
        back, ahead = ([limit for limit in side if limit is not None] for side in zip(*bands, strict=True))
        return min(back, default=None), min(ahead, default=None)

    @property
    def virtual_per_head(self) -> tuple[int, ...]:
        return tuple(map(min, self._by_head()))

    def keys(self, batch: GraphBatch) -> Tensor:
        # list the pairs of one mask and filter them by the others: preferably one that cannot allow every pair
        listed = min(self.masks, key=lambda mask: mask.limits is not None)
        keys = listed.keys(batch)
        allowed = self.allowed(batch, keys % batch.num_nodes, keys // batch.num_nodes)
        return keys[allowed.any(-1)]

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        return _reduce(torch.logical_and, [mask.allowed(batch, source, target) for mask in self.masks])

    def dense(self, batch: GraphBatch) -> Tensor:
        return _reduce(torch.logical_and, [mask.dense(batch) for mask in self.masks])


class PerHead(Combined):
    """The h-th attention head uses the h-th mask."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(mask.heads > 1 for mask in self.masks):
            raise ValueError("a mask for one head cannot itself distinguish heads")

    @property
    def heads(self) -> int:
        return len(self.masks)

    @property
    def virtual_per_head(self) -> tuple[int, ...]:
        return tuple(mask.virtual_nodes for mask in self.masks)

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        return torch.cat([mask.allowed(batch, source, target) for mask in self.masks], dim=1)

    def dense(self, batch: GraphBatch) -> Tensor:
        return torch.cat([mask.dense(batch) for mask in self.masks], dim=1)


def _reduce(combine: Callable[[Tensor, Tensor], Tensor], parts: list[Tensor]) -> Tensor:
    first, *rest = parts
    for part in rest:
        first = combine(first, part)
    return first

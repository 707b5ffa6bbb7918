"""`Pairs`: what a mask says of one batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gt.graph import GraphBatch, Move, lasting
from gt.hops import contains, hop_matrix, hops_between
from gt.masks.wide import WideBatch, wide_dense, wide_heads, wide_keys, with_virtual_nodes
from gt.transforms import outside


class Pairs:
    """What a mask says of one batch, in whichever form is asked for; each form is computed once.

    In a batch with virtual nodes only `VirtualNodes` says anything of these: all other masks let them read nobody and
    be read by nobody.

    Attributes:
        edges: (2, P) int64, row 0 the source that is read, row 1 the target that reads, sorted by (target, source).
        edge_heads: (P, H) bool, the heads that use each pair; None where all do.
        dense: (B, 1 or H, L, L) bool, [b, h, i, j] True where i reads j.
        spread: attends where keys and values are spread over processes, see `gt.parallel`; None: they are here.

    Raises:
        ValueError: when first asked for a form: the batch has fewer virtual nodes than the mask reads.
    """

    spread: Callable[..., Tensor] | None = None

    def __init__(self, batch: GraphBatch, mask: Any) -> None:  # a Mask, which is what makes them
        self.batch, self.mask = batch, mask
        self.wide = batch if isinstance(batch, WideBatch) else None
        self.choices: dict[Hashable, str] = {}  # the backend for each demand

    @cached_property
    def _real(self) -> GraphBatch:
        """The batch without virtual nodes, which masks speak of."""
        needed, there = self.mask.virtual_nodes, self.wide.virtual_nodes if self.wide else 0
        if needed > there:
            raise ValueError(
                f"the mask reads {needed} virtual nodes of each graph and this batch has {there}: "
                f"ask it of with_virtual_nodes(batch, {needed})"
            )
        return with_virtual_nodes(self.batch, 0)

    @lasting
    def edges(self) -> Tensor:
        keys = self.mask.keys(self._real)
        if self.wide:
            keys = wide_keys(self.wide, keys, self.mask.virtual_nodes)
        return torch.stack([keys % self.batch.num_nodes, keys // self.batch.num_nodes])

    @lasting
    def edge_heads(self) -> Tensor | None:
        if self.mask.heads == 1:
            return None
        if self.wide:
            return wide_heads(self.wide, self.edges, self.mask.allowed, self.mask.through)
        return self.mask.allowed(self._real, *self.edges)

    @lasting
    def dense(self) -> Tensor:
        dense = self.mask.dense(self._real)
        return wide_dense(self.wide, dense, self.mask.through) if self.wide else dense

    @property
    def heads(self) -> int:
        return self.mask.heads

    @property
    def limits(self) -> tuple[int | None, int | None] | None:
        """How far back and ahead a node reads where position alone decides, else None."""
        return None if self.wide else self.mask.limits

    @lasting
    def count(self) -> int:
        """Number of pairs P; a Python int, so ask first on the CPU."""
        known = self.mask.pair_count(self._real)
        return self.edges.shape[1] if known is None else known

    @lasting
    def rowptr(self) -> Tensor:
        """(N + 1,) offsets into ``edges`` of each target."""
        nodes = torch.arange(self.batch.num_nodes + 1, device=self.batch.device)
        return torch.searchsorted(self.edges[1].contiguous(), nodes)

    @lasting
    def by_source(self) -> Tensor:
        """(P,) the order that sorts ``edges`` by (source, target)."""
        return self.edges[0].argsort(stable=True)

    @lasting
    def colptr(self) -> Tensor:
        """(N + 1,) offsets into ``edges[:, by_source]`` of each source."""
        nodes = torch.arange(self.batch.num_nodes + 1, device=self.batch.device)
        return torch.searchsorted(self.edges[0][self.by_source], nodes)

    @lasting
    def dense_entry(self) -> Tensor:
        """(P,) where each pair stands in a flattened (B, L, L)."""
        source, target = self.edges
        return self.batch.slot[target] * self.batch.max_nodes + self.batch.position[source]

    @lasting
    def readers(self) -> Tensor:
        """(B, 1 or H, L, 1) bool: nodes that read somebody; the others get zeros."""
        return self.dense.any(-1, keepdim=True)

    @lasting
    def safe_dense(self) -> Tensor:
        """`dense`, with rows that read nobody opened: a softmax over nothing would be NaN. Their result is dropped."""
        return self.dense | ~self.readers

    @lasting
    def all_read(self) -> bool:
        """Every node reads somebody, under every head."""
        if self.wide:  # one that a head leaves out reads nobody; where none is, everybody reads them
            return min(self.mask.through) == self.wide.virtual_nodes
        if self.mask.reads_itself:
            return True
        return bool(self.batch.to_packed(self.readers.transpose(1, 2)).all())

    @property
    def ahead(self) -> Tensor:
        """(P,) by how many positions each source is ahead of its target."""
        source, target = self.batch.position[self.edges]
        return source - target

    def hops(self, most: int) -> Tensor:
        """(P,) how many hops each target is from its source; ``most + 1`` where further or out of reach."""
        source, target = self.edges
        return self.kept(f"hops_{most}", lambda: hops_between(self.batch, source, target, most))

    def dense_hops(self, most: int) -> Tensor:
        """(B, L, L) the same for every two nodes of a graph."""
        return self.kept(f"dense_hops_{most}", lambda: hop_matrix(self.batch, most))

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What was made under this name before, else made now: tensors, and what has a ``moved``, follow the pairs."""
        if name not in vars(self):
            vars(self)[name] = outside(make)
        return vars(self)[name]

    @lasting
    def of_edges(self) -> Tensor:
        """(E,) which pair each edge of the batch is; P where the mask does not allow it."""
        source, target = self.edges
        wanted = self.batch.edge_index[1] * self.batch.num_nodes + self.batch.edge_index[0]
        keys = target * self.batch.num_nodes + source
        return torch.where(contains(keys, wanted), torch.searchsorted(keys, wanted), keys.numel())

    def moved(self, move: Move, batch: GraphBatch) -> Pairs:
        """The same pairs for a batch on another device, with every form that is already known."""
        out = Pairs(batch, self.mask)
        out.choices = self.choices
        for name, value in vars(self).items():
            if name in vars(out):
                continue
            if isinstance(value, Tensor):
                vars(out)[name] = move(value)
            elif isinstance(value, int) or value is None:
                vars(out)[name] = value
            elif hasattr(value, "moved"):
                vars(out)[name] = value.moved(move, out)
        return out

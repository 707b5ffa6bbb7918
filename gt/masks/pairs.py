"""`Pairs`: a mask applied to one batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gt.graph import GraphBatch, Move, lasting
from gt.hops import contains, hop_matrix, hops_between
from gt.masks.wide import WideBatch, wide_dense, wide_heads, wide_keys, with_virtual_nodes
from gt.transforms import outside_transforms, tracing


class Pairs:
    """The pairs that a mask allows in one batch, in several representations, each computed on first use.

    Only `VirtualNodes` covers the virtual nodes of a batch: under all other masks they read no node and no node reads
    them.

    Attributes:
        edges: (2, P) int64, row 0 the source that is read, row 1 the target that reads, sorted by (target, source).
        edge_heads: (P, H) bool, the heads that use each pair; None if all do.
        dense: (B, 1 or H, L, L) bool, [b, h, i, j] True where i reads j.
        attend_sharded: computes attention if keys and values are sharded over processes, see `gt.parallel`; else None.

    Raises:
        ValueError: on first use, if the batch has fewer virtual nodes than the mask reads.
    """

    attend_sharded: Callable[..., Tensor] | None = None

    def __init__(self, batch: GraphBatch, mask: Any) -> None:  # a Mask; typed Any, as its module imports this one
        self.batch, self.mask = batch, mask
        self.wide = batch if isinstance(batch, WideBatch) else None
        self.choices: dict[Hashable, str] = {}  # the chosen backend for each demand

    @cached_property
    def _real(self) -> GraphBatch:
        """The batch without virtual nodes, as the methods of masks take it."""
        needed, available = self.mask.virtual_nodes, self.wide.virtual_nodes if self.wide else 0
        if needed > available:
            raise ValueError(
                f"the mask reads {needed} virtual nodes of each graph and this batch has {available}: "
                f"apply it to with_virtual_nodes(batch, {needed})"
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
            return wide_heads(self.wide, self.edges, self.mask.allowed, self.mask.virtual_per_head)
        return self.mask.allowed(self._real, *self.edges)

    @lasting
    def dense(self) -> Tensor:
        dense = self.mask.dense(self._real)
        return wide_dense(self.wide, dense, self.mask.virtual_per_head) if self.wide else dense

    @property
    def heads(self) -> int:
        return self.mask.heads

    @property
    def limits(self) -> tuple[int | None, int | None] | None:
        """How far back and ahead a node reads if position alone decides, else None."""
        return None if self.wide else self.mask.limits

    @lasting
    def count(self) -> int:
        """The number of pairs P; a Python int, so compute it on the CPU first."""
        count = self.mask.pair_count(self._real)
        return self.edges.shape[1] if count is None else count

    @lasting
    def rowptr(self) -> Tensor:
        """(N + 1,) offsets of the targets into ``edges``."""
        nodes = torch.arange(self.batch.num_nodes + 1, device=self.batch.device)
        return torch.searchsorted(self.edges[1].contiguous(), nodes)

    @lasting
    def by_source(self) -> Tensor:
        """(P,) the permutation that sorts ``edges`` by (source, target)."""
        return self.edges[0].argsort(stable=True)

    @lasting
    def colptr(self) -> Tensor:
        """(N + 1,) offsets of the sources into ``edges[:, by_source]``."""
        nodes = torch.arange(self.batch.num_nodes + 1, device=self.batch.device)
        return torch.searchsorted(self.edges[0][self.by_source], nodes)

    @lasting
    def dense_entry(self) -> Tensor:
        """(P,) the index of each pair in a flattened (B, L, L)."""
        source, target = self.edges
        return self.batch.slot[target] * self.batch.max_nodes + self.batch.position[source]

    @lasting
    def readers(self) -> Tensor:
        """(B, 1 or H, L, 1) bool: nodes that read at least one node; the output of the others is zero."""
        return self.dense.any(-1, keepdim=True)

    @lasting
    def safe_dense(self) -> Tensor:
        """`dense` with empty rows filled, whose softmax would be NaN; their output is discarded."""
        return self.dense | ~self.readers

    @lasting
    def all_read(self) -> bool:
        """Whether every node reads at least one node, under every head."""
        if self.wide:  # virtual nodes that a head does not use read nothing; if all are used, every node reads them
            return min(self.mask.virtual_per_head) == self.wide.virtual_nodes
        if self.mask.reads_itself:
            return True
        return bool(self.batch.to_packed(self.readers.transpose(1, 2)).all())

    @property
    def ahead(self) -> Tensor:
        """(P,) by how many positions each source is ahead of its target."""
        source, target = self.batch.position[self.edges]
        return source - target

    def hops(self, limit: int) -> Tensor:
        """(P,) the number of hops from target to source; ``limit + 1`` if larger or unreachable."""
        source, target = self.edges
        return self.cached(f"hops_{limit}", lambda: hops_between(self.batch, source, target, limit))

    def dense_hops(self, limit: int) -> Tensor:
        """(B, L, L) the same for all pairs of nodes of a graph."""
        return self.cached(f"dense_hops_{limit}", lambda: hop_matrix(self.batch, limit))

    def cached(self, name: str, make: Callable[[], Any]) -> Any:
        """The value cached under a name, computed if absent; tensors and objects with ``moved`` follow the device.

        Compiled code keeps nothing new.
        """
        if name not in vars(self):
            value = outside_transforms(make)
            if tracing():
                return value
            vars(self)[name] = value
        return vars(self)[name]

    @lasting
    def of_edges(self) -> Tensor:
        """(E,) the pair index of each edge of the batch; P if the mask does not allow it."""
        source, target = self.edges
        edge_keys = self.batch.edge_index[1] * self.batch.num_nodes + self.batch.edge_index[0]
        keys = target * self.batch.num_nodes + source
        return torch.where(contains(keys, edge_keys), torch.searchsorted(keys, edge_keys), keys.numel())

    def moved(self, move: Move, batch: GraphBatch) -> Pairs:
        """The pairs of the batch moved to another device, with every representation computed so far."""
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

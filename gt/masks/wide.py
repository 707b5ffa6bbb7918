"""Virtual nodes: a batch with extra nodes at the end of each graph, and the pairs of these nodes.

Masks cover real nodes only, plus one number for each head: how many virtual nodes it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from gt.graph import WHOLE_DEGREES, GraphBatch, Move, lasting
from gt.hops import ranges


@dataclass(kw_only=True, repr=False)
class WideBatch(GraphBatch):
    """A batch with virtual nodes, which have no edges; structure only, without features or targets.

    Attributes:
        virtual_nodes: the number of virtual nodes at the end of each graph.
        narrow: the batch without them.
    """

    virtual_nodes: int
    narrow: GraphBatch = field(repr=False)

    @lasting
    def real(self) -> Tensor:
        """(nodes of the narrow batch,) their indices in this one."""
        narrow = self.narrow
        return torch.arange(narrow.num_nodes, device=self.device) + self.virtual_nodes * narrow.batch

    @lasting
    def virtual(self) -> Tensor:
        """(B, virtual_nodes) the indices of the virtual nodes."""
        return self.ptr[1:, None] - self.virtual_nodes + torch.arange(self.virtual_nodes, device=self.device)

    def finish(self) -> Self:
        _ = self.real, self.virtual
        return super().finish()

    def apply(self, move: Move) -> Self:
        return self.narrow.apply(move).memo["virtual nodes", self.virtual_nodes]

    def moved(self, move: Move, narrow: GraphBatch) -> Self:
        """A copy on another device, attached to the moved narrow batch."""
        out = super().apply(move)
        out.narrow = narrow
        return out


def with_virtual_nodes(batch: GraphBatch, count: int) -> GraphBatch:
    """The batch with ``count`` virtual nodes at the end of each graph, edge order preserved; with 0 the batch itself.

    It is cached in the batch and moves between devices with it.
    """
    if isinstance(batch, WideBatch):
        return batch if count == batch.virtual_nodes else with_virtual_nodes(batch.narrow, count)
    return batch.cached(("virtual nodes", count), lambda: _widen(batch, count)) if count else batch


def _widen(batch: GraphBatch, count: int) -> WideBatch:
    wide = WideBatch(
        ptr=batch.ptr + count * torch.arange(batch.num_graphs + 1, device=batch.device),
        edge_index=batch.edge_index + count * batch.batch[batch.edge_index],
        max_nodes=batch.max_nodes + count,
        padding=(batch.padding[0], batch.padding[1] + count * batch.padding[0]),
        virtual_nodes=count,
        narrow=batch,
    )
    wide.num_nodes = batch.num_nodes + count * batch.num_graphs
    if batch.node_mask is not None:
        wide.node_mask = batch.node_mask.new_ones(wide.num_nodes).index_copy(0, wide.real, batch.node_mask)
        wide.node_mask[wide.num_nodes - wide.padding[1] :] = False  # includes virtual nodes of padding graphs
    if WHOLE_DEGREES in batch.memo:
        degrees = batch.memo[WHOLE_DEGREES]
        wide.memo[WHOLE_DEGREES] = degrees.new_zeros(2, wide.num_nodes).index_copy(1, wide.real, degrees)
    return wide.finish()


def wide_keys(batch: WideBatch, real_keys: Tensor, used: int) -> Tensor:
    """(P,) sorted keys in the wide batch, given those of the batch without virtual nodes."""
    nodes, real = batch.num_nodes, batch.real
    reader, source = real_keys // len(real), real_keys % len(real)
    virtual = batch.virtual[:, :used]  # (B, used)
    lengths = (batch.sizes - batch.virtual_nodes + used).repeat_interleave(used)
    # each virtual node reads all real nodes and the virtual ones after them
    virtual_reader = virtual.flatten().repeat_interleave(lengths)
    virtual_source = real[:, None] * nodes + virtual[batch.batch[real]]
    keys = [
        real[reader] * nodes + real[source],
        virtual_source.flatten(),
        virtual_reader * nodes + ranges(batch.ptr[:-1].repeat_interleave(used), lengths),
    ]
    return torch.cat(keys).sort()[0]


def wide_heads(
    batch: WideBatch,
    edges: Tensor,
    allows: Callable[[GraphBatch, Tensor, Tensor], Tensor],
    virtual_per_head: tuple[int, ...],
) -> Tensor:
    """(P, H) bool, the heads that use each pair (2, P) of the wide batch; ``allows`` is the method of a mask."""
    # (N,): negative if real, else the virtual index
    rank = batch.position - (batch.sizes - batch.virtual_nodes)[batch.batch]
    highest = rank[edges].amax(0)
    heads = highest[:, None] < _tensor(batch, virtual_per_head)
    between = highest < 0
    source, target = (edges - batch.batch[edges] * batch.virtual_nodes)[:, between]  # indices without virtual nodes
    heads[between] = allows(batch.narrow, source, target)
    return heads


def wide_dense(batch: WideBatch, real_dense: Tensor, virtual_per_head: tuple[int, ...]) -> Tensor:
    """(B, 1 or H, L, L) of the wide batch, given that of the batch without virtual nodes."""
    position = torch.arange(batch.max_nodes, device=batch.device)
    rank = position - (batch.sizes - batch.virtual_nodes)[:, None]  # (B, L): negative if real, else the virtual index
    inside = rank[:, None] < _tensor(batch, virtual_per_head)[:, None]  # (B, H, L)
    virtual = (rank >= 0)[:, None]
    dense = inside[..., :, None] & inside[..., None, :] & (virtual[..., :, None] | virtual[..., None, :])
    length = real_dense.shape[-1]
    dense[..., :length, :length] |= real_dense
    return dense


def _tensor(batch: GraphBatch, numbers: tuple[int, ...]) -> Tensor:
    return torch.tensor(numbers, device=batch.device)

"""Virtual nodes: a batch with more nodes at the end of each graph, and what `Pairs` add there.

Masks speak of the real nodes alone, and beside that in one number for each head: how many virtual nodes it uses.
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
    """A batch with virtual nodes, which no edge touches; structure alone, no features and no targets.

    Attributes:
        virtual_nodes: how many nodes at the end of each graph are virtual.
        narrow: the batch without them.
    """

    virtual_nodes: int
    narrow: GraphBatch = field(repr=False)

    @lasting
    def real(self) -> Tensor:
        """(nodes of the narrow batch,) their numbers in this one."""
        narrow = self.narrow
        return torch.arange(narrow.num_nodes, device=self.device) + self.virtual_nodes * narrow.batch

    @lasting
    def virtual(self) -> Tensor:
        """(B, virtual_nodes) the numbers of the virtual nodes."""
        return self.ptr[1:, None] - self.virtual_nodes + torch.arange(self.virtual_nodes, device=self.device)

    def finish(self) -> Self:
        _ = self.real, self.virtual
        return super().finish()

    def apply(self, move: Move) -> Self:
        return self.narrow.apply(move).memo["virtual nodes", self.virtual_nodes]

    def moved(self, move: Move, narrow: GraphBatch) -> Self:
        """The same beside the narrow batch on another device."""
        out = super().apply(move)
        out.narrow = narrow
        return out


def with_virtual_nodes(batch: GraphBatch, count: int) -> GraphBatch:
    """The batch with ``count`` virtual nodes at the end of each graph, edges in their order; with 0 the batch itself.

    It is made once, and moves to a device with the batch.
    """
    if isinstance(batch, WideBatch):
        return batch if count == batch.virtual_nodes else with_virtual_nodes(batch.narrow, count)
    return batch.cached(("virtual nodes", count), lambda: _widened(batch, count)) if count else batch


def _widened(batch: GraphBatch, count: int) -> WideBatch:
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
        wide.node_mask[wide.num_nodes - wide.padding[1] :] = False  # virtual nodes of padding graphs too
    if WHOLE_DEGREES in batch.memo:
        degrees = batch.memo[WHOLE_DEGREES]
        wide.memo[WHOLE_DEGREES] = degrees.new_zeros(2, wide.num_nodes).index_copy(1, wide.real, degrees)
    return wide.finish()


def wide_keys(batch: WideBatch, real_keys: Tensor, used: int) -> Tensor:
    """(P,) sorted keys in the wide batch, from those of the batch without virtual nodes."""
    nodes, real = batch.num_nodes, batch.real
    reader, source = real_keys // len(real), real_keys % len(real)
    virtual = batch.virtual[:, :used]  # (B, used)
    lengths = (batch.sizes - batch.virtual_nodes + used).repeat_interleave(used)
    by_virtual = virtual.flatten().repeat_interleave(lengths)  # each reads all the real nodes and, behind them, these
    of_virtual = real[:, None] * nodes + virtual[batch.batch[real]]
    keys = [
        real[reader] * nodes + real[source],
        of_virtual.flatten(),
        by_virtual * nodes + ranges(batch.ptr[:-1].repeat_interleave(used), lengths),
    ]
    return torch.cat(keys).sort()[0]


def wide_heads(
    batch: WideBatch, edges: Tensor, allows: Callable[[GraphBatch, Tensor, Tensor], Tensor], through: tuple[int, ...]
) -> Tensor:
    """(P, H) bool, the heads that use each pair (2, P) of the wide batch; ``allows`` is that of a mask."""
    rank = batch.position - (batch.sizes - batch.virtual_nodes)[batch.batch]  # (N,): below 0 real, else which virtual
    highest = rank[edges].amax(0)
    heads = highest[:, None] < _on(batch, through)
    between = highest < 0
    source, target = (edges - batch.batch[edges] * batch.virtual_nodes)[:, between]  # numbered without virtual nodes
    heads[between] = allows(batch.narrow, source, target)
    return heads


def wide_dense(batch: WideBatch, real_dense: Tensor, through: tuple[int, ...]) -> Tensor:
    """(B, 1 or H, L, L) of the wide batch, from that of the batch without virtual nodes."""
    place = torch.arange(batch.max_nodes, device=batch.device)
    rank = place - (batch.sizes - batch.virtual_nodes)[:, None]  # (B, L): below 0 real, else which virtual node
    inside = rank[:, None] < _on(batch, through)[:, None]  # (B, H, L)
    virtual = (rank >= 0)[:, None]
    dense = inside[..., :, None] & inside[..., None, :] & (virtual[..., :, None] | virtual[..., None, :])
    most = real_dense.shape[-1]
    dense[..., :most, :most] |= real_dense
    return dense


def _on(batch: GraphBatch, numbers: tuple[int, ...]) -> Tensor:
    return torch.tensor(numbers, device=batch.device)

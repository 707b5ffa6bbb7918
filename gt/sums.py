"""Neighbourhood sums, forward and backward, without atomics and mostly without materialising messages.

An embedding bag sums rows by segments of an index, several times as fast as a scatter-add. The gradient of a sum is a
gather and that of a gather a sum, over the edges sorted by their other end.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gt.graph import WHOLE_DEGREES, GraphBatch, Move, lasting
from gt.masks import Pairs
from gt.transforms import one_by_one, plain


@dataclass
class Ends:
    """One end of each edge, its source or its target; derived indices are computed on first use.

    Attributes:
        node: (E,) the node at this end.
        opposite: (E,) the node at the other end.
        count: N, the number of nodes.
        rowptr: (N + 1,) offsets into the edges of each node, if edges are sorted by this end.
    """

    node: Tensor
    opposite: Tensor
    count: int
    rowptr: Tensor | None = None

    @lasting
    def within(self) -> bool:
        """Whether all indices at this end are in range, which kernels rely on."""
        return not len(self.node) or (int(self.node.min()) >= 0 and int(self.node.max()) < self.count)

    @lasting
    def order(self) -> Tensor:
        """(E,) the permutation that sorts edges by this end."""
        if self.rowptr is not None:
            return torch.arange(len(self.node), device=self.node.device)
        return self.node.argsort(stable=True)

    @lasting
    def ptr(self) -> Tensor:
        """(N + 1,) offsets into ``order``: the edges of each node."""
        if self.rowptr is not None:
            return self.rowptr
        degree = self.node.new_zeros(self.count + 1).index_add(0, self.node + 1, torch.ones_like(self.node))
        return degree.cumsum(0)

    @lasting
    def others(self) -> Tensor:
        """(E,) the other ends, in the same order."""
        return self.opposite if self.rowptr is not None else self.opposite.index_select(0, self.order)

    def moved(self, move: Move, _: GraphBatch | Pairs) -> Ends:
        """A copy on another device."""
        out = copy(self)
        vars(out).update({name: move(value) for name, value in vars(self).items() if isinstance(value, Tensor)})
        return out


def sources(batch: GraphBatch) -> Ends:
    """The source ends of a batch's edges."""
    source, target = batch.edge_index
    if plain():  # plain operations need no sorted indices
        return Ends(source, target, batch.num_nodes)
    return batch.cached("sources", lambda: Ends(source.contiguous(), target.contiguous(), batch.num_nodes))


def targets(batch: GraphBatch) -> Ends:
    """The target ends of a batch's edges, by which they are sorted."""
    source, target = batch.edge_index
    if plain():
        return Ends(target, source, batch.num_nodes)
    return batch.cached(
        "targets", lambda: Ends(target.contiguous(), source.contiguous(), batch.num_nodes, batch.rowptr)
    )


def pair_ends(pairs: Pairs) -> tuple[Ends, Ends]:
    """Source and target ends of the pairs of a mask, which are sorted by target."""
    (source, target), nodes = pairs.edges, pairs.batch.num_nodes
    if plain():
        return Ends(source, target, nodes), Ends(target, source, nodes)
    return (
        pairs.cached("ends_of_sources", lambda: Ends(source, target, nodes)),
        pairs.cached("ends_of_targets", lambda: Ends(target, source, nodes, pairs.rowptr)),
    )


def segment_sum(rows: Tensor, index: Tensor, ptr: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum rows (R, d) by segments, to (N, d): output n sums rows ``index[ptr[n]:ptr[n + 1]]``, weighted if given."""
    return F.embedding_bag(
        index, rows.contiguous(), ptr, mode="sum", include_last_offset=True, per_sample_weights=weights
    )


def scatter_sum(messages: Tensor, ends: Ends) -> Tensor:
    """Sum messages (E, d) over the edges of each node, to (N, d); see `add_up` for its gradients."""
    if plain():  # a compiler fuses it with the computation of messages
        return messages.new_zeros(ends.count, messages.shape[1]).index_add(0, ends.node, messages)
    return segment_sum(messages, ends.order, ends.ptr)


def gather(x: Tensor, ends: Ends) -> Tensor:
    """Gather node rows (N, d) at one end of each edge, to (E, d)."""
    return x.index_select(0, ends.node) if plain() else _Gather.apply(x, ends)


def add_up(messages: Tensor, ends: Ends) -> Tensor:
    """`scatter_sum`, with gradients."""
    return scatter_sum(messages, ends) if plain() else _AddUp.apply(messages, ends)


def sum_of_sources(x: Tensor, batch: GraphBatch) -> Tensor:
    """Sum the rows (N, d) of each node's sources: `gather` and `add_up` without materialising messages."""
    if plain():
        return add_up(gather(x, sources(batch)), targets(batch))
    return _SumOfOthers.apply(x, targets(batch), sources(batch))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ends: Ends) -> Tensor:
        ctx.ends = ends
        return x.index_select(0, ends.node)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _AddUp.apply(grad, ctx.ends), None


class _AddUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, messages: Tensor, ends: Ends) -> Tensor:
        ctx.ends = ends
        return scatter_sum(messages, ends)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(grad, ctx.ends), None


class _SumOfOthers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ends: Ends, back: Ends) -> Tensor:
        ctx.ends, ctx.back = ends, back
        return segment_sum(x, ends.others, ends.ptr)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _SumOfOthers.apply(grad, ctx.back, ctx.ends), None, None


def whole_degree(batch: GraphBatch) -> Tensor:
    """(N,) in-degrees; those in the whole graph if the batch holds only some of its edges."""
    return batch.memo[WHOLE_DEGREES][0] if WHOLE_DEGREES in batch.memo else batch.in_degree


def rescale_sampled(sums: Tensor, batch: GraphBatch) -> Tensor:
    """Rescale sums (N, d) over sampled edges to unbiased estimates of the sums over all edges.

    Returns the sums themselves if the batch holds all edges. Nodes without sampled edges keep their 0.
    """
    if WHOLE_DEGREES not in batch.memo:
        return sums
    factor = whole_degree(batch) / batch.in_degree.clamp(min=1)
    return sums * factor.to(sums.dtype)[:, None]

"""Sums of rows over the edges that read them, forward and backward, without atomics and mostly without messages.

An embedding bag adds up the rows of each run of an index; it is several times as fast as adding each where an index
says. What flows back from a sum is a gather, and from a gather a sum: over the edges in the order of their other end.
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
    """One end of each edge, its source or its target; the rest is worked out once it is asked for.

    Attributes:
        node: (E,) that end.
        opposite: (E,) the other.
        count: N, how many nodes there are.
        rowptr: (N + 1,) offsets into the edges of each node where they are sorted by this end.
    """

    node: Tensor
    opposite: Tensor
    count: int
    rowptr: Tensor | None = None

    @lasting
    def within(self) -> bool:
        """Whether this end of every edge is a node that there is: a kernel that reads by it takes that on trust."""
        return not len(self.node) or (int(self.node.min()) >= 0 and int(self.node.max()) < self.count)

    @lasting
    def order(self) -> Tensor:
        """(E,) the edges sorted by this end."""
        if self.rowptr is not None:
            return torch.arange(len(self.node), device=self.node.device)
        return self.node.argsort(stable=True)

    @lasting
    def ptr(self) -> Tensor:
        """(N + 1,) offsets into ``order`` of the edges of each node."""
        if self.rowptr is not None:
            return self.rowptr
        degree = self.node.new_zeros(self.count + 1).index_add(0, self.node + 1, torch.ones_like(self.node))
        return degree.cumsum(0)

    @lasting
    def others(self) -> Tensor:
        """(E,) the other ends in that order."""
        return self.opposite if self.rowptr is not None else self.opposite.index_select(0, self.order)

    def moved(self, move: Move, _: GraphBatch | Pairs) -> Ends:
        """The same on another device."""
        out = copy(self)
        vars(out).update({name: move(value) for name, value in vars(self).items() if isinstance(value, Tensor)})
        return out


def sources(batch: GraphBatch) -> Ends:
    """Those that are read."""
    source, target = batch.edge_index
    if plain():  # which makes no use of what is sorted
        return Ends(source, target, batch.num_nodes)
    return batch.cached("sources", lambda: Ends(source.contiguous(), target.contiguous(), batch.num_nodes))


def targets(batch: GraphBatch) -> Ends:
    """Those that read, by which a batch is sorted."""
    source, target = batch.edge_index
    if plain():
        return Ends(target, source, batch.num_nodes)
    return batch.cached(
        "targets", lambda: Ends(target.contiguous(), source.contiguous(), batch.num_nodes, batch.rowptr)
    )


def pair_ends(pairs: Pairs) -> tuple[Ends, Ends]:
    """The ends of the pairs of a mask: those that are read and, by which they are sorted, those that read."""
    (source, target), nodes = pairs.edges, pairs.batch.num_nodes
    if plain():
        return Ends(source, target, nodes), Ends(target, source, nodes)
    return (
        pairs.kept("ends_of_sources", lambda: Ends(source, target, nodes)),
        pairs.kept("ends_of_targets", lambda: Ends(target, source, nodes, pairs.rowptr)),
    )


def runs(rows: Tensor, index: Tensor, ptr: Tensor, weights: Tensor | None = None) -> Tensor:
    """(R, d) rows to (N, d): sum n is of the rows ``index[ptr[n]:ptr[n + 1]]``, each times its weight if it has one."""
    return F.embedding_bag(
        index, rows.contiguous(), ptr, mode="sum", include_last_offset=True, per_sample_weights=weights
    )


def totals(messages: Tensor, ends: Ends) -> Tensor:
    """(E, d) messages to (N, d): their sum over the edges of each node that have it at this end; see `add_up`."""
    if plain():  # a compiler makes one kernel of what makes a message and what adds it
        return messages.new_zeros(ends.count, messages.shape[1]).index_add(0, ends.node, messages)
    return runs(messages, ends.order, ends.ptr)


def gather(x: Tensor, ends: Ends) -> Tensor:
    """(N, d) nodes to (E, d): that at an end of each edge."""
    return x.index_select(0, ends.node) if plain() else _Gather.apply(x, ends)


def add_up(messages: Tensor, ends: Ends) -> Tensor:
    """`totals`, through which gradients flow."""
    return totals(messages, ends) if plain() else _AddUp.apply(messages, ends)


def sum_of_sources(x: Tensor, batch: GraphBatch) -> Tensor:
    """(N, d) to the sum of the rows that each node reads: what `gather` and `add_up` give, without the messages."""
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
        return totals(messages, ends)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(grad, ctx.ends), None


class _SumOfOthers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ends: Ends, back: Ends) -> Tensor:
        ctx.ends, ctx.back = ends, back
        return runs(x, ends.others, ends.ptr)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _SumOfOthers.apply(grad, ctx.back, ctx.ends), None, None


def whole_degree(batch: GraphBatch) -> Tensor:
    """(N,) the edges that each node reads, in the whole graph where a batch holds some of them alone."""
    return batch.memo[WHOLE_DEGREES][0] if WHOLE_DEGREES in batch.memo else batch.in_degree


def estimated(sums: Tensor, batch: GraphBatch) -> Tensor:
    """(N, d) sums over the edges that nodes read as estimates, without bias, of those over all that there are.

    Where all of them are in the batch, it is the sums themselves. A node that has drawn none keeps its 0.
    """
    if WHOLE_DEGREES not in batch.memo:
        return sums
    factor = whole_degree(batch) / batch.in_degree.clamp(min=1)
    return sums * factor.to(sums.dtype)[:, None]

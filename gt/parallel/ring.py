"""Ring attention within graphs whose nodes are sharded over processes: keys and values arrive block by block.

Every rank owns a contiguous range of nodes. Two ranks have at most one graph in common, so what one of them reads from
the other is a dense block: no mask, no padding.

    rank 0      rank 1    rank 2           rank 0 attends within graph a locally, and from its part of b to that part
    a a a b b   b b b b   b b c c          and, as they arrive, to those of ranks 1 and 2
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from gt.attention import attend
from gt.attention.sparse import full_precision
from gt.graph import GraphBatch, Move
from gt.masks import Causal, Complete
from gt.transforms import once_differentiable

TILE = 512  # readers and sources in a block of scores, for each head
Group = dist.ProcessGroup | None  # None: all processes


@dataclass(frozen=True)
class Step:
    """The exchange of one step of the ring, in local row indices of each rank.

    Attributes:
        source: the rank that sends a block of ``rows`` rows, which the nodes ``readers`` read.
        target: the rank that receives this rank's rows ``sent``.
    """

    source: int
    rows: int
    readers: slice
    target: int
    sent: slice


@dataclass(frozen=True)
class Ring:
    """Attention from a rank's nodes to all nodes of their graphs, or to those before them, on whichever rank.

    Liu et al. 2023, *Ring Attention with Blockwise Transformers*: an online softmax over blocks (Milakov & Gimelshein
    2018), with weights recomputed in the backward pass, so that a rank holds its own rows, the current and the next
    block, and the scores of ``TILE`` squared pairs per head. Blocks are sent directly to the rank that reads them, at
    step t to the t-th next: the same traffic as passing them along the ring, and half of it if the mask is causal.

    Attributes:
        causal: whether a node reads only itself and those before it.
        split: own rows of graphs shared with other ranks: at most two ranges.
        inside: the graphs between them as a batch, attended to locally; None if there are none.
        steps: in the order in which all ranks take them.
    """

    causal: bool
    nodes: int
    split: tuple[slice, ...]
    inside: GraphBatch | None
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, ptr: Sequence[int], bounds: Sequence[int], rank: int, causal: bool) -> Self:
        """The ring as seen by one rank.

        Args:
            ptr: (B + 1,) the first node of each graph, as in `GraphBatch`.
            bounds: (W + 1,) ascending; rank r owns the nodes ``bounds[r]`` to ``bounds[r + 1]``, possibly none.
        """
        ptr, world, low, high = list(ptr), len(bounds) - 1, bounds[rank], bounds[rank + 1]
        steps = []
        for t in range(1, world):
            source, target = (rank - t) % world, (rank + t) % world
            readers, received = _overlap(ptr, bounds, rank, source, causal)
            _, sent = _overlap(ptr, bounds, target, rank, causal)
            steps.append(Step(source, received.stop - received.start, readers, target, sent))
        first = low if low in ptr else min(high, ptr[bisect_right(ptr, low)])
        last = high if high in ptr else max(first, ptr[bisect_right(ptr, high) - 1])
        split = tuple(slice(a - low, b - low) for a, b in ((low, first), (last, high)) if a < b)
        inside = None
        if first < last:
            starts = torch.tensor(sorted({end - first for end in ptr if first <= end <= last}))
            inside = GraphBatch(starts, torch.empty(2, 0, dtype=torch.long), int(starts.diff().max())).finish()
        return cls(causal, high - low, split, inside, tuple(steps))

    @property
    def mask(self) -> Causal | Complete:
        return Causal() if self.causal else Complete()

    def moved(self, move: Move, batch: GraphBatch) -> Self:
        """A copy on another device."""
        return self if self.inside is None else replace(self, inside=self.inside.apply(move))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, backend: str = "auto", group: Group = None) -> Tensor:
        """This rank's rows of `gt.attention.attend` over all nodes, differentiable. All ranks call it.

        Args:
            q, k, v: (n, H, D) of the rank's own nodes.
            backend: for graphs that lie within one rank.
            group: the processes, one for each rank.
        """
        if self.inside is None:
            return _Attention.apply(q, k, v, self, group)
        first = self.split[0].stop if self.split and self.split[0].start == 0 else 0
        rows = slice(first, first + self.inside.num_nodes)
        whole = attend(q[rows], k[rows], v[rows], self.mask(self.inside), backend=backend)
        if not self.split:
            return whole
        split = _Attention.apply(q, k, v, self, group)
        return torch.cat([split[:first], whole, split[rows.stop :]])

    def blocks(self, rows: Tensor, group: Group) -> Iterator[tuple[Step, Tensor]]:
        """Each step with the rows that it receives, while those of the next are in transit."""
        swaps = ((step, Swap(rows[step.sent], step.target, step.rows, step.source, group)) for step in self.steps)
        current = next(swaps, None)
        while current is not None:
            following = next(swaps, None)
            yield current[0], current[1].wait()
            current = following


def _overlap(ptr: list[int], bounds: Sequence[int], reader: int, source: int, causal: bool) -> tuple[slice, slice]:
    """The rows of one rank that read rows of another, and those, as local indices; empty if there are none."""
    empty = slice(0, 0)
    before, after = sorted((reader, source))
    sizes = [bounds[rank + 1] - bounds[rank] for rank in (before, after)]
    if (causal and source > reader) or not all(sizes):
        return empty, empty
    graph = bisect_right(ptr, bounds[before + 1] - 1) - 1  # of the last node of the first rank
    start, end = ptr[graph], ptr[graph + 1]
    if end <= bounds[after]:
        return empty, empty
    parts = {
        before: slice(max(start - bounds[before], 0), sizes[0]),
        after: slice(0, min(end - bounds[after], sizes[1])),
    }
    return parts[reader], parts[source]


class Swap:
    """An asynchronous send of rows (K, ...) to one rank and receive of ``rows`` rows from another."""

    def __init__(self, sent: Tensor, target: int, rows: int, source: int, group: Group) -> None:
        self.sent = sent.contiguous()  # kept alive until it is sent
        self.received = sent.new_empty(rows, *sent.shape[1:])
        operations = []
        if len(self.sent):
            operations.append(dist.P2POp(dist.isend, self.sent, group=group, group_peer=target))
        if rows:
            operations.append(dist.P2POp(dist.irecv, self.received, group=group, group_peer=source))
        self.works = dist.batch_isend_irecv(operations) if operations else []

    def wait(self) -> Tensor:
        for work in self.works:
            work.wait()
        return self.received


Tile = tuple[slice, slice, Tensor | None]  # readers, sources, and which pairs are masked


def _tiles(readers: slice, sources: slice, causal: bool, device: torch.device) -> Iterator[Tile]:
    """The pairs of two ranges of rows, in tiles of `TILE` squared; if causal, both are the same range."""
    for low in range(readers.start, readers.stop, TILE):
        rows = slice(low, min(low + TILE, readers.stop))
        for first in range(sources.start, rows.stop if causal else sources.stop, TILE):
            columns = slice(first, min(first + TILE, sources.stop))
            masked = None
            if causal and columns.stop > rows.start:
                position = torch.arange(columns.start, columns.stop, device=device)
                masked = position > torch.arange(rows.start, rows.stop, device=device)[:, None]
            yield rows, columns, masked


def _scores(q: Tensor, k: Tensor, masked: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(H, readers, sources), minus infinity where masked."""
    scores = (q @ k.mT).to(dtype)
    return scores if masked is None else scores.masked_fill_(masked, -torch.inf)


class _Attention(torch.autograd.Function):
    """(n, H, D) each to (n, H, D): attention for rows of split graphs, zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, ring: Ring, group: Group) -> Tensor:
        dtype = torch.promote_types(q.dtype, torch.float32)
        heads, scale = q.shape[1], 1 / math.sqrt(q.shape[2])
        q = (q * scale).transpose(0, 1).contiguous()  # (H, n, D)
        kv = torch.stack([k, v], dim=1)  # (n, 2, H, D)
        out = torch.zeros(q.shape, dtype=dtype, device=q.device)
        maximum = torch.full((heads, ring.nodes, 1), -torch.inf, dtype=dtype, device=q.device)
        total = torch.zeros_like(maximum)

        def accumulate(readers: slice, block: Tensor, sources: slice, causal: bool) -> None:
            k, v = block.unbind(1)
            k, v = k.transpose(0, 1), v.transpose(0, 1)
            for rows, columns, masked in _tiles(readers, sources, causal, q.device):
                scores = _scores(q[:, rows], k[:, columns], masked, dtype)
                new = torch.maximum(maximum[:, rows], scores.amax(-1, keepdim=True))
                weights, rescale = (scores - new).exp_(), (maximum[:, rows] - new).exp_()
                total[:, rows] = total[:, rows] * rescale + weights.sum(-1, keepdim=True)
                out[:, rows] = out[:, rows] * rescale + weights.to(v.dtype) @ v[:, columns]
                maximum[:, rows] = new

        with full_precision(q.device):
            for rows in ring.split:
                accumulate(rows, kv, rows, ring.causal)
            for step, block in ring.blocks(kv, group):
                accumulate(step.readers, block, slice(0, step.rows), causal=False)
        out /= torch.where(total > 0, total, 1)
        ctx.save_for_backward(q, kv, out, maximum + total.log())
        ctx.ring, ctx.group, ctx.scale = ring, group, scale
        return out.transpose(0, 1).to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, kv, out, normaliser = ctx.saved_tensors
        ring: Ring = ctx.ring
        dtype = out.dtype
        grad = grad.transpose(0, 1).contiguous()  # (H, n, D)
        inner = (grad * out).sum(-1, keepdim=True)
        grad_q, grad_kv = torch.zeros_like(out), torch.zeros(kv.shape, dtype=dtype, device=kv.device)

        def accumulate(readers: slice, block: Tensor, sources: slice, causal: bool, grad_block: Tensor) -> None:
            k, v = (part.transpose(0, 1) for part in block.unbind(1))
            grad_k, grad_v = (part.transpose(0, 1) for part in grad_block.unbind(1))
            for rows, columns, masked in _tiles(readers, sources, causal, q.device):
                weights = (_scores(q[:, rows], k[:, columns], masked, dtype) - normaliser[:, rows]).exp_()
                grad_v[:, columns] += weights.to(q.dtype).mT @ grad[:, rows]
                grad_weights = (grad[:, rows] @ v[:, columns].mT).to(dtype)
                grad_scores = weights.mul_(grad_weights.sub_(inner[:, rows])).to(q.dtype)
                grad_q[:, rows] += grad_scores @ k[:, columns]
                grad_k[:, columns] += grad_scores.mT @ q[:, rows]

        with full_precision(q.device):
            for rows in ring.split:
                accumulate(rows, kv, rows, ring.causal, grad_kv)
            pending: tuple[Swap, Step] | None = None
            for step, block in ring.blocks(kv, ctx.group):
                grad_block = torch.zeros(block.shape, dtype=dtype, device=block.device)
                accumulate(step.readers, block, slice(0, step.rows), causal=False, grad_block=grad_block)
                if pending is not None:
                    grad_kv[pending[1].sent] += pending[0].wait()
                rows = step.sent.stop - step.sent.start
                pending = Swap(grad_block, step.source, rows, step.target, ctx.group), step
            if pending is not None:
                grad_kv[pending[1].sent] += pending[0].wait()
        grad_q = (grad_q * ctx.scale).transpose(0, 1).to(q.dtype)
        grad_k, grad_v = grad_kv.to(q.dtype).unbind(1)
        return grad_q, grad_k, grad_v, None, None

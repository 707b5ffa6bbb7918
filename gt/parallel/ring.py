"""Attention within graphs whose nodes are spread over processes: keys and values come by, a block at a time.

Every rank owns a run of the nodes of a batch. Between two ranks lies the rest of one graph at most, so what one of
them reads of the other is a block without holes: no mask, no padding.

    rank 0      rank 1    rank 2           rank 0 attends within graph a as if there were no other rank, and from
    a a a b b   b b b b   b b c c          its part of b to that part and, as they come by, to those of ranks 1 and 2
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

TILE = 512  # readers and sources whose scores are held at a time, for each head
Group = dist.ProcessGroup | None  # None: all processes


@dataclass(frozen=True)
class Step:
    """What a rank exchanges when keys and values have gone so far: rows are numbered within each rank's own.

    Attributes:
        source: the rank whose block comes; ``rows`` of it, read by the nodes ``readers``.
        target: the rank that this one's rows ``sent`` go to.
    """

    source: int
    rows: int
    readers: slice
    target: int
    sent: slice


@dataclass(frozen=True)
class Ring:
    """How a rank attends to all nodes of its nodes' graphs, or to those before them, wherever these are.

    Liu et al. 2023, *Ring Attention with Blockwise Transformers*: softmax is summed up block by block (Milakov &
    Gimelshein 2018), and the backward pass works out the weights again, so that a rank holds its own rows, one block
    that is worked on and one that is on its way, and the scores of ``TILE`` squared pairs a head. A block goes straight
    to the rank that reads it, at step t to the t-th next: as many rows as if they were handed on from each to the next,
    and half of them where the mask is causal.

    Attributes:
        causal: whether a node reads those before it alone.
        split: own rows of graphs that other ranks have nodes of, too: two runs at most.
        inside: the graphs between them as a batch, attended to as without other ranks; None where there are none.
        steps: in the order in which all ranks take them.
    """

    causal: bool
    nodes: int
    split: tuple[slice, ...]
    inside: GraphBatch | None
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, ptr: Sequence[int], bounds: Sequence[int], rank: int, causal: bool) -> Self:
        """That of one rank.

        Args:
            ptr: (B + 1,) the first node of each graph, as in `GraphBatch`.
            bounds: (W + 1,) ascending; rank r owns the nodes ``bounds[r]`` to ``bounds[r + 1]``, perhaps none.
        """
        ptr, world, low, high = list(ptr), len(bounds) - 1, bounds[rank], bounds[rank + 1]
        steps = []
        for t in range(1, world):
            source, target = (rank - t) % world, (rank + t) % world
            readers, come = _reads(ptr, bounds, rank, source, causal)
            _, sent = _reads(ptr, bounds, target, rank, causal)
            steps.append(Step(source, come.stop - come.start, readers, target, sent))
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
        """The same on another device."""
        return self if self.inside is None else replace(self, inside=self.inside.apply(move))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, backend: str = "auto", group: Group = None) -> Tensor:
        """What `gt.attention.attend` gives of all nodes for this rank's, and gradients as there. All ranks call it.

        Args:
            q, k, v: (n, H, D) of the rank's own nodes.
            backend: for graphs that one rank has in whole.
            group: the processes, as many as there are ranks.
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
        """Each step with the rows that it brings; those of the next are on their way meanwhile."""
        begun = ((step, Swap(rows[step.sent], step.target, step.rows, step.source, group)) for step in self.steps)
        now = next(begun, None)
        while now is not None:
            following = next(begun, None)
            yield now[0], now[1].wait()
            now = following


def _reads(ptr: list[int], bounds: Sequence[int], reader: int, source: int, causal: bool) -> tuple[slice, slice]:
    """Rows of one rank that read rows of another, both numbered within their ranks; empty where there are none."""
    none = slice(0, 0)
    before, after = sorted((reader, source))
    sizes = [bounds[rank + 1] - bounds[rank] for rank in (before, after)]
    if (causal and source > reader) or not all(sizes):
        return none, none
    graph = bisect_right(ptr, bounds[before + 1] - 1) - 1  # of the last node of the rank before
    start, end = ptr[graph], ptr[graph + 1]
    if end <= bounds[after]:
        return none, none
    parts = {
        before: slice(max(start - bounds[before], 0), sizes[0]),
        after: slice(0, min(end - bounds[after], sizes[1])),
    }
    return parts[reader], parts[source]


class Swap:
    """Rows (K, ...) on their way to one rank, and as many as asked for on theirs from another."""

    def __init__(self, sent: Tensor, target: int, rows: int, source: int, group: Group) -> None:
        self.sent = sent.contiguous()  # kept until it has arrived
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


Tile = tuple[slice, slice, Tensor | None]  # readers, sources, and which of them are hidden


def _tiles(readers: slice, sources: slice, causal: bool, device: torch.device) -> Iterator[Tile]:
    """The pairs of two runs of rows, `TILE` squared at a time; causal: both are one run."""
    for low in range(readers.start, readers.stop, TILE):
        rows = slice(low, min(low + TILE, readers.stop))
        for first in range(sources.start, rows.stop if causal else sources.stop, TILE):
            columns = slice(first, min(first + TILE, sources.stop))
            hidden = None
            if causal and columns.stop > rows.start:
                place = torch.arange(columns.start, columns.stop, device=device)
                hidden = place > torch.arange(rows.start, rows.stop, device=device)[:, None]
            yield rows, columns, hidden


def _scores(q: Tensor, k: Tensor, hidden: Tensor | None, kind: torch.dtype) -> Tensor:
    """(H, readers, sources), minus infinity where hidden."""
    scores = (q @ k.mT).to(kind)
    return scores if hidden is None else scores.masked_fill_(hidden, -torch.inf)


class _Attention(torch.autograd.Function):
    """(n, H, D) each to the same, of the rows of graphs that are split; zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, ring: Ring, group: Group) -> Tensor:
        kind = torch.promote_types(q.dtype, torch.float32)
        heads, scale = q.shape[1], 1 / math.sqrt(q.shape[2])
        q = (q * scale).transpose(0, 1).contiguous()  # (H, n, D)
        kv = torch.stack([k, v], dim=1)  # (n, 2, H, D)
        out = torch.zeros(q.shape, dtype=kind, device=q.device)
        highest = torch.full((heads, ring.nodes, 1), -torch.inf, dtype=kind, device=q.device)
        total = torch.zeros_like(highest)

        def add(readers: slice, block: Tensor, sources: slice, causal: bool) -> None:
            k, v = block.unbind(1)
            k, v = k.transpose(0, 1), v.transpose(0, 1)
            for rows, columns, hidden in _tiles(readers, sources, causal, q.device):
                scores = _scores(q[:, rows], k[:, columns], hidden, kind)
                new = torch.maximum(highest[:, rows], scores.amax(-1, keepdim=True))
                weights, faded = (scores - new).exp_(), (highest[:, rows] - new).exp_()
                total[:, rows] = total[:, rows] * faded + weights.sum(-1, keepdim=True)
                out[:, rows] = out[:, rows] * faded + weights.to(v.dtype) @ v[:, columns]
                highest[:, rows] = new

        with full_precision(q.device):
            for rows in ring.split:
                add(rows, kv, rows, ring.causal)
            for step, block in ring.blocks(kv, group):
                add(step.readers, block, slice(0, step.rows), causal=False)
        out /= torch.where(total > 0, total, 1)
        ctx.save_for_backward(q, kv, out, highest + total.log())
        ctx.ring, ctx.group, ctx.scale = ring, group, scale
        return out.transpose(0, 1).to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, kv, out, normaliser = ctx.saved_tensors
        ring: Ring = ctx.ring
        kind = out.dtype
        sent = grad.transpose(0, 1).contiguous()  # (H, n, D)
        inner = (sent * out).sum(-1, keepdim=True)
        of_q, of_kv = torch.zeros_like(out), torch.zeros(kv.shape, dtype=kind, device=kv.device)

        def add(readers: slice, block: Tensor, sources: slice, causal: bool, of_block: Tensor) -> None:
            k, v = (part.transpose(0, 1) for part in block.unbind(1))
            of_k, of_v = (part.transpose(0, 1) for part in of_block.unbind(1))
            for rows, columns, hidden in _tiles(readers, sources, causal, q.device):
                weights = (_scores(q[:, rows], k[:, columns], hidden, kind) - normaliser[:, rows]).exp_()
                of_v[:, columns] += weights.to(q.dtype).mT @ sent[:, rows]
                of_weights = (sent[:, rows] @ v[:, columns].mT).to(kind)
                of_scores = weights.mul_(of_weights.sub_(inner[:, rows])).to(q.dtype)
                of_q[:, rows] += of_scores @ k[:, columns]
                of_k[:, columns] += of_scores.mT @ q[:, rows]

        with full_precision(q.device):
            for rows in ring.split:
                add(rows, kv, rows, ring.causal, of_kv)
            back: tuple[Swap, Step] | None = None
            for step, block in ring.blocks(kv, ctx.group):
                of_block = torch.zeros(block.shape, dtype=kind, device=block.device)
                add(step.readers, block, slice(0, step.rows), causal=False, of_block=of_block)
                if back is not None:
                    of_kv[back[1].sent] += back[0].wait()
                rows = step.sent.stop - step.sent.start
                back = Swap(of_block, step.source, rows, step.target, ctx.group), step
            if back is not None:
                of_kv[back[1].sent] += back[0].wait()
        of_q = (of_q * ctx.scale).transpose(0, 1).to(q.dtype)
        of_k, of_v = of_kv.to(q.dtype).unbind(1)
        return of_q, of_k, of_v, None, None

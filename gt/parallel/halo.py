"""What a rank's nodes read of other ranks: rows are fetched before a layer runs, and their gradients are sent back.

rank 0 owns 0 1 2, rank 1 owns 3 4 5; of the edges 1 -> 3, 2 -> 3, 5 -> 4 and 4 -> 0
rank 0 holds 0 1 2 (4), rank 1 holds (1 2) 3 4 5: the halo in brackets
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from gt.graph import Move

Group = dist.ProcessGroup | None  # None: all processes


@dataclass(frozen=True)
class Halo:
    """Which rows a rank sends to each other rank before a layer, and which it gets.

    Attributes:
        nodes: (K,) numbers of the nodes that this rank reads and does not own, ascending.
        sent: (S,) which of its own rows, numbered from 0, it sends, in the order of the ranks that read them.
        gets, sends: for each rank, how many rows come from it, and how many go to it.
        before: how many of ``nodes`` are below the rank's own.
        idle: no rank reads another: nothing is exchanged.
    """

    nodes: Tensor
    sent: Tensor
    gets: tuple[int, ...]
    sends: tuple[int, ...]
    before: int
    idle: bool

    @classmethod
    def of(cls, bounds: Sequence[int], rank: int, reader: Tensor, node: Tensor) -> Self:
        """That of one rank.

        Args:
            bounds: (W + 1,) ascending; rank r owns the nodes ``bounds[r]`` to ``bounds[r + 1]``, perhaps none.
            reader, node: (R,) a rank and a node that it reads, for all ranks, in any order; repeats and nodes of its
                own do not matter.
        """
        world, count = len(bounds) - 1, max(bounds[-1], 1)
        away = owner(bounds, node) != reader
        keys = torch.unique(reader[away] * count + node[away])
        reader, node = keys // count, keys % count
        of = owner(bounds, node)
        got, sent = node[reader == rank], node[of == rank] - bounds[rank]
        gets, sends = of[reader == rank].bincount(minlength=world), reader[of == rank].bincount(minlength=world)
        before = int(gets[:rank].sum())
        return cls(got, sent, tuple(gets.tolist()), tuple(sends.tolist()), before, not len(keys))

    def around(self, own: slice) -> Tensor:
        """(n + K,) numbers of the rank's own nodes and those of the halo, ascending: the order of `exchange`."""
        mine = torch.arange(own.start, own.stop, device=self.nodes.device)
        return torch.cat([self.nodes[: self.before], mine, self.nodes[self.before :]])

    def moved(self, move: Move) -> Self:
        """The same on another device."""
        return replace(self, nodes=move(self.nodes), sent=move(self.sent))

    def exchange(self, rows: Tensor, group: Group = None) -> Tensor:
        """(n, ...) the rank's own rows to (n + K, ...), those of ``nodes`` among them: in the order of all nodes.

        What flows back to a row that was sent is added to what flows back to it here. All ranks call it, in the same
        order, and all do where gradients flow back.

        Args:
            group: the processes, as many as there are ranks.
        """
        return rows if self.idle else _Exchange.apply(rows, self, group)


def owner(bounds: Sequence[int], node: Tensor) -> Tensor:
    """(R,) the rank of each node (R,)."""
    return torch.searchsorted(torch.tensor(bounds[1:], device=node.device), node, right=True)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, halo: Halo, group: Group) -> Tensor:
        ctx.halo, ctx.group, ctx.own = halo, group, len(rows)
        got = rows.new_empty(len(halo.nodes), *rows.shape[1:])
        sent = rows.index_select(0, halo.sent)
        dist.all_to_all_single(got, sent, list(halo.gets), list(halo.sends), group=group)
        return torch.cat([got[: halo.before], rows, got[halo.before :]])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        halo: Halo = ctx.halo
        before, own, after = grad.split([halo.before, ctx.own, len(halo.nodes) - halo.before])
        back = grad.new_empty(len(halo.sent), *grad.shape[1:])
        dist.all_to_all_single(back, torch.cat([before, after]), list(halo.sends), list(halo.gets), group=ctx.group)
        return own.index_add(0, halo.sent, back), None, None

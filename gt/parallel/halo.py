"""Halo exchange: rows that a rank reads from other ranks are fetched before a layer, their gradients sent back.

rank 0 owns 0 1 2, rank 1 owns 3 4 5, with edges 1 -> 3, 2 -> 3, 5 -> 4 and 4 -> 0:
rank 0 holds 0 1 2 (4), rank 1 holds (1 2) 3 4 5, the halo in brackets
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
    """The rows that a rank sends to and receives from every other rank before a layer.

    Attributes:
        nodes: (K,) the nodes that this rank reads but does not own, ascending.
        send_rows: (S,) the local indices of the rows that it sends, in the order of receiving ranks.
        receive_counts, send_counts: for each rank, the number of rows received from it and sent to it.
        before: how many of ``nodes`` come before the rank's own.
        idle: no rank reads from another, so nothing is exchanged.
    """

    nodes: Tensor
    send_rows: Tensor
    receive_counts: tuple[int, ...]
    send_counts: tuple[int, ...]
    before: int
    idle: bool

    @classmethod
    def of(cls, bounds: Sequence[int], rank: int, reader: Tensor, node: Tensor) -> Self:
        """The halo of one rank.

        Args:
            bounds: (W + 1,) ascending; rank r owns the nodes ``bounds[r]`` to ``bounds[r + 1]``, possibly none.
            reader, node: (R,) a rank and a node that it reads, for all ranks, in any order; repeats and nodes that the
                rank owns are ignored.
        """
        world, count = len(bounds) - 1, max(bounds[-1], 1)
        remote = owner(bounds, node) != reader
        keys = torch.unique(reader[remote] * count + node[remote])
        reader, node = keys // count, keys % count
        of = owner(bounds, node)
        nodes, rows = node[reader == rank], node[of == rank] - bounds[rank]
        receive, send = of[reader == rank].bincount(minlength=world), reader[of == rank].bincount(minlength=world)
        before = int(receive[:rank].sum())
        return cls(nodes, rows, tuple(receive.tolist()), tuple(send.tolist()), before, not len(keys))

    def with_own(self, own: slice) -> Tensor:
        """(n + K,) the rank's own nodes and those of the halo, ascending: the order of `exchange`."""
        own_nodes = torch.arange(own.start, own.stop, device=self.nodes.device)
        return torch.cat([self.nodes[: self.before], own_nodes, self.nodes[self.before :]])

    def moved(self, move: Move) -> Self:
        """A copy on another device."""
        return replace(self, nodes=move(self.nodes), send_rows=move(self.send_rows))

    def exchange(self, rows: Tensor, group: Group = None) -> Tensor:
        """(n, ...) the rank's own rows to (n + K, ...) with those of ``nodes``, in the order of all nodes.

        Gradients of rows that were sent are added to the local ones. A collective operation: all ranks call it in the
        same order, and all run its backward pass.

        Args:
            group: the processes, one for each rank.
        """
        return rows if self.idle else _Exchange.apply(rows, self, group)


def owner(bounds: Sequence[int], node: Tensor) -> Tensor:
    """(R,) the rank of each node (R,)."""
    return torch.searchsorted(torch.tensor(bounds[1:], device=node.device), node, right=True)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, halo: Halo, group: Group) -> Tensor:
        ctx.halo, ctx.group, ctx.own = halo, group, len(rows)
        received = rows.new_empty(len(halo.nodes), *rows.shape[1:])
        sent = rows.index_select(0, halo.send_rows)
        dist.all_to_all_single(received, sent, list(halo.receive_counts), list(halo.send_counts), group=group)
        return torch.cat([received[: halo.before], rows, received[halo.before :]])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        halo: Halo = ctx.halo
        before, own, after = grad.split([halo.before, ctx.own, len(halo.nodes) - halo.before])
        received = grad.new_empty(len(halo.send_rows), *grad.shape[1:])
        dist.all_to_all_single(
            received, torch.cat([before, after]), list(halo.send_counts), list(halo.receive_counts), group=ctx.group
        )
        return own.index_add(0, halo.send_rows, received), None, None

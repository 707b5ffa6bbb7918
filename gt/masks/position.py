"""Masks by position, for nodes with a meaningful order."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from gt.graph import GraphBatch
from gt.hops import ranges
from gt.masks.base import Mask
from gt.ranges import at_least


class Positional(Mask):
    """Base class of masks that depend only on the offset between two nodes of a graph."""

    reads_itself = grows = True

    @abstractmethod
    def within(self, offset: Tensor) -> Tensor:
        """Whether ``j - i`` is allowed, for a tensor of any shape."""

    @abstractmethod
    def runs(self, batch: GraphBatch) -> tuple[Tensor, Tensor, int]:
        """(N,) the first node that each node reads, (N,) how many it reads, and the stride between them."""

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        return self.within(source - target)[:, None]

    def keys(self, batch: GraphBatch) -> Tensor:
        first, lengths, step = self.runs(batch)
        node = torch.arange(batch.num_nodes, device=batch.device).repeat_interleave(lengths)
        index = ranges(torch.zeros_like(lengths), lengths)
        return node * batch.num_nodes + first[node] + index * step

    def pair_count(self, batch: GraphBatch) -> int:
        return int(self.runs(batch)[1].sum())

    def dense(self, batch: GraphBatch) -> Tensor:
        position = torch.arange(batch.max_nodes, device=batch.device)
        real = position < batch.sizes[:, None]  # (B, L)
        allowed = self.within(position[None, :] - position[:, None])  # (L, L)
        return (allowed & real[:, :, None] & real[:, None, :])[:, None]


class Band(Positional):
    """i reads j where ``-back <= j - i <= ahead``, both at least 0; None is unbounded."""

    @property
    @abstractmethod
    def limits(self) -> tuple[int | None, int | None]:
        """How many positions back and ahead a node reads."""

    def within(self, offset: Tensor) -> Tensor:
        back, ahead = self.limits
        allowed = torch.ones_like(offset, dtype=torch.bool)
        if back is not None:
            allowed &= offset >= -back
        if ahead is not None:
            allowed &= offset <= ahead
        return allowed

    def pair_count(self, batch: GraphBatch) -> int:
        if self.limits != (None, None):
            return super().pair_count(batch)
        if batch.equal_sizes:  # such as token sequences built on a GPU: avoids a synchronisation
            return batch.num_nodes * batch.max_nodes
        return int(batch.sizes.square().sum())

    def runs(self, batch: GraphBatch) -> tuple[Tensor, Tensor, int]:
        back, ahead = self.limits
        node = torch.arange(batch.num_nodes, device=batch.device)
        first, last = batch.ptr[:-1][batch.batch], batch.ptr[1:][batch.batch] - 1
        if back is not None:
            first = torch.maximum(first, node - back)
        if ahead is not None:
            last = torch.minimum(last, node + ahead)
        return first, last - first + 1, 1


@dataclass(frozen=True)
class Complete(Band):
    """Every node reads every node of its graph, itself included: a Transformer."""

    limits = (None, None)


@dataclass(frozen=True)
class Causal(Band):
    """A node reads itself and the nodes before it in its graph: GPT, on a path."""

    limits = (None, 0)


@dataclass(frozen=True)
class Window(Band):
    """A node reads at most ``width`` positions to each side: a sliding window, the width-hop mask of a path."""

    width: int

    def __post_init__(self) -> None:
        at_least(0, self.width, "the width of a window")

    @property
    def limits(self) -> tuple[int, int]:
        return self.width, self.width


@dataclass(frozen=True)
class Strided(Positional):
    """A node reads every ``stride``-th position of its graph in both directions, starting at its own.

    Combined with a window of the same width, any two nodes are two layers apart (Child et al. 2019, *Sparse
    Transformers*, whose causal pattern is ``(Window(s) | Strided(s)) & Causal()``).
    """

    stride: int

    def __post_init__(self) -> None:
        at_least(1, self.stride, "a stride")

    def within(self, offset: Tensor) -> Tensor:
        return offset % self.stride == 0

    def runs(self, batch: GraphBatch) -> tuple[Tensor, Tensor, int]:
        phase = batch.position % self.stride
        size = batch.sizes[batch.batch]
        return batch.ptr[batch.batch] + phase, (size - phase + self.stride - 1) // self.stride, self.stride

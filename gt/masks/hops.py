"""The knob between a graph neural network and a Transformer: a radius in hops."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gt.graph import GraphBatch
from gt.hops import hop_distances
from gt.masks.base import Mask, at_least
from gt.masks.position import Complete


@dataclass(frozen=True)
class Hops(Mask):
    """A node reads all within ``hops`` hops, itself included: 0 a set, 1 the input graph, None the complete graph.

    A hop follows an edge's direction: with an edge j -> i, node i reads j.
    """

    hops: int | None = None

    reads_itself = True

    def __post_init__(self) -> None:
        if self.hops is not None:
            at_least(0, self.hops, "hops")

    @property
    def limits(self) -> tuple[None, None] | None:
        return (None, None) if self.hops is None else None

    def keys(self, batch: GraphBatch) -> Tensor:
        return Complete().keys(batch) if self.hops is None else hop_distances(batch, self.hops)[0]

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        if self.hops is None:
            return Complete().allows(batch, source, target)
        return super().allows(batch, source, target)

    def pair_count(self, batch: GraphBatch) -> int | None:
        return Complete().pair_count(batch) if self.hops is None else None

    def dense(self, batch: GraphBatch) -> Tensor:
        return Complete().dense(batch) if self.hops is None else super().dense(batch)

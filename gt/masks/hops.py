"""Masks by hop distance: the knob between a graph neural network and a Transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gt.graph import GraphBatch
from gt.hops import hop_distances
from gt.masks.base import Mask, PerHead
from gt.masks.position import Complete
from gt.masks.schedule import Schedule
from gt.ranges import at_least


@dataclass(frozen=True)
class Hops(Mask):
    """A node reads all nodes within ``hops`` hops, itself included: 0 a set, 1 the input graph; None is `Complete`.

    Hops respect edge directions: with an edge j -> i, node i reads j. ``Hops(schedule=(1, 2, None))`` is the `Schedule`
    of these radii.
    """

    hops: int | None = None

    reads_itself = grows = True

    def __new__(cls, hops: int | None = None, schedule: Sequence[int | None] | None = None) -> Mask | Schedule:  # type: ignore[misc]
        if schedule is None:
            return Complete() if hops is None else super().__new__(cls)
        if hops is not None or not schedule:
            raise ValueError("a schedule needs at least one radius and replaces hops: leave hops null")
        return Schedule([Hops(radius) for radius in schedule])

    def __init__(self, hops: int | None = None, schedule: Sequence[int | None] | None = None) -> None:
        assert hops is not None  # else `__new__` returned another class
        at_least(0, hops, "hops")
        object.__setattr__(self, "hops", hops)

    def __getnewargs__(self) -> tuple[int | None]:
        return (self.hops,)  # for copying and pickling

    def keys(self, batch: GraphBatch) -> Tensor:
        return hop_distances(batch, self.hops)[0]


def by_layer(hops: Sequence[int | None]) -> list[Mask]:
    """A radius for each layer of a model, in order."""
    return [Hops(radius) for radius in hops]


def by_head(hops: Sequence[int | None]) -> PerHead:
    """A radius for each head of every layer, in order."""
    return PerHead(by_layer(hops))

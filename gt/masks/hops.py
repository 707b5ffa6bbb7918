"""The knob between a graph neural network and a Transformer: a radius in hops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gt.graph import GraphBatch
from gt.hops import hop_distances
from gt.masks.base import Mask, PerHead
from gt.masks.position import Complete
from gt.ranges import at_least


@dataclass(frozen=True)
class Hops(Mask):
    """A node reads all within ``hops`` hops, itself included: 0 a set, 1 the input graph; None gives `Complete`.

    A hop follows an edge's direction: with an edge j -> i, node i reads j.

    Attributes:
        hops: the radius.
        schedule: radii in its place that take turns, each for an equal share of the training, such as
            ``(1, 2, None)`` from local to complete; before training begins the first one holds.
    """

    hops: int | None = None
    schedule: Sequence[int | None] | None = None

    reads_itself = grows = True

    def __new__(cls, hops: int | None = None, schedule: Sequence[int | None] | None = None) -> Mask:  # type: ignore[misc]
        return Complete() if hops is None and schedule is None else super().__new__(cls)

    def __str__(self) -> str:
        return f"Hops({self.hops if self.schedule is None else list(self.schedule)})"

    def __post_init__(self) -> None:
        if self.schedule is not None:
            if self.hops is not None or not self.schedule:
                raise ValueError("a schedule needs at least one radius, and takes the place of hops: leave hops null")
            object.__setattr__(self, "schedule", tuple(self.schedule))  # a list from a configuration would not hash
        for radius in self.schedule or (self.hops,):
            if radius is not None:
                at_least(0, radius, "hops")

    def __getnewargs__(self) -> tuple[int | None, Sequence[int | None] | None]:
        return self.hops, self.schedule  # a copy is made of these too

    def at(self, progress: float) -> Mask:
        if self.schedule is None:
            return self
        turn = int(progress * len(self.schedule) + 1e-9)  # 0.29 * 100 is below 29
        return Hops(self.schedule[min(turn, len(self.schedule) - 1)])

    @property
    def changes(self) -> tuple[float, ...]:
        turns = len(self.schedule or (self.hops,))
        return tuple(turn / turns for turn in range(turns))

    @property
    def limits(self) -> tuple[int | None, int | None] | None:
        return self.at(0.0).limits if self.schedule else None

    def keys(self, batch: GraphBatch) -> Tensor:
        return self.at(0.0).keys(batch) if self.schedule else hop_distances(batch, self.hops)[0]


def by_layer(hops: Sequence[int | None]) -> list[Mask]:
    """A radius for each layer of a model, in order."""
    return [Hops(radius) for radius in hops]


def by_head(hops: Sequence[int | None]) -> PerHead:
    """A radius for each head of every layer, in order."""
    return PerHead(by_layer(hops))

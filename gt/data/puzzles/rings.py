"""Can a node read distant information? A class half a ring away."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gt.data.puzzles.base import Puzzle, Samples, add_reverses, balanced, label_at
from gt.ranges import at_least

PLAIN, TARGET, FIRST_CLASS = 0, 1, 2  # values of x


@dataclass(kw_only=True, eq=False)
class RingTransfer(Puzzle):
    """Ring transfer (Bodnar et al. 2021; Di Giovanni et al. 2023): read a class at the opposite node of a ring.

    The source, at a random position, holds one of five classes, the target ``length // 2`` hops away a mark, and all
    other nodes the same value. The class is predicted at the target.

        0 - 0 - C - 0
        |           |        target T, source C, length 8: 4 hops
        0 - 0 - T - 0

    Args:
        length: nodes of the ring.
    """

    length: int = 12

    name = "ring_transfer"
    classes: ClassVar[int] = 5
    vocab: ClassVar[tuple[int, ...]] = (FIRST_CLASS + 5,)
    columns: ClassVar[tuple[str, ...]] = ("class",)
    target_name: ClassVar[str] = "class of the source"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(3, self.length, "length")

    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        graph, node = np.arange(count), np.arange(self.length)
        label, source = balanced(rng, count, self.classes), rng.integers(self.length, size=count)
        target = (source + self.length // 2) % self.length
        x = np.full((count, self.length, 1), PLAIN)
        x[graph, source, 0] = FIRST_CLASS + label
        x[graph, target, 0] = TARGET
        return Samples(x, label_at(target, label, self.length), add_reverses(node, (node + 1) % self.length))

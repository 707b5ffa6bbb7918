"""How much does structure add to noisy features? Nodes of a dense core or its periphery, with mostly true hints."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gt.data.puzzles.base import Puzzle, Samples, add_reverses
from gt.ranges import at_least, up_to_one


@dataclass(kw_only=True, eq=False)
class CorePeriphery(Puzzle):
    """Is a node in the core or the periphery? A block model (Borgatti & Everett 2000) with noisy features.

    Half of the nodes, on average, are in the core. A feature tells the class of a node, correctly with probability
    ``honest``. Edges are most likely between two core nodes, least likely between two peripheral ones. Features alone
    give an accuracy of ``honest``; the graph structure allows more.

    Args:
        size: nodes of a graph.
        degree: mean degree of a node.
        honest: probability that a feature is correct.
    """

    size: int = 24
    degree: int = 6
    honest: float = 0.7

    name = "core_periphery"
    vocab: ClassVar[tuple[int, ...]] = (2,)
    columns: ClassVar[tuple[str, ...]] = ("says core",)
    target_name: ClassVar[str] = "of the core"
    classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.degree, "degree")
        at_least(self.degree + 1, self.size, "size")
        up_to_one(self.honest, "honest")

    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        core = rng.integers(2, size=(count, self.size))
        hint = np.where(rng.random(core.shape) < self.honest, core, 1 - core)
        one, other = np.triu_indices(self.size, 1)
        rate = np.array([0.1, 0.4, 1.0])[core[:, one] + core[:, other]]
        edges = self.size * self.degree // 2
        chosen = np.argpartition(rng.exponential(size=rate.shape) / rate, edges - 1)[:, :edges]  # the earliest arrivals
        return Samples(hint[..., None], core, add_reverses(one[chosen], other[chosen]))

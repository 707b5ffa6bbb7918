"""What is a hint of structure worth? Nodes of a dense core and of its periphery, whose features mostly tell which."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gt.data.puzzles.base import Drawn, Puzzle, both_ways
from gt.ranges import at_least, up_to_one


@dataclass(kw_only=True, eq=False)
class CorePeriphery(Puzzle):
    """Is a node of the core or of the periphery? A block model (Borgatti & Everett 2000) with noisy features.

    Half of the nodes, in the mean, are of the core. A feature says where a node belongs, and is right with the
    probability ``honest``. Edges join two nodes of the core most often, two of the periphery least often. Whoever reads
    features alone is right as often as they are; where a node stands in the graph tells more.

    Args:
        size: nodes of a graph.
        degree: edges of a node, in the mean.
        honest: see above.
    """

    size: int = 24
    degree: int = 6
    honest: float = 0.7

    name = "core_periphery"
    vocab: ClassVar[tuple[int, ...]] = (2,)
    columns: ClassVar[tuple[str, ...]] = ("says core",)
    asked: ClassVar[str] = "of the core"
    classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.degree, "degree")
        at_least(self.degree + 1, self.size, "size")
        up_to_one(self.honest, "honest")

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        core = rng.integers(2, size=(count, self.size))
        told = np.where(rng.random(core.shape) < self.honest, core, 1 - core)
        one, other = np.triu_indices(self.size, 1)
        rate = np.array([0.1, 0.4, 1.0])[core[:, one] + core[:, other]]
        edges = self.size * self.degree // 2
        chosen = np.argpartition(rng.exponential(size=rate.shape) / rate, edges - 1)[:, :edges]  # the first to come
        return Drawn(told[..., None], core, both_ways(one[chosen], other[chosen]))

"""Can a node find its neighbours by their features, without edges? A grid of named cells."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gt.data.puzzles.base import Puzzle, Samples, add_reverses
from gt.ranges import at_least


@dataclass(kw_only=True, eq=False)
class HiddenGrid(Puzzle):
    """How many of the neighbours of each cell of a square grid hold a mine?

    The features of a cell are its name, the same in all graphs, and whether it holds a mine, with probability 1/2.
    Nodes are in random order. Edges join adjacent cells; names are as informative, once the model has learned which
    are adjacent.

    Args:
        side: cells per row and column.
    """

    side: int = 5

    name = "hidden_grid"
    columns: ClassVar[tuple[str, ...]] = ("name", "mine")
    target_name: ClassVar[str] = "mines beside it"
    classes: ClassVar[int] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, self.side, "side")

    @property
    def vocab(self) -> tuple[int, ...]:
        return self.side**2, 2

    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        cells = np.arange(self.side**2).reshape(self.side, self.side)
        one = np.concatenate([cells[:, :-1].ravel(), cells[:-1].ravel()])
        other = np.concatenate([cells[:, 1:].ravel(), cells[1:].ravel()])
        mines = rng.integers(2, size=(count, cells.size))
        counts = np.zeros_like(mines)
        source, target = add_reverses(one, other)
        np.add.at(counts.T, target, mines.T[source])
        node = rng.permuted(np.tile(cells.ravel(), (count, 1)), axis=1)  # the node of each cell
        x, y = np.empty((count, cells.size, 2), np.int64), np.empty_like(mines)
        graph = np.arange(count)[:, None]
        x[graph, node], y[graph, node] = np.stack([np.broadcast_to(cells.ravel(), mines.shape), mines], -1), counts
        return Samples(x, y, add_reverses(node[:, one], node[:, other]))

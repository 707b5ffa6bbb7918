"""Can a node find its neighbours by what they are, where nobody says whom it is joined with? A grid of named cells."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gt.data.puzzles.base import Drawn, Puzzle, both_ways
from gt.ranges import at_least


@dataclass(kw_only=True, eq=False)
class HiddenGrid(Puzzle):
    """How many of the cells beside each cell of a square grid hold a mine?

    A cell's features are its name, the same in all graphs, and whether it holds a mine, which half of them do. Nodes
    are in random order. Edges join cells that lie side by side; names tell as much, once it is learned which lie so.

    Args:
        side: cells of a row, and of a column.
    """

    side: int = 5

    name = "hidden_grid"
    columns: ClassVar[tuple[str, ...]] = ("name", "mine")
    asked: ClassVar[str] = "mines beside it"
    classes: ClassVar[int] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, self.side, "side")

    @property
    def vocab(self) -> tuple[int, ...]:
        return self.side**2, 2

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        cells = np.arange(self.side**2).reshape(self.side, self.side)
        one = np.concatenate([cells[:, :-1].ravel(), cells[:-1].ravel()])
        other = np.concatenate([cells[:, 1:].ravel(), cells[1:].ravel()])
        mines = rng.integers(2, size=(count, cells.size))
        beside = np.zeros_like(mines)
        source, target = both_ways(one, other)
        np.add.at(beside.T, target, mines.T[source])
        node = rng.permuted(np.tile(cells.ravel(), (count, 1)), axis=1)  # of each cell
        x, y = np.empty((count, cells.size, 2), np.int64), np.empty_like(mines)
        graph = np.arange(count)[:, None]
        x[graph, node], y[graph, node] = np.stack([np.broadcast_to(cells.ravel(), mines.shape), mines], -1), beside
        return Drawn(x, y, both_ways(node[:, one], node[:, other]))

"""What can a node learn about the structure around it? The distance and the connectivity of two marked nodes.

All other nodes hold the same value: without reading the edges, a model learns nothing.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from gt.data.numbers import Numbers
from gt.data.packed import Graphs
from gt.data.puzzles.base import Puzzle, Samples, add_reverses, balanced, label_at
from gt.ranges import at_least
from gt.schema import UNLABELLED

PLAIN, SOURCE, TARGET = 0, 1, 2  # values of x


@dataclass(kw_only=True, eq=False)
class Distance(Puzzle):
    """Distance between two marked nodes of a random tree, 1 to ``longest`` hops, predicted at the second of them.

    The tree grows from a path of ``longest`` hops, so that it contains pairs at every distance: each further node is
    attached to a random existing one. Nodes are in random order.

    Args:
        size: nodes of the tree.
        longest: maximum distance in hops.
        regression: predict the number of hops by regression instead of one of ``longest`` classes.
    """

    size: int = 16
    longest: int = 6
    regression: bool = False

    name = "distance"
    vocab: ClassVar[tuple[int, ...]] = (3,)
    columns: ClassVar[tuple[str, ...]] = ("mark",)
    target_name: ClassVar[str] = "hops to the source, less 1"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.longest, "longest")
        at_least(self.longest + 1, self.size, "size")

    @property
    def classes(self) -> int:
        return self.longest

    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        label = balanced(rng, count, self.longest)
        parent = random_trees(rng, count, self.size, self.longest + 1)
        is_apart = tree_distances(parent) == label[:, None, None] + 1
        source, target = np.divmod(random_true(rng, is_apart.reshape(count, -1)), self.size)
        return marked_trees(rng, parent, source, target, label)

    def build(self) -> Graphs:
        graphs = super().build()
        if not self.regression:
            return graphs
        y = graphs.nodes["y"][:, None]
        graphs.nodes["y"] = np.where(y == UNLABELLED, np.nan, y + 1).astype(np.float32)
        graphs.schema = replace(graphs.schema, kind="regression", outputs=1, target=("hops to the source",))
        return Numbers(standardise=False).learn(graphs)


@dataclass(kw_only=True, eq=False)
class Connectivity(Puzzle):
    """Are two marked nodes connected? The graph is two random trees of equal size; predicted at the second node.

    In half of the graphs both nodes are in the same tree, in the others in different ones.

    Args:
        size: nodes of each tree.
    """

    size: int = 10

    name = "connectivity"
    classes: ClassVar[int] = 2
    vocab: ClassVar[tuple[int, ...]] = (3,)
    columns: ClassVar[tuple[str, ...]] = ("mark",)
    target_name: ClassVar[str] = "joined to the source"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, self.size, "size")

    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        label = balanced(rng, count, 2)
        first, second = (random_trees(rng, count, self.size) for _ in range(2))
        parent = np.concatenate([first, np.where(second < 0, -1, second + self.size)], axis=1)
        source = rng.integers(self.size, size=count)
        other = (source + rng.integers(1, self.size, size=count)) % self.size  # in the same tree
        target = np.where(label == 1, other, self.size + rng.integers(self.size, size=count))
        return marked_trees(rng, parent, source, target, label)


def random_trees(rng: np.random.Generator, count: int, size: int, path: int = 1) -> np.ndarray:
    """(count, size) the parent of each node, -1 for the root: a path of ``path`` nodes, then random earlier nodes."""
    node = np.arange(size)
    parent = np.floor(rng.random((count, size)) * node).astype(np.int64)
    return np.where(node < path, node - 1, parent)


def tree_distances(parent: np.ndarray) -> np.ndarray:
    """(G, n, n) hops between the nodes of trees, from parents (G, n) that precede their children."""
    count, size = parent.shape
    hops, graph = np.zeros((count, size, size), np.int64), np.arange(count)
    for node in range(1, size):
        hops[:, node, :node] = hops[graph, parent[:, node], :node] + 1
        hops[:, :node, node] = hops[:, node, :node]
    return hops


def random_true(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """(G,) a uniformly random True column in each row of a mask (G, n)."""
    return np.where(mask, rng.random(mask.shape), -1).argmax(1)


def marked_trees(
    rng: np.random.Generator, parent: np.ndarray, source: np.ndarray, target: np.ndarray, label: np.ndarray
) -> Samples:
    """Randomly renumbered trees, given by parents (G, n), with two marked nodes (G,) each."""
    count, size = parent.shape
    graph, number = np.arange(count), rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)
    source, target = number[graph, source], number[graph, target]
    x = np.full((count, size, 1), PLAIN)
    x[graph, source, 0] = SOURCE
    x[graph, target, 0] = TARGET
    child = np.nonzero(parent >= 0)[1].reshape(count, -1)  # equally many in each graph: all but the roots
    ends = (np.take_along_axis(number, nodes, 1) for nodes in (child, np.take_along_axis(parent, child, 1)))
    return Samples(x, label_at(target, label, size), add_reverses(*ends))

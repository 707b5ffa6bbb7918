"""How much information fits through one node? A tree whose root queries one of many leaves."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gt.data.puzzles.base import Puzzle, Samples, add_reverses, balanced, label_at
from gt.ranges import at_least


@dataclass(kw_only=True, eq=False)
class TreeMatch(Puzzle):
    """Tree neighbours-match (Alon & Yahav 2021): the value of the leaf whose key the root holds.

    In a complete binary tree, the 2^depth leaves hold the keys from 1 on in random order, each with a random value, and
    the root one of the keys; all other nodes are empty. The value is predicted at the root. Message passing squeezes
    all leaves through the root's two children, whose states are too narrow: over-squashing.

    In the paper, there are as many values as leaves, each used once. Here there are fewer, drawn independently, so that
    some are more frequent in a tree than others: a network that reads all leaves equally then beats chance slightly,
    and learns to read values before it learns to find the key, in a tenth of the steps.

    Args:
        depth: hops from the root to a leaf.
        values: number of possible values.
    """

    depth: int = 5
    values: int = 8

    name = "tree_match"
    columns: ClassVar[tuple[str, ...]] = ("key", "value")
    target_name: ClassVar[str] = "value of the leaf with the root's key"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.depth, "depth")
        at_least(2, self.values, "values")

    @property
    def classes(self) -> int:
        return self.values

    @property
    def vocab(self) -> tuple[int, ...]:
        return (2**self.depth + 1, self.values + 1)

    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        leaves, graph = 2**self.depth, np.arange(count)
        size, child = 2 * leaves - 1, np.arange(1, 2 * leaves - 1)
        label = balanced(rng, count, self.values)
        keys = rng.permuted(np.tile(np.arange(1, leaves + 1), (count, 1)), axis=1)
        values, query = rng.integers(1, self.values + 1, size=(count, leaves)), rng.integers(leaves, size=count)
        values[graph, query] = label + 1
        x = np.zeros((count, size, 2), np.int64)
        x[:, leaves - 1 :] = np.stack([keys, values], -1)  # in heap order: the children of i are 2 i + 1 and 2 i + 2
        x[:, 0, 0] = keys[graph, query]
        return Samples(x, label_at(np.zeros(count, np.int64), label, size), add_reverses(child, (child - 1) // 2))

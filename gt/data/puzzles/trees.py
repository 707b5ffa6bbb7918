"""How much fits through one node? A tree whose root asks for one of many leaves."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gt.data.puzzles.base import Drawn, Puzzle, asked_at, balanced, both_ways
from gt.ranges import at_least


@dataclass(kw_only=True, eq=False)
class TreeMatch(Puzzle):
    """Tree neighbours-match (Alon & Yahav 2021): the value of the leaf whose key the root holds.

    A complete binary tree. Its 2^depth leaves have the keys from 1 on in random order and each a random value, the root
    one of the keys; all other nodes hold nothing. The value is asked at the root. Along edges all leaves must pass
    through the root's two children, whose states are too narrow for them: over-squashing.

    In the paper there are as many values as leaves, each once. Here they are fewer and drawn independently, so that
    some are more frequent in a tree than others: a network that reads all leaves alike is then a little better than
    chance, and learns to read values before it learns to find the key, in a tenth of the steps.

    Args:
        depth: hops from the root to a leaf.
        values: that there are.
    """

    depth: int = 5
    values: int = 8

    name = "tree_match"
    columns: ClassVar[tuple[str, ...]] = ("key", "value")
    asked: ClassVar[str] = "value of the leaf with the root's key"

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

    def draw(self, rng: np.random.Generator, count: int) -> Drawn:
        leaves, graph = 2**self.depth, np.arange(count)
        size, child = 2 * leaves - 1, np.arange(1, 2 * leaves - 1)
        label = balanced(rng, count, self.values)
        keys = rng.permuted(np.tile(np.arange(1, leaves + 1), (count, 1)), axis=1)
        values, wanted = rng.integers(1, self.values + 1, size=(count, leaves)), rng.integers(leaves, size=count)
        values[graph, wanted] = label + 1
        x = np.zeros((count, size, 2), np.int64)
        x[:, leaves - 1 :] = np.stack([keys, values], -1)  # as a heap: the children of i are 2 i + 1 and 2 i + 2
        x[:, 0, 0] = keys[graph, wanted]
        return Drawn(x, asked_at(np.zeros(count, np.int64), label, size), both_ways(child, (child - 1) // 2))

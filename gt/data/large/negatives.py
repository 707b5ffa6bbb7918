"""Pairs of nodes that are not linked, drawn evenly: what a model of links is shown as answers of no."""

from abc import ABC, abstractmethod

import numpy as np

from gt.errors import UserError


class Negatives(ABC):
    """Draws pairs of two nodes that no known link joins in either direction.

    Nothing is drawn in vain: of the pairs in order of ``source * N + target``, the r-th that is free is found by a
    search among those that are taken, so that a draw is a random r.

    Args:
        links: (K, 2) every pair that is known to be linked, in any order and direction; those of a test are unknown.
        nodes: N.
    """

    def __init__(self, links: np.ndarray, nodes: int) -> None:
        once = np.unique(links.min(1).astype(np.int64) * nodes + links.max(1))
        low, high = np.divmod(once, nodes)
        loops = np.arange(nodes, dtype=np.int64) * (nodes + 1)
        linked = np.sort(np.concatenate([once[low < high], (high * nodes + low)[low < high], loops]))
        self.nodes = nodes
        self.before = linked - np.arange(len(linked))  # free pairs before each taken one
        rows = np.arange(nodes + 1, dtype=np.int64) * nodes
        self.free = rows - np.searchsorted(linked, rows)  # free pairs before the first of each source

    def _pairs(self, rank: np.ndarray) -> np.ndarray:
        """(2, K) the free pairs of the given ranks (K,)."""
        number = rank + np.searchsorted(self.before, rank, side="right")
        return np.stack(np.divmod(number, self.nodes))

    @abstractmethod
    def draw(self, positive: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(2, K) as many pairs as there are links (2, K).

        Raises:
            UserError: there are none to draw from.
        """


class AnyPair(Negatives):
    """Both nodes at random."""

    def draw(self, positive: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if not self.free[-1]:
            raise UserError("every two nodes of this graph are linked: there is no pair to tell from a link")
        return self._pairs(random.integers(self.free[-1], size=positive.shape[1]))


class AnotherTarget(Negatives):
    """The sources of the links, each with a target at random."""

    def draw(self, positive: np.ndarray, random: np.random.Generator) -> np.ndarray:
        low, high = self.free[positive[0]], self.free[positive[0] + 1]
        full = low == high
        if full.any():
            node = positive[0][full][0]
            raise UserError(f"node {node} is linked to every other: it has no target to tell from those of its links")
        return self._pairs(random.integers(low, high))

"""Negative sampling for link prediction: uniform draws of unlinked pairs of nodes."""

from abc import ABC, abstractmethod

import numpy as np

from gt.errors import UserError


class Negatives(ABC):
    """Draws pairs of distinct nodes that no known link joins in either direction.

    There is no rejection: pairs are ordered by ``source * N + target``, and the r-th unlinked one is found by a binary
    search among the linked ones, so that a draw is just a random r.

    Args:
        links: (K, 2) every known link, in any order and direction; test links are unknown.
        nodes: N.
    """

    def __init__(self, links: np.ndarray, nodes: int) -> None:
        unique = np.unique(links.min(1).astype(np.int64) * nodes + links.max(1))
        low, high = np.divmod(unique, nodes)
        self_loops = np.arange(nodes, dtype=np.int64) * (nodes + 1)
        linked = np.sort(np.concatenate([unique[low < high], (high * nodes + low)[low < high], self_loops]))
        self.nodes = nodes
        self.before = linked - np.arange(len(linked))  # free pairs before each linked one
        rows = np.arange(nodes + 1, dtype=np.int64) * nodes
        self.free = rows - np.searchsorted(linked, rows)  # free pairs before the first of each source

    def _pairs(self, rank: np.ndarray) -> np.ndarray:
        """(2, K) the free pairs with the given ranks (K,)."""
        number = rank + np.searchsorted(self.before, rank, side="right")
        return np.stack(np.divmod(number, self.nodes))

    @abstractmethod
    def draw(self, positive: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw (2, K) negatives, one for each of the links (2, K).

        Raises:
            UserError: there are no unlinked pairs to draw from.
        """


class AnyPair(Negatives):
    """Both nodes at random."""

    def draw(self, positive: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if not self.free[-1]:
            raise UserError("all pairs of nodes of this graph are linked: there are no negatives to draw")
        return self._pairs(random.integers(self.free[-1], size=positive.shape[1]))


class AnotherTarget(Negatives):
    """The sources of the links, each with a random target."""

    def draw(self, positive: np.ndarray, random: np.random.Generator) -> np.ndarray:
        low, high = self.free[positive[0]], self.free[positive[0] + 1]
        full = low == high
        if full.any():
            node = positive[0][full][0]
            raise UserError(f"node {node} is linked to all others: there are no negative targets for it")
        return self._pairs(random.integers(low, high))

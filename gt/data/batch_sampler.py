"""Batch sampling: batches of samples of similar size, redrawn each epoch and shared by all processes."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from gt.attention import Reading

MAX_DRAWS = 50  # attempts to draw an epoch of at most `total` batches; after that epoch 0 is repeated


@dataclass(frozen=True)
class Request:
    """A request for one batch; ``dataset[request]`` makes it, in any process.

    Attributes:
        samples: indices of the samples.
        readings: what attention needs from the batch as of this request; it may change during training, which a worker,
            a copy of the training process, would not notice.
        draw: entropy for the random numbers of the batch, besides the dataset's seed.
        counts: False for a dummy batch of a process that has no share of its own: it is computed and ignored.
    """

    samples: tuple[int, ...]
    readings: tuple[Reading, ...] = ()
    draw: tuple[int, ...] = ()
    counts: bool = True


class Epochs(Sampler[Request]):
    """Samples the batches of an epoch, deterministically by its number.

    Attributes:
        epoch: the next epoch.
        readings: returns what attention currently needs from a batch.
    """

    epoch = 0
    readings: Callable[[], Iterable[Reading]] = tuple

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; the trainer calls this at the start of each."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches of an epoch."""

    @abstractmethod
    def __iter__(self) -> Iterator[Request]:
        """The batches of the next epoch."""


class Batches(Epochs):
    """Batches of graphs of similar size, to minimise padding; deterministic given seed and epoch.

    With ``shuffle``, each epoch draws a random order, cuts it into pools of ``pool`` batches, sorts each pool by size,
    cuts it into batches and shuffles the batches of all pools. Without, all graphs are sorted by size.

    The ranks share each batch, which is larger in proportion: W ranks train on exactly the batches that a single one
    would with W times the ``batch_size``. If a batch has fewer graphs than there are ranks, those without any compute
    a dummy batch, which is ignored: in training, where all ranks must take every step together, and in evaluation if a
    rank would otherwise have no batch at all. Every graph counts once.

    With a ``budget`` of nodes, the batch of a rank holds as many graphs as fit when each is padded to the largest; a
    graph above the budget is a batch of its own. The number of batches then varies slightly between epochs, but a
    learning rate schedule must know it in advance: it is fixed at that of epoch 0 plus a small margin. An epoch with
    fewer batches splits its largest ones, one with more is drawn again.

    Args:
        sizes: (G,) nodes of each graph.
        batch_size: graphs in a batch of each rank; ignored with a budget.
        shuffle: redraw the order each epoch; False for evaluation.
        seed, epoch: entropy of the order.
        rank, world: rank of this process and number of ranks.
        first: batches of the first epoch to skip, for a run that resumes within it.
        budget: nodes in a batch of each rank, padding included; None limits the number of graphs instead.
        pairs: allow up to twice as many graphs, or nodes, as long as the batch of a rank has at most this many node
            pairs, padding included; 0 disables this.
    """

    pool = 8

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        first: int = 0,
        budget: int | None = None,
        pairs: int = 0,
    ) -> None:
        self.sizes, self.batch_size, self.shuffle, self.budget, self.pairs = sizes, batch_size, shuffle, budget, pairs
        self.seed, self.epoch, self.rank, self.world, self.first = seed, epoch, rank, world, first
        self._total: int | None = None

    def capacity(self, sizes: np.ndarray) -> np.ndarray:
        """(G,) how many graphs fit into the batch of a rank whose largest graph has ``sizes`` (G,) nodes."""
        sizes = np.maximum(sizes, 1).astype(np.int64)
        if self.budget is None:
            capacity, twice = np.full(len(sizes), self.batch_size), np.full(len(sizes), 2 * self.batch_size)
        else:
            capacity, twice = np.maximum(self.budget // sizes, 1), 2 * self.budget // sizes
        return np.maximum(capacity, np.minimum(twice, self.pairs // sizes**2))

    def _pools(self, order: np.ndarray) -> np.ndarray:
        """(G,) the pool of each graph in a random order."""
        if self.budget is None:
            return np.arange(len(order)) // (self.pool * self.batch_size * self.world)
        return (np.cumsum(self.sizes[order]) - 1) // (self.pool * self.budget * self.world)

    def _draw_epoch(self, epoch: int, again: int = 0) -> list[np.ndarray]:
        """The batches of an epoch in their final order; with a budget, their number is not yet fixed to `total`."""
        if not self.shuffle:
            order = np.argsort(self.sizes, kind="stable")
            pools = np.zeros(len(order), int)
            return cut(order, pools, self.world * self.capacity(self.sizes[order]))
        draw = np.random.default_rng([self.seed, epoch, again] if again else [self.seed, epoch])
        order = draw.permutation(len(self.sizes))
        pools = self._pools(order)
        by_size = np.lexsort((self.sizes[order], pools))
        order, pools = order[by_size], pools[by_size]
        batches = cut(order, pools, self.world * self.capacity(self.sizes[order]))
        return [batches[i] for i in draw.permutation(len(batches))]

    @property
    def total(self) -> int:
        """The number of batches of every epoch."""
        if self._total is None:
            total = len(self._draw_epoch(0))
            if self.shuffle and self.budget is not None and total:
                pools = int(self.sizes.sum()) // (self.pool * self.budget * self.world)
                total = min(total + math.ceil(math.sqrt(pools)), len(self.sizes))  # each may end in a short batch
            self._total = total
        return self._total

    def plan(self, epoch: int | None = None) -> list[np.ndarray]:
        """All batches of an epoch (default: the current one), each to be shared by all ranks."""
        epoch = self.epoch if epoch is None else epoch
        draws = (self._draw_epoch(epoch, again) for again in range(MAX_DRAWS))
        batches = next((draw for draw in draws if len(draw) <= self.total), None) or self._draw_epoch(0)
        while len(batches) < self.total:
            largest = max(range(len(batches)), key=lambda index: len(batches[index]))
            batches[largest : largest + 1] = np.array_split(batches[largest], 2)
        return batches

    def share(self, batch: np.ndarray, rank: int) -> np.ndarray:
        """A rank's part of a batch; all ranks get about the same number of nodes, and of node pairs.

        The graphs, in ascending size, are dealt out in turns, every other turn in reverse.
        """
        if self.world == 1:
            return batch
        turn, position = np.divmod(np.arange(len(batch)), self.world)
        return batch[np.where(turn % 2, self.world - 1 - position, position) == rank]

    def request(self, graphs: np.ndarray, index: int, **fields: Any) -> Request:
        """The request for some graphs as batch number ``index`` of the epoch, with further fields of `Request`."""
        return Request(tuple(graphs.tolist()), draw=(self.epoch,) if self.shuffle else (), **fields)

    def __len__(self) -> int:
        if self.shuffle or not len(self.sizes):
            return self.total
        return max(1, sum(len(batch) > self.rank for batch in self.plan()))

    def __iter__(self) -> Iterator[Request]:
        first, self.first = self.first, 0
        plan = self.plan()
        if not self.shuffle:
            plan = [batch for batch in plan if len(batch) > self.rank] or plan[:1]
        for index, batch in enumerate(plan[first:], first):
            graphs = self.share(batch, self.rank)
            counts = len(graphs) > 0
            yield self.request(graphs if counts else batch[:1], index, readings=tuple(self.readings()), counts=counts)


def cut(order: np.ndarray, pools: np.ndarray, capacity: np.ndarray) -> list[np.ndarray]:
    """Cut an order (G,), ascending in size within each pool (G,), into batches that do not cross pools.

    Args:
        order, pools: the graph at each position, and its pool.
        capacity: (G,) graphs that fit into a batch that ends at this position, with its largest graph.
    """
    count = len(order)
    if not count:
        return []
    # from the end: the largest graph of a batch then comes first, and determines its capacity
    ends = np.arange(1, count + 1)
    first_of_pool = np.searchsorted(pools, pools, side="left")
    start = np.maximum(ends - capacity, first_of_pool).tolist()
    cuts, end = [], count
    while end:
        end = start[end - 1]
        cuts.append(end)
    return np.split(order, cuts[-2::-1])

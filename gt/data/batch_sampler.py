"""Which samples go together in a batch: drawn anew each epoch, of like size, shared by all processes."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from gt.attention import Reading

DRAWS = 50  # of an epoch, until it has no more batches than all are to have; then it is epoch 0 once more


@dataclass(frozen=True)
class Request:
    """A batch that a dataset is asked for; ``dataset[request]`` makes it, in whichever process.

    Attributes:
        samples: their numbers.
        readings: what attention will ask of the batch at the moment it is drawn; it may change in training, which a
            worker, a copy of the training process, would not learn.
        draw: what is drawn at random for the batch comes from these numbers, beside the dataset's seed.
        counts: False for a batch that a process without a share of its own computes along, for nothing.
    """

    samples: tuple[int, ...]
    readings: tuple[Reading, ...] = ()
    draw: tuple[int, ...] = ()
    counts: bool = True


class Epochs(Sampler[Request]):
    """The batches of each epoch, the same for the same epoch.

    Attributes:
        epoch: the next one.
        readings: says what attention asks at present.
    """

    epoch = 0
    readings: Callable[[], Iterable[Reading]] = tuple

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int:
        """Batches of an epoch."""

    @abstractmethod
    def __iter__(self) -> Iterator[Request]:
        """The batches of the next epoch."""


class Batches(Epochs):
    """Batches of graphs of like size, so that little is padded; the same for the same seed and epoch.

    Shuffled, each epoch draws anew which graphs meet: a random order is cut into pools of ``pool`` batches, each pool
    is sorted by size and cut into batches, and the batches of all pools are shuffled. Not shuffled, all is sorted.

    Several ranks share each batch, which is as many times as large: W ranks train on the very batches that one with W
    times the ``batch_size`` would. Where a batch has fewer graphs than there are ranks, those without any compute along
    on a graph of another, which counts for nothing: in training, where all must take every step together, and in
    evaluation where a rank would have no batch at all. Every graph counts once.

    With a ``budget`` of nodes a rank's batch holds as many graphs as fit when each is padded to the largest of them; a
    graph above the budget is a batch of its own. How many batches that makes differs a little from epoch to epoch, and
    a schedule counts steps before training begins: the number is that of epoch 0 and a few more, for which an epoch
    splits its largest batches. One that makes more is drawn again.

    Args:
        sizes: (G,) nodes of each graph.
        batch_size: graphs in a batch of each rank; with a budget it counts for nothing.
        shuffle: draw the order anew each epoch; False for evaluation.
        seed, epoch: what the order is drawn from.
        rank, world: which share of how many.
        first: batches of the first epoch to skip, for a run that resumes in the middle.
        budget: nodes in a batch of each rank, padding included; None goes by the number of graphs.
        pairs: take up to twice as many graphs, or nodes, as long as a rank's batch has at most so many pairs of nodes,
            padding included; 0 never does.
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

    def room(self, sizes: np.ndarray) -> np.ndarray:
        """(G,) how many graphs go into a batch of one rank whose largest has so many nodes (G,)."""
        sizes = np.maximum(sizes, 1).astype(np.int64)
        if self.budget is None:
            room, twice = np.full(len(sizes), self.batch_size), np.full(len(sizes), 2 * self.batch_size)
        else:
            room, twice = np.maximum(self.budget // sizes, 1), 2 * self.budget // sizes
        return np.maximum(room, np.minimum(twice, self.pairs // sizes**2))

    def _pools(self, order: np.ndarray) -> np.ndarray:
        """(G,) the pool of each graph of a random order."""
        if self.budget is None:
            return np.arange(len(order)) // (self.pool * self.batch_size * self.world)
        return (np.cumsum(self.sizes[order]) - 1) // (self.pool * self.budget * self.world)

    def _drawn(self, epoch: int, again: int = 0) -> list[np.ndarray]:
        """The batches of an epoch, in the order they are taken; with a budget, however many there are."""
        if not self.shuffle:
            order = np.argsort(self.sizes, kind="stable")
            pools = np.zeros(len(order), int)
            return cut(order, pools, self.world * self.room(self.sizes[order]))
        draw = np.random.default_rng([self.seed, epoch, again] if again else [self.seed, epoch])
        order = draw.permutation(len(self.sizes))
        pools = self._pools(order)
        by_size = np.lexsort((self.sizes[order], pools))
        order, pools = order[by_size], pools[by_size]
        batches = cut(order, pools, self.world * self.room(self.sizes[order]))
        return [batches[i] for i in draw.permutation(len(batches))]

    @property
    def total(self) -> int:
        """Batches of an epoch; the same for every epoch."""
        if self._total is None:
            total = len(self._drawn(0))
            if self.shuffle and self.budget is not None and total:
                pools = int(self.sizes.sum()) // (self.pool * self.budget * self.world)
                total = min(total + math.ceil(math.sqrt(pools)), len(self.sizes))  # each may end in a short batch
            self._total = total
        return self._total

    def plan(self, epoch: int | None = None) -> list[np.ndarray]:
        """Every batch of an epoch (None: of this one), each to be shared by all ranks."""
        epoch = self.epoch if epoch is None else epoch
        draws = (self._drawn(epoch, again) for again in range(DRAWS))
        batches = next((drawn for drawn in draws if len(drawn) <= self.total), None) or self._drawn(0)
        while len(batches) < self.total:
            most = max(range(len(batches)), key=lambda place: len(batches[place]))
            batches[most : most + 1] = np.array_split(batches[most], 2)
        return batches

    def share(self, batch: np.ndarray, rank: int) -> np.ndarray:
        """A rank's part of a batch: every rank has much the same number of nodes, and of pairs of nodes.

        The graphs, which rise in size, are dealt out in turns, every other turn backwards.
        """
        if self.world == 1:
            return batch
        turn, place = np.divmod(np.arange(len(batch)), self.world)
        return batch[np.where(turn % 2, self.world - 1 - place, place) == rank]

    def request(self, graphs: np.ndarray, place: int, **fields: Any) -> Request:
        """Ask for some graphs as the batch at this place of the epoch, with these fields of a request."""
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
        for place, batch in enumerate(plan[first:], first):
            graphs = self.share(batch, self.rank)
            counts = len(graphs) > 0
            yield self.request(graphs if counts else batch[:1], place, readings=tuple(self.readings()), counts=counts)


def cut(order: np.ndarray, pools: np.ndarray, room: np.ndarray) -> list[np.ndarray]:
    """Cut an order (G,), whose pools (G,) each rise in size, into batches that lie within one pool.

    Args:
        order, pools: of each place in the order, the graph and its pool.
        room: (G,) graphs in a batch that ends with the graph at this place, its largest.
    """
    count = len(order)
    if not count:
        return []
    # from the end, so that the first graph of a batch is its largest and says how many go with it
    ends = np.arange(1, count + 1)
    first_of_pool = np.searchsorted(pools, pools, side="left")
    start = np.maximum(ends - room, first_of_pool).tolist()
    cuts, end = [], count
    while end:
        end = start[end - 1]
        cuts.append(end)
    return np.split(order, cuts[-2::-1])

"""From a store to batches: which graphs go together, and the gathering of their rows, without a loop over graphs."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from gt.attention import Reading, prepare
from gt.data.static import Shape, filled
from gt.data.store import Graphs, pointers
from gt.graph import GraphBatch


def runs(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The runs ``starts[r], starts[r] + 1, ...`` of the given lengths, end to end."""
    offsets = pointers(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def tensor(values: np.ndarray) -> torch.Tensor:
    """A tensor of the type models work in: int64 or float32."""
    if values.dtype == np.float16:  # which PyTorch widens several times as fast
        return torch.from_numpy(values).float()
    kind = np.int64 if values.dtype.kind in "iub" else np.float32
    return torch.from_numpy(values.astype(kind, order="C", copy=False))


def gather(graphs: Graphs, ids: Sequence[int] | np.ndarray) -> GraphBatch:
    """The graphs with the given numbers, in that order, as one batch.

    What `GraphBatch` derives without waiting for a device is left for it to derive when somebody asks. Every call into
    NumPy costs about a microsecond whatever the size, so the few there are count for small graphs.
    """
    ids = np.asarray(ids, dtype=np.int64)  # a store keeps them in the smallest type, where 255 + 1 is 0
    ends = ids + 1
    first, first_edge = graphs.node_ptr.take(ids), graphs.edge_ptr.take(ids)
    nodes, edges = graphs.node_ptr.take(ends) - first, graphs.edge_ptr.take(ends) - first_edge
    ptr = pointers(nodes)
    count, largest, shift = int(ptr[-1]), int(nodes.max()), ptr[:-1]
    node_rows, edge_rows = (first - shift).repeat(nodes), (first_edge - edges.cumsum() + edges).repeat(edges)
    steps = np.arange(max(count, len(edge_rows)))
    node_rows += steps[:count]
    edge_rows += steps[: len(edge_rows)]
    # edges are sorted by target within each graph and graphs keep their order: the whole batch is sorted too
    edge_index = graphs.edge_index.take(edge_rows, axis=1).astype(np.int64)
    edge_index += shift.repeat(edges)
    extras = {name: rows(values, node_rows) for name, values in graphs.nodes.items()}
    extras |= {name: tensor(values.take(node_rows)) for name, values in graphs.encodings.items()}
    edge_attr, by_graph = graphs.edges.get("edge_attr"), graphs.graphs.get("y")
    y = rows(by_graph, ids) if by_graph is not None else extras.pop("y", None)
    batch = GraphBatch(
        ptr=torch.from_numpy(ptr),
        edge_index=torch.from_numpy(edge_index),
        max_nodes=largest,
        equal_sizes=largest * len(ids) == count,
        x=extras.pop("x", None),
        edge_attr=None if edge_attr is None else rows(edge_attr, edge_rows),
        y=y,
        extras=extras,
    )
    vars(batch).update(num_nodes=count, batch=torch.from_numpy(np.arange(len(ids)).repeat(nodes)))
    return batch


def rows(values: np.ndarray, at: np.ndarray) -> torch.Tensor:
    """The rows with the given numbers, of the type models work in."""
    # `take` copies whole rows where an index in brackets copies element by element. The numbers are known to be
    # right: clipping them costs less than checking them
    return tensor(values.take(at, axis=0, mode="clip"))


class Live(Iterable[Reading]):
    """Readings that are asked for anew each time: those of a network in training, whose masks may change."""

    def __init__(self, ask: Callable[[], Iterable[Reading]]) -> None:
        self.ask = ask

    def __iter__(self) -> Iterator[Reading]:
        return iter(self.ask())


def prepare_all(batch: GraphBatch, readings: Iterable[Reading]) -> GraphBatch:
    """Compute on the CPU what attention will ask of a batch; returns the batch."""
    readings = tuple(readings)
    wide = batch.with_virtual_nodes(max((mask.virtual_nodes for mask, _ in readings), default=0))
    for mask, demand in readings:
        prepare(mask(wide), demand)
    return batch


class Request(list[int]):
    """The samples of a batch, and what attention will ask of it: the latter may change in training.

    Attributes:
        counts: False for a batch that a process without a share of its own computes along, for nothing.
    """

    readings: tuple[Reading, ...] | None = None
    counts = True


def asked(items: list[int], otherwise: Iterable[Reading]) -> Iterable[Reading]:
    """The readings that come with a request for samples; a plain list brings none."""
    found = items.readings if isinstance(items, Request) else None
    return otherwise if found is None else found


class GraphDataset(Dataset[GraphBatch]):
    """Some graphs of a store; a list of numbers gives a whole batch, complete with indices and masks.

    Args:
        graphs: a store.
        ids: (G,) the numbers of its graphs that are in this dataset.
        readings: what attention will ask of each batch.
        shapes: what batches are filled up to, see `gt.data.static`; none leaves them as they are.
    """

    def __init__(
        self, graphs: Graphs, ids: np.ndarray, readings: Iterable[Reading] = (), shapes: Sequence[Shape] = ()
    ) -> None:
        self.graphs, self.ids, self.readings, self.shapes = graphs, np.asarray(ids, np.int64), readings, shapes

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sizes(self) -> np.ndarray:
        """Nodes of each graph."""
        return self.graphs.sizes[self.ids]

    @property
    def edges(self) -> np.ndarray:
        """Edges of each graph."""
        return np.diff(self.graphs.edge_ptr)[self.ids]

    def __getitems__(self, items: list[int]) -> GraphBatch:
        batch = gather(self.graphs, self.ids.take(items))
        if self.shapes:
            batch = filled(batch, self.shapes, self.graphs.schema)
        return prepare_all(batch, asked(items, self.readings))


class Requests(Sampler[list[int]]):
    """Batches, each with what attention asks at the moment it is drawn: workers then make it ready for that.

    A worker is a copy of the training process that never learns how the network there goes on.
    """

    def __init__(self, batches: "Epochs", readings: Iterable[Reading]) -> None:
        self.batches, self.readings = batches, readings

    @property
    def sampler(self) -> "Epochs":
        """Where the trainer looks for something to tell the epoch to."""
        return self.batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            request = batch if isinstance(batch, Request) else Request(batch)
            request.readings = tuple(self.readings)
            yield request


class Shares(Dataset[GraphBatch]):
    """A dataset of whole batches, where one that counts for nothing has no targets."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, request: Request) -> GraphBatch:
        batch: GraphBatch = self.dataset.__getitems__(request)
        if not request.counts:
            batch.y = None
        return batch


class Epochs(Sampler[list[int]]):
    """What the batches of each epoch begin with, the same for the same epoch.

    Attributes:
        epoch: the next one.
    """

    epoch = 0

    @property
    def sampler(self) -> "Epochs":
        """Where the trainer looks for something to tell the epoch to."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int:
        """Batches of an epoch."""


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
    splits its largest batches.

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

    def _drawn(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, in the order they are taken; with a budget, however many there are."""
        if not self.shuffle:
            order = np.argsort(self.sizes, kind="stable")
            pools = np.zeros(len(order), int)
            return cut(order, pools, self.world * self.room(self.sizes[order]))
        draw = np.random.default_rng([self.seed, epoch])
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
            found = len(self._drawn(0))
            if self.shuffle and self.budget is not None and found:
                pools = int(self.sizes.sum()) // (self.pool * self.budget * self.world)
                found = min(found + math.ceil(math.sqrt(pools)), len(self.sizes))  # each may end in a short batch
            self._total = found
        return self._total

    def plan(self, epoch: int | None = None) -> list[np.ndarray]:
        """Every batch of an epoch (None: of this one), each to be shared by all ranks."""
        batches = self._drawn(self.epoch if epoch is None else epoch)
        while len(batches) < self.total:
            most = max(range(len(batches)), key=lambda place: len(batches[place]))
            batches[most : most + 1] = np.array_split(batches[most], 2)
        return batches[: self.total]

    def share(self, batch: np.ndarray, rank: int) -> np.ndarray:
        """A rank's part of a batch; all have graphs of like size."""
        return batch[rank :: self.world]

    def items(self, graphs: np.ndarray, place: int) -> list[int]:
        """What a dataset is asked for to get some graphs, as the batch at this place of the epoch."""
        return graphs.tolist()

    def __len__(self) -> int:
        if self.shuffle or not len(self.sizes):
            return self.total
        return max(1, sum(len(batch) > self.rank for batch in self.plan()))

    def __iter__(self) -> Iterator[list[int]]:
        first, self.first = self.first, 0
        plan = self.plan()
        if not self.shuffle:
            plan = [batch for batch in plan if len(batch) > self.rank] or plan[:1]
        for place, batch in enumerate(plan[first:], first):
            graphs = self.share(batch, self.rank)
            request = Request(self.items(graphs if len(graphs) else batch[:1], place))
            request.counts = len(graphs) > 0
            yield request


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

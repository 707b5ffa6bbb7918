"""From a store to batches: which graphs go together, and the gathering of their rows, without a loop over graphs."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from gt.attention import Reading, prepare
from gt.data.store import Graphs, pointers
from gt.graph import GraphBatch


def runs(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The runs ``starts[r], starts[r] + 1, ...`` of the given lengths, end to end."""
    offsets = pointers(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def tensor(values: np.ndarray) -> torch.Tensor:
    """A tensor of the type models work in: int64 or float32."""
    kind = np.int64 if values.dtype.kind in "iub" else np.float32
    return torch.from_numpy(np.ascontiguousarray(values, dtype=kind))


def gather(graphs: Graphs, ids: Sequence[int] | np.ndarray) -> GraphBatch:
    """The graphs with the given numbers, in that order, as one batch."""
    ids = np.asarray(ids, dtype=np.int64)  # a store keeps them in the smallest type, where 255 + 1 is 0
    nodes, edges = (pointer[ids + 1] - pointer[ids] for pointer in (graphs.node_ptr, graphs.edge_ptr))
    ptr = pointers(nodes)
    node_rows, edge_rows = runs(graphs.node_ptr[ids], nodes), runs(graphs.edge_ptr[ids], edges)
    # edges are sorted by target within each graph and graphs keep their order: the whole batch is sorted too
    edge_index = graphs.edge_index[:, edge_rows].astype(np.int64) + np.repeat(ptr[:-1], edges)
    extras = {name: tensor(values[node_rows]) for name, values in graphs.nodes.items()}
    edge_attr, by_graph = graphs.edges.get("edge_attr"), graphs.graphs.get("y")
    y = tensor(by_graph[ids]) if by_graph is not None else extras.pop("y", None)
    return GraphBatch(
        ptr=torch.from_numpy(ptr),
        edge_index=torch.from_numpy(edge_index),
        max_nodes=int(nodes.max()),
        equal_sizes=bool((nodes == nodes[0]).all()),
        x=extras.pop("x", None),
        edge_attr=None if edge_attr is None else tensor(edge_attr[edge_rows]),
        y=y,
        extras=extras,
    )


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


class GraphDataset(Dataset[GraphBatch]):
    """Some graphs of a store; a list of numbers gives a whole batch, complete with indices and masks."""

    def __init__(self, graphs: Graphs, ids: np.ndarray, readings: Iterable[Reading] = ()) -> None:
        self.graphs, self.ids, self.readings = graphs, np.asarray(ids), readings

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sizes(self) -> np.ndarray:
        """Nodes of each graph."""
        return self.graphs.sizes[self.ids]

    def __getitems__(self, items: list[int]) -> GraphBatch:
        return prepare_all(gather(self.graphs, self.ids[items]).finish(), self.readings)


class Batches(Sampler[list[int]]):
    """Batches of graphs of like size, so that little is padded; the same for the same seed and epoch.

    Shuffled, each epoch draws anew which graphs meet: a random order is cut into pools of ``pool`` batches, each pool
    is sorted by size and cut into batches, and the batches of all pools are shuffled. Not shuffled, all is sorted.
    Of several ranks each takes every ``world``-th batch; in training all take equally many (the last few batches of an
    epoch may be left out, others each time), in evaluation every sample is seen once by one rank.

    Args:
        sizes: (G,) nodes of each graph.
        batch_size: graphs in a batch.
        shuffle: draw the order anew each epoch; False for evaluation.
        seed, epoch: what the order is drawn from.
        rank, world: which share of how many.
        first: batches of the first epoch to skip, for a run that resumes in the middle.
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
    ) -> None:
        self.sizes, self.batch_size, self.shuffle = sizes, batch_size, shuffle
        self.seed, self.epoch, self.rank, self.world, self.first = seed, epoch, rank, world, first

    @property
    def sampler(self) -> "Batches":
        """Where the trainer looks for something to tell the epoch to."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        return np.split(order, range(self.batch_size, len(order), self.batch_size)) if len(order) else []

    def plan(self) -> list[np.ndarray]:
        """Every batch of this epoch, of all ranks."""
        if not self.shuffle:
            return self._cut(np.argsort(self.sizes, kind="stable"))
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(len(self.sizes))
        step = self.pool * self.batch_size
        pools = [order[low : low + step] for low in range(0, len(order), step)]
        batches = [batch for pool in pools for batch in self._cut(pool[np.argsort(self.sizes[pool], kind="stable")])]
        return [batches[i] for i in draw.permutation(len(batches))]

    def __len__(self) -> int:
        batches = -(-len(self.sizes) // self.batch_size)  # a pool is a whole number of batches
        return batches // self.world if self.shuffle else len(range(self.rank, batches, self.world))

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.plan()[self.rank :: self.world][: len(self)]
        first, self.first = self.first, 0
        for batch in batches[first:]:
            yield batch.tolist()

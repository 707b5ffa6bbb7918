"""Collation: gathers the rows of a batch from a store, without a loop over graphs."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from gt.attention import Reading, prepare
from gt.data.batch_sampler import Request
from gt.data.packed import Graphs, pointers
from gt.data.static import Shape, pad_batch
from gt.graph import GraphBatch
from gt.masks import with_virtual_nodes
from gt.parallel import share_of


def runs(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The concatenated ranges ``starts[r], starts[r] + 1, ...`` of the given lengths."""
    offsets = pointers(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def tensor(values: np.ndarray) -> torch.Tensor:
    """A tensor of the dtype that models compute with: int64 or float32."""
    if values.dtype == np.float16:  # PyTorch converts it several times as fast as NumPy
        return torch.from_numpy(values).float()
    kind = np.int64 if values.dtype.kind in "iub" else np.float32
    return torch.from_numpy(values.astype(kind, order="C", copy=False))


def gather(graphs: Graphs, ids: Sequence[int] | np.ndarray) -> GraphBatch:
    """Collate the graphs with the given indices, in that order, into one batch.

    Whatever `GraphBatch` can derive without a device synchronisation is left for it to derive lazily. Each NumPy call
    costs about a microsecond regardless of size, which matters for small graphs, so there are few of them.
    """
    ids = np.asarray(ids, dtype=np.int64)  # stored in the smallest dtype, where 255 + 1 would overflow to 0
    ends = ids + 1
    first, first_edge = graphs.node_ptr.take(ids), graphs.edge_ptr.take(ids)
    nodes, edges = graphs.node_ptr.take(ends) - first, graphs.edge_ptr.take(ends) - first_edge
    ptr = pointers(nodes)
    count, largest, shift = int(ptr[-1]), int(nodes.max()), ptr[:-1]
    node_rows, edge_rows = (first - shift).repeat(nodes), (first_edge - edges.cumsum() + edges).repeat(edges)
    steps = np.arange(max(count, len(edge_rows)))
    node_rows += steps[:count]
    edge_rows += steps[: len(edge_rows)]
    # edges are sorted by target within each graph, and the graphs keep their order: so the whole batch is sorted
    edge_index = graphs.edge_index.take(edge_rows, axis=1).astype(np.int64)
    edge_index += shift.repeat(edges)
    extras = {name: rows(values, node_rows) for name, values in graphs.nodes.items()}
    extras |= {name: tensor(values.take(node_rows)) for name, values in graphs.encodings.items()}
    edge_attr, by_graph = graphs.edges.get("edge_attr"), graphs.graphs.get("y")
    y, links = rows(by_graph, ids) if by_graph is not None else extras.pop("y", None), None
    if graphs.links:
        counts = graphs.link_ptr.take(ends) - graphs.link_ptr.take(ids)
        link_rows = runs(graphs.link_ptr.take(ids), counts)
        links = tensor(graphs.links["ends"].take(link_rows, axis=0)).T + torch.from_numpy(shift.repeat(counts))
        y = rows(graphs.links["y"], link_rows)
    batch = GraphBatch(
        ptr=torch.from_numpy(ptr),
        edge_index=torch.from_numpy(edge_index),
        max_nodes=largest,
        x=extras.pop("x", None),
        edge_attr=None if edge_attr is None else rows(edge_attr, edge_rows),
        y=y,
        links=links,
        extras=extras,
    )
    batch.num_nodes, batch.batch = count, torch.from_numpy(np.arange(len(ids)).repeat(nodes))
    return batch


def rows(values: np.ndarray, indices: np.ndarray) -> torch.Tensor:
    """The rows at the given indices, in the dtype that models compute with."""
    # `take` copies whole rows, indexing in brackets copies element by element. The indices are known to be valid:
    # clipping costs less than bounds checking
    return tensor(values.take(indices, axis=0, mode="clip"))


def random_numbers(entropy: Sequence[int], samples: np.ndarray) -> np.ndarray:
    """(B,) uint64 random numbers that depend on the entropy and on each sample alone, not on its batch."""
    return hashed(samples, np.random.SeedSequence(entropy).generate_state(1, np.uint64))


def hashed(numbers: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """uint64 hashes of non-negative integers and seeds (uint64), which broadcast."""
    bits = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ seeds  # Steele et al. 2014
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(31))


def prepare_all(batch: GraphBatch, readings: Iterable[Reading]) -> GraphBatch:
    """Precompute on the CPU what attention will need from a batch; returns the batch."""
    readings = tuple(readings)
    wide = with_virtual_nodes(batch, max((mask.virtual_nodes for mask, _ in readings), default=0))
    for mask, demand in readings:
        prepare(mask(wide), demand)
    return batch


class BatchDataset(Dataset[GraphBatch]):
    """A dataset that returns whole batches, complete with indices and masks."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @property
    def sizes(self) -> np.ndarray:
        """The cost of each sample in a batch: its nodes, or 1 if all cost the same."""
        return np.ones(len(self), np.int64)

    @abstractmethod
    def batch(self, request: Request) -> GraphBatch:
        """Make a batch with its targets, prepared for the requested readings."""

    def __getitem__(self, request: Request) -> GraphBatch:
        batch = self.batch(request)
        if not request.counts:
            batch.y = None
        return batch


class Shares(BatchDataset):
    """One process's share of each batch of a dataset."""

    def __init__(self, dataset: BatchDataset, level: str, rank: int, world: int) -> None:
        self.dataset, self.level, self.rank, self.world = dataset, level, rank, world

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, request: Request) -> GraphBatch:
        whole = self.dataset.batch(replace(request, readings=()))
        return share_of(whole, self.rank, self.world, self.level, request.readings)


class GraphDataset(BatchDataset):
    """A subset of the graphs of a store.

    Args:
        graphs: the store.
        ids: (G,) indices of the graphs in this dataset.
        shapes: static shapes to which batches are padded, see `gt.data.static`; none leaves them as they are.
        present: transform of each batch, see `gt.data.source.Source`.
        seed: entropy of its random numbers, besides that of the request and the sample.
    """

    def __init__(
        self,
        graphs: Graphs,
        ids: np.ndarray,
        shapes: Sequence[Shape] = (),
        present: Callable[[GraphBatch, np.ndarray], GraphBatch] | None = None,
        seed: int = 0,
    ) -> None:
        self.graphs, self.ids, self.shapes = graphs, np.asarray(ids, np.int64), shapes
        self.present, self.seed = present, seed

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sizes(self) -> np.ndarray:
        """The number of nodes of each graph."""
        return self.graphs.sizes[self.ids]

    @property
    def edges(self) -> np.ndarray:
        """An upper bound on the number of edges of each graph."""
        edges = np.diff(self.graphs.edge_ptr)[self.ids]
        added = self.graphs.graphs.get("added_edges")
        return edges if added is None else edges + added[self.ids]

    def batch(self, request: Request) -> GraphBatch:
        batch = gather(self.graphs, self.ids.take(request.samples))
        if self.present is not None:
            batch = self.present(batch, random_numbers([self.seed, *request.draw], np.array(request.samples)))
        if self.shapes:
            batch = pad_batch(batch, self.shapes, self.graphs.schema)
        return prepare_all(batch, request.readings)

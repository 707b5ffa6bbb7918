"""Tabular features of graphs and of nodes with their neighbourhoods, for classical models."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from torch import Tensor

from gt.data.batching import gather
from gt.data.packed import Graphs
from gt.graph import GraphBatch

MAX_CATEGORIES = 64  # the most frequent training categories of a column, which get a channel each
COUNTED_ROWS = 1_000_000  # nodes and edges from which category frequencies are counted
CHUNK_NODES = 50_000  # nodes per chunk, which holds at least one graph


@dataclass(frozen=True)
class Channels:
    """One-hot encoding of the frequent values of categorical columns; real numbers are unchanged.

    Attributes:
        frequent: the encoded values of each categorical column; None for real numbers.
    """

    frequent: tuple[np.ndarray, ...] | None

    @classmethod
    def of(cls, values: np.ndarray) -> "Channels":
        """Fit to training values (rows, columns)."""
        if values.dtype.kind == "f":
            return cls(None)
        return cls(tuple(_most_frequent(column) for column in values.T))

    def __call__(self, values: Tensor) -> np.ndarray:
        """Encode values (rows, columns) as (rows, channels) float32."""
        columns = values.numpy()
        if self.frequent is None:
            return np.asarray(columns, np.float32)
        parts = [columns[:, [index]] == frequent for index, frequent in enumerate(self.frequent)]
        return np.concatenate(parts, axis=1, dtype=np.float32)


def _most_frequent(column: np.ndarray) -> np.ndarray:
    values, counts = np.unique(column, return_counts=True)
    return values[np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]]


class Surroundings:
    """Features of nodes, and their means one and two hops away, ignoring edge directions.

    Args:
        graphs: a store.
        train: (G,) indices of its training graphs, which define the categories.
    """

    def __init__(self, graphs: Graphs, train: np.ndarray) -> None:
        self.graphs = replace(graphs, encodings={}, pairs={})
        counted = train[: max(1, int(np.searchsorted(np.cumsum(graphs.sizes[train]), COUNTED_ROWS)))]
        batch = gather(self.graphs, counted)
        self.of_nodes = None if batch.x is None else Channels.of(batch.x[:COUNTED_ROWS].numpy())
        edges = batch.edge_attr
        self.of_edges = None if edges is None else Channels.of(edges[:COUNTED_ROWS].numpy())

    def parts(self, ids: np.ndarray) -> Iterator[GraphBatch]:
        """The graphs with the given indices, in batches of limited size."""
        ends = np.cumsum(self.graphs.sizes[ids]) // CHUNK_NODES
        for part in np.split(ids, np.flatnonzero(np.diff(ends)) + 1):
            if len(part):
                yield gather(self.graphs, part)

    def hops(self, batch: GraphBatch) -> list[np.ndarray]:
        """Three (N, F) arrays: each node's own features, their mean over its neighbours, and the mean of those means.

        A node's own features are the logarithms of its degrees, its channels, and the mean channels of incoming edges.
        """
        n, (source, target) = batch.num_nodes, batch.edge_index.numpy()
        degrees = np.stack([np.bincount(ends, minlength=n) for ends in (target, source)], axis=1)
        own_features = [np.log1p(degrees, dtype=np.float32)]
        if self.of_nodes is not None and batch.x is not None:
            own_features.append(self.of_nodes(batch.x))
        if self.of_edges is not None and batch.edge_attr is not None:
            incoming = sparse.csr_array(
                (np.ones(len(target), np.float32), (target, np.arange(len(target)))), (n, len(target))
            )
            own_features.append(
                incoming @ self.of_edges(batch.edge_attr) / np.maximum(degrees[:, :1], 1).astype(np.float32)
            )
        endpoints = np.concatenate([target, source]), np.concatenate([source, target])
        adjacent = sparse.csr_array((np.ones(len(endpoints[0]), np.float32), endpoints), (n, n))
        share = 1 / np.maximum(degrees.sum(1, keepdims=True), 1).astype(np.float32)
        hops = [np.concatenate(own_features, axis=1)]
        for _ in range(2):
            hops.append(adjacent @ hops[-1] * share)
        return hops

    def nodes(self, nodes: np.ndarray) -> np.ndarray:
        """(len(nodes), F) features of nodes, by index in the store: those of `hops` and the size of the graph."""
        graph = np.searchsorted(self.graphs.node_ptr, nodes, side="right") - 1
        ids = np.unique(graph)
        rows = []
        for batch in self.parts(ids):
            size = np.repeat(batch.sizes.numpy(), batch.sizes.numpy())[:, None].astype(np.float32)
            rows.append(np.concatenate([*self.hops(batch), size], axis=1))
        first = np.zeros(len(self.graphs), np.int64)  # first row of each graph
        first[ids] = np.cumsum(self.graphs.sizes[ids]) - self.graphs.sizes[ids]
        return np.concatenate(rows)[first[graph] + nodes - self.graphs.node_ptr[graph]]

    def whole(self, ids: np.ndarray) -> np.ndarray:
        """(len(ids), F) features of graphs: sizes, sums of own node features, means and deviations of all of `hops`."""
        rows = []
        for batch in self.parts(ids):
            sizes = batch.sizes.numpy()
            edges = np.bincount(batch.batch.numpy()[batch.edge_index[1].numpy()], minlength=len(sizes))
            pool = sparse.csr_array(
                (np.ones(batch.num_nodes, np.float32), np.arange(batch.num_nodes), batch.ptr.numpy())
            )
            share = 1 / np.maximum(sizes, 1).astype(np.float32)[:, None]
            parts = [np.stack([sizes, edges], axis=1).astype(np.float32)]
            for distance, hop in enumerate(self.hops(batch)):
                total, squares = pool @ hop, pool @ hop**2
                mean = total * share
                parts += [total] * (distance == 0) + [mean, np.sqrt(np.maximum(squares * share - mean**2, 0))]
            rows.append(np.concatenate(parts, axis=1))
        return np.concatenate(rows)

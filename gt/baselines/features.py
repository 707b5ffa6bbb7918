"""Rows of numbers for a model without a network: what a graph or a node is like, and what is around it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from torch import Tensor

from gt.data.batching import gather
from gt.data.packed import Graphs
from gt.graph import GraphBatch

MOST = 64  # categories of a column that have a channel each, the most frequent ones in training
LOOKED_AT = 1_000_000  # nodes and edges by which that is told
PART = 50_000  # nodes whose rows are made together, or one graph


@dataclass(frozen=True)
class Channels:
    """Columns of categories as one channel for each frequent value, 1 or 0; real numbers as they are.

    Attributes:
        frequent: for each column of categories the values that have a channel; None for real numbers.
    """

    frequent: tuple[np.ndarray, ...] | None

    @classmethod
    def of(cls, values: np.ndarray) -> "Channels":
        """Those of (rows, columns) training values."""
        if values.dtype.kind == "f":
            return cls(None)
        return cls(tuple(_most_frequent(column) for column in values.T))

    def __call__(self, values: Tensor) -> np.ndarray:
        """(rows, columns) values to (rows, channels) float32."""
        columns = values.numpy()
        if self.frequent is None:
            return np.asarray(columns, np.float32)
        parts = [columns[:, [place]] == known for place, known in enumerate(self.frequent)]
        return np.concatenate(parts, axis=1, dtype=np.float32)


def _most_frequent(column: np.ndarray) -> np.ndarray:
    values, counts = np.unique(column, return_counts=True)
    return values[np.argsort(-counts, kind="stable")[:MOST]]


class Surroundings:
    """Nodes by their own features, and by the means of those one hop and two hops away, whichever way edges point.

    Args:
        graphs: a store.
        train: (G,) numbers of its training graphs, which say what categories there are.
    """

    def __init__(self, graphs: Graphs, train: np.ndarray) -> None:
        self.graphs = replace(graphs, encodings={}, pairs={})
        first = train[: max(1, int(np.searchsorted(np.cumsum(graphs.sizes[train]), LOOKED_AT)))]
        batch = gather(self.graphs, first)
        self.of_nodes = None if batch.x is None else Channels.of(batch.x[:LOOKED_AT].numpy())
        edges = batch.edge_attr
        self.of_edges = None if edges is None else Channels.of(edges[:LOOKED_AT].numpy())

    def parts(self, ids: np.ndarray) -> Iterator[GraphBatch]:
        """The graphs of the given numbers, in batches of limited size."""
        ends = np.cumsum(self.graphs.sizes[ids]) // PART
        for part in np.split(ids, np.flatnonzero(np.diff(ends)) + 1):
            if len(part):
                yield gather(self.graphs, part)

    def hops(self, batch: GraphBatch) -> list[np.ndarray]:
        """(N, F) for each node: its own features, their mean over its neighbours, and the mean of those over these.

        Its own are its channels, the mean channels of the edges that it reads, and the logarithms of its degrees.
        """
        n, (source, target) = batch.num_nodes, batch.edge_index.numpy()
        degrees = np.stack([np.bincount(ends, minlength=n) for ends in (target, source)], axis=1)
        own = [np.log1p(degrees, dtype=np.float32)]
        if self.of_nodes is not None and batch.x is not None:
            own.append(self.of_nodes(batch.x))
        if self.of_edges is not None and batch.edge_attr is not None:
            incoming = sparse.csr_array(
                (np.ones(len(target), np.float32), (target, np.arange(len(target)))), (n, len(target))
            )
            own.append(incoming @ self.of_edges(batch.edge_attr) / np.maximum(degrees[:, :1], 1).astype(np.float32))
        both = np.concatenate([target, source]), np.concatenate([source, target])
        adjacent = sparse.csr_array((np.ones(len(both[0]), np.float32), both), (n, n))
        share = 1 / np.maximum(degrees.sum(1, keepdims=True), 1).astype(np.float32)
        hops = [np.concatenate(own, axis=1)]
        for _ in range(2):
            hops.append(adjacent @ hops[-1] * share)
        return hops

    def nodes(self, nodes: np.ndarray) -> np.ndarray:
        """(len(nodes), F) of nodes by their place in the store: as of `hops`, and the size of the graph."""
        graph = np.searchsorted(self.graphs.node_ptr, nodes, side="right") - 1
        ids = np.unique(graph)
        rows = []
        for batch in self.parts(ids):
            size = np.repeat(batch.sizes.numpy(), batch.sizes.numpy())[:, None].astype(np.float32)
            rows.append(np.concatenate([*self.hops(batch), size], axis=1))
        first = np.zeros(len(self.graphs), np.int64)  # where the rows of each graph begin
        first[ids] = np.cumsum(self.graphs.sizes[ids]) - self.graphs.sizes[ids]
        return np.concatenate(rows)[first[graph] + nodes - self.graphs.node_ptr[graph]]

    def whole(self, ids: np.ndarray) -> np.ndarray:
        """(len(ids), F): nodes and edges, sums of the nodes' own features, means and deviations of all, of graphs."""
        rows = []
        for batch in self.parts(ids):
            sizes = batch.sizes.numpy()
            edges = np.bincount(batch.batch.numpy()[batch.edge_index[1].numpy()], minlength=len(sizes))
            pool = sparse.csr_array(
                (np.ones(batch.num_nodes, np.float32), np.arange(batch.num_nodes), batch.ptr.numpy())
            )
            share = 1 / np.maximum(sizes, 1).astype(np.float32)[:, None]
            parts = [np.stack([sizes, edges], axis=1).astype(np.float32)]
            for place, hop in enumerate(self.hops(batch)):
                total, squares = pool @ hop, pool @ hop**2
                mean = total * share
                parts += [total] * (place == 0) + [mean, np.sqrt(np.maximum(squares * share - mean**2, 0))]
            rows.append(np.concatenate(parts, axis=1))
        return np.concatenate(rows)

"""Connected components of a dataset, batched by size, so that many small graphs are processed as one array."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from gt.encodings.base import PackedGraphs, Progress

CHUNK = 1 << 19  # nodes and edges read at a time
ENTRIES = 1 << 18  # of the dense matrices (B, n, n) processed at a time, which should fit into the cache


@dataclass(frozen=True)
class Components:
    """B (weakly) connected components of n nodes each.

    Attributes:
        nodes: (B, n) int64, rows in the dataset's node arrays, ascending within a component.
        links: (B * n, B * n) float32; row ``b * n + i`` counts the edges into node i of component b, by source.
    """

    nodes: np.ndarray
    links: csr_matrix


def to_dense(matrix: csr_matrix, count: int) -> np.ndarray:
    """The B = ``count`` diagonal blocks (B, n, n) of a block-diagonal matrix (B * n, B * n)."""
    size = matrix.shape[0] // count
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    dense = np.zeros((matrix.shape[0], size), matrix.dtype)
    dense[row, matrix.indices % size] = matrix.data
    return dense.reshape(count, size, size)


def component_batches(graphs: PackedGraphs, progress: Progress = iter) -> Iterator[Components]:
    """All connected components of the dataset; large datasets are read in chunks of graphs."""
    load = graphs.node_ptr + graphs.edge_ptr
    cuts = np.unique(np.searchsorted(load, np.arange(0, load[-1], CHUNK)))
    cuts = np.append(cuts, len(graphs))
    for first, last in progress(list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))):
        yield from _split(graphs, first, last)


def _split(graphs: PackedGraphs, first: int, last: int) -> Iterator[Components]:
    """The components of graphs ``first`` to ``last``, exclusive, smallest first."""
    start, stop = int(graphs.node_ptr[first]), int(graphs.node_ptr[last])
    edge_ptr = graphs.edge_ptr[first : last + 1]
    shift = np.repeat(graphs.node_ptr[first:last] - start, np.diff(edge_ptr))
    source, target = graphs.edge_index[:, edge_ptr[0] : edge_ptr[-1]] + shift
    shape = (stop - start, stop - start)
    ones = np.ones(len(source), np.float32)
    _, component = connected_components(csr_matrix((ones, (target, source)), shape), directed=False)
    size = np.bincount(component)
    order = np.lexsort((component, size[component]))
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    links = csr_matrix((ones, (position[target], position[source])), shape)
    links.sum_duplicates()  # SciPy 1.13.0 does not merge repeated edges
    low = 0
    for n, count in zip(*np.unique(size, return_counts=True), strict=True):
        end, step = low + n * count, n * max(1, ENTRIES // n**2)
        while low < end:
            high = min(low + step, end)
            yield Components(start + order[low:high].reshape(-1, n), links[low:high, low:high])
            low = high

"""A dataset cut into connected pieces of one size each, so that many small graphs are worked on as one array."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from gt.encodings.base import PackedGraphs, Progress

SLAB = 1 << 19  # nodes and edges read at a time
ENTRIES = 1 << 18  # of the dense matrices (B, n, n) worked on at a time: they should stay in a cache


@dataclass(frozen=True)
class Pieces:
    """B pieces of n nodes each, every one connected (by edges of either direction) and apart from all others.

    Attributes:
        nodes: (B, n) int64, rows in the dataset's node arrays, ascending within a piece.
        links: (B * n, B * n) float32; row ``b * n + i`` counts the edges that node i of piece b reads, by source.
    """

    nodes: np.ndarray
    links: csr_matrix


def to_dense(matrix: csr_matrix, count: int) -> np.ndarray:
    """The B = ``count`` diagonal blocks (B, n, n) of a matrix (B * n, B * n) that holds nothing else."""
    size = matrix.shape[0] // count
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    dense = np.zeros((matrix.shape[0], size), matrix.dtype)
    dense[row, matrix.indices % size] = matrix.data
    return dense.reshape(count, size, size)


def pieces(graphs: PackedGraphs, progress: Progress = iter) -> Iterator[Pieces]:
    """Every node of the dataset once, in pieces; large datasets are read a slab of graphs at a time."""
    work = graphs.node_ptr + graphs.edge_ptr
    cuts = np.unique(np.searchsorted(work, np.arange(0, work[-1], SLAB)))
    cuts = np.append(cuts, len(graphs))
    for first, last in progress(list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))):
        yield from _cut(graphs, first, last)


def _cut(graphs: PackedGraphs, first: int, last: int) -> Iterator[Pieces]:
    """The pieces of graphs ``first`` to ``last``, smallest first."""
    start, stop = int(graphs.node_ptr[first]), int(graphs.node_ptr[last])
    edge_ptr = graphs.edge_ptr[first : last + 1]
    shift = np.repeat(graphs.node_ptr[first:last] - start, np.diff(edge_ptr))
    source, target = graphs.edge_index[:, edge_ptr[0] : edge_ptr[-1]] + shift
    shape = (stop - start, stop - start)
    ones = np.ones(len(source), np.float32)
    _, piece = connected_components(csr_matrix((ones, (target, source)), shape), directed=False)
    size = np.bincount(piece)
    order = np.lexsort((piece, size[piece]))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    links = csr_matrix((ones, (place[target], place[source])), shape)
    links.sum_duplicates()  # repeated edges: SciPy 1.13.0 leaves them apart
    low = 0
    for n, count in zip(*np.unique(size, return_counts=True), strict=True):
        end, step = low + n * count, n * max(1, ENTRIES // n**2)
        while low < end:
            high = min(low + step, end)
            yield Pieces(start + order[low:high].reshape(-1, n), links[low:high, low:high])
            low = high

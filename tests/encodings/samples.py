"""Graphs that have broken encodings before, as stored datasets and as batches."""

from collections.abc import Sequence

import numpy as np
import torch
from torch_geometric.data import Data

from gt.data.packed import Graphs, pointers
from gt.encodings import Encoding
from gt.graph import GraphBatch
from gt.schema import Schema


def graph_of(nodes: int, pairs: Sequence[tuple[int, int]], directed: bool = False) -> Data:
    index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return Data(edge_index=index if directed else torch.cat([index, index.flip(0)], dim=1), num_nodes=nodes)


def random_graph(nodes: int, edges: int, seed: int) -> Data:
    """A simple, undirected, connected graph: a random tree with additional edges."""
    rng = np.random.default_rng(seed)
    pairs = {(int(rng.integers(i)), i) for i in range(1, nodes)}
    pairs |= {(int(min(pair)), int(max(pair))) for pair in rng.integers(nodes, size=(edges, 2)) if pair[0] != pair[1]}
    return graph_of(nodes, sorted(pairs))


def random_directed(nodes: int, edges: int, seed: int, simple: bool = True) -> Data:
    """A directed graph; unless simple, with self-loops and repeated edges."""
    pairs = [(int(i), int(j)) for i, j in np.random.default_rng(seed).integers(nodes, size=(edges, 2))]
    if simple:
        pairs = sorted({(i, j) for i, j in pairs if i != j})
    return graph_of(nodes, pairs, directed=True)


CONNECTED = [random_graph(3 + 4 * i, 3 + 5 * i, seed=i) for i in range(6)] + [random_graph(90, 180, seed=30)]

AWKWARD = [
    graph_of(1, []),
    graph_of(5, []),
    graph_of(2, [(0, 1)]),
    graph_of(4, [(0, 1), (1, 2), (0, 2), (2, 3)]),
    graph_of(7, [(0, 3), (3, 5), (1, 2)]),
    graph_of(6, [(i, (i + 1) % 6) for i in range(6)]),
    graph_of(1, []),
    graph_of(9, [(4, i) for i in range(9) if i != 4]),
    graph_of(8, [(0, 2), (2, 4), (0, 4), (1, 3), (3, 5), (1, 5)]),
    *CONNECTED,
    *(random_graph(11, 9, seed=20 + i) for i in range(3)),
]


def pack(graphs: Sequence[Data]) -> Graphs:
    """PyG graphs as a stored dataset."""
    sizes = np.array([graph.num_nodes for graph in graphs])
    index = torch.cat([graph.edge_index for graph in graphs], dim=1).numpy().astype(np.uint16)
    edge_ptr = pointers(np.array([graph.num_edges for graph in graphs]))
    return Graphs(pointers(sizes), edge_ptr, index, Schema(max_nodes=int(sizes.max()))).sort_edges()


def per_graph(graphs: Sequence[Data], array: np.ndarray) -> list[np.ndarray]:
    """The rows of each graph."""
    return np.split(array, np.cumsum([graph.num_nodes for graph in graphs])[:-1])


def batch_of(graphs: Sequence[Data], *encodings: Encoding) -> GraphBatch:
    """A batch with the precomputed arrays of the encodings."""
    batch = GraphBatch.from_data_list(graphs)
    for encoding in encodings:
        arrays = encoding.compute(pack(graphs))
        batch.extras |= {name: torch.from_numpy(values) for name, values in arrays.items()}
    return batch


def relabelled(graph: Data, order: np.ndarray) -> Data:
    """The same graph with node i renumbered as ``order[i]``."""
    return Data(edge_index=torch.from_numpy(order)[graph.edge_index], num_nodes=graph.num_nodes)

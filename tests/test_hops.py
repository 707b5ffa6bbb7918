"""Hop distances by bit sets, matrix products and lists, against NetworkX."""

import networkx as nx
import pytest
import torch

from gt import hops
from gt.graph import path_graphs
from gt.hops import hop_distances, hop_matrix
from gt.masks import with_virtual_nodes
from tests.graphs import random_batch

BATCHES = {
    "random": lambda: random_batch((7, 4)),
    "many sizes": lambda: random_batch((1, 9, 2, 30, 1), 1, density=0.1),
    "no edges": lambda: random_batch((3, 1), density=0.0),
    "path": lambda: path_graphs([40, 3]),
    "virtual nodes": lambda: with_virtual_nodes(random_batch((6, 1, 3), 3), 2),
}


@pytest.mark.parametrize("max_hops", [0, 1, 3, 50, None])
@pytest.mark.parametrize("name", BATCHES)
def test_hop_distances_match_networkx(name, max_hops, monkeypatch):
    batch = BATCHES[name]()
    limit = batch.num_nodes if max_hops is None else max_hops
    graph = nx.DiGraph()
    graph.add_nodes_from(range(batch.num_nodes))
    graph.add_edges_from(batch.edge_index.flip(0).T.tolist())  # from the reader to its source
    lengths = dict(nx.all_pairs_shortest_path_length(graph, cutoff=limit))
    expected = {(reader, source): d for reader, sources in lengths.items() for source, d in sources.items()}
    for max_dense_nodes in (hops.MAX_DENSE_NODES, 0):
        monkeypatch.setattr(hops, "MAX_DENSE_NODES", max_dense_nodes)
        keys, distance = hop_distances(batch, max_hops)
        assert (keys.diff() > 0).all()
        pairs = [divmod(key, batch.num_nodes) for key in keys.tolist()]
        assert dict(zip(pairs, distance.tolist(), strict=True)) == expected
    for matrix in (hop_matrix(batch, limit), hops._hops_by_matmul(batch, limit)):
        assert matrix.dtype == torch.int64
        for graph_number, (low, high) in enumerate(zip(batch.ptr.tolist(), batch.ptr.tolist()[1:], strict=False)):
            for row in range(batch.max_nodes):
                for column in range(batch.max_nodes):
                    real = max(row, column) < high - low
                    value = expected.get((low + row, low + column), limit + 1) if real else limit + 1
                    assert matrix[graph_number, row, column] == value

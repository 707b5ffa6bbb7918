"""Weisfeiler-Lehman colours against refinement with dictionaries, cycle counts against NetworkX."""

import networkx as nx
import numpy as np
import pytest
import torch

from gt.encodings import Colours, Cycles, cycles
from gt.encodings.colours import colours
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.schema import Schema
from tests.encodings.samples import (
    AWKWARD,
    batch_of,
    graph_of,
    pack,
    per_graph,
    random_directed,
    random_graph,
    relabelled,
)

DIRECTED = [random_directed(n, 2 * n, seed=n, simple=False) for n in (3, 6, 9, 9)]


def refine(batch, rounds):
    """The colour of each node after each round, by refinement with a dictionary."""
    edges, colour, history = batch.edge_index.T.tolist(), [0] * batch.num_nodes, []
    for _ in range(rounds):
        signatures = [
            (colour[i], *(tuple(sorted(colour[e[1 - side]] for e in edges if e[side] == i)) for side in (1, 0)))
            for i in range(batch.num_nodes)
        ]
        numbers = {signature: number for number, signature in enumerate(sorted(set(signatures)))}
        colour = [numbers[signature] for signature in signatures]
        history.append(colour)
    return history


@pytest.mark.parametrize("graphs", [AWKWARD[:12], DIRECTED], ids=["undirected", "directed"])
def test_colours_partition_nodes_as_refinement_does(graphs):
    batch = GraphBatch.from_data_list(graphs)
    for actual, expected in zip(colours(batch, 4), refine(batch, 4), strict=True):
        assert len(set(zip(actual.tolist(), expected, strict=True))) == len(set(actual.tolist())) == len(set(expected))


def test_colours_are_equivariant_and_limited_by_1_wl():
    ring, triangles = (
        graph_of(6, [(i, (i + 1) % 6) for i in range(6)]),
        graph_of(6, [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5)]),
    )
    assert len(colours(GraphBatch.from_data_list([ring, triangles]), 5)[-1].unique()) == 1
    graph, order = random_graph(9, 6, seed=1), np.random.default_rng(0).permutation(9)
    module = Colours(3, 64).module(8, Schema())
    before, after = (
        module.nodes(GraphBatch.from_data_list(graphs)) for graphs in ([graph], [ring, relabelled(graph, order)])
    )
    assert torch.equal(after[6:][order], before)
    assert torch.equal(before, module.tables(torch.stack(colours(GraphBatch.from_data_list([graph]), 3), 1) % 64))


@pytest.mark.parametrize("chunk", [1 << 14, 7])
def test_cycle_counts_match_networkx(chunk, monkeypatch):
    monkeypatch.setattr(cycles, "CHUNK", chunk)
    graphs = [*AWKWARD[:12], *DIRECTED, graph_of(6, [(i, j) for i in range(6) for j in range(i)])]
    counts = Cycles(6).compute(pack(graphs))["cycles"]
    assert counts.dtype == np.float32
    for graph, rows in zip(graphs, per_graph(graphs, counts), strict=True):
        simple = nx.Graph([pair for pair in graph.edge_index.T.tolist() if pair[0] != pair[1]])
        expected = np.zeros((graph.num_nodes, 4))
        for cycle in nx.simple_cycles(simple, length_bound=6):
            expected[cycle, len(cycle) - 3] += 1
        np.testing.assert_allclose(rows, np.log1p(expected), atol=1e-6)


def test_module_maps_cycle_counts_linearly():
    encoding = Cycles(5)
    batch, module = batch_of(AWKWARD[:6], encoding), encoding.module(8, Schema())
    torch.testing.assert_close(module.nodes(batch), module.linear(batch.extras["cycles"]))


def test_invalid_options_and_too_many_paths_are_rejected(monkeypatch):
    for make, options in ((Colours, {"rounds": 0}), (Colours, {"size": 0}), (Cycles, {"length": 2})):
        with pytest.raises(UserError):
            make(**options)
    monkeypatch.setattr(cycles, "MAX_PATHS", 10)
    with pytest.raises(UserError, match=r"cycles\.length=4"):
        Cycles(4).compute(pack(AWKWARD))

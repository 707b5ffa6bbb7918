"""Return probabilities against PyG and matrix powers, and the module with the parameter counts of GPS."""

import numpy as np
import pytest
import torch
from torch_geometric.transforms import AddRandomWalkPE

from gt.encodings import RandomWalk, pieces, walks
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

DIRECTED = [random_directed(n, 2 * n, seed=n) for n in (2, 5, 9, 9, 30)]
MULTIGRAPHS = [random_directed(n, 3 * n, seed=n, simple=False) for n in (1, 3, 6, 20)]


def return_probabilities(graphs, steps=6):
    return RandomWalk(steps=steps).compute(pack(graphs))["random_walk"]


@pytest.mark.parametrize("steps", [1, 2, 7, 16])
@pytest.mark.parametrize("graphs", [AWKWARD, DIRECTED], ids=["undirected", "directed"])
def test_probabilities_match_pyg(graphs, steps):
    expected = [AddRandomWalkPE(steps)(graph.clone()).random_walk_pe for graph in graphs]
    actual = return_probabilities(graphs, steps)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, torch.cat(expected).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "graphs", [AWKWARD, DIRECTED, MULTIGRAPHS], ids=["undirected", "directed", "loops and repeats"]
)
def test_probabilities_match_matrix_powers(graphs):
    for graph, actual in zip(graphs, per_graph(graphs, return_probabilities(graphs, 5)), strict=True):
        adjacency = np.zeros((graph.num_nodes, graph.num_nodes))
        for source, target in graph.edge_index.T.tolist():
            adjacency[source, target] += 1
        transition = adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1)
        expected = [np.diag(np.linalg.matrix_power(transition, k)) for k in range(1, 6)]
        np.testing.assert_allclose(actual, np.stack(expected, 1), atol=1e-6)


def test_probabilities_of_triangle_with_tail():
    actual = return_probabilities([graph_of(4, [(0, 1), (1, 2), (0, 2), (2, 3)])], 3)
    np.testing.assert_allclose(actual[3], [0, 1 / 3, 0], atol=1e-7)
    np.testing.assert_allclose(actual[0], [0, 1 / 2 * 1 / 2 + 1 / 2 * 1 / 3, 2 * 1 / 2 * 1 / 2 * 1 / 3], atol=1e-7)


def test_large_graphs_are_computed_by_columns(monkeypatch):
    graphs = [random_graph(100, 150, seed=seed) for seed in (1, 2)]
    expected = return_probabilities(graphs, 9)
    monkeypatch.setattr(walks, "MAX_FULL", 50)
    monkeypatch.setattr(walks, "ENTRIES", 1)  # several blocks of columns, the last one smaller
    np.testing.assert_allclose(return_probabilities(graphs, 9), expected, atol=1e-6)
    graphs = [random_directed(100, 300, seed=2)]
    np.testing.assert_allclose(
        return_probabilities(graphs, 9), AddRandomWalkPE(9)(graphs[0].clone()).random_walk_pe, atol=1e-6
    )


@pytest.mark.parametrize(("chunk", "entries"), [(1, 1), (40, 60), (10**6, 300)])
def test_result_does_not_depend_on_chunk_size(monkeypatch, chunk, entries):
    expected = return_probabilities(AWKWARD)
    monkeypatch.setattr(pieces, "CHUNK", chunk)
    monkeypatch.setattr(pieces, "ENTRIES", entries)
    np.testing.assert_allclose(return_probabilities(AWKWARD), expected, atol=1e-7)


def test_result_does_not_depend_on_other_graphs():
    for graph, actual in zip(AWKWARD, per_graph(AWKWARD, return_probabilities(AWKWARD)), strict=True):
        np.testing.assert_allclose(actual, return_probabilities([graph]), atol=1e-7)


def test_probabilities_are_permutation_equivariant():
    for graph in DIRECTED + AWKWARD:
        order = np.random.default_rng(0).permutation(graph.num_nodes)
        np.testing.assert_allclose(
            return_probabilities([relabelled(graph, order)])[order], return_probabilities([graph]), atol=1e-6
        )


def test_progress_covers_all_graphs(monkeypatch):
    monkeypatch.setattr(pieces, "CHUNK", 50)
    ranges = []

    def progress(parts):
        for part in parts:
            ranges.append(part)
            yield part

    RandomWalk(2).compute(pack(AWKWARD), progress)
    assert [low for low, _ in ranges[1:]] == [high for _, high in ranges[:-1]]
    assert (ranges[0][0], ranges[-1][1]) == (0, len(AWKWARD))


@pytest.mark.parametrize(("steps", "dim", "count"), [(20, 28, 628), (16, 16, 304)])
def test_parameter_counts_match_gps(steps, dim, count):
    module = RandomWalk(steps, dim).module(64, Schema())
    assert module.concat == dim
    assert sum(p.numel() for p in module.parameters()) == count


def test_module_normalises_then_maps():
    encoding = RandomWalk(steps=4, dim=6)
    batch = batch_of(AWKWARD, encoding)
    module = encoding.module(32, Schema())
    raw = batch.extras["random_walk"]
    # the first column is constant, as no graph has a self-loop: normalised with the default epsilon
    normal = (raw - raw.mean(0)) / (raw.var(0, unbiased=False) + 1e-5).sqrt()
    expected = normal @ module.linear.weight.T + module.linear.bias
    torch.testing.assert_close(module.nodes(batch), expected, atol=1e-4, rtol=1e-4)
    assert module.nodes(batch).shape == (batch.num_nodes, 6)


def test_unprepared_batch_and_invalid_options_are_reported():
    with pytest.raises(UserError, match="do not contain 'random_walk'"):
        RandomWalk().module(64, Schema()).nodes(GraphBatch.from_data_list(AWKWARD))
    for options in ({"steps": 0}, {"dim": 0}):
        with pytest.raises(UserError, match="1 or more"):
            RandomWalk(**options)
    assert RandomWalk(4).key() != RandomWalk(5).key()
    assert RandomWalk(4, dim=2).key() == RandomWalk(4, dim=3).key()

"""Return probabilities against PyG and powers of matrices, and the module against GPS's parameter counts."""

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
TANGLED = [random_directed(n, 3 * n, seed=n, simple=False) for n in (1, 3, 6, 20)]


def walk(graphs, steps=6):
    return RandomWalk(steps=steps).compute(pack(graphs))["random_walk"]


@pytest.mark.parametrize("steps", [1, 2, 7, 16])
@pytest.mark.parametrize("graphs", [AWKWARD, DIRECTED], ids=["undirected", "directed"])
def test_same_as_pyg(graphs, steps):
    expected = [AddRandomWalkPE(steps)(graph.clone()).random_walk_pe for graph in graphs]
    found = walk(graphs, steps)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, torch.cat(expected).numpy(), atol=1e-6)


@pytest.mark.parametrize("graphs", [AWKWARD, DIRECTED, TANGLED], ids=["undirected", "directed", "loops and repeats"])
def test_same_as_powers_of_the_walk_matrix(graphs):
    for graph, found in zip(graphs, per_graph(graphs, walk(graphs, 5)), strict=True):
        adjacency = np.zeros((graph.num_nodes, graph.num_nodes))
        for source, target in graph.edge_index.T.tolist():
            adjacency[source, target] += 1
        chance = adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1)
        expected = [np.diag(np.linalg.matrix_power(chance, k)) for k in range(1, 6)]
        np.testing.assert_allclose(found, np.stack(expected, 1), atol=1e-6)


def test_triangle_with_a_tail_by_hand():
    found = walk([graph_of(4, [(0, 1), (1, 2), (0, 2), (2, 3)])], 3)
    np.testing.assert_allclose(found[3], [0, 1 / 3, 0], atol=1e-7)
    np.testing.assert_allclose(found[0], [0, 1 / 2 * 1 / 2 + 1 / 2 * 1 / 3, 2 * 1 / 2 * 1 / 2 * 1 / 3], atol=1e-7)


def test_large_graphs_go_by_columns(monkeypatch):
    graphs = [random_graph(100, 150, seed=seed) for seed in (1, 2)]
    expected = walk(graphs, 9)
    monkeypatch.setattr(walks, "MAX_FULL", 50)
    monkeypatch.setattr(walks, "ENTRIES", 1)  # several rounds of columns, the last one shorter
    np.testing.assert_allclose(walk(graphs, 9), expected, atol=1e-6)
    graphs = [random_directed(100, 300, seed=2)]
    np.testing.assert_allclose(walk(graphs, 9), AddRandomWalkPE(9)(graphs[0].clone()).random_walk_pe, atol=1e-6)


@pytest.mark.parametrize(("slab", "entries"), [(1, 1), (40, 60), (10**6, 300)])
def test_the_way_it_is_cut_does_not_matter(monkeypatch, slab, entries):
    expected = walk(AWKWARD)
    monkeypatch.setattr(pieces, "CHUNK", slab)
    monkeypatch.setattr(pieces, "ENTRIES", entries)
    np.testing.assert_allclose(walk(AWKWARD), expected, atol=1e-7)


def test_a_graph_alone_and_among_others():
    for graph, found in zip(AWKWARD, per_graph(AWKWARD, walk(AWKWARD)), strict=True):
        np.testing.assert_allclose(found, walk([graph]), atol=1e-7)


def test_follows_a_renumbering():
    for graph in DIRECTED + AWKWARD:
        order = np.random.default_rng(0).permutation(graph.num_nodes)
        np.testing.assert_allclose(walk([relabelled(graph, order)])[order], walk([graph]), atol=1e-6)


def test_progress_sees_every_part(monkeypatch):
    monkeypatch.setattr(pieces, "CHUNK", 50)
    seen = []

    def progress(parts):
        for part in parts:
            seen.append(part)
            yield part

    RandomWalk(2).compute(pack(AWKWARD), progress)
    assert [low for low, _ in seen[1:]] == [high for _, high in seen[:-1]]
    assert (seen[0][0], seen[-1][1]) == (0, len(AWKWARD))


@pytest.mark.parametrize(("steps", "dim", "count"), [(20, 28, 628), (16, 16, 304)])
def test_parameter_counts_of_gps(steps, dim, count):
    module = RandomWalk(steps, dim).module(64, Schema())
    assert module.concat == dim
    assert sum(p.numel() for p in module.parameters()) == count


def test_module_normalises_then_maps():
    encoding = RandomWalk(steps=4, dim=6)
    batch = batch_of(AWKWARD, encoding)
    module = encoding.module(32, Schema())
    raw = batch.extras["random_walk"]
    # the first column is constant, as no graph has a loop: normalised with the default epsilon
    normal = (raw - raw.mean(0)) / (raw.var(0, unbiased=False) + 1e-5).sqrt()
    expected = normal @ module.linear.weight.T + module.linear.bias
    torch.testing.assert_close(module.nodes(batch), expected, atol=1e-4, rtol=1e-4)
    assert module.nodes(batch).shape == (batch.num_nodes, 6)


def test_unprepared_batch_and_bad_options_are_reported():
    with pytest.raises(UserError, match="do not contain 'random_walk'"):
        RandomWalk().module(64, Schema()).nodes(GraphBatch.from_data_list(AWKWARD))
    for options in ({"steps": 0}, {"dim": 0}):
        with pytest.raises(UserError, match="1 or more"):
            RandomWalk(**options)
    assert RandomWalk(4).key() != RandomWalk(5).key()
    assert RandomWalk(4, dim=2).key() == RandomWalk(4, dim=3).key()

"""Eigenvectors against dense decompositions graph by graph, and the module against a loop."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch_geometric.utils import get_laplacian, to_networkx, to_scipy_sparse_matrix

from gt.encodings import Laplacian, pieces, spectrum
from gt.errors import UserError
from gt.schema import Schema
from tests.encodings.samples import (
    AWKWARD,
    CONNECTED,
    batch_of,
    graph_of,
    pack,
    per_graph,
    random_directed,
    random_graph,
    relabelled,
)


def modes(graphs, **options):
    """Eigenvalues (k,) and eigenvectors (n, k) of each graph, without the filling."""
    arrays = Laplacian(**options).compute(pack(graphs))
    vectors, values = (per_graph(graphs, arrays[name]) for name in Laplacian.arrays)
    for graph_vectors, graph_values in zip(vectors, values, strict=True):
        assert graph_vectors.dtype == graph_values.dtype == np.float32
        assert (np.isnan(graph_vectors) == np.isnan(graph_values)).all()
        assert np.array_equal(graph_values, np.broadcast_to(graph_values[0], graph_values.shape), equal_nan=True)
        there = ~np.isnan(graph_values[0])
        yield graph_values[0, there], graph_vectors[:, there]


def matrix(graph, normalised):
    """The Laplacian as PyG has it, except that an isolated node's row is zero (PyG has 1 on its diagonal)."""
    kind = "sym" if normalised else None
    dense = to_scipy_sparse_matrix(*get_laplacian(graph.edge_index, normalization=kind, num_nodes=graph.num_nodes))
    dense = dense.toarray().astype(np.float64)
    alone = np.bincount(graph.edge_index[0], minlength=graph.num_nodes) == 0
    dense[alone, alone] = 0
    return dense


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("k", [1, 4, 12])
def test_they_are_the_smallest_eigenpairs(k, normalised):
    for graph, (values, vectors) in zip(AWKWARD, modes(AWKWARD, k=k, normalised=normalised), strict=True):
        laplacian = matrix(graph, normalised)
        np.testing.assert_allclose(values, np.linalg.eigvalsh(laplacian)[:k], atol=1e-5)
        np.testing.assert_allclose(laplacian @ vectors, vectors * values, atol=1e-5)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_without_zero_modes(normalised):
    for graph, (values, vectors) in zip(AWKWARD, modes(AWKWARD, k=4, zero=False, normalised=normalised), strict=True):
        laplacian = matrix(graph, normalised)
        expected = [value for value in np.linalg.eigvalsh(laplacian) if value > 1e-6][:4]
        np.testing.assert_allclose(values, expected, atol=1e-5)
        np.testing.assert_allclose(laplacian @ vectors, vectors * values, atol=1e-5)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-5)


def test_every_part_has_its_zero_mode_the_largest_first():
    graph = graph_of(7, [(0, 3), (3, 5), (1, 2)])  # parts 0-3-5, 1-2, 4, 6
    ((values, vectors),) = modes([graph], k=7)
    assert (values[:4] == 0).all()
    assert (values[4:] > 0).all()
    parts = [set(np.flatnonzero(vector)) for vector in vectors.T[:4]]
    assert parts == [{0, 3, 5}, {1, 2}, {4}, {6}]
    np.testing.assert_allclose(vectors[[0, 3, 5], 0], np.sqrt([1 / 4, 2 / 4, 1 / 4]), atol=1e-6)


def test_small_graphs_are_filled_up():
    arrays = Laplacian(k=3).compute(pack([graph_of(1, []), graph_of(2, [(0, 1)]), graph_of(3, [])]))
    nan, half = np.nan, 0.5**0.5
    expected = [[1, nan, nan], [half, half, nan], [half, -half, nan], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(arrays["laplacian_vectors"], expected, atol=1e-6)
    values = [[0, nan, nan], [0, 2, nan], [0, 2, nan], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(arrays["laplacian_values"], values, atol=1e-6)


def test_directions_repeats_and_loops_are_dropped():
    tangled = random_directed(12, 40, seed=3, simple=False)
    pairs = {tuple(sorted(pair)) for pair in tangled.edge_index.T.tolist() if pair[0] != pair[1]}
    (first,), (second,) = modes([tangled], k=5), modes([graph_of(12, sorted(pairs))], k=5)
    np.testing.assert_allclose(first[0], second[0], atol=1e-6)
    np.testing.assert_allclose(first[1], second[1], atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_every_way_to_compute_them_agrees(monkeypatch, normalised):
    graphs = [random_graph(40, 50, seed=i) for i in range(2)] + [graph_of(60, [(i, i + 1) for i in range(59)])]

    def found():
        return list(modes(graphs, k=5, normalised=normalised))

    ways = [found()]
    monkeypatch.setattr(spectrum, "MAX_BATCHED", 0)
    ways.append(found())
    monkeypatch.setattr(spectrum, "MAX_DENSE", 0)
    ways.append(found())
    monkeypatch.setattr(spectrum, "FEW_CYCLES", -1)
    ways.append(found())
    tries = []

    def stubborn(*args, **options):
        tries.append(options)
        if "maxiter" in options:
            raise ArpackNoConvergence("no convergence", np.empty(0), np.empty(0))
        return eigsh(*args, **options)

    monkeypatch.setattr(spectrum, "eigsh", stubborn)
    ways.append(found())
    refused = ["maxiter" in options for options in tries]
    assert refused.count(True) == len(graphs)
    assert refused.count(False) >= len(graphs)
    for way in ways[1:]:
        for (values, vectors), (same_values, same_vectors) in zip(ways[0], way, strict=True):
            np.testing.assert_allclose(values, same_values, atol=1e-6)
            np.testing.assert_allclose(vectors, same_vectors, atol=1e-5)


def spider(legs, length):
    """A hub with as many paths; most of its eigenvalues are repeated, once less than it has legs."""
    ends = [[0, *range(1 + leg * length, 1 + (leg + 1) * length)] for leg in range(legs)]
    return graph_of(1 + legs * length, [pair for nodes in ends for pair in pairwise(nodes)])


@pytest.mark.parametrize("few", [-1, spectrum.FEW_CYCLES])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("legs", "length"), [(12, 100), (40, 30), (20, 60)])
def test_repeated_eigenvalues_of_a_large_graph_are_all_there(monkeypatch, legs, length, normalised, few):
    monkeypatch.setattr(spectrum, "FEW_CYCLES", few)
    graph = spider(legs, length)
    order = np.random.default_rng(0).permutation(graph.num_nodes)
    expected = np.linalg.eigvalsh(matrix(graph, normalised))[:8]
    for same in (graph, relabelled(graph, order)):
        ((values, vectors),) = modes([same], k=8, normalised=normalised, zero=True)
        np.testing.assert_allclose(values, expected, atol=1e-6, rtol=1e-4)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_a_hub_with_a_long_path_takes_few_steps(monkeypatch, normalised):
    products = []
    operator = spectrum.LinearOperator

    def counted(shape, apply, **options):
        return operator(shape, lambda x: products.append(1) or apply(x), **options)

    monkeypatch.setattr(spectrum, "LinearOperator", counted)
    leaves, length = 600, 600
    path = range(leaves, leaves + length)
    graph = graph_of(leaves + length, [(0, leaf) for leaf in range(1, leaves)] + list(pairwise([0, *path])))
    ((values, vectors),) = modes([graph], k=8, normalised=normalised)
    assert len(products) < 1000
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix(graph, normalised))[:8], atol=1e-7)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-5)


def test_more_modes_than_nodes_of_a_large_graph(monkeypatch):
    monkeypatch.setattr(spectrum, "MAX_BATCHED", 0)
    monkeypatch.setattr(spectrum, "MAX_DENSE", 0)
    graph = random_graph(9, 9, seed=0)
    ((values, _),) = modes([graph], k=30)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix(graph, True)), atol=1e-5)


@pytest.mark.parametrize(("slab", "entries"), [(1, 1), (60, 200)])
def test_the_way_it_is_cut_does_not_matter(monkeypatch, slab, entries):
    expected = Laplacian(k=5).compute(pack(AWKWARD))
    monkeypatch.setattr(pieces, "CHUNK", slab)
    monkeypatch.setattr(pieces, "ENTRIES", entries)
    found = Laplacian(k=5).compute(pack(AWKWARD))
    for name in Laplacian.arrays:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_follows_a_renumbering_up_to_sign():
    for graph in CONNECTED[1:]:
        ((values, vectors),) = modes([graph], k=4)
        assert (np.diff(values) > 1e-3).all(), "an eigenvector of a repeated eigenvalue would be no test"
        order = np.random.default_rng(0).permutation(graph.num_nodes)
        ((same_values, same_vectors),) = modes([relabelled(graph, order)], k=4)
        np.testing.assert_allclose(same_values, values, atol=1e-5)
        signs = np.sign((same_vectors[order] * vectors).sum(0))
        np.testing.assert_allclose(same_vectors[order] * signs, vectors, atol=1e-4)


def test_stored_signs_are_fixed():
    for _, vectors in modes(AWKWARD, k=6):
        top = np.abs(vectors).max(0)
        for column, largest in zip(vectors.T, top, strict=True):
            assert column[np.flatnonzero(np.abs(column) > largest * (1 - 1e-5))[0]] > 0


def test_connected_graphs_have_one_zero_mode_with_the_roots_of_the_degrees():
    for graph, (values, vectors) in zip(CONNECTED, modes(CONNECTED, k=2), strict=True):
        degree = np.array([d for _, d in sorted(to_networkx(graph, to_undirected=True).degree)])
        np.testing.assert_allclose(vectors[:, 0], np.sqrt(degree / degree.sum()), atol=1e-6)
        assert values[0] == 0
        assert values[1] > 0


def module_and_batch(dim=5, k=6):
    torch.manual_seed(0)
    encoding = Laplacian(k=k, dim=dim)
    return encoding.module(32, Schema()), batch_of(AWKWARD, encoding)


def test_module_against_a_loop():
    module, batch = module_and_batch()
    out = module.eval().nodes(batch)
    first, _, second, _ = module.mlp
    for node in range(batch.num_nodes):
        total = torch.zeros(5)
        for mode in range(6):
            pair = torch.stack([batch.extras[name][node, mode] for name in Laplacian.arrays])
            if not pair.isnan().any():
                total += (second.weight @ (first.weight @ pair + first.bias).relu() + second.bias).relu()
        torch.testing.assert_close(out[node], total)


def test_signs_flip_in_training_by_graph_mode_and_step():
    module, batch = module_and_batch()
    seen = []
    module.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    module.eval().nodes(batch)
    plain = seen.pop()
    state = torch.get_rng_state()
    module.nodes(batch)
    assert torch.equal(seen.pop(), plain)
    assert torch.equal(torch.get_rng_state(), state)

    module.train()
    signs = []
    for _ in range(8):
        module.nodes(batch)
        assert torch.equal(seen[-1][..., 1], plain[..., 1])  # eigenvalues have no sign to flip
        assert torch.equal(seen[-1][..., 0].abs(), plain[..., 0].abs())
        ratio = (seen.pop()[..., 0] * plain[..., 0]).sign()  # (N, k), 0 where an entry is 0 or filled
        by_graph = ratio.split(batch.sizes.tolist())
        assert all((rows.amax(0) * rows.amin(0) >= 0).all() for rows in by_graph), "nodes of one graph differ"
        signs.append(torch.stack([rows.sum(0) for rows in by_graph]))
    signs = torch.stack(signs).sign()  # (steps, B, k)
    there = (signs != 0).all(0)
    assert there.sum() > 60
    for way in range(3):  # steps, graphs and modes each show both signs
        spread = signs.movedim(way, 0).flatten(1)
        assert set(spread.unique().tolist()) >= {-1, 1}
    flips = signs[:, there]
    assert 0.35 < (flips == 1).float().mean() < 0.65
    for one, other in ((flips[0], flips[1]), (signs[:, 9, 1], signs[:, 10, 1]), (signs[:, 9, 1], signs[:, 9, 2])):
        assert not torch.equal(one, other)
        assert not torch.equal(one, -other)


def test_seeding_repeats_the_signs():
    module, batch = module_and_batch()

    def draw(seed):
        torch.manual_seed(seed)
        return module.train().nodes(batch)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_filling_reaches_neither_output_nor_gradient():
    module, batch = module_and_batch(k=40)
    out = module.train().nodes(batch)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    assert module.mlp[0].weight.grad.abs().sum() > 0


def test_parameter_count_of_gps():
    module = Laplacian(k=10, dim=16).module(96, Schema())
    assert module.concat == 16
    assert sum(p.numel() for p in module.parameters()) == 624


def test_options():
    assert Laplacian(dim=8).key() == Laplacian(dim=9).key()
    keys = [Laplacian(**o).key() for o in ({}, {"k": 3}, {"zero": False}, {"normalised": False})]
    assert all(keys[i] != keys[j] for i in range(4) for j in range(i))
    for options in ({"k": 0}, {"dim": 0}):
        with pytest.raises(UserError, match="1 or more"):
            Laplacian(**options)

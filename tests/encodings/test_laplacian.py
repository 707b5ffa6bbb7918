"""Laplacian eigenpairs against dense decompositions graph by graph, and the module against a loop."""

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


def eigenpairs(graphs, **options):
    """Eigenvalues (k,) and eigenvectors (n, k) of each graph, without the padding."""
    arrays = Laplacian(**options).compute(pack(graphs))
    vectors, values = (per_graph(graphs, arrays[name]) for name in Laplacian.arrays)
    for graph_vectors, graph_values in zip(vectors, values, strict=True):
        assert graph_vectors.dtype == graph_values.dtype == np.float32
        assert (np.isnan(graph_vectors) == np.isnan(graph_values)).all()
        assert np.array_equal(graph_values, np.broadcast_to(graph_values[0], graph_values.shape), equal_nan=True)
        present = ~np.isnan(graph_values[0])
        yield graph_values[0, present], graph_vectors[:, present]


def dense_laplacian(graph, normalised):
    """PyG's Laplacian, except that the row of an isolated node is zero (PyG has 1 on the diagonal)."""
    kind = "sym" if normalised else None
    laplacian = to_scipy_sparse_matrix(*get_laplacian(graph.edge_index, normalization=kind, num_nodes=graph.num_nodes))
    laplacian = laplacian.toarray().astype(np.float64)
    isolated = np.bincount(graph.edge_index[0], minlength=graph.num_nodes) == 0
    laplacian[isolated, isolated] = 0
    return laplacian


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("k", [1, 4, 12])
def test_smallest_eigenpairs(k, normalised):
    for graph, (values, vectors) in zip(AWKWARD, eigenpairs(AWKWARD, k=k, normalised=normalised), strict=True):
        laplacian = dense_laplacian(graph, normalised)
        np.testing.assert_allclose(values, np.linalg.eigvalsh(laplacian)[:k], atol=1e-5)
        np.testing.assert_allclose(laplacian @ vectors, vectors * values, atol=1e-5)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_smallest_nonzero_eigenpairs(normalised):
    for graph, (values, vectors) in zip(
        AWKWARD, eigenpairs(AWKWARD, k=4, zero=False, normalised=normalised), strict=True
    ):
        laplacian = dense_laplacian(graph, normalised)
        expected = [value for value in np.linalg.eigvalsh(laplacian) if value > 1e-6][:4]
        np.testing.assert_allclose(values, expected, atol=1e-5)
        np.testing.assert_allclose(laplacian @ vectors, vectors * values, atol=1e-5)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-5)


def test_zero_modes_by_component_size():
    graph = graph_of(7, [(0, 3), (3, 5), (1, 2)])  # components 0-3-5, 1-2, 4, 6
    ((values, vectors),) = eigenpairs([graph], k=7)
    assert (values[:4] == 0).all()
    assert (values[4:] > 0).all()
    parts = [set(np.flatnonzero(vector)) for vector in vectors.T[:4]]
    assert parts == [{0, 3, 5}, {1, 2}, {4}, {6}]
    np.testing.assert_allclose(vectors[[0, 3, 5], 0], np.sqrt([1 / 4, 2 / 4, 1 / 4]), atol=1e-6)


def test_small_graphs_are_padded_with_nan():
    arrays = Laplacian(k=3).compute(pack([graph_of(1, []), graph_of(2, [(0, 1)]), graph_of(3, [])]))
    nan, half = np.nan, 0.5**0.5
    expected = [[1, nan, nan], [half, half, nan], [half, -half, nan], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(arrays["laplacian_vectors"], expected, atol=1e-6)
    values = [[0, nan, nan], [0, 2, nan], [0, 2, nan], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(arrays["laplacian_values"], values, atol=1e-6)


def test_directions_duplicates_and_self_loops_are_ignored():
    multigraph = random_directed(12, 40, seed=3, simple=False)
    pairs = {tuple(sorted(pair)) for pair in multigraph.edge_index.T.tolist() if pair[0] != pair[1]}
    (first,), (second,) = eigenpairs([multigraph], k=5), eigenpairs([graph_of(12, sorted(pairs))], k=5)
    np.testing.assert_allclose(first[0], second[0], atol=1e-6)
    np.testing.assert_allclose(first[1], second[1], atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_all_solvers_agree(monkeypatch, normalised):
    graphs = [random_graph(40, 50, seed=i) for i in range(2)] + [graph_of(60, [(i, i + 1) for i in range(59)])]

    def solve():
        return list(eigenpairs(graphs, k=5, normalised=normalised))

    results = [solve()]
    monkeypatch.setattr(spectrum, "MAX_BATCHED", 0)
    results.append(solve())
    monkeypatch.setattr(spectrum, "MAX_DENSE", 0)
    results.append(solve())
    monkeypatch.setattr(spectrum, "FEW_CYCLES", -1)
    results.append(solve())
    calls = []

    def failing_eigsh(*args, **options):
        calls.append(options)
        if "maxiter" in options:
            raise ArpackNoConvergence("no convergence", np.empty(0), np.empty(0))
        return eigsh(*args, **options)

    monkeypatch.setattr(spectrum, "eigsh", failing_eigsh)
    results.append(solve())
    failed = ["maxiter" in options for options in calls]
    assert failed.count(True) == len(graphs)
    assert failed.count(False) >= len(graphs)
    for result in results[1:]:
        for (values, vectors), (other_values, other_vectors) in zip(results[0], result, strict=True):
            np.testing.assert_allclose(values, other_values, atol=1e-6)
            np.testing.assert_allclose(vectors, other_vectors, atol=1e-5)


def spider_graph(legs, length):
    """A hub with ``legs`` paths of ``length`` nodes; most eigenvalues have multiplicity ``legs - 1``."""
    paths = [[0, *range(1 + leg * length, 1 + (leg + 1) * length)] for leg in range(legs)]
    return graph_of(1 + legs * length, [pair for nodes in paths for pair in pairwise(nodes)])


@pytest.mark.parametrize("few_cycles", [-1, spectrum.FEW_CYCLES])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("legs", "length"), [(12, 100), (40, 30), (20, 60)])
def test_repeated_eigenvalues_of_large_graph_are_complete(monkeypatch, legs, length, normalised, few_cycles):
    monkeypatch.setattr(spectrum, "FEW_CYCLES", few_cycles)
    graph = spider_graph(legs, length)
    order = np.random.default_rng(0).permutation(graph.num_nodes)
    expected = np.linalg.eigvalsh(dense_laplacian(graph, normalised))[:8]
    for variant in (graph, relabelled(graph, order)):
        ((values, vectors),) = eigenpairs([variant], k=8, normalised=normalised, zero=True)
        np.testing.assert_allclose(values, expected, atol=1e-6, rtol=1e-4)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_solver_converges_on_hub_with_long_path(monkeypatch, normalised):
    products = []
    operator = spectrum.LinearOperator

    def counting_operator(shape, apply, **options):
        return operator(shape, lambda x: products.append(1) or apply(x), **options)

    monkeypatch.setattr(spectrum, "LinearOperator", counting_operator)
    leaves, length = 600, 600
    path = range(leaves, leaves + length)
    graph = graph_of(leaves + length, [(0, leaf) for leaf in range(1, leaves)] + list(pairwise([0, *path])))
    ((values, vectors),) = eigenpairs([graph], k=8, normalised=normalised)
    assert len(products) < 1000
    np.testing.assert_allclose(values, np.linalg.eigvalsh(dense_laplacian(graph, normalised))[:8], atol=1e-7)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-5)


def test_k_exceeds_nodes_of_large_graph(monkeypatch):
    monkeypatch.setattr(spectrum, "MAX_BATCHED", 0)
    monkeypatch.setattr(spectrum, "MAX_DENSE", 0)
    graph = random_graph(9, 9, seed=0)
    ((values, _),) = eigenpairs([graph], k=30)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(dense_laplacian(graph, True)), atol=1e-5)


@pytest.mark.parametrize(("chunk", "entries"), [(1, 1), (60, 200)])
def test_result_does_not_depend_on_chunk_size(monkeypatch, chunk, entries):
    expected = Laplacian(k=5).compute(pack(AWKWARD))
    monkeypatch.setattr(pieces, "CHUNK", chunk)
    monkeypatch.setattr(pieces, "ENTRIES", entries)
    actual = Laplacian(k=5).compute(pack(AWKWARD))
    for name in Laplacian.arrays:
        np.testing.assert_allclose(actual[name], expected[name], atol=1e-5)


def test_eigenvectors_are_equivariant_up_to_sign():
    for graph in CONNECTED[1:]:
        ((values, vectors),) = eigenpairs([graph], k=4)
        assert (np.diff(values) > 1e-3).all(), "eigenvectors of a repeated eigenvalue are not comparable"
        order = np.random.default_rng(0).permutation(graph.num_nodes)
        ((other_values, other_vectors),) = eigenpairs([relabelled(graph, order)], k=4)
        np.testing.assert_allclose(other_values, values, atol=1e-5)
        signs = np.sign((other_vectors[order] * vectors).sum(0))
        np.testing.assert_allclose(other_vectors[order] * signs, vectors, atol=1e-4)


def test_stored_signs_are_deterministic():
    for _, vectors in eigenpairs(AWKWARD, k=6):
        maxima = np.abs(vectors).max(0)
        for column, largest in zip(vectors.T, maxima, strict=True):
            assert column[np.flatnonzero(np.abs(column) > largest * (1 - 1e-5))[0]] > 0


def test_zero_mode_of_connected_graph_is_root_degree():
    for graph, (values, vectors) in zip(CONNECTED, eigenpairs(CONNECTED, k=2), strict=True):
        degree = np.array([d for _, d in sorted(to_networkx(graph, to_undirected=True).degree)])
        np.testing.assert_allclose(vectors[:, 0], np.sqrt(degree / degree.sum()), atol=1e-6)
        assert values[0] == 0
        assert values[1] > 0


def module_and_batch(dim=5, k=6):
    torch.manual_seed(0)
    encoding = Laplacian(k=k, dim=dim)
    return encoding.module(32, Schema()), batch_of(AWKWARD, encoding)


def test_module_matches_loop():
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


def test_signs_flip_by_step_graph_and_mode():
    module, batch = module_and_batch()
    inputs = []
    module.mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    module.eval().nodes(batch)
    plain = inputs.pop()
    state = torch.get_rng_state()
    module.nodes(batch)
    assert torch.equal(inputs.pop(), plain)
    assert torch.equal(torch.get_rng_state(), state)

    module.train()
    signs = []
    for _ in range(8):
        module.nodes(batch)
        assert torch.equal(inputs[-1][..., 1], plain[..., 1])  # eigenvalues are unchanged
        assert torch.equal(inputs[-1][..., 0].abs(), plain[..., 0].abs())
        ratio = (inputs.pop()[..., 0] * plain[..., 0]).sign()  # (N, k), 0 where an entry is 0 or padding
        by_graph = ratio.split(batch.sizes.tolist())
        assert all((rows.amax(0) * rows.amin(0) >= 0).all() for rows in by_graph), "nodes of one graph differ"
        signs.append(torch.stack([rows.sum(0) for rows in by_graph]))
    signs = torch.stack(signs).sign()  # (steps, B, k)
    present = (signs != 0).all(0)
    assert present.sum() > 60
    for axis in range(3):  # both signs occur in every step, graph and mode
        slices = signs.movedim(axis, 0).flatten(1)
        assert set(slices.unique().tolist()) >= {-1, 1}
    flips = signs[:, present]
    assert 0.35 < (flips == 1).float().mean() < 0.65
    for one, other in ((flips[0], flips[1]), (signs[:, 9, 1], signs[:, 10, 1]), (signs[:, 9, 1], signs[:, 9, 2])):
        assert not torch.equal(one, other)
        assert not torch.equal(one, -other)


def test_sign_flips_are_reproducible():
    module, batch = module_and_batch()

    def forward(seed):
        torch.manual_seed(seed)
        return module.train().nodes(batch)

    assert torch.equal(forward(1), forward(1))
    assert not torch.equal(forward(1), forward(2))


def test_padding_does_not_reach_output_or_gradient():
    module, batch = module_and_batch(k=40)
    out = module.train().nodes(batch)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    assert module.mlp[0].weight.grad.abs().sum() > 0


def test_parameter_count_matches_gps():
    module = Laplacian(k=10, dim=16).module(96, Schema())
    assert module.concat == 16
    assert sum(p.numel() for p in module.parameters()) == 624


def test_keys_and_invalid_options():
    assert Laplacian(dim=8).key() == Laplacian(dim=9).key()
    keys = [Laplacian(**o).key() for o in ({}, {"k": 3}, {"zero": False}, {"normalised": False})]
    assert all(keys[i] != keys[j] for i in range(4) for j in range(i))
    for options in ({"k": 0}, {"dim": 0}):
        with pytest.raises(UserError, match="1 or more"):
            Laplacian(**options)

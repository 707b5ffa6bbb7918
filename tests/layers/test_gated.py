"""The gated means of GatedGCN, by the C kernel and by PyTorch, against a loop over edges in float64."""

import pytest
import torch

from gt.graph import GraphBatch
from gt.layers import gated
from gt.layers.gated import EPSILON, gated_means
from gt.native.library import obstacle
from tests.graphs import SIZES, random_batch


def reference(node, edge_term, batch):
    """Reference implementation: one edge and node at a time."""
    width = edge_term.shape[1]
    self_term, key, value, query = node.split(width, dim=1)
    edges, rows = [], []
    for index, (source, target) in enumerate(batch.edge_index.T.tolist()):
        edges.append(key[target] + query[source] + edge_term[index])
    for i in range(batch.num_nodes):
        incoming = [(edges[n], s) for n, (s, t) in enumerate(batch.edge_index.T.tolist()) if t == i]
        gates = [edge.sigmoid() for edge, _ in incoming]
        total = sum(gates, torch.zeros(width, dtype=node.dtype)) + EPSILON
        rows.append(
            self_term[i] + sum((g * value[s] for g, (_, s) in zip(gates, incoming, strict=True)), 0 * total) / total
        )
    return torch.stack(edges) if edges else edge_term, torch.stack(rows)


@pytest.fixture(params=["kernel", "PyTorch"])
def implementation(request, monkeypatch):
    """Run each test with both implementations; without a compiler only with PyTorch."""
    if request.param == "PyTorch":
        monkeypatch.setattr(gated, "obstacle", lambda: "no kernels in this test")
    elif reason := obstacle():
        pytest.skip(reason)
    return request.param


def values_and_gradients(function, tensors, batch, seed=0):
    """The two outputs, and the gradients of one random sum of them."""
    edge, out = function(*tensors, batch)
    torch.manual_seed(seed)
    weights = [torch.randn(t.shape, dtype=torch.float64).to(t.dtype) for t in (edge, out)]
    total = (edge * weights[0]).sum() + (out * weights[1]).sum()
    return edge, out, *torch.autograd.grad(total, tensors)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("width", [1, 5, 16, 24, 40])
def test_values_and_gradients_match_a_loop(implementation, sizes, width):
    batch = random_batch(sizes, seed=width)
    torch.manual_seed(width)
    tensors = [
        torch.randn(rows, w, requires_grad=True) for rows, w in ((batch.num_nodes, 4 * width), (batch.num_edges, width))
    ]
    exact = [t.detach().double().requires_grad_() for t in tensors]
    for actual, expected in zip(
        values_and_gradients(gated_means, tensors, batch), values_and_gradients(reference, exact, batch), strict=True
    ):
        torch.testing.assert_close(actual, expected.float(), rtol=1e-5, atol=1e-5)


def test_saturated_gates(implementation):
    batch = random_batch((6, 3), density=0.9)
    node, edge_term = torch.randn(9, 4 * 8), torch.randn(batch.num_edges, 8)
    for size in (50.0, 200.0, 1e6):
        tensors = [(size * node).requires_grad_(), (size * edge_term).requires_grad_()]
        exact = [t.detach().double().requires_grad_() for t in tensors]
        for actual, expected in zip(
            values_and_gradients(gated_means, tensors, batch),
            values_and_gradients(reference, exact, batch),
            strict=True,
        ):
            torch.testing.assert_close(actual, expected.float(), rtol=1e-4, atol=1e-4 * size)


def test_nan_propagates(implementation):
    batch = GraphBatch(torch.tensor([0, 3]), torch.tensor([[1, 2, 0], [0, 0, 1]]), 3)
    node, edge_term = torch.zeros(3, 4 * 3), torch.zeros(3, 3)
    edge_term[1, 2] = torch.nan
    edge, out = gated_means(node, edge_term, batch)
    assert edge.isnan().nonzero().tolist() == [[1, 2]]
    assert out.isnan().nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize("edges", [[[1, 2, 10**8], [0, 1, 2]], [[1, 2, 1], [0, 1, 5]], [[1, -(10**8), 1], [0, 1, 2]]])
def test_edges_to_missing_nodes_are_rejected(implementation, edges):
    batch = GraphBatch(torch.tensor([0, 3]), torch.tensor(edges), 3)
    with pytest.raises((IndexError, RuntimeError), match=r"out of range|out of bounds"):
        gated_means(torch.randn(3, 4 * 4), torch.randn(3, 4), batch)


@pytest.mark.parametrize(("nodes", "edges"), [(3, 2), (2, 3), (4, 3), (3, 4)])
def test_wrong_number_of_rows_is_rejected(implementation, nodes, edges):
    batch = GraphBatch(torch.tensor([0, 3]), torch.tensor([[1, 2, 0], [0, 1, 2]]), 3)
    with pytest.raises((IndexError, RuntimeError)):
        gated_means(torch.randn(nodes, 4 * 4), torch.randn(edges, 4), batch)


def test_second_derivatives_are_rejected_for_constant_gradients(implementation):
    batch = random_batch((7, 5))
    node, edge_term = torch.randn(12, 4 * 6, requires_grad=True), torch.randn(batch.num_edges, 6)
    # the incoming gradient of a sum is a constant
    with pytest.raises(RuntimeError, match=r"gt.layers.gated has no second derivatives"):
        torch.autograd.grad(gated_means(node, edge_term, batch)[1].sum(), node, create_graph=True)


def test_output_may_be_modified_in_place(implementation):
    batch = random_batch((7, 5))
    tensors = [torch.randn(12, 4 * 6, requires_grad=True), torch.randn(batch.num_edges, 6, requires_grad=True)]
    actual = torch.autograd.grad(gated_means(*tensors, batch)[1].relu_().sum(), tensors)
    for a, b in zip(actual, torch.autograd.grad(gated_means(*tensors, batch)[1].relu().sum(), tensors), strict=True):
        assert torch.equal(a, b)


def test_thread_count_does_not_change_results(implementation):
    batch, threads, outputs = random_batch((30, 1, 12)), torch.get_num_threads(), []
    tensors = [torch.randn(43, 4 * 20, requires_grad=True), torch.randn(batch.num_edges, 20, requires_grad=True)]
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            outputs.append(values_and_gradients(gated_means, tensors, batch))
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_strided_inputs(implementation):
    batch = random_batch((7, 5))
    node, edge_term = torch.randn(4 * 6, 12).T, torch.randn(6, batch.num_edges).T
    expected = gated_means(node.contiguous(), edge_term.contiguous(), batch)
    for a, b in zip(gated_means(node, edge_term, batch), expected, strict=True):
        torch.testing.assert_close(a, b)

"""Neighbourhood sums and their gradients, against scatter-adds."""

import pytest
import torch

from gt.graph import GraphBatch
from gt.sums import add_up, gather, segment_sum, sources, sum_of_sources, targets
from tests.graphs import random_batch

SIZES = [(1,), (1, 1), (7,), (1, 9, 4, 1, 6, 2)]


def batches():
    for sizes in SIZES:
        for directed in (True, False):
            for density in (0.0, 0.4):
                yield random_batch(sizes, directed=directed, density=density)


def scatter(messages, batch):
    return messages.new_zeros(batch.num_nodes, messages.shape[1]).index_add(0, batch.edge_index[1], messages)


@pytest.mark.parametrize("batch", batches(), ids=lambda b: f"{b.num_graphs} graphs, {b.num_edges} edges")
def test_sums_and_gradients_match_scatter_add(batch):
    torch.manual_seed(0)
    source, target = batch.edge_index
    x = torch.randn(batch.num_nodes, 5, dtype=torch.double, requires_grad=True)
    outputs = (sum_of_sources(x, batch), gather(x, sources(batch)), gather(x, targets(batch)))
    references = (scatter(x[source], batch), x[source], x[target])
    weights = [torch.randn_like(out) for out in outputs]
    for out, expected, weight in zip(outputs, references, weights, strict=True):
        torch.testing.assert_close(out, expected)
        grads = [torch.autograd.grad((o.sin() * weight).sum(), x, retain_graph=True)[0] for o in (out, expected)]
        torch.testing.assert_close(*grads)
    messages = torch.randn(batch.num_edges, 5, dtype=torch.double, requires_grad=True)
    out = add_up(messages, targets(batch))
    torch.testing.assert_close(out, scatter(messages, batch))
    torch.testing.assert_close(
        *(torch.autograd.grad((o**2).sum(), messages)[0] for o in (out, scatter(messages, batch)))
    )
    assert torch.autograd.gradgradcheck(lambda rows: sum_of_sources(rows, batch).sin(), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_accurate_in_each_dtype(dtype):
    batch = random_batch((30, 1, 12), density=0.5)
    x = torch.randn(batch.num_nodes, 8).to(dtype)
    exact = scatter(x.double()[batch.edge_index[0]], batch)
    out = sum_of_sources(x, batch)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)


def test_strided_and_weighted_segment_sums():
    rows = torch.randn(4, 6).T[:, 1:3]
    index, ptr = torch.tensor([5, 0, 0]), torch.tensor([0, 0, 2, 3])
    expected = torch.stack([torch.zeros(2), rows[5] + rows[0], rows[0]])
    torch.testing.assert_close(segment_sum(rows, index, ptr), expected)
    weighted = torch.stack([torch.zeros(2), 2 * rows[5] - rows[0], 3 * rows[0]])
    torch.testing.assert_close(segment_sum(rows, index, ptr, torch.tensor([2.0, -1.0, 3.0])), weighted)


def test_cached_edge_ends_move_with_the_batch():
    batch = random_batch((5, 3), density=0.6)
    for end in (sources(batch), targets(batch)):
        _ = end.order, end.ptr, end.others
    moved = batch.to("meta")
    assert isinstance(moved, GraphBatch)
    for end in (sources(moved), targets(moved)):
        assert {value.device.type for value in vars(end).values() if isinstance(value, torch.Tensor)} == {"meta"}
        assert {"order", "ptr", "others"} <= vars(end).keys()

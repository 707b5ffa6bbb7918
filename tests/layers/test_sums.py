"""Sums over edges by runs of an index are those that a scatter gives, and so are their gradients."""

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
def test_sums_and_their_gradients_are_those_of_a_scatter(batch):
    torch.manual_seed(0)
    source, target = batch.edge_index
    x = torch.randn(batch.num_nodes, 5, dtype=torch.double, requires_grad=True)
    ours = (sum_of_sources(x, batch), gather(x, sources(batch)), gather(x, targets(batch)))
    theirs = (scatter(x[source], batch), x[source], x[target])
    weights = [torch.randn_like(out) for out in ours]
    for mine, other, weight in zip(ours, theirs, weights, strict=True):
        torch.testing.assert_close(mine, other)
        grads = [torch.autograd.grad((out.sin() * weight).sum(), x, retain_graph=True)[0] for out in (mine, other)]
        torch.testing.assert_close(*grads)
    messages = torch.randn(batch.num_edges, 5, dtype=torch.double, requires_grad=True)
    out = add_up(messages, targets(batch))
    torch.testing.assert_close(out, scatter(messages, batch))
    torch.testing.assert_close(
        *(torch.autograd.grad((o**2).sum(), messages)[0] for o in (out, scatter(messages, batch)))
    )
    assert torch.autograd.gradgradcheck(lambda rows: sum_of_sources(rows, batch).sin(), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_precision_adds_up_what_it_holds(dtype):
    batch = random_batch((30, 1, 12), density=0.5)
    x = torch.randn(batch.num_nodes, 8).to(dtype)
    exact = scatter(x.double()[batch.edge_index[0]], batch)
    out = sum_of_sources(x, batch)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)


def test_rows_may_lie_apart_and_weigh_differently():
    rows = torch.randn(4, 6).T[:, 1:3]
    index, ptr = torch.tensor([5, 0, 0]), torch.tensor([0, 0, 2, 3])
    expected = torch.stack([torch.zeros(2), rows[5] + rows[0], rows[0]])
    torch.testing.assert_close(segment_sum(rows, index, ptr), expected)
    weighted = torch.stack([torch.zeros(2), 2 * rows[5] - rows[0], 3 * rows[0]])
    torch.testing.assert_close(segment_sum(rows, index, ptr, torch.tensor([2.0, -1.0, 3.0])), weighted)


def test_ends_follow_a_batch_to_another_device():
    batch = random_batch((5, 3), density=0.6)
    for end in (sources(batch), targets(batch)):
        _ = end.order, end.ptr, end.others
    there = batch.to("meta")
    assert isinstance(there, GraphBatch)
    for end in (sources(there), targets(there)):
        assert {value.device.type for value in vars(end).values() if isinstance(value, torch.Tensor)} == {"meta"}
        assert {"order", "ptr", "others"} <= vars(end).keys()

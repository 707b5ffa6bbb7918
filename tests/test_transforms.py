"""The transforms of `torch.func` go through whole networks: gradients, derivatives forward, ensembles."""

import copy
from functools import partial

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap

from gt import linear
from gt.attention import BACKENDS, Demand
from gt.layers import GCN, GINE, Attention, FeedForward, GatedGCN, ParallelBlock
from gt.masks import Hops
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.graphs import random_batch

SIZES = (4, 1, 6)


def network(local, mask, seed=0):
    torch.manual_seed(seed)
    block = partial(ParallelBlock, local=local, attention=partial(Attention, heads=2), feed_forward=FeedForward)
    schema = Schema(node_vocab=(5, 5), edge_vocab=(3,), kind="regression")
    return GraphTransformer(schema, width=8, depth=2, block=block, mask=mask).eval()


@pytest.mark.parametrize("mask", [Hops(1), Hops(None)], ids=str)
@pytest.mark.parametrize("local", [GINE, GatedGCN, GCN])
def test_a_network_has_the_gradients_and_derivatives_of_torch_func(local, mask):
    net, fresh = network(local, mask), random_batch(SIZES)
    values = dict(net.named_parameters())

    def total(values):
        return functional_call(net, values, (fresh,)).square().sum()

    found, each = grad(total)(values), jacrev(lambda values: functional_call(net, values, (fresh,))[:, 0])(values)
    direction = {name: torch.ones_like(value) for name, value in values.items()}
    _, slope = jvp(total, (values,), (direction,))
    out = net(random_batch(SIZES))  # neither is what the batch keeps, nor what the network has, left behind
    torch.testing.assert_close(net(fresh), out)
    expected = torch.autograd.grad(out.square().sum(), list(values.values()), materialize_grads=True)
    for (name, rows), right in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(rows, right, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            (2 * out.view(-1, *[1] * right.dim()) * each[name]).sum(0), right, rtol=1e-3, atol=1e-4
        )
    torch.testing.assert_close(slope, sum(right.sum() for right in expected), rtol=1e-3, atol=1e-3)


def test_second_derivatives_leave_nothing_of_theirs_in_a_batch():
    net, batch = network(GINE, Hops(1)).double(), random_batch(SIZES)
    values = dict(net.named_parameters())
    name = "blocks.1.norm_local.bias"

    def total(value):
        return functional_call(net, values | {name: value}, (batch,)).square().sum()

    step = torch.zeros(8, dtype=torch.float64).index_fill(0, torch.tensor(3), 1e-5)
    second = hessian(total)(values[name])  # of a batch that keeps nothing yet
    ends = [grad(total)(values[name] + sign * step) for sign in (1, -1)]
    torch.testing.assert_close(second[3], (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["dense", "sdpa", "sparse", "native", "listed"])
@pytest.mark.parametrize("local", [GINE, GatedGCN, GCN])
def test_many_gradients_at_once_are_those_of_one_at_a_time(local, backend, monkeypatch):
    reason = BACKENDS[backend].obstacle(Demand("cpu", False, 2, 16))
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setattr(linear, "SMALLEST", 0)
    monkeypatch.setattr(linear, "mkl_is_slow", lambda: True)  # every map goes by a kernel where there are any
    attention = partial(Attention, heads=2, dropout=0.2, backend=backend)
    feed_forward = partial(FeedForward, dropout=0.2)
    block = partial(ParallelBlock, local=local, attention=attention, feed_forward=feed_forward)
    schema = Schema(node_vocab=(5, 5), edge_vocab=(3,), kind="regression")
    net = GraphTransformer(schema, width=32, depth=2, block=block, mask=Hops(1))
    out, rows = net(random_batch(SIZES))[:, 0], torch.eye(3)
    used = torch.autograd.grad(out.sum(), list(net.parameters()), retain_graph=True, allow_unused=True)
    values = [value for value, each in zip(net.parameters(), used, strict=True) if each is not None]
    pull = partial(torch.autograd.grad, out, values, retain_graph=True)
    one_by_one = map(torch.stack, zip(*map(pull, rows), strict=True))
    for wanted, *found in zip(one_by_one, pull(rows, is_grads_batched=True), vmap(pull)(rows), strict=True):
        torch.testing.assert_close(found, [wanted, wanted], rtol=1e-4, atol=1e-5)


def test_an_ensemble_is_one_network_over_stacked_parameters():
    nets, batch = [network(GINE, Hops(1), seed) for seed in range(3)], random_batch(SIZES)
    values, buffers = stack_module_state(nets)
    net = copy.deepcopy(nets[0])
    rows = vmap(lambda values, buffers: functional_call(net, (values, buffers), (batch,)))(values, buffers)
    torch.testing.assert_close(rows, torch.stack([each(batch) for each in nets]), rtol=1e-4, atol=1e-5)

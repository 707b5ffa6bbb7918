"""`torch.func` transforms of whole networks: gradients, forward-mode derivatives, ensembles."""

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
def test_func_transforms_match_autograd(local, mask):
    net, batch = network(local, mask), random_batch(SIZES)
    values = dict(net.named_parameters())

    def total(values):
        return functional_call(net, values, (batch,)).square().sum()

    grads, jacobian = grad(total)(values), jacrev(lambda values: functional_call(net, values, (batch,))[:, 0])(values)
    direction = {name: torch.ones_like(value) for name, value in values.items()}
    _, directional = jvp(total, (values,), (direction,))
    out = net(random_batch(SIZES))  # the transforms must leave nothing behind in the batch or the network
    torch.testing.assert_close(net(batch), out)
    expected = torch.autograd.grad(out.square().sum(), list(values.values()), materialize_grads=True)
    for (name, rows), reference in zip(grads.items(), expected, strict=True):
        torch.testing.assert_close(rows, reference, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            (2 * out.view(-1, *[1] * reference.dim()) * jacobian[name]).sum(0), reference, rtol=1e-3, atol=1e-4
        )
    torch.testing.assert_close(directional, sum(reference.sum() for reference in expected), rtol=1e-3, atol=1e-3)


def test_hessian_leaves_nothing_cached_in_the_batch():
    net, batch = network(GINE, Hops(1)).double(), random_batch(SIZES)
    values = dict(net.named_parameters())
    name = "blocks.1.norm_local.bias"

    def total(value):
        return functional_call(net, values | {name: value}, (batch,)).square().sum()

    step = torch.zeros(8, dtype=torch.float64).index_fill(0, torch.tensor(3), 1e-5)
    second = hessian(total)(values[name])  # on a batch without cached values
    shifted = [grad(total)(values[name] + sign * step) for sign in (1, -1)]
    torch.testing.assert_close(second[3], (shifted[0] - shifted[1]) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["dense", "sdpa", "sparse", "native", "listed"])
@pytest.mark.parametrize("local", [GINE, GatedGCN, GCN])
def test_batched_gradients_match_separate_ones(local, backend, monkeypatch):
    reason = BACKENDS[backend].obstacle(Demand("cpu", False, 2, 16))
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setattr(linear, "MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(linear, "mkl_is_slow", lambda: True)  # every linear layer uses the kernel if available
    attention = partial(Attention, heads=2, dropout=0.2, backend=backend)
    feed_forward = partial(FeedForward, dropout=0.2)
    block = partial(ParallelBlock, local=local, attention=attention, feed_forward=feed_forward)
    schema = Schema(node_vocab=(5, 5), edge_vocab=(3,), kind="regression")
    net = GraphTransformer(schema, width=32, depth=2, block=block, mask=Hops(1))
    out, rows = net(random_batch(SIZES))[:, 0], torch.eye(3)
    grads = torch.autograd.grad(out.sum(), list(net.parameters()), retain_graph=True, allow_unused=True)
    values = [value for value, grad_or_none in zip(net.parameters(), grads, strict=True) if grad_or_none is not None]
    vjp = partial(torch.autograd.grad, out, values, retain_graph=True)
    expected_rows = map(torch.stack, zip(*map(vjp, rows), strict=True))
    for expected, *actual in zip(expected_rows, vjp(rows, is_grads_batched=True), vmap(vjp)(rows), strict=True):
        torch.testing.assert_close(actual, [expected, expected], rtol=1e-4, atol=1e-5)


def test_vmap_over_stacked_parameters_is_an_ensemble():
    nets, batch = [network(GINE, Hops(1), seed) for seed in range(3)], random_batch(SIZES)
    values, buffers = stack_module_state(nets)
    net = copy.deepcopy(nets[0])
    rows = vmap(lambda values, buffers: functional_call(net, (values, buffers), (batch,)))(values, buffers)
    torch.testing.assert_close(rows, torch.stack([member(batch) for member in nets]), rtol=1e-4, atol=1e-5)

"""Attention over a list of pairs by the C kernel against a loop in float64, and its dropout against Python."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from gt.attention import BACKENDS, Demand, attend, listed, prepare
from gt.graph import path_graphs
from gt.masks import Causal, Complete, Hops, PerHead, Window
from gt.native.library import obstacle, random_seed
from tests.attention.masks import Neighbours, Nobody
from tests.attention.test_backends import BIASES, gradients, inputs, reference
from tests.graphs import random_batch
from tests.native_numbers import random_numbers

pytestmark = pytest.mark.skipif(obstacle() is not None, reason=f"no kernels here: {obstacle()}")

PER_HEAD = PerHead((Neighbours(), Causal(), Hops(2)))
MASKS = [Complete(), Causal(), Hops(1), Neighbours(), Nobody(), Window(2), Hops(2) & Causal(), PER_HEAD]
listing = partial(attend, backend="listed")


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """Records the calls of the kernel."""
    recorded, kernels = [], listed.kernels
    monkeypatch.setattr(listed, "kernels", lambda: recorded.append(1) or kernels())
    return recorded


@st.composite
def cases(draw):
    mask = draw(st.sampled_from(MASKS))
    sizes = tuple(draw(st.lists(st.sampled_from((1, 2, 7, 16, 17, 33)), min_size=1, max_size=4)))
    heads = 3 if mask is PER_HEAD else draw(st.integers(1, 3))
    return mask, sizes, heads, draw(st.sampled_from((16, 32, 48, 80, 144))), draw(st.sampled_from(BIASES))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(cases(), st.integers(0, 99))
def test_equals_sparse_products_in_float64(case, seed):
    mask, sizes, heads, channels, bias = case
    pairs = mask(random_batch(sizes, seed, density=0.2))
    tensors = inputs(pairs, heads, channels, bias, torch.float32, seed)
    exact = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    expected = attend(*exact[:3], pairs, exact[3], backend="sparse")
    out = listing(*tensors[:3], pairs, tensors[3])
    leaves, exact_leaves = ([t for t in each if t is not None] for each in (tensors, exact))
    for a, b in zip((out, *gradients(out, leaves)), (expected, *gradients(expected, exact_leaves)), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_equals_a_loop(calls, mask):
    pairs = mask(random_batch((1, 9, 4, 1, 20)))
    tensors = inputs(pairs, 3, 16, "pairs", torch.float32)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    expected, out = reference(*exact[:3], pairs, exact[3]), listing(*tensors[:3], pairs, tensors[3])
    for a, b in zip((out, *gradients(out, tensors)), (expected, *gradients(expected, exact)), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)
    assert calls


def reference_dropout(q, k, v, pairs, seed, p):
    """Attention in float64 with the dropout of the kernel: one reader and head at a time, its pairs in order."""
    source, target = pairs.edges
    rows = []
    for i in range(len(q)):
        sources = source[target == i]
        for h in range(q.shape[1]):
            random = random_numbers(seed, i * q.shape[1] + h, len(sources))
            factor = torch.tensor([0.0 if number < round(p * 2**32) else 1 / (1 - p) for number in random])
            weights = (k[sources, h] @ q[i, h] / math.sqrt(q.shape[2])).softmax(0)
            rows.append((weights * factor.to(q.dtype)) @ v[sources, h])
    return torch.stack(rows).view_as(q)


@pytest.mark.parametrize("mask", [Complete(), Neighbours()], ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_weights_by_numbers_that_are_known(mask, p):
    pairs = mask(random_batch((1, 9, 20), density=0.4))
    tensors = inputs(pairs, 2, 16, "none", torch.float32)[:3]
    torch.manual_seed(4)
    seed = random_seed()
    torch.manual_seed(4)
    out = listing(*tensors, pairs, dropout=p)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    expected = reference_dropout(*exact, pairs, seed, p)
    for a, b in zip((out, *gradients(out, tensors)), (expected, *gradients(expected, exact)), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)


def test_as_many_threads_as_there_are_and_recomputed_activations_change_nothing():
    pairs, threads = Hops(1)(random_batch((90, 1, 40))), torch.get_num_threads()
    tensors = inputs(pairs, 4, 16, "pairs", torch.float32)
    call, results = partial(listing, dropout=0.3), []
    try:
        for count, run in ((1, call), (3, call), (2, partial(checkpoint, call, use_reentrant=False))):
            torch.set_num_threads(count)
            torch.manual_seed(1)
            out = run(*tensors[:3], pairs, tensors[3])
            results.append((out, *gradients(out, tensors)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_keeps_a_number_for_each_pair_and_head_and_copies_no_projection(p):
    pairs, saved = Hops(1)(random_batch((30, 20))), []
    packed = torch.randn(50, 3 * 2, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        listing(*packed.split(2, dim=1), pairs, dropout=p)
    assert sum(t.data_ptr() - packed.data_ptr() in range(packed.numel() * 4) for t in saved) == 3
    assert sum(t.numel() for t in saved) == 4 * 50 * 2 * 16 + pairs.count * 2


def test_prepares_what_it_asks_for_and_no_stack():
    pairs = Hops(1)(random_batch((9, 4)))
    prepare(pairs, Demand(heads=3, backend="listed"))
    prepared = set(vars(pairs))
    listing(*inputs(pairs, 3, 16, "none", torch.float32)[:3], pairs)
    assert set(vars(pairs)) - prepared <= {"count"}  # known without computation
    assert not any("stack" in name for name in prepared)
    for demand in (
        Demand(channels=24),
        Demand(half=True),
        Demand(scored=True),
        Demand(pair_value=True),
        Demand(device="cuda"),
    ):
        assert BACKENDS["listed"].obstacle(demand)


def test_what_is_too_large_goes_by_products_of_sparse_matrices(calls, monkeypatch):
    pairs = Hops(1)(random_batch((9, 4)))
    tensors = inputs(pairs, 3, 16, "none", torch.float32)[:3]
    out = listing(*tensors, pairs)
    monkeypatch.setattr(listed, "MAX_ELEMENTS", 13 * 3 * 16 - 1)
    torch.testing.assert_close(listing(*tensors, pairs), out)
    assert len(calls) == 1
    prepare(pairs, Demand(heads=3, backend="listed"))
    assert "stack_3" in vars(pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_second_derivatives_are_refused_also_where_a_constant_flows_back(dtype):
    pairs = Hops(1)(random_batch((9, 4)))
    tensors = inputs(pairs, 3, 16, "none", dtype)[:3]
    with pytest.raises(RuntimeError, match=r"has no second derivatives: use backend=dense for attention"):
        torch.autograd.grad(listing(*tensors, pairs).sum(), tensors, create_graph=True)


def test_scores_that_are_not_numbers_are_passed_on():
    pairs = Causal()(path_graphs([6]))
    q, k, v = (t.detach() for t in inputs(pairs, 1, 16, "none", torch.float32)[:3])
    q[2, 0, 1] = math.nan
    out = listing(q, k, v, pairs)
    assert out.isnan().any((1, 2)).tolist() == [False, False, True, False, False, False]
    q[2, 0, 1] = 1e4  # one weight close to 1
    assert listing(q, k, v, pairs).isfinite().all()

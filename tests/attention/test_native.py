"""Attention by the C kernel against loops in float64, with the same random numbers of dropout in Python."""

import math
import platform
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from gt.attention import BACKENDS, Demand, attend, choose, explain, native
from gt.attention.native import native_obstacle
from gt.attention.scores import Additive, HopDecay
from gt.graph import GraphBatch, path_graphs
from gt.layers import Attention, State
from gt.masks import Causal, Complete, Hops, PerHead, Window
from gt.native import library
from gt.native.library import obstacle, random_seed
from tests.attention.masks import Neighbours, Nobody
from tests.attention.test_backends import BIASES, gradients, inputs, reference
from tests.graphs import random_batch
from tests.native_numbers import random_numbers

pytestmark = pytest.mark.skipif(obstacle() is not None, reason=f"no kernels here: {obstacle()}")


def reference_dropout(q, k, v, pairs, seed, p):
    """Attention in float64 with the dropout of the kernel, one reader and head at a time."""
    batch, rows = pairs.batch, []
    back, ahead = (len(q) if limit is None else limit for limit in pairs.limits)
    for i in range(len(q)):
        graph, position = int(batch.batch[i]), int(batch.position[i])
        start, nodes = int(batch.ptr[graph]), int(batch.sizes[graph])
        sources = range(max(0, position - back), min(nodes, position + ahead + 1))
        for h in range(q.shape[1]):
            scores = k[[start + j for j in sources], h] @ q[i, h] / math.sqrt(q.shape[2])
            random = random_numbers(seed, i * q.shape[1] + h, nodes)
            factor = torch.tensor([0.0 if random[j] < round(p * 2**32) else 1 / (1 - p) for j in sources])
            rows.append((scores.softmax(0) * factor.to(q.dtype)) @ v[[start + j for j in sources], h])
    return torch.stack(rows).view_as(q)


PER_HEAD = PerHead((Neighbours(), Causal(), Hops(2)))
MASKS = [Complete(), Causal(), Window(0), Window(2), Window(20), Window(5) & Causal()]
LISTED = [Hops(1), Neighbours(), Neighbours() & Causal(), Nobody(), Hops(2) | Window(1)]


@st.composite
def cases(draw):
    mask = draw(st.sampled_from([*MASKS, *LISTED, PER_HEAD]))
    sizes = draw(st.lists(st.sampled_from((1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 65)), min_size=1, max_size=4))
    heads = 3 if mask is PER_HEAD else draw(st.integers(1, 3))
    return (
        mask,
        sizes,
        heads,
        draw(st.sampled_from((1, 3, 8, 15, 16, 17, 32, 33, 64, 80))),
        draw(st.sampled_from(BIASES)),
    )


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(cases(), st.integers(0, 99))
def test_equals_plain_products_in_float64(case, seed):
    mask, sizes, heads, channels, bias = case
    pairs = mask(random_batch(tuple(sizes), seed, density=0.2))
    tensors = inputs(pairs, heads, channels, bias, torch.float32, seed)
    exact = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    expected = attend(*exact[:3], pairs, exact[3], backend="dense")
    out = attend(*tensors[:3], pairs, tensors[3], backend="native")
    leaves, exact_leaves = ([t for t in each if t is not None] for each in (tensors, exact))
    for a, b in zip((out, *gradients(out, leaves)), (expected, *gradients(expected, exact_leaves)), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", [Complete(), Causal(), Window(1), Hops(1), PER_HEAD], ids=str)
@pytest.mark.parametrize("bias", BIASES)
def test_equals_a_loop(mask, bias):
    pairs = mask(random_batch((1, 9, 4, 1, 20)))
    tensors = inputs(pairs, 3, 5, bias, torch.float32)
    exact = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    expected = reference(*exact[:3], pairs, exact[3])
    out = attend(*tensors[:3], pairs, tensors[3], backend="native")
    leaves, exact_leaves = ([t for t in each if t is not None] for each in (tensors, exact))
    for a, b in zip((out, *gradients(out, leaves)), (expected, *gradients(expected, exact_leaves)), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", [Neighbours(), Nobody(), PER_HEAD], ids=str)
def test_nodes_that_read_nobody_get_zeros_and_pass_no_gradient(mask):
    pairs = mask(random_batch((6, 1), density=0.1))
    isolated = pairs.batch.in_degree == 0
    assert isolated.any()
    tensors = inputs(pairs, 3, 4, "none", torch.float32)[:3]
    out = attend(*tensors, pairs, dropout=0.2, backend="native")
    assert (out[isolated, 0] == 0).all()
    grads = torch.autograd.grad(out.square().sum(), tensors)
    assert all(t.isfinite().all() for t in grads)
    assert (grads[0][isolated, 0] == 0).all()


@pytest.mark.parametrize("mask", [Complete(), Causal(), Hops(1)], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bias_of_pairs_that_are_not_read_counts_for_nothing(mask, value):
    pairs = mask(random_batch((5, 1, 3, 18), seed=0))
    q, k, v, bias = inputs(pairs, 2, 4, "dense", torch.float32)
    out = attend(q, k, v, pairs, bias, backend="native")
    expected = (out, *torch.autograd.grad(out.square().sum(), (q, k, v, bias)))
    spoilt = bias.detach().masked_fill(~pairs.dense, value).requires_grad_()
    out = native.attend_native(q, k, v, pairs, spoilt)  # directly: `attend` zeroes masked entries
    torch.testing.assert_close((out, *torch.autograd.grad(out.square().sum(), (q, k, v, spoilt))), expected)


@pytest.mark.parametrize("mask", [Complete(), Window(2)], ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_weights_by_numbers_that_are_known(mask, p):
    pairs = mask(path_graphs([1, 9, 35]))
    tensors = inputs(pairs, 2, 6, "none", torch.float32)[:3]
    torch.manual_seed(4)
    seed = random_seed()
    torch.manual_seed(4)
    out = attend(*tensors, pairs, dropout=p, backend="native")
    exact = [t.detach().double().requires_grad_() for t in tensors]
    expected = reference_dropout(*exact, pairs, seed, p)
    for a, b in zip((out, *gradients(out, tensors)), (expected, *gradients(expected, exact)), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the options name x86-64 processors")
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_processors_with_narrower_registers_give_the_same_and_drop_the_same(processor, tmp_path, monkeypatch):
    options = [f"-march={processor}" if option == "-march=native" else option for option in library.COMPILE]
    monkeypatch.setattr(library, "COMPILE", options)
    monkeypatch.setattr(library, "user_cache_path", lambda name: tmp_path)
    if processor == "x86-64-v4" and "avx512vl" not in library._processor():
        pytest.skip("this processor has no such registers")
    other = library._open()
    for pairs, channels in ((Complete()(path_graphs([1, 9, 65])), 17), (Window(9)(path_graphs([70])), 64)):
        tensors = inputs(pairs, 2, channels, "none", torch.float32)[:3]
        results = []
        for kernels in (library.kernels, lambda: other):
            monkeypatch.setattr(native, "kernels", kernels)
            torch.manual_seed(3)
            out = attend(*tensors, pairs, dropout=0.3, backend="native")
            results.append((out, *gradients(out, tensors)))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", [Complete(), Causal(), Window(700), Hops(1)], ids=str)
def test_large_graphs_fall_into_tasks(mask):
    pairs = mask(random_batch((3, native.READERS, native.READERS + 1, 1, 2 * native.READERS + 40), density=0.01))
    tensors = inputs(pairs, 2, 5, "none", torch.float32)[:3]
    exact = [t.detach().double().requires_grad_() for t in tensors]
    expected, out = attend(*exact, pairs, backend="dense"), attend(*tensors, pairs, backend="native")
    for a, b in zip((out, *gradients(out, tensors)), (expected, *gradients(expected, exact)), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=2e-5)
    assert len(vars(pairs)["native_tasks"][0]) == 1 + 1 + 2 + 1 + 3


def test_no_graph_falls_into_more_tasks_than_some():
    pairs = Window(40)(path_graphs([native.TASKS * native.READERS + 500, 2]))
    tensors = inputs(pairs, 1, 3, "none", torch.float32)[:3]
    results = []
    for backend in ("native", "sparse"):
        out = attend(*tensors, pairs, backend=backend)
        results.append((out, *gradients(out, tensors)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    graph, _, rows = vars(pairs)["native_tasks"]
    assert len(graph) == native.TASKS + 1
    assert rows == native.TASKS * (native.TASKS * native.READERS + 500) + 2


def test_scores_of_any_size_and_nan_are_those_of_pytorch():
    pairs = Complete()(path_graphs([20, 3]))
    q, k, v = (t.detach() for t in inputs(pairs, 1, 4, "none", torch.float32)[:3])
    native, dense = (partial(attend, pairs=pairs, backend=backend) for backend in ("native", "dense"))
    for size in (1e-30, 30.0, 1e4):
        torch.testing.assert_close(native(size * q, size * k, v), dense(size * q, size * k, v), rtol=1e-4, atol=1e-5)
    for value in (math.nan, math.inf):
        spoilt = q.clone()
        spoilt[5, 0, 2] = value
        assert torch.equal(native(spoilt, k, v).isnan(), dense(spoilt, k, v).isnan())


@pytest.mark.parametrize("mask", [Hops(1), Causal(), PER_HEAD], ids=str)
@pytest.mark.parametrize("which", ["q", "k"])
def test_a_score_that_is_not_a_number_is_not_taken_for_nobody(mask, which):
    pairs = mask(path_graphs([9, 20]))
    tensors = dict(zip("qkv", (t.detach() for t in inputs(pairs, 3, 4, "none", torch.float32)), strict=False))
    tensors[which][5] = math.nan
    actual, expected = (attend(**tensors, pairs=pairs, backend=backend).isnan() for backend in ("native", "sparse"))
    assert actual.any()
    assert torch.equal(actual, expected)


def test_scratch_is_of_32_bits_whatever_the_default(monkeypatch):
    def address(t):
        assert t.dtype is not torch.bfloat16, "the buffer is half as large as what the kernel writes"
        return library.address(t)

    monkeypatch.setattr(native, "address", address)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        q, k, v = torch.randn(3, 5, 2, 4, dtype=torch.float32, requires_grad=True)
        attend(q, k, v, Complete()(path_graphs([2, 3])), backend="native").sum().backward()
    finally:
        torch.set_default_dtype(before)


def test_as_many_threads_as_there_are_change_nothing():
    pairs, threads = Causal()(path_graphs([40, 3, 80, 1] * 3)), torch.get_num_threads()
    tensors = inputs(pairs, 4, 16, "none", torch.float32)[:3]
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            torch.manual_seed(1)
            out = attend(*tensors, pairs, dropout=0.3, backend="native")
            results.append((out, *gradients(out, tensors)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_reads_the_parts_of_one_projection_without_a_copy_and_keeps_no_weights():
    pairs = Complete()(path_graphs([30, 20]))
    packed = torch.randn(50, 3 * 2, 16, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = attend(*packed.split(2, dim=1), pairs, dropout=0.1, backend="native")
    assert sum(t.data_ptr() - packed.data_ptr() in range(packed.numel() * 4) for t in saved) == 3
    assert sum(t.numel() for t in saved) == 4 * 50 * 2 * 16 + 2 * 50 * 2
    whole = attend(*(t.contiguous() for t in packed.split(2, dim=1)), pairs, backend="native")
    torch.testing.assert_close(attend(*packed.split(2, dim=1), pairs, backend="native"), whole)
    heads_first = packed.detach().transpose(0, 1).contiguous().transpose(0, 1)  # heads not adjacent
    torch.testing.assert_close(attend(*heads_first.split(2, dim=1), pairs, backend="native"), whole)
    assert out.shape == (50, 2, 16)


def test_recomputed_activations_drop_the_same_weights():
    pairs = Complete()(path_graphs([9, 4]))
    tensors = inputs(pairs, 2, 4, "none", torch.float32)[:3]
    call = partial(attend, pairs=pairs, dropout=0.4, backend="native")
    results = []
    for run in (call, partial(checkpoint, call, use_reentrant=False)):
        torch.manual_seed(2)
        results.append(gradients(run(*tensors), tensors))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_second_derivatives_are_those_of_plain_products():
    pairs = Causal()(path_graphs([5, 1]))
    tensors = inputs(pairs, 2, 3, "dense", torch.float32)
    results = []
    for backend in ("native", "dense"):
        total = attend(*tensors[:3], pairs, tensors[3], backend=backend).square().sum()
        (grad,) = torch.autograd.grad(total, tensors[0], create_graph=True)
        results.append(torch.autograd.grad(grad.square().sum(), tensors))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    out = attend(*tensors[:3], pairs, dropout=0.5, backend="native")
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(out.sum(), tensors[0], create_graph=True)


def test_gradients_that_are_differentiated_tell_apart_queries_and_keys_that_are_one_tensor():
    pairs, x, results = Complete()(path_graphs([5, 1])), torch.randn(6, 2, 3, requires_grad=True), []
    for backend in ("native", "dense"):
        total = attend(x, x, x.sin(), pairs, backend=backend).square().sum()
        (grad,) = torch.autograd.grad(total, x, create_graph=True)
        results.append((grad, *torch.autograd.grad(grad.square().sum(), x)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ptr", [torch.tensor([0, 40, 49], dtype=torch.int32), torch.tensor([0, 9, 40, 9, 49])[::2]])
def test_graphs_that_a_batch_made_by_hand_tells_of_in_another_way(ptr):
    pairs = Complete()(GraphBatch(ptr, torch.empty(2, 0, dtype=torch.long), max_nodes=40))
    tensors = inputs(pairs, 2, 4, "none", torch.float32)[:3]
    expected = attend(*tensors, Complete()(path_graphs([40, 9])), backend="dense")
    torch.testing.assert_close(attend(*tensors, pairs, backend="native"), expected)


def test_a_graph_larger_than_its_batch_says_is_refused_as_by_plain_products():
    pairs = Complete()(GraphBatch(torch.tensor([0, 40, 2000]), torch.empty(2, 0, dtype=torch.long), max_nodes=40))
    with pytest.raises(IndexError, match="out of bounds"):
        attend(*inputs(pairs, 2, 4, "none", torch.float32)[:3], pairs, backend="native")


def test_threads_that_have_nothing_to_do_take_no_memory(monkeypatch):
    pairs = Window(1)(path_graphs([50_000]))
    tensors = [t.detach() for t in inputs(pairs, 2, 4, "none", torch.float32)[:3]]
    out = attend(*tensors, pairs, backend="native")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1_000_000)
    torch.testing.assert_close(attend(*tensors, pairs, backend="native"), out)


def test_other_precisions_transforms_and_wider_values_go_by_plain_products():
    pairs = Complete()(path_graphs([5, 2]))
    q, k, v = (t.detach() for t in inputs(pairs, 2, 3, "none")[:3])
    native, dense = (partial(attend, pairs=pairs, backend=backend) for backend in ("native", "dense"))
    assert torch.equal(native(q, k, v), dense(q, k, v))
    q, k, v = (t.float() for t in (q, k, v))
    wide = torch.cat([v, v], dim=2)
    assert torch.equal(native(q, k, wide), dense(q, k, wide))
    jacobian = torch.func.jacrev(lambda value: native(q, k, value))(v)
    torch.testing.assert_close(jacobian, torch.func.jacrev(lambda value: dense(q, k, value))(v))


def test_serves_small_graphs_by_itself_and_says_what_it_cannot_do(monkeypatch):
    pairs = Complete()(path_graphs([20] * 8))
    assert choose(pairs, Demand(dropout=True)) == "native"
    reasons = {
        "it needs a CPU": Demand(device="cuda"),
        "it only supports float32": Demand(half=True),
        "it only supports the scaled dot product": Demand(scored=True),
        "it does not support pair values": Demand(pair_value=True),
    }
    for reason, demand in reasons.items():
        assert native_obstacle(demand) == reason
    assert explain(pairs, Demand(compiled=True))["native"] == "it cannot be compiled"
    monkeypatch.setitem(BACKENDS, "native", replace(BACKENDS["native"], obstacle=lambda demand: "there is no compiler"))
    assert choose(Complete()(path_graphs([20] * 8)), Demand(dropout=True)) != "native"


def test_a_layer_takes_it_where_it_can():
    batch = random_batch((40,) * 5)
    x = torch.randn(200, 8)
    for options, supported in (({}, True), ({"hint": HopDecay}, True), ({"score": Additive}, False)):
        layer = Attention(8, 2, **options)
        layer(State(x), batch, Complete()(batch))
        assert (set(layer.used) == {"native"}) == supported


@pytest.mark.parametrize("length", [9, 40, 1100])
@pytest.mark.parametrize("mask", [Causal(), Window(3) & Causal()], ids=str)
def test_nothing_before_a_changed_token_moves(mask, length):
    pairs = mask(path_graphs([length, 5]))
    tensors = [t.detach() for t in inputs(pairs, 2, 16, "none", torch.float32)[:3]]
    before = attend(*tensors, pairs, backend="native")
    for index in (0, 7, length - 1):
        changed = [t.clone() for t in tensors]
        for t in changed:
            t[index] += 1
        after = attend(*changed, pairs, backend="native")
        assert torch.equal(after[:index], before[:index])
        assert torch.equal(after[length:], before[length:])
        assert not torch.equal(after[index], before[index])

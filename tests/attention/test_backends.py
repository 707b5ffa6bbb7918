"""The attention backends against a loop over readers, and layers against PyTorch's."""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gt.attention import attend, dense
from gt.layers import Attention, FeedForward, ParallelBlock, SequentialBlock, State
from gt.masks import Causal, Complete, Hops, PerHead, Window
from tests.attention.masks import Neighbours, Nobody
from tests.graphs import SIZES, random_batch

CPU_BACKENDS = ["dense", "sdpa", "sparse"]  # the others need a GPU or tests of their own
ALL_BACKENDS = ("auto", *CPU_BACKENDS)


SINGLE = [
    *map(Hops, (0, 1, 2, None)),
    Complete(),
    Causal(),
    Window(1),
    Hops(1) | Window(1),
    Hops(2) & Causal(),
    (Hops(1) | Window(2)) & Causal(),
    Neighbours(),
    Neighbours() & Causal(),
    Nobody(),
]
BIASES = (
    "none",
    "pairs",
    "dense",
    "shared",
    "hidden",
)  # hidden: minus infinity for most pairs, and for all pairs of some readers


def inputs(pairs, heads, channels, bias, dtype=torch.float64, seed=0):
    """q, k, v and a bias or None, leaves that require gradients."""
    torch.manual_seed(seed)
    graphs, size = pairs.batch.num_graphs, pairs.batch.max_nodes
    shapes = {"pairs": (pairs.count, heads), "dense": (graphs, heads, size, size), "shared": (graphs, 1, size, size)}
    shapes["hidden"] = shapes["pairs"]
    tensors = [torch.randn(pairs.batch.num_nodes, heads, channels, dtype=dtype) for _ in range(3)]
    tensors.append(torch.randn(shapes[bias], dtype=dtype) if bias != "none" else None)
    if bias == "hidden":
        tensors[3][torch.rand(shapes[bias]) < 0.7] = -torch.inf
    return [None if t is None else t.requires_grad_() for t in tensors]


def reference(q, k, v, pairs, bias):
    """Reference implementation: one reader and head at a time, over a Python list of its sources."""
    batch, (source, target) = pairs.batch, pairs.edges.tolist()
    allowed = [[True] * q.shape[1]] * len(source) if pairs.edge_heads is None else pairs.edge_heads.tolist()
    reads = [[[] for _ in range(q.shape[1])] for _ in range(len(q))]
    for pair, (j, i) in enumerate(zip(source, target, strict=True)):
        for h in range(q.shape[1]):
            if allowed[pair][h]:
                reads[i][h].append((pair, j))
    rows = []
    for i in range(len(q)):
        for h in range(q.shape[1]):
            if not reads[i][h]:
                rows.append(v.new_zeros(v.shape[2]))
                continue
            numbers, sources = map(list, zip(*reads[i][h], strict=True))
            scores = k[sources, h] @ q[i, h] / math.sqrt(q.shape[2])
            if bias is not None and bias.dim() == 2:
                scores = scores + bias[numbers, h]
            elif bias is not None:
                row = bias[batch.batch[i], h % bias.shape[1], batch.position[i]]
                scores = scores + row[batch.position[sources]]
            hidden = (scores == -torch.inf).all()
            rows.append(v.new_zeros(v.shape[2]) if hidden else scores.softmax(0) @ v[sources, h])
    return torch.stack(rows).view(len(q), q.shape[1], v.shape[2])


def gradients(out, tensors):
    """Gradients of a random weighted sum of ``out``; zeros for unused tensors."""
    torch.manual_seed(1)
    weights = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
    if not out.requires_grad:  # nobody reads anybody
        return [torch.zeros_like(t) for t in tensors]
    return torch.autograd.grad((out * weights).sum(), tensors, allow_unused=True, materialize_grads=True)


def check(mask, sizes, heads, channels, bias, dtype, tolerance, density=0.3, seed=0, backends=ALL_BACKENDS):
    """Compare values and gradients of the backends in ``dtype`` with the loop in float64."""
    pairs = mask(random_batch(sizes, seed, density=density))
    tensors = inputs(pairs, heads, channels, bias, dtype, seed)
    exact = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    expected_out = reference(*exact[:3], pairs, exact[3])
    expected = (expected_out, *gradients(expected_out, [t for t in exact if t is not None]))
    for backend in backends:
        out = attend(*tensors[:3], pairs, tensors[3], backend=backend)
        assert out.dtype == dtype
        actual = (out, *gradients(out, [t for t in tensors if t is not None]))
        for name, a, b in zip(("out", "q", "k", "v", "bias"), actual, expected, strict=False):
            close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance, check_dtype=False)
            close(a, b, msg=lambda text, b=backend, n=name: f"{b}, {n}: {text}")


@st.composite
def cases(draw):
    heads = draw(st.integers(1, 4))
    single = st.sampled_from(SINGLE)
    mask = draw(single | st.lists(single, min_size=heads, max_size=heads).map(PerHead))
    return {
        "mask": mask,
        "sizes": tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))),
        "heads": heads,
        "channels": draw(st.integers(1, 9)),
        "bias": draw(st.sampled_from(BIASES)),
        "density": draw(st.sampled_from((0.0, 0.2, 0.6))),
        "seed": draw(st.integers(0, 99)),
    }


PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(cases(), st.sampled_from(PRECISIONS))
def test_backends_equal_a_loop(case, precision):
    check(**case, dtype=precision[0], tolerance=precision[1])


PER_HEAD = PerHead((Neighbours(), Causal(), Hops(2)))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("mask", [Complete(), Causal(), Hops(1), Neighbours(), PER_HEAD], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_lower_precision_equals_a_loop_in_float64(mask, sizes, dtype, tolerance):
    check(mask, sizes, 3, 4, "pairs", dtype, tolerance)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_targets_that_read_nobody_get_zeros_and_pass_no_gradient(backend):
    pairs = PER_HEAD(random_batch((1, 4, 6), density=0.2))
    isolated = pairs.batch.in_degree == 0
    assert isolated.any()
    assert not isolated.all()
    q, k, v, _ = inputs(pairs, 3, 4, "none")
    out = attend(q, k, v, pairs, backend=backend)
    assert (out[isolated, 0] == 0).all()
    assert (out[~isolated, 0] != 0).all()
    assert (out[:, 1:] != 0).all()
    (grad,) = torch.autograd.grad(out.square().sum(), q)
    assert (grad[isolated, 0] == 0).all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("mask", [Complete(), Causal(), Hops(1)], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bias_of_pairs_that_are_not_read_counts_for_nothing(backend, mask, value):
    pairs = mask(random_batch((5, 1, 3), seed=0))
    q, k, v, bias = inputs(pairs, 2, 4, "dense")
    out = attend(q, k, v, pairs, bias, backend=backend)
    expected = (out, *torch.autograd.grad(out.square().sum(), (q, k, v, bias)))
    spoilt = bias.detach().masked_fill(~pairs.dense, value).requires_grad_()
    out = attend(q, k, v, pairs, spoilt, backend=backend)
    torch.testing.assert_close((out, *torch.autograd.grad(out.square().sum(), (q, k, v, spoilt))), expected)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_values_may_be_wider_than_queries(backend):
    pairs = Hops(1)(random_batch((4, 2)))
    q, k, _, _ = inputs(pairs, 2, 3, "none")
    v = torch.randn(6, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(attend(q, k, v, pairs, backend=backend), reference(q, k, v, pairs, None))


@pytest.mark.parametrize("mask", [Causal(), PER_HEAD, Nobody()], ids=str)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradcheck_of_the_sparse_function(mask, bias, dropout):
    pairs = mask(random_batch((1, 3, 2), seed=1))
    tensors = inputs(pairs, 3, 2, bias)

    def function(*tensors):
        torch.manual_seed(5)  # the same dropout mask in every call
        q, k, v = tensors[:3]
        return attend(q, k, v, pairs, *tensors[3:], dropout=dropout, backend="sparse")

    assert torch.autograd.gradcheck(function, [t for t in tensors if t is not None])


def test_sparse_keeps_nothing_of_pairs_times_channels_for_the_backward_pass():
    pairs, heads, channels = Complete()(random_batch((12,))), 3, 8
    saved = []
    q, k, v, bias = inputs(pairs, heads, channels, "pairs")
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        attend(q, k, v, pairs, bias, dropout=0.1, backend="sparse")
    assert max(saved) == pairs.count * heads  # far below pairs x heads x channels


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_dropout_drops_and_scales_single_weights(backend):
    batch = random_batch((50,) * 40)
    _, _, v, _ = inputs(Hops(0)(batch), 2, 3, "none")
    out = attend(v, v, v, Hops(0)(batch), dropout=0.25, backend=backend)  # each node and head has one weight of 1
    factor = out / v
    kept = (factor - 4 / 3).abs() < 1e-12
    assert (kept | (factor == 0)).all()
    assert (kept == kept[..., :1]).all()  # a dropped weight drops all channels
    assert abs(kept.double().mean() - 0.75) < 5 * math.sqrt(0.25 * 0.75 / 4000)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("mask", [Complete(), Hops(1)], ids=str)
def test_dropout_leaves_the_mean_and_drops_the_same_in_backward(backend, mask):
    copies, nodes = 3000, 4
    one = mask(random_batch((nodes,), seed=3))
    edges = one.batch.edge_index
    pairs = mask(type(one.batch)(
        ptr=torch.arange(copies + 1) * nodes,
        edge_index=torch.cat([edges + nodes * copy for copy in range(copies)], dim=1),
        max_nodes=nodes,
    ).finish())  # fmt: skip
    q, k, v, _ = (None if t is None else t.detach() for t in inputs(one, 2, 3, "none"))
    exact = attend(q, k, v, one)
    q, k, v = (t.repeat(copies, 1, 1).requires_grad_() for t in (q, k, v))
    out = attend(q, k, v, pairs, dropout=0.4, backend=backend)
    draws = out.detach().view(copies, nodes, 2, 3)
    deviation = draws.std(0)
    assert (deviation > 0.05).all()
    assert ((draws.mean(0) - exact).abs() < 5 * deviation / math.sqrt(copies)).all()
    weights = torch.randn_like(out)
    (grad,) = torch.autograd.grad((out * weights).sum(), v)
    torch.testing.assert_close((grad * v).sum(), (out * weights).sum())  # out is linear in v, dropped weights fixed


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("bias", BIASES)
def test_mixed_precision(backend, bias):
    pairs = PER_HEAD(random_batch((5, 1, 7)))
    tensors = inputs(pairs, 3, 8, bias, torch.float32)
    expected = reference(*tensors[:3], pairs, tensors[3])
    leaves = [t for t in tensors if t is not None]
    with torch.autocast("cpu", torch.bfloat16):
        half = (t @ torch.eye(8) for t in tensors[:3])
        out = attend(*half, pairs, tensors[3], backend=backend)
        actual = gradients(out, leaves)
    assert out.dtype == torch.bfloat16
    for a, b in zip((out, *actual), (expected, *gradients(expected, leaves)), strict=True):
        torch.testing.assert_close(a.float(), b, rtol=3e-2, atol=3e-2)


def test_bad_calls_say_what_is_wrong():
    pairs = Complete()(random_batch((3, 2)))
    q = torch.zeros(5, 2, 4)
    with pytest.raises(ValueError, match="no backend 'fast'"):
        attend(q, q, q, pairs, backend="fast")
    for bad in [(q[:4],) * 3, (q, q[..., :3], q), (q, q, q[:, :1])]:
        with pytest.raises(ValueError, match="attention over 5 nodes cannot take q"):
            attend(*bad, pairs)
    with pytest.raises(ValueError, match="the mask distinguishes 3 heads, the layer has 2"):
        attend(q, q, q, PER_HEAD(pairs.batch))
    for backend in ALL_BACKENDS:
        for shape in [(12, 2), (13, 1), (13,), (13, 2, 1), (2, 2, 3, 2), (2, 3, 3, 3), (1, 2, 3, 3)]:
            with pytest.raises(ValueError, match=r"bias must have the shape \(13, 2\) or \(2, 1 or 2, 3, 3\), not"):
                attend(q, q, q, pairs, torch.zeros(shape), backend=backend)


@pytest.mark.parametrize(
    ("mask", "sizes", "masked", "causal"),
    [
        (Causal(), (6, 6), False, True),
        (Causal(), (6, 4), False, True),
        (Complete(), (6, 6), False, False),
        (Hops(None), (6, 6), False, False),
        (Complete(), (6, 4), True, False),
        (Hops(1), (6, 6), True, False),
    ],
)
def test_fused_kernel_gets_no_mask_where_it_can_do_without(monkeypatch, mask, sizes, masked, causal):
    fused, calls = dense.F.scaled_dot_product_attention, []

    def spy(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False):
        calls.append((attn_mask is not None, is_causal))
        return fused(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal)

    monkeypatch.setattr(dense.F, "scaled_dot_product_attention", spy)
    pairs = mask(random_batch(sizes))
    attend(*inputs(pairs, 2, 3, "none")[:3], pairs, backend="sdpa")
    assert calls == [(masked, causal)]


# PyTorch's layers on the padded view, with the same weights


def reference_masks(pairs, heads):
    """key_padding_mask and attn_mask for PyTorch, True at masked pairs; padded rows are not masked."""
    real = pairs.batch.to_dense(torch.ones(pairs.batch.num_nodes, 1))[..., 0] > 0
    return ~real, ~pairs.safe_dense.expand(-1, heads, -1, -1).flatten(0, 1)


def assert_same(ours, theirs, inputs, parameters):
    """Equal packed values (N, width); equal gradients of the inputs and of each pair of parameters."""
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    our_grads = torch.autograd.grad((ours * weights).sum(), [inputs, *(p for p, _ in parameters)])
    their_grads = torch.autograd.grad((theirs * weights).sum(), [inputs, *(p for _, p in parameters)])
    for a, b in zip(our_grads, their_grads, strict=True):
        torch.testing.assert_close(a, b)


def copied(parameters):
    for ours, theirs in parameters:
        theirs.data.copy_(ours)
    return parameters


def attention_parameters(ours, theirs):
    return [
        (ours.project_in.weight, theirs.in_proj_weight),
        (ours.project_in.bias, theirs.in_proj_bias),
        (ours.project_out.weight, theirs.out_proj.weight),
        (ours.project_out.bias, theirs.out_proj.bias),
    ]


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("mask", [Complete(), Causal(), Hops(1), PerHead((Hops(1), Causal(), Window(1)))], ids=str)
@pytest.mark.parametrize("sizes", [(5, 5), (1, 7, 4)])
def test_attention_layer_equals_pytorch(mask, sizes, backend):
    torch.manual_seed(0)
    pairs, width, heads = mask(random_batch(sizes)), 12, 3
    ours = Attention(width, heads, backend=backend).double()
    theirs = nn.MultiheadAttention(width, heads, batch_first=True, dtype=torch.float64)
    nn.init.normal_(ours.project_in.bias)
    parameters = copied(attention_parameters(ours, theirs))
    x = torch.randn(pairs.batch.num_nodes, width, dtype=torch.float64, requires_grad=True)
    padding, hidden = reference_masks(pairs, heads)
    padded = pairs.batch.to_dense(x)
    out, _ = theirs(padded, padded, padded, key_padding_mask=padding, attn_mask=hidden, need_weights=False)
    assert_same(ours(State(x), pairs.batch, pairs)["x"], pairs.batch.to_packed(out), x, parameters)


@pytest.mark.parametrize("block", [ParallelBlock, SequentialBlock])
@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("mask", [Complete(), Hops(1)], ids=str)
def test_block_equals_pytorch_encoder_layer(block, prenorm, mask):
    torch.manual_seed(0)
    pairs, width, heads = mask(random_batch((1, 7, 4))), 12, 3
    ours = block(
        width,
        attention=partial(Attention, heads=heads),
        feed_forward=partial(FeedForward, ratio=3, activation=nn.GELU),
        norm=nn.LayerNorm,
        prenorm=prenorm,
    ).double()
    theirs = nn.TransformerEncoderLayer(
        width, heads, 3 * width, 0.0, "gelu", batch_first=True, norm_first=prenorm, dtype=torch.float64
    )
    modules = [
        (ours.feed_forward.expand, theirs.linear1),
        (ours.feed_forward.project_out, theirs.linear2),
        (ours.norm_attention, theirs.norm1),
        (ours.norm_feed_forward, theirs.norm2),
    ]
    for module, _ in modules:
        nn.init.normal_(module.weight)
        nn.init.normal_(module.bias)
    other_parameters = [(getattr(a, name), getattr(b, name)) for a, b in modules for name in ("weight", "bias")]
    parameters = copied([*attention_parameters(ours.attention, theirs.self_attn), *other_parameters])
    x = torch.randn(pairs.batch.num_nodes, width, dtype=torch.float64, requires_grad=True)
    padding, hidden = reference_masks(pairs, heads)
    out = theirs(pairs.batch.to_dense(x), src_mask=hidden, src_key_padding_mask=padding)
    state = ours(State(x), pairs.batch, pairs)
    assert state.e is None
    assert_same(state.x, pairs.batch.to_packed(out), x, parameters)


HUGE = """
import resource

import torch

from gt.attention import Demand, attend, choose
from gt.lottery.workloads import inputs, random_graphs
from gt.masks import Hops

pairs = Hops(1)(random_graphs([1_000_000], 9.0))
assert pairs.count > 9_900_000
assert choose(pairs, Demand()) == "sparse"
q, k, v, grad = inputs(pairs, 4, 16, torch.float32)
torch.autograd.grad(attend(q, k, v, pairs), (q, k, v), grad)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_million_nodes_and_ten_million_pairs_fit_12_gib():
    result = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 12

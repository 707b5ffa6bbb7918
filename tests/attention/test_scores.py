"""Scores beyond the dot product, hints and pair values against a loop over readers, on each backend that has them."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gt.attention import BACKENDS, attend, choose, dispatch
from gt.attention.scores import Additive, Gated, Hint, HopDecay, PositionDecay, Separable
from gt.masks import Causal, Complete, Hops, PerHead, Window
from tests.attention.masks import Neighbours, Nobody
from tests.graphs import SIZES, random_batch

HEADS, CHANNELS = 3, 4


def gated(score, q, k, e):
    return max(-5.0, min(5.0, sum(a * b * c for a, b, c in zip(q, k, e, strict=True)) / math.sqrt(CHANNELS)))


def additive(score, q, k, e):
    return sum(w * F.leaky_relu(a + b + c, 0.2) for w, a, b, c in zip(score, q, k, e, strict=True))


def separable(score, q, k, e):
    return F.leaky_relu(score[0] @ q + score[1] @ k + score[2] @ e, 0.2)


def product(score, q, k, e):
    return q @ (k + e) / math.sqrt(CHANNELS)


def parameters_of_head(score, h):
    if isinstance(score, Additive):
        return score.vector[h]
    return [score.of_target[h], score.of_source[h], score.of_pair[h]] if isinstance(score, Separable) else None


LOOPS = {None: product, Gated: gated, Additive: additive, Separable: separable}


def reference(q, k, v, pairs, kind, score, pair, value, bias):
    """Reference implementation: one reader and head at a time."""
    source, target = pairs.edges.tolist()
    out = torch.zeros(len(q), HEADS, v.shape[2], dtype=v.dtype)
    rows = []
    for i in range(len(q)):
        for h in range(HEADS):
            indices = [p for p in range(len(source)) if target[p] == i]
            if pairs.edge_heads is not None:
                indices = [p for p in indices if pairs.edge_heads[p, h]]
            if not indices:
                rows.append(out[i, h])
                continue
            params = parameters_of_head(score, h)
            no_pair = torch.ones(CHANNELS, dtype=v.dtype) if kind is Gated else torch.zeros(CHANNELS, dtype=v.dtype)
            scores = torch.stack([
                torch.as_tensor(LOOPS[kind](params, q[i, h], k[source[p], h], no_pair if pair is None else pair[p, h]))
                + (0.0 if bias is None else bias[p, h])
                for p in indices
            ])  # fmt: skip
            values = torch.stack([v[source[p], h] + (0.0 if value is None else value[p, h]) for p in indices])
            rows.append(scores.softmax(0) @ values)
    return torch.stack(rows).view_as(out)


@pytest.mark.parametrize("kind", LOOPS, ids=str)
@pytest.mark.parametrize("with_pair", [False, True])
@pytest.mark.parametrize("with_value", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    "mask",
    [Complete(), Neighbours(), PerHead((Hops(1), Causal(), Neighbours())), Nobody()],
    ids=["complete", "edges", "heads", "nobody"],
)
def test_every_score_equals_a_loop(kind, with_pair, with_value, with_bias, mask):
    torch.manual_seed(0)
    pairs = mask(random_batch((1, 4, 3), density=0.4))
    options = {"dtype": torch.float64, "requires_grad": True}
    q, k, v = (torch.randn(8, HEADS, CHANNELS, **options) for _ in range(3))
    pair = torch.randn(pairs.count, HEADS, CHANNELS, **options) if with_pair else None
    value = torch.randn(pairs.count, HEADS, CHANNELS, **options) if with_value else None
    bias = torch.randn(pairs.count, HEADS, **options) if with_bias else None
    score = kind(HEADS, CHANNELS).double() if kind else None
    leaves = [t for t in (q, k, v, pair, value, bias, *(score.parameters() if score else ())) if t is not None]
    expected = reference(q, k, v, pairs, kind, score, pair, value, bias)
    weights = torch.randn_like(expected)

    def gradients(out):
        if not out.requires_grad:
            return [torch.zeros_like(t) for t in leaves]
        return torch.autograd.grad((out * weights).sum(), leaves, allow_unused=True, materialize_grads=True)

    expected_grads = gradients(expected)
    supported = 0
    for backend in ("auto", *BACKENDS):
        try:
            out = attend(q, k, v, pairs, bias, 0.0, backend, score, pair, value)
        except ValueError as error:
            assert "cannot be used here" in str(error)  # noqa: PT017
            continue
        supported += 1
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
        for a, b in zip(gradients(out), expected_grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert supported >= 3  # auto, dense, sparse


@pytest.mark.parametrize("hint", [HopDecay, PositionDecay])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_decay_multiplies_weights_by_an_exponential(hint, sizes):
    torch.manual_seed(0)
    batch = random_batch(sizes, density=0.3)
    pairs = Complete()(batch)
    decay = hint(HEADS).double()
    rates = decay.rates.detach()
    heads = torch.arange(1, HEADS + 1, dtype=torch.float64)
    source, target = pairs.edges
    assert torch.allclose(rates, 2.0 ** (1 - heads if hint is HopDecay else -8 * heads / HEADS))
    if hint is HopDecay:
        distance = [hops(batch, i, j, decay.most) for j, i in pairs.edges.T.tolist()]
    else:
        distance = (source - target).abs().tolist()
    q, k, v = (torch.randn(batch.num_nodes, HEADS, CHANNELS, dtype=torch.float64) for _ in range(3))
    factor = (-rates * torch.tensor(distance, dtype=torch.float64)[:, None]).exp()
    weight = factor * ((q[target] * k[source]).sum(-1) / math.sqrt(CHANNELS)).exp()
    total = torch.zeros(batch.num_nodes, HEADS, dtype=torch.float64).index_add(0, target, weight)
    expected = torch.zeros_like(v).index_add(0, target, (weight / total[target])[..., None] * v[source])
    for backend in BACKENDS:
        if BACKENDS[backend].obstacle(dispatch.Demand(channels=CHANNELS, bias=True, trained=True)) is None:
            torch.testing.assert_close(attend(q, k, v, pairs, decay, backend=backend), expected)


def hops(batch, reader, source, limit):
    """Breadth-first search."""
    level, visited, distance = {reader}, {reader}, 0
    while source not in level and distance <= limit:
        level = {j for j, i in batch.edge_index.T.tolist() if i in level} - visited
        visited |= level
        distance += 1
    return min(distance, limit + 1)


def test_a_decay_is_learned_and_its_gradient_right():
    torch.manual_seed(0)
    pairs = Hops(2)(random_batch((4, 3)))
    decay = HopDecay(2).double()
    q, k, v = (torch.randn(7, 2, 3, dtype=torch.float64) for _ in range(3))

    loss = attend(q, k, v, pairs, decay, backend="sparse").square().sum()
    (grad,) = torch.autograd.grad(loss, decay.raw)
    step = 1e-6
    for h in range(2):
        shifted = []
        for sign in (1, -1):
            decay.raw.data[h] += sign * step
            shifted.append(attend(q, k, v, pairs, decay, backend="dense").square().sum().item())
            decay.raw.data[h] -= sign * step
        assert grad[h].item() == pytest.approx((shifted[0] - shifted[1]) / (2 * step), rel=1e-4, abs=1e-8)


def test_shapes_that_do_not_fit_are_refused():
    pairs = Window(1)(random_batch((3, 2)))
    q = torch.zeros(5, 2, 4)
    expected = rf"\({pairs.count}, 2, 4\)"
    for name in ("pair", "pair_value"):
        with pytest.raises(ValueError, match=f"{name} must have the shape {expected}, not"):
            attend(q, q, q, pairs, **{name: torch.zeros(3, 2, 4)})


def test_a_score_is_not_left_to_the_fused_kernel():
    pairs = Complete()(random_batch((50,) * 4))
    assert choose(pairs, dispatch.Demand(scored=True)) != "sdpa"


class PerOffset(Hint):
    """A learned bias for each head and each offset of positions, clamped to 3."""

    def __init__(self, heads):
        super().__init__()
        self.table = nn.Embedding(7, heads)

    def forward(self, distance):
        return self.table(distance[:, 0].clamp(-3, 3) + 3).movedim(-1, 1)


def test_a_bias_is_one_function_of_signed_offsets():
    torch.manual_seed(0)
    pairs, hint = Complete()(random_batch((6, 2, 4))), PerOffset(2)
    listed, dense = hint.bias(pairs, dense=False), hint.bias(pairs, dense=True)
    assert dense.shape == (3, 2, 6, 6)
    assert torch.equal(dense.movedim(1, -1).reshape(-1, 2)[pairs.dense_entry], listed)
    source, target = pairs.edges
    ahead = listed[source - target == 2]
    assert len(ahead)
    assert (ahead == hint.table.weight[5]).all()


class Cut(Hint):
    """Hides sources beyond two hops and penalises distance within them."""

    most = 2

    def __init__(self, heads):
        super().__init__()
        self.slope = nn.Parameter(torch.linspace(0.1, 1.0, heads, dtype=torch.float64))

    def forward(self, distance):
        slope = self.slope.view(-1, *[1] * (distance.dim() - 2))
        return (-slope * distance).masked_fill(distance > 2, -torch.inf)


def test_what_a_hint_gives_to_padding_does_no_harm_whatever_it_is():
    torch.manual_seed(0)
    pairs, hint, results = Complete()(random_batch((6, 1, 4))), Cut(2), []
    inputs = [torch.randn(11, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    for backend in ("dense", "sdpa", "sparse"):
        out = attend(*inputs, pairs, hint, backend=backend)
        results.append((out, *torch.autograd.grad(out.square().sum(), [*inputs, hint.slope])))
    for others in results[:2]:
        assert all(tensor.isfinite().all() for tensor in others)
        torch.testing.assert_close(others, results[2])

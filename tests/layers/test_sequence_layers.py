"""Linear-time layers, over a whole graph or along its nodes, each against a loop or a library, graph by graph."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gt.errors import UserError
from gt.graph import path_graphs
from gt.layers import LinearAttention, Mamba2, PositiveELU, RandomFeatures, Recurrent, State, linear
from gt.layers.linear import causal_linear_attention
from gt.masks import Causal, Complete, Hops, VirtualNodes, with_virtual_nodes
from tests.graphs import SIZES

WIDTH = 12
every_size = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
FEATURES = {"elu": PositiveELU, "random": partial(RandomFeatures, features=10)}


def random_layer(kind, *args, **options):
    torch.manual_seed(0)
    layer = kind(WIDTH, *args, **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def random_rows(sizes):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(sum(sizes), WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)


def assert_matches_per_graph(layer, sizes, mask, reference):
    """Assert that a layer on a batch has the values and gradients of ``reference(x)`` on each graph."""
    batch, x = path_graphs(sizes), random_rows(sizes)
    ours = layer(State(x), batch, mask(batch))["x"]
    expected = torch.cat([reference(part) for part in x.split(sizes)])
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(ours)
    leaves = [x, *layer.parameters()]
    gradients = [torch.autograd.grad((out * weights).sum(), leaves) for out in (ours, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("channels", [None, 5])
@every_size
def test_linear_attention_matches_a_loop(sizes, channels, causal, features, monkeypatch):
    monkeypatch.setattr(linear, "CHUNK", 4)
    layer = random_layer(LinearAttention, heads=3, feature_map=FEATURES[features], channels=channels)
    size = channels or 4

    def phi(x):
        if features == "elu":
            return torch.where(x > 0, x + 1, x.exp())
        x = x / size**0.25
        return (x @ layer.feature_map.directions.T - (x * x).sum(1, keepdim=True) / 2).exp()

    def reference(x):
        q, k, v = (rows.view(-1, 3, size) for rows in layer.project_in(x).chunk(3, dim=1))
        out = []
        for i in range(len(x)):
            visible = slice(i + 1 if causal else len(x))
            for h in range(3):
                weights = phi(k[visible, h]) @ phi(q[i : i + 1, h])[0]
                out.append(weights / weights.sum() @ v[visible, h])
        return layer.project_out(torch.stack(out).view(len(x), 3 * size))

    assert_matches_per_graph(layer, sizes, Causal() if causal else Complete(), reference)


def test_linear_attention_dropout_acts_only_in_training():
    torch.manual_seed(0)
    batch, layer, state = path_graphs([50]), LinearAttention(8, dropout=0.25), State(torch.randn(50, 8))
    dropped, kept = layer(state, batch, Complete()(batch))["x"], layer.eval()(state, batch, Complete()(batch))["x"]
    zeros = dropped == 0
    assert 0.15 < zeros.float().mean() < 0.35
    torch.testing.assert_close(dropped[~zeros], kept[~zeros] / 0.75)


def test_random_features_approximate_the_softmax_kernel():
    torch.manual_seed(0)
    feature_map = RandomFeatures(4, 40000)
    q, k = 0.7 * torch.randn(2, 6, 4)
    kernel = feature_map(q, False).exp() @ feature_map(k, False).exp().T / 40000
    torch.testing.assert_close(kernel, (q @ k.T / 2).exp(), rtol=0.1, atol=0.0)
    blocks = F.normalize(feature_map.directions, dim=1).view(10000, 4, 4)
    torch.testing.assert_close(blocks @ blocks.mT, torch.eye(4).expand(10000, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mask", [Complete(), Causal()], ids=str)
@pytest.mark.parametrize("length", [1, 3, 30])
def test_long_keys_do_not_underflow(mask, length, monkeypatch):
    """In float32 as in float64: the exponents of these keys are about -140, and exp(-140) is 0 in float32."""
    monkeypatch.setattr(linear, "CHUNK", 4)
    torch.manual_seed(0)
    layer = LinearAttention(64, heads=1, feature_map=partial(RandomFeatures, features=266)).double()
    nn.init.normal_(layer.project_in.weight, std=0.75)
    batch, x = path_graphs([length, 7]), torch.randn(length + 7, 64, dtype=torch.float64)
    expected = layer(State(x), batch, mask(batch))["x"].detach()
    keys = layer.project_in(x)[:, None, 64:128]
    assert layer.feature_map(keys, False).max(-1).values.min() < -110
    out = layer.float()(State(x.float()), batch, mask(batch))["x"].detach()
    torch.testing.assert_close(out.double(), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("mask", [Hops(1), Hops(2) & Causal()], ids=str)
def test_linear_attention_rejects_unsupported_masks(mask):
    batch = path_graphs([3])
    with pytest.raises(UserError, match="mask=causal"):
        LinearAttention(8)(State(torch.randn(3, 8)), batch, mask(batch))


def test_linear_attention_rejects_virtual_nodes():
    wide = with_virtual_nodes(path_graphs([3]), 1)
    with pytest.raises(UserError, match="VirtualNodes"):
        LinearAttention(8)(State(torch.randn(4, 8)), wide, (Complete() | VirtualNodes(1))(wide))


@pytest.mark.parametrize("length", [1, 3, 4, 9, 16])
def test_decayed_linear_attention_matches_its_recurrence(length, monkeypatch):
    monkeypatch.setattr(linear, "CHUNK", 4)
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, length, 3, 5, dtype=torch.float64)
    v = torch.randn(2, length, 3, 2, dtype=torch.float64)
    decay, before = -3 * torch.rand(2, length, 3, dtype=torch.float64), torch.randn(2, 3, 5, 2, dtype=torch.float64)
    out, after = causal_linear_attention(q, k, v, decay, before)
    state = before
    for t in range(length):
        state = state * decay[:, t].exp()[..., None, None] + k[:, t, :, :, None] * v[:, t, :, None]
        torch.testing.assert_close(out[:, t], torch.einsum("bhm,bhmd->bhd", q[:, t], state))
    torch.testing.assert_close(after, state)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("rnn", [nn.LSTM, nn.GRU])
@every_size
def test_recurrent_layers_match_torch_per_graph(sizes, rnn, bidirectional):
    layer = random_layer(Recurrent, rnn, bidirectional)
    library_layer = rnn(WIDTH, WIDTH // (1 + bidirectional), batch_first=True, bidirectional=bidirectional).double()
    assert sum(p.numel() for p in library_layer.parameters()) == sum(p.numel() for p in layer.parameters())
    parameters = dict(layer.forwards.named_parameters())
    if bidirectional:
        parameters |= {f"{name}_reverse": value for name, value in layer.backwards.named_parameters()}
    assert_matches_per_graph(
        layer, sizes, Complete(), lambda x: torch.func.functional_call(library_layer, parameters, (x[None],))[0][0]
    )


@every_size
def test_mamba_matches_hugging_face_per_graph(sizes, monkeypatch):
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    monkeypatch.setattr(linear, "CHUNK", 4)
    layer = random_layer(Mamba2, heads=3, states=5)
    config = Mamba2Config(
        hidden_size=WIDTH, num_heads=3, head_dim=8, state_size=5, n_groups=1, expand=2, conv_kernel=4, chunk_size=4,
        use_bias=False, layer_norm_epsilon=1e-5, time_step_limit=(0.0, math.inf),
    )  # fmt: skip
    library_layer = Mamba2Mixer(config, 0)
    parameters = {
        "in_proj.weight": layer.project_in.weight, "conv1d.weight": layer.convolution.weight,
        "conv1d.bias": layer.convolution.bias, "A_log": layer.log_rate, "dt_bias": layer.step_bias, "D": layer.skip,
        "norm.weight": layer.norm.weight, "out_proj.weight": layer.project_out.weight,
    }  # fmt: skip
    assert parameters.keys() == dict(library_layer.named_parameters()).keys()
    batch, x = path_graphs(sizes), random_rows(sizes).float()
    layer.float()
    parameters = {name: value.float() for name, value in parameters.items()}
    ours = layer(State(x), batch, None)["x"]
    expected = [torch.func.functional_call(library_layer, parameters, (part[None],))[0] for part in x.split(sizes)]
    torch.testing.assert_close(ours, torch.cat(expected), rtol=1e-3, atol=1e-4)


@every_size
def test_mamba_matches_its_recurrence_per_graph(sizes, monkeypatch):
    monkeypatch.setattr(linear, "CHUNK", 4)
    layer = random_layer(Mamba2, heads=3, states=5)
    weight, bias = layer.convolution.weight[:, 0], layer.convolution.bias

    def reference(rows):
        out, state, window = [], torch.zeros(3, 5, 8, dtype=torch.float64), torch.zeros(4, 34, dtype=torch.float64)
        for row in rows:
            gate, mixed, step = layer.project_in(row).split([24, 34, 3])
            window = torch.cat([window[1:], mixed[None]])
            x, b, c = F.silu((window.T * weight).sum(1) + bias).split([24, 5, 5])
            x, step = x.view(3, 8), (1 + (step + layer.step_bias).exp()).log()
            decay = (-step * layer.log_rate.exp()).exp()
            state = decay[:, None, None] * state + step[:, None, None] * b[None, :, None] * x[:, None]
            y = (torch.einsum("m,hmd->hd", c, state) + layer.skip[:, None] * x).flatten() * F.silu(gate)
            y = y / (y.square().mean() + 1e-5).sqrt() * layer.norm.weight
            out.append(layer.project_out(y))
        return torch.stack(out)

    assert_matches_per_graph(layer, sizes, Causal(), reference)


@pytest.mark.parametrize(
    "kind", [LinearAttention, partial(LinearAttention, feature_map=RandomFeatures), Recurrent, Mamba2]
)
@torch.no_grad()
def test_changed_node_leaves_earlier_outputs_unchanged(kind):
    layer, sizes = random_layer(kind), (9, 70)
    batch, x = path_graphs(sizes), random_rows(sizes)
    mask = Causal()(batch)
    before = layer(State(x), batch, mask)["x"]
    for position in (9, 40, 78):
        changed = x.clone()
        changed[position] += 1
        after = layer(State(changed), batch, mask)["x"]
        assert torch.equal(after[:position], before[:position])  # exactly
        assert (after[position:] != before[position:]).any(1).all()

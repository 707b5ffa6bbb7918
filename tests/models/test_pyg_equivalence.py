"""PyG's attention layers as this package's one operator, on graphs where some nodes have no incoming edges."""

from functools import partial

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GATv2Conv, GINEConv, GPSConv, TransformerConv

from gt.attention import attend
from gt.attention.scores import Additive, Separable
from gt.layers import GINE, Attention, FeedForward, ParallelBlock, State
from gt.masks import Complete, Hops
from tests.attention.masks import Neighbours
from tests.graphs import random_batch

HEADS, CHANNELS, WIDTH = 3, 4, 12


def assert_same(ours, expected, leaves):
    """Assert equal tensors, and equal gradients of one random sum of them."""
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(expected)
    our_grads, expected_grads = (torch.autograd.grad((out * weights).sum(), leaves) for out in (ours, expected))
    for a, b in zip(our_grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture
def graph():
    torch.manual_seed(0)
    batch = random_batch((1, 6, 4), density=0.3)
    x = torch.randn(batch.num_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    e = torch.randn(batch.num_edges, WIDTH, dtype=torch.float64, requires_grad=True)
    pairs = Neighbours()(batch)
    assert torch.equal(pairs.edges, batch.edge_index)
    return batch, pairs, x, e


def split_heads(linear, x):
    return linear(x).view(-1, HEADS, CHANNELS)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("with_edges", [False, True])
def test_gat(graph, backend, with_edges):
    batch, pairs, x, e = graph
    reference = GATConv(WIDTH, CHANNELS, HEADS, edge_dim=WIDTH if with_edges else None, add_self_loops=False).double()
    score = Separable(HEADS, CHANNELS).double()
    score.of_source, score.of_target = (nn.Parameter(p[0]) for p in (reference.att_src.data, reference.att_dst.data))
    pair = None
    if with_edges:
        score.of_pair = nn.Parameter(reference.att_edge.data[0])
        pair = split_heads(reference.lin_edge, e)
    h = split_heads(reference.lin, x)
    ours = attend(h, h, h, pairs, backend=backend, score=score, pair=pair).flatten(1) + reference.bias
    leaves = [x, reference.lin.weight, *([e] if with_edges else [])]
    assert_same(ours, reference(x, batch.edge_index, e if with_edges else None), leaves)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("with_edges", [False, True])
def test_gatv2(graph, backend, with_edges):
    batch, pairs, x, e = graph
    reference = GATv2Conv(WIDTH, CHANNELS, HEADS, edge_dim=WIDTH if with_edges else None, add_self_loops=False).double()
    score = Additive(HEADS, CHANNELS).double()
    score.vector = nn.Parameter(reference.att.data[0])
    pair = split_heads(reference.lin_edge, e) if with_edges else None
    sent = split_heads(reference.lin_l, x)
    ours = attend(split_heads(reference.lin_r, x), sent, sent, pairs, backend=backend, score=score, pair=pair)
    leaves = [x, reference.lin_l.weight, reference.lin_r.weight, *([e] if with_edges else [])]
    assert_same(ours.flatten(1) + reference.bias, reference(x, batch.edge_index, e if with_edges else None), leaves)


@pytest.mark.parametrize("backend", ["dense", "sparse", "auto"])
@pytest.mark.parametrize("with_edges", [False, True])
def test_transformer_conv(graph, backend, with_edges):
    batch, pairs, x, e = graph
    reference = TransformerConv(WIDTH, CHANNELS, HEADS, edge_dim=WIDTH if with_edges else None).double()
    pair = split_heads(reference.lin_edge, e) if with_edges else None
    q, k, v = (split_heads(linear, x) for linear in (reference.lin_query, reference.lin_key, reference.lin_value))
    ours = attend(q, k, v, pairs, backend=backend, pair=pair, pair_value=pair).flatten(1) + reference.lin_skip(x)
    leaves = [x, reference.lin_query.weight, reference.lin_value.weight, *([e] if with_edges else [])]
    assert_same(ours, reference(x, batch.edge_index, e if with_edges else None), leaves)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_attention_layer_with_edges_matches_transformer_conv(graph, backend):
    batch, _, x, e = graph
    pairs = Hops(1)(batch)
    layer = Attention(WIDTH, HEADS, backend=backend, edges=True, edge_values=True).double()
    reference = TransformerConv(WIDTH, CHANNELS, HEADS, edge_dim=WIDTH, root_weight=False).double()
    for linear, weight, bias in zip(
        (reference.lin_query, reference.lin_key, reference.lin_value),
        layer.project_in.weight.chunk(3),
        layer.project_in.bias.chunk(3),
        strict=True,
    ):
        linear.weight, linear.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    reference.lin_edge.weight = nn.Parameter(layer.pairs.project.weight.detach())
    loop = pairs.edges[0] == pairs.edges[1]  # a node and itself have no edge: that feature is learned
    features = torch.empty(pairs.count, WIDTH, dtype=torch.float64)
    features[loop], features[~loop] = layer.pairs.no_edge.detach(), e.detach()
    expected = layer.project_out(reference(x, pairs.edges, features))
    torch.testing.assert_close(layer(State(x, e), pairs.batch, pairs)["x"], expected)


@pytest.mark.parametrize("training", [False, True])
def test_gps_conv(training):
    torch.manual_seed(0)
    batch = random_batch((1, 6, 4), density=0.3)
    x = torch.randn(batch.num_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    e = torch.randn(batch.num_edges, WIDTH, dtype=torch.float64, requires_grad=True)
    mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    reference = GPSConv(WIDTH, GINEConv(mlp, train_eps=False), HEADS, norm="batch_norm").double()
    ours = ParallelBlock(
        WIDTH, GINE, partial(Attention, heads=HEADS), partial(FeedForward, ratio=2), nn.BatchNorm1d
    ).double()
    names = {
        "local.mlp": "conv.nn",
        "attention.project_in.weight": "attn.in_proj_weight",
        "attention.project_in.bias": "attn.in_proj_bias",
        "attention.project_out": "attn.out_proj",
        "norm_local": "norm1.module",
        "norm_attention": "norm2.module",
        "norm_feed_forward": "norm3.module",
        "feed_forward.expand": "mlp.0",
        "feed_forward.project_out": "mlp.3",
    }
    reference_state, state = reference.state_dict(), ours.state_dict()
    for name in state:
        prefix = next((p for p in names if name.startswith(p)), None)
        if prefix is not None:
            state[name] = reference_state[names[prefix] + name.removeprefix(prefix)]
    ours.load_state_dict(state)
    ours.train(training), reference.train(training)
    out = ours(State(x, e), batch, Complete()(batch)).x
    assert_same(out, reference(x, batch.edge_index, batch.batch, edge_attr=e), [x, e])

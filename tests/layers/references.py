"""Helpers and reference implementations shared by tests of layers."""

import pytest
import torch
from torch import nn

from gt.layers import State
from tests.graphs import SIZES

WIDTH = 6
SHAPES = {  # sizes, density of edges
    **{name: (sizes, 0.3) for name, sizes in SIZES.items()},
    "no edges": ((3, 2), 0.0),
    "crowded": ((6, 5), 0.9),
}
shapes = pytest.mark.parametrize(("sizes", "density"), SHAPES.values(), ids=SHAPES)
edge_features = pytest.mark.parametrize("with_edges", [True, False], ids=["edge features", "no edge features"])


def streams(batch, with_edges=True):
    """Random x (N, WIDTH) and e (E, WIDTH) or None, leaves that require gradients."""
    x = torch.randn(batch.num_nodes, WIDTH, requires_grad=True)
    return x, torch.randn(batch.num_edges, WIDTH, requires_grad=True) if with_edges else None


def apply(layer, x, e, batch):
    """(x, e) after a local layer; the output of a residual layer is added to its input."""
    steps = layer(State(x, e), batch, None)
    out = State(x, e).plus(steps)
    return (out.x if layer.residual else steps["x"]), out.e


def run(block, x, e, batch, pairs=None):
    """(x, e) after a block."""
    state = block(State(x, e), batch, pairs)
    return state.x, state.e


def redraw(module):
    """The module with every parameter redrawn: initial norms and biases would hide mistakes."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


def assert_same(ours, expected, leaves):
    """Assert equal tensors, None in the same places, and equal gradients of one random sum of them."""
    assert [t is None for t in ours] == [t is None for t in expected]
    ours, expected = ([t for t in tensors if t is not None] for tensors in (ours, expected))
    weights = [torch.randn_like(t) for t in ours]
    leaves = [leaf for leaf in leaves if leaf is not None]
    grads = []
    for tensors in (ours, expected):
        total = sum((t * w).sum() for t, w in zip(tensors, weights, strict=True))
        grads.append(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))
    for a, b in zip([*ours, *grads[0]], [*expected, *grads[1]], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def looped_edges(batch):
    """[(edge number, source, target)] as Python integers."""
    return [(number, j, i) for number, (j, i) in enumerate(batch.edge_index.T.tolist())]


def rows(values, width=WIDTH):
    """Stack rows, of which there may be none."""
    return torch.stack(values) if values else torch.zeros(0, width)


def batch_norm(norm, values, training):
    """Reference batch normalisation; in training, fewer than two rows are returned unchanged."""
    if training and len(values) < 2:
        return values
    mean = values.mean(0) if training else norm.running_mean
    variance = values.var(0, correction=0) if training else norm.running_var
    return (values - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def looped_gated_gcn(layer, x, e, batch, training):
    """(x, e) after a `GatedGCN`, one edge and one node at a time."""
    self_weight, key_weight, value_weight, query_weight = layer.of_node.weight.split(WIDTH)
    self_bias, key_bias, value_bias, query_bias = layer.of_node.bias.split(WIDTH)
    edges = looped_edges(batch)
    e = torch.zeros(len(edges), WIDTH) if e is None else e
    mixed = {
        n: (key_weight @ x[i] + key_bias) + (query_weight @ x[j] + query_bias) + layer.of_edge(e[n])
        for n, j, i in edges
    }
    new_x = []
    for node in range(len(x)):
        gates = [(mixed[n].sigmoid(), j) for n, j, i in edges if i == node]
        weighted = sum((s * (value_weight @ x[j] + value_bias) for s, j in gates), torch.zeros(WIDTH))
        total = sum((s for s, _ in gates), torch.zeros(WIDTH))
        new_x.append(self_weight @ x[node] + self_bias + weighted / (total + 1e-6))
    new_x = x + batch_norm(layer.norm_x, rows(new_x), training).relu()
    return new_x, e + batch_norm(layer.norm_e, rows([mixed[n] for n, _, _ in edges]), training).relu()

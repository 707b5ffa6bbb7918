"""Message passing against PyG or a loop over nodes, and `ConvolutionBlock` against its equation."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv, GINEConv

from gt.layers import GCN, GINE, ConvolutionBlock, EdgeGCN, GatedGCN, Smoothing
from tests.graphs import random_batch
from tests.layers.references import (
    WIDTH,
    apply,
    assert_same,
    batch_norm,
    edge_features,
    looped_edges,
    looped_gated_gcn,
    redraw,
    run,
    shapes,
    streams,
)

pytestmark = pytest.mark.usefixtures("double_precision")


@shapes
@edge_features
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_gine_matches_pyg(sizes, density, with_edges, eps):
    batch = random_batch(sizes, density=density)
    layer = GINE(WIDTH, eps)
    x, e = streams(batch, with_edges)
    no_features = torch.zeros(batch.num_edges, WIDTH)
    expected = GINEConv(layer.mlp, eps=eps)(x, batch.edge_index, no_features if e is None else e)
    assert_same(apply(layer, x, e, batch), (expected, e), [x, e, *layer.parameters()])


@shapes
@edge_features
def test_edge_gcn_matches_a_loop(sizes, density, with_edges):
    batch = random_batch(sizes, density=density)
    layer, (x, e) = redraw(EdgeGCN(WIDTH)), streams(batch, with_edges)
    new = [layer.bias for _ in range(batch.num_nodes)]
    for number, source, target in looped_edges(batch):
        message = layer.linear.weight @ x[source] + (e[number] if with_edges else 0)
        new[target] = new[target] + message.relu()
    assert_same(apply(layer, x, e, batch), (torch.stack(new), e), [x, e, *layer.parameters()])


@shapes
@pytest.mark.parametrize("directed", [True, False])
def test_gcn_matches_pyg(sizes, density, directed):
    batch = random_batch(sizes, directed=directed, density=density)
    layer, reference = redraw(GCN(WIDTH)), GCNConv(WIDTH, WIDTH)
    reference.lin.weight, reference.bias = layer.linear.weight, layer.linear.bias
    x, e = streams(batch)
    assert_same(apply(layer, x, e, batch), (reference(x, batch.edge_index), e), [x, *layer.parameters()])
    with_root = redraw(GCN(WIDTH, root=True))
    reference.lin.weight, reference.bias = with_root.linear.weight, with_root.linear.bias
    expected = reference(x, batch.edge_index) + x @ with_root.root.weight.T + with_root.root.bias
    assert_same(apply(with_root, x, e, batch), (expected, e), [x, *with_root.parameters()])


def test_gcn_initialisation_matches_pyg():
    torch.manual_seed(0)
    layer, reference = GCN(64, root=True), GCNConv(64, 64)
    ours, expected = layer.linear.weight, reference.lin.weight
    assert ours.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.05)
    assert ours.std().item() == pytest.approx(expected.std().item(), rel=0.1)
    assert not layer.linear.bias.any()


@shapes
@pytest.mark.parametrize("directed", [True, False])
def test_smoothing_after_a_linear_map_matches_pyg_gcn(sizes, density, directed):
    batch = random_batch(sizes, directed=directed, density=density)
    before, layer, reference = nn.Linear(9, WIDTH, bias=False), redraw(Smoothing(WIDTH)), GCNConv(9, WIDTH)
    reference.lin.weight, reference.bias = before.weight, layer.bias
    x = torch.randn(batch.num_nodes, 9, requires_grad=True)
    assert_same(
        apply(layer, before(x), None, batch),
        (reference(x, batch.edge_index), None),
        [x, before.weight, *layer.parameters()],
    )
    plain, reference.bias = Smoothing(WIDTH, bias=False), None
    assert_same(apply(plain, before(x), None, batch), (reference(x, batch.edge_index), None), [x, before.weight])


@edge_features
@pytest.mark.parametrize("local", [GCN, GINE, Smoothing])
@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d])
@pytest.mark.parametrize("activation", [None, nn.Tanh])
@pytest.mark.parametrize("residual", [True, False])
def test_convolution_block_matches_its_equation(local, norm, activation, residual, with_edges):
    batch = random_batch((5, 3))
    block = redraw(ConvolutionBlock(WIDTH, local, norm, activation, residual=residual))
    x, e = streams(batch, with_edges)
    new, _ = apply(block.local, x, e, batch)
    new = batch_norm(block.norm, new, True) if norm else new
    new = new.tanh() if activation else new
    assert_same(run(block, x, e, batch, None), (x + new if residual else new, e), [x, *block.parameters()])


def test_convolution_block_applies_dropout_to_the_update():
    batch = random_batch((40,))
    block = ConvolutionBlock(WIDTH, GCN, activation=None, dropout=0.25)
    x, _ = streams(batch)
    added, undropped = run(block, x, None, batch, None)[0] - x, apply(block.local, x, None, batch)[0]
    kept = added != 0
    torch.testing.assert_close(added[kept], undropped[kept] / 0.75)
    assert 0.1 < 1 - kept.double().mean() < 0.4
    torch.testing.assert_close(run(block.eval(), x, None, batch)[0], x + undropped)


def test_convolution_block_rejects_a_second_activation():
    with pytest.raises(ValueError, match="GatedGCN"):
        ConvolutionBlock(WIDTH, GatedGCN, activation=nn.Tanh)


@shapes
@edge_features
@pytest.mark.parametrize("training", [True, False])
def test_gated_gcn_matches_a_loop(sizes, density, with_edges, training):
    if training and sum(sizes) == 1:
        pytest.skip("batch normalisation cannot train on one node")
    batch = random_batch(sizes, density=density)
    layer = redraw(GatedGCN(WIDTH))
    apply(layer, *streams(random_batch((9, 9))), random_batch((9, 9)))  # running statistics of another batch
    layer.train(training)
    x, e = streams(batch, with_edges)
    assert_same(apply(layer, x, e, batch), looped_gated_gcn(layer, x, e, batch, training), [x, e, *layer.parameters()])

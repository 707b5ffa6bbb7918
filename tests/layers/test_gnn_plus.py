"""GNN+ against the same network assembled from PyG and `torch.nn`, from the batch to the prediction."""

from itertools import product

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch_geometric.nn import GCNConv, GINEConv, global_mean_pool

from gt.cli.config import check
from gt.cli.config_files import CONFIGS
from gt.schema import Schema
from gt.train.network import build, network_config
from tests.graphs import random_batch
from tests.layers.references import looped_gated_gcn

WIDTH, STEPS, DIM = 12, 16, 4
SCHEMA = Schema((5, 5), edge_vocab=(3,), outputs=3)
SWITCHES = {
    "norm": "model.block.norm=null",
    "activation": "model.block.activation=null",
    "residual": "model.block.residual=false",
    "feed_forward": "model.block.feed_forward=null",
}


def random_network(local, off):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        small = [f"model.width={WIDTH}", "model.depth=2", "model.block.dropout=0", f"encoding.rwse.dim={DIM}"]
        cfg = compose("train", ["model=gnn_plus", f"model/local={local}", *small, *(SWITCHES[part] for part in off)])
    check(cfg)
    torch.manual_seed(0)
    net = build(network_config(cfg), SCHEMA).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net


def reference_convolution(local, layer, x, e, batch):
    """Nodes and edges after a convolution; GatedGCN includes the norm, the activation and the residual."""
    if local == "gcn":
        conv = GCNConv(WIDTH, WIDTH).double()
        conv.lin.weight, conv.bias = layer.linear.weight, layer.linear.bias
        return conv(x, batch.edge_index), e
    if local == "gine":
        conv = GINEConv(nn.Linear(WIDTH, WIDTH))
        conv.nn = layer.mlp  # the constructor would reset its parameters
        return conv(x, batch.edge_index, e), e
    return looped_gated_gcn(layer, x, e, batch, True)


def batch_norm(part, x, off):
    return x if "norm" in off else nn.functional.batch_norm(x, None, None, part.weight, part.bias, training=True)


def reference_network(net, local, batch, off):
    walks = net.encodings[0]
    table = net.nodes.table.weight
    x = table[batch.x[:, 0]] + table[5 + batch.x[:, 1]]
    walk = nn.functional.batch_norm(
        batch.extras["random_walk"], None, None, walks.norm.weight, walks.norm.bias, training=True
    )
    x = torch.cat([x, walks.linear(walk)], 1)
    e = None if local == "gcn" else net.edges.table.weight[batch.edge_attr[:, 0]]
    for block in net.blocks:
        new, new_e = reference_convolution(local, block.local, x, e, batch)
        if local == "gated_gcn":
            x, e = (new, new_e) if "residual" not in off else (new - x, new_e - e)
        else:
            new = batch_norm(block.norm, new, off)
            new = new if "activation" in off else new.relu()
            x = new if "residual" in off else x + new
        if "feed_forward" not in off:
            first, second = block.norm_feed_forward, block.feed_forward.norm["x"]
            x = batch_norm(first, x, off)
            network = block.feed_forward.layer
            assert network.expand.out_features == 2 * WIDTH
            x = batch_norm(second, x + network.project_out(network.expand(x).relu()), off)
    return net.head.mlp(global_mean_pool(x, batch.batch))


CASES = [
    *product(("gcn", "gine"), ((), *((part,) for part in SWITCHES), tuple(SWITCHES))),
    *product(("gated_gcn",), ((), ("residual",), ("feed_forward",), ("residual", "feed_forward"))),
]


@pytest.mark.parametrize(("local", "off"), CASES)
def test_gnn_plus_matches_its_reference(local, off, monkeypatch):
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr("tests.layers.references.WIDTH", WIDTH)
    try:
        net, batch = random_network(local, off), random_batch((5, 1, 7))
        batch.extras["random_walk"] = torch.rand(batch.num_nodes, STEPS)
        results = []
        for out in (net(batch), reference_network(net, local, batch, off)):
            total = (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum()
            grads = torch.autograd.grad(total, list(net.parameters()), allow_unused=True, materialize_grads=True)
            results.append([out, *grads])
        torch.testing.assert_close(*results, rtol=1e-8, atol=1e-8)
    finally:
        torch.set_default_dtype(torch.float32)


def test_gated_convolution_without_norms():
    net, batch = random_network("gated_gcn", ("norm",)), random_batch((5, 3))
    batch.extras["random_walk"] = torch.rand(batch.num_nodes, STEPS, dtype=torch.float64)
    assert not any("norm" in name for name, _ in net.blocks.named_parameters())
    assert net(batch).isfinite().all()


def test_head_widths_with_and_without_halving():
    for choice, widths in (("true", [12, 6, 3, 3]), ("false", [12, 12, 12, 3])):
        with initialize_config_dir(str(CONFIGS), version_base=None):
            cfg = compose(
                "train", ["model=gnn_plus", f"model.width={WIDTH}", f"+model.head.halve={choice}", "encoding=none"]
            )
        linear = [layer for layer in build(network_config(cfg), SCHEMA).head.mlp if isinstance(layer, nn.Linear)]
        assert [linear[0].in_features, *(layer.out_features for layer in linear)] == widths

"""Recipes of configs/experiment against the programs whose results they reproduce."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from gt import GraphBatch
from gt.cli.config_files import CONFIGS
from gt.schema import Schema
from gt.train.network import build, network_config

COLUMNS, CLASSES, NODES = 30, 7, 60


class PyGNetwork(torch.nn.Module):
    """The network of PyG's examples/gcn.py."""

    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(COLUMNS, 16), GCNConv(16, CLASSES)

    def forward(self, x, edge_index, drop):
        x = self.first(drop(x, 0.5, self.training), edge_index).relu()
        return self.second(drop(x, 0.5, self.training), edge_index)


def chequered_dropout(x, p, training):
    """Deterministic dropout of the black squares of a chequerboard."""
    black = torch.arange(x.numel()).view(x.shape).sum(-1, keepdim=True) + torch.arange(x.shape[-1])
    return x * (black % 2) / (1 - p) if training and p else x


@pytest.fixture
def graph():
    draw = torch.Generator().manual_seed(0)
    ends = torch.randint(0, NODES, (2, 150), generator=draw)
    ends = ends[:, ends[0] != ends[1]]
    edge_index = torch.cat([ends, ends.flip(0)], 1).unique(dim=1)
    x = torch.rand(NODES, COLUMNS, generator=draw)
    y = torch.randint(0, CLASSES, (NODES,), generator=draw)
    return Data(x=x / x.sum(1, keepdim=True), edge_index=edge_index, y=y)


def test_cora_gcn_matches_pyg_example(graph, monkeypatch):
    """Values, gradients and thirty training steps, with the same elements dropped."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=["experiment=cora_gcn"])
    assert cfg.trainer.gradient_clip_val is None
    torch.manual_seed(0)
    schema = Schema(node_floats=COLUMNS, level="node", kind="multiclass", outputs=CLASSES)
    net, reference = build(network_config(cfg), schema), PyGNetwork()
    counterparts = {
        "nodes.linear.weight": reference.first.lin.weight,
        "blocks.0.local.bias": reference.first.bias,
        "head.mlp.0.weight": reference.second.lin.weight,
        "head.mlp.0.bias": reference.second.bias,
    }
    ours = dict(net.named_parameters())
    assert ours.keys() == counterparts.keys()
    for name, parameter in ours.items():  # both are initialised uniformly within the same bounds
        assert parameter.abs().max().item() == pytest.approx(counterparts[name].abs().max().item(), rel=0.05)
        assert parameter.std().item() == pytest.approx(counterparts[name].std().item(), rel=0.15)
    with torch.no_grad():
        torch.nn.init.normal_(reference.first.bias)
        torch.nn.init.normal_(reference.second.bias)
        for name, parameter in ours.items():
            parameter.copy_(counterparts[name])
    monkeypatch.setattr("gt.dropout.dropout", chequered_dropout)
    batch = GraphBatch.from_data_list([graph])
    optimisers = instantiate(cfg.optim).configure(net, cfg.trainer.max_epochs)
    reference_optimiser = torch.optim.Adam(
        [
            {"params": reference.first.parameters(), "weight_decay": 5e-4},
            {"params": reference.second.parameters(), "weight_decay": 0},
        ],
        lr=0.01,
    )
    for _ in range(30):
        outs = net(batch), reference(graph.x, graph.edge_index, chequered_dropout)
        torch.testing.assert_close(*outs)
        for out, optimiser in zip(outs, (optimisers["optimizer"], reference_optimiser), strict=True):
            optimiser.zero_grad()
            F.cross_entropy(out, graph.y).backward()
        for name, parameter in ours.items():
            torch.testing.assert_close(parameter.grad, counterparts[name].grad)
        optimisers["optimizer"].step()
        optimisers["lr_scheduler"]["scheduler"].step()
        reference_optimiser.step()
    torch.testing.assert_close(net.eval()(batch), reference.eval()(graph.x, graph.edge_index, chequered_dropout))

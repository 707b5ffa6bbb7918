"""Every model of configs/model: it trains, handles edge cases, and has the invariances that it should."""

from copy import deepcopy
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_geometric.data import Data

from gt.cli.config_files import CONFIGS
from gt.data.batching import prepare_all
from gt.data.static import Shape, pad_batch
from gt.errors import UserError
from gt.features import Features
from gt.graph import GraphBatch, path_graphs
from gt.inference.causal import check_causal
from gt.layers import parts_of
from gt.losses import loss
from gt.masks.random import redraw_mask
from gt.schema import Schema
from gt.train.network import build, encodings_of, network_config
from tests.graphs import random_graph
from tests.models.test_invariance import permute_nodes
from tests.races import NoRaces

MODELS = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
SYNCHRONISING = ("grass", "polynormer", "tokengt")  # their forward pass waits for a GPU, see docs/concepts.md
every_model = pytest.mark.parametrize("name", MODELS)
TOKENS = 7
GRAPHS = Schema(node_vocab=(TOKENS,), edge_vocab=(3,), outputs=TOKENS, max_nodes=12)
NODES = Schema(node_vocab=(TOKENS,), edge_vocab=(3,), outputs=TOKENS, max_nodes=12, level="node")
TEXT = Schema(node_vocab=(TOKENS,), outputs=TOKENS, max_nodes=12, level="node")


def any_encoding(encoding):
    return True


def order_free(encoding):
    return encoding.reads != "position" and not encoding.rotates


def not_precomputed(encoding):
    return not encoding.key()


@cache
def small_config(name):
    """The configuration of a model, made small."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = network_config(compose("train", overrides=[f"model={name}"]))
    model = config["model"] | {"width": 32, "depth": min(config["model"]["depth"], 2)}
    return config | {"model": model}


@cache
def network(name, schema=GRAPHS, keep=any_encoding, mask=None):
    """A network in double precision and eval mode, its parameters perturbed so that none keeps its initial value.

    Args:
        keep: predicate of the encodings to keep.
        mask: name of the mask to use instead of the configured one; a random mask is replaced by `Complete`.
    """
    config = small_config(name)
    selected = zip(config["encoding"].items(), encodings_of(config), strict=True)
    config = config | {"encoding": dict(entry for entry, encoding in selected if keep(encoding))}
    torch.manual_seed(0)
    net = build(config if mask is None else config | {"mask": {"_target_": f"gt.masks.{mask}"}}, schema)
    if any(redraw_mask(each, 1) != each for each in net.masks):
        return network(name, schema, keep, "Complete")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.double().eval()


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)  # random walk encodings have float32 precision


def reads_order(net):
    """Whether a layer processes the nodes in order."""
    return any(getattr(part, "positions", False) for block in net.blocks for part in parts_of(block))


def graphs(*sizes):
    """Random graphs with one node column; some nodes are isolated."""
    out = [random_graph(n, seed) for seed, n in enumerate(sizes)]
    for graph in out:
        graph.x = graph.x[:, :1]
    return out


def encoded(net, data_list: list[Data]) -> list[Data]:
    """The graphs with the precomputed arrays of the network's encodings."""
    ends = (np.cumsum([0, *sizes]) for sizes in ([g.num_nodes for g in data_list], [g.num_edges for g in data_list]))
    node_ptr, edge_ptr = ends
    edge_index = torch.cat([graph.edge_index for graph in data_list], dim=1).numpy()
    packed = Packed(node_ptr=node_ptr, edge_ptr=edge_ptr, edge_index=edge_index, sizes=np.diff(node_ptr))
    for encoding in net.encodings:
        for key, rows in (encoding.compute(packed) if encoding.key() else {}).items():
            for graph, start in zip(data_list, node_ptr, strict=False):
                graph[key] = torch.from_numpy(rows[start : start + graph.num_nodes]).double()
    return data_list


class Packed(SimpleNamespace):
    """The attributes of packed graphs that encodings read."""

    def __len__(self):
        return len(self.sizes)


def batch_of(data_list):
    return GraphBatch.from_data_list(data_list)


SIZES = (7, 1, 12, 4, 1, 9)


@every_model
def test_training_reduces_the_loss(name):
    net = deepcopy(network(name)).float().train()
    batch = batch_of(encoded(net, graphs(*SIZES)))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(4):
        torch.manual_seed(0)  # the same random numbers at each step
        losses.append(loss(GRAPHS, net(batch), batch.y))
        optimiser.zero_grad()
        with NoRaces():
            losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    assert all(parameter.isfinite().all() for parameter in net.parameters())


@every_model
def test_training_on_a_batch_used_in_inference_mode(name):
    net = deepcopy(network(name))
    batch = batch_of(encoded(net, graphs(*SIZES)))
    with torch.inference_mode():
        net(batch)
    net.train()
    loss(GRAPHS, net(batch), batch.y).backward()
    assert any(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("name", [name for name in MODELS if name not in SYNCHRONISING])
def test_forward_pass_does_not_wait_for_the_device(name, monkeypatch):
    monkeypatch.setattr(Features, "_check_categories", lambda *_: None)  # it only runs on a CPU
    net = deepcopy(network(name)).float().train()
    batch = batch_of(encoded(net, graphs(*SIZES)))
    prepare_all(batch, net.readings())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # values of fake tensors cannot be read
        assert net(batch.apply(mode.from_tensor)).shape == (len(SIZES), TOKENS)


@pytest.mark.slow
@every_model
@pytest.mark.parametrize("sizes", [(1,), (1, 5, 1)], ids=["one node", "isolated nodes"])
def test_graphs_without_edges(name, sizes):
    net = deepcopy(network(name))
    data_list = graphs(*sizes)
    for graph in data_list:
        graph.edge_index, graph.edge_attr = graph.edge_index[:, :0], graph.edge_attr[:0]
    batch = batch_of(encoded(net, data_list))
    assert net(batch).isfinite().all()
    net.train()
    net(batch).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@every_model
@pytest.mark.parametrize("sizes", [(0,), (0, 5, 0)], ids=["no nodes", "graphs without nodes"])
def test_graphs_without_nodes(name, sizes):
    net = deepcopy(network(name))
    data_list = graphs(*(max(size, 1) for size in sizes))
    for graph, size in zip(data_list, sizes, strict=True):
        if not size:
            graph.x, graph.edge_index, graph.edge_attr = graph.x[:0], graph.edge_index[:, :0], graph.edge_attr[:0]
            graph.num_nodes = 0
    batch = batch_of(encoded(net, data_list))
    out = net(batch)
    assert out.shape == (len(sizes), TOKENS)
    assert out.isfinite().all()
    net.train()
    net(batch).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.slow
@every_model
@torch.no_grad()
def test_node_outputs_are_permutation_equivariant(name):
    net = network(name, NODES, order_free)
    data_list = encoded(net, graphs(*SIZES))
    permuted, orders = zip(*(permute_nodes(graph, seed) for seed, graph in enumerate(data_list)), strict=True)
    for graph, copy, order in zip(data_list, permuted, orders, strict=True):
        for key in graph.keys():  # noqa: SIM118  a Data object iterates over pairs
            if graph.is_node_attr(key):
                copy[key] = graph[key][order]
    out = net(batch_of(data_list))
    expected = torch.cat([rows[order] for rows, order in zip(out.split(SIZES), orders, strict=True)])
    if reads_order(net):
        assert not torch.allclose(net(batch_of(permuted)), expected, atol=1e-3)
    else:
        assert_same(net(batch_of(permuted)), expected)
        assert (out.std(0) > 1e-4).all()  # a constant would pass as equivariant


@pytest.mark.slow
@every_model
@torch.no_grad()
def test_predictions_do_not_depend_on_the_batch(name):
    net = network(name)
    data_list = encoded(net, graphs(*SIZES))
    batched = net(batch_of(data_list))
    assert_same(torch.cat([net(batch_of([graph])) for graph in data_list]), batched)
    assert (batched.std(0) > 1e-4).all()


@pytest.mark.slow
@every_model
@torch.no_grad()
def test_static_padding_does_not_change_predictions(name):
    net = network(name)
    batch = batch_of(encoded(net, graphs(*SIZES)))
    padded = pad_batch(batch, [Shape(max_nodes=12, nodes=45, edges=110, graphs=9)], GRAPHS)
    assert_same(net(padded)[: len(SIZES)], net(batch))


SEQUENTIAL = {"gpt", "llama", "qwen3", "transformer", "linear_transformer", "performer", "lstm", "gru", "mamba2", "gps"}


@pytest.mark.slow
@every_model
@torch.no_grad()
def test_text_models_are_causal_or_rejected(name):
    net = network(name, TEXT, not_precomputed, "Causal")
    try:
        check_causal(net, 12)
    except UserError:
        assert name not in SEQUENTIAL
        return
    text = path_graphs([12, 5])
    text.x = torch.arange(17)[:, None] % TOKENS
    before = net(text)
    for position in (0, 3, 11):
        text.x[position] = (text.x[position] + 1) % TOKENS
        after = net(text)
        text.x[position] = position % TOKENS
        assert torch.equal(after[:position], before[:position])  # exactly
        assert torch.equal(after[12:], before[12:])  # the other text
        assert not torch.equal(after[position], before[position])


def test_sequential_models_are_among_the_configs():
    assert set(MODELS) >= SEQUENTIAL

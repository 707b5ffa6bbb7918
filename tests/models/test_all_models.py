"""Every file of configs/model, whoever adds it: it trains, and does not notice what it must not."""

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
from tests.models.test_invariance import renumbered
from tests.races import NoRaces

MODELS = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
WAITING = ("grass", "polynormer", "tokengt")  # for a GPU, see docs/concepts.md
every_model = pytest.mark.parametrize("name", MODELS)
TOKENS = 7
GRAPHS = Schema(node_vocab=(TOKENS,), edge_vocab=(3,), outputs=TOKENS, max_nodes=12)
NODES = Schema(node_vocab=(TOKENS,), edge_vocab=(3,), outputs=TOKENS, max_nodes=12, level="node")
TEXT = Schema(node_vocab=(TOKENS,), outputs=TOKENS, max_nodes=12, level="node")


def everything(encoding):
    return True


def without_order(encoding):
    return encoding.reads != "position" and not encoding.rotates


def without_arrays(encoding):
    return not encoding.key()


@cache
def configured(name):
    """The model of a file, small."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = network_config(compose("train", overrides=[f"model={name}"]))
    model = config["model"] | {"width": 32, "depth": min(config["model"]["depth"], 2)}
    return config | {"model": model}


@cache
def network(name, schema=GRAPHS, keep=everything, mask=None):
    """A network in double precision and eval mode whose parameters are not those that it began with.

    Args:
        keep: which of its encodings are to be kept.
        mask: instead of its own; one that is drawn at random gives way to the complete one.
    """
    config = configured(name)
    kept = zip(config["encoding"].items(), encodings_of(config), strict=True)
    config = config | {"encoding": dict(entry for entry, encoding in kept if keep(encoding))}
    torch.manual_seed(0)
    net = build(config if mask is None else config | {"mask": {"_target_": f"gt.masks.{mask}"}}, schema)
    if any(redraw_mask(each, 1) != each for each in net.masks):
        return network(name, schema, keep, "Complete")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.double().eval()


def same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)  # chances of walks are of 32 bits


def by_order(net):
    """Whether a layer goes along the nodes."""
    return any(getattr(part, "positions", False) for block in net.blocks for part in parts_of(block))


def graphs(*sizes):
    """Random graphs with nodes of one column, isolated ones among them."""
    out = [random_graph(n, seed) for seed, n in enumerate(sizes)]
    for graph in out:
        graph.x = graph.x[:, :1]
    return out


def encoded(net, some: list[Data]) -> list[Data]:
    """The graphs, with what the network's encodings compute beforehand."""
    ends = (np.cumsum([0, *sizes]) for sizes in ([g.num_nodes for g in some], [g.num_edges for g in some]))
    node_ptr, edge_ptr = ends
    edge_index = torch.cat([graph.edge_index for graph in some], dim=1).numpy()
    packed = Packed(node_ptr=node_ptr, edge_ptr=edge_ptr, edge_index=edge_index, sizes=np.diff(node_ptr))
    for encoding in net.encodings:
        for key, rows in (encoding.compute(packed) if encoding.key() else {}).items():
            for graph, low in zip(some, node_ptr, strict=False):
                graph[key] = torch.from_numpy(rows[low : low + graph.num_nodes]).double()
    return some


class Packed(SimpleNamespace):
    def __len__(self):
        return len(self.sizes)


def batch_of(some):
    return GraphBatch.from_data_list(some)


SIZES = (7, 1, 12, 4, 1, 9)


@every_model
def test_it_learns(name):
    net = deepcopy(network(name)).float().train()
    batch = batch_of(encoded(net, graphs(*SIZES)))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    costs = []
    for _ in range(4):
        torch.manual_seed(0)  # the same draws at each step
        costs.append(loss(GRAPHS, net(batch), batch.y))
        optimiser.zero_grad()
        with NoRaces():
            costs[-1].backward()
        optimiser.step()
    assert costs[-1] < costs[0]
    assert all(parameter.isfinite().all() for parameter in net.parameters())


@every_model
def test_a_batch_that_was_predicted_can_be_trained_with(name):
    net = deepcopy(network(name))
    batch = batch_of(encoded(net, graphs(*SIZES)))
    with torch.inference_mode():
        net(batch)
    net.train()
    loss(GRAPHS, net(batch), batch.y).backward()
    assert any(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WAITING])
def test_a_forward_pass_waits_for_no_device(name, monkeypatch):
    monkeypatch.setattr(Features, "_check_categories", lambda *_: None)  # which is done on a CPU alone
    net = deepcopy(network(name)).float().train()
    batch = batch_of(encoded(net, graphs(*SIZES)))
    prepare_all(batch, net.readings())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # of which no value can be read
        assert net(batch.apply(mode.from_tensor)).shape == (len(SIZES), TOKENS)


@pytest.mark.slow
@every_model
@pytest.mark.parametrize("sizes", [(1,), (1, 5, 1)], ids=["one node", "isolated nodes"])
def test_graphs_without_edges(name, sizes):
    net = deepcopy(network(name))
    some = graphs(*sizes)
    for graph in some:
        graph.edge_index, graph.edge_attr = graph.edge_index[:, :0], graph.edge_attr[:0]
    batch = batch_of(encoded(net, some))
    assert net(batch).isfinite().all()
    net.train()
    net(batch).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@every_model
@pytest.mark.parametrize("sizes", [(0,), (0, 5, 0)], ids=["no nodes", "graphs without nodes"])
def test_graphs_without_nodes(name, sizes):
    net = deepcopy(network(name))
    some = graphs(*(max(size, 1) for size in sizes))
    for graph, size in zip(some, sizes, strict=True):
        if not size:
            graph.x, graph.edge_index, graph.edge_attr = graph.x[:0], graph.edge_index[:, :0], graph.edge_attr[:0]
            graph.num_nodes = 0
    batch = batch_of(encoded(net, some))
    out = net(batch)
    assert out.shape == (len(sizes), TOKENS)
    assert out.isfinite().all()
    net.train()
    net(batch).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.slow
@every_model
@torch.no_grad()
def test_nodes_have_no_numbers_but_where_order_is_read(name):
    net = network(name, NODES, without_order)
    some = encoded(net, graphs(*SIZES))
    others, orders = zip(*(renumbered(graph, seed) for seed, graph in enumerate(some)), strict=True)
    for graph, other, order in zip(some, others, orders, strict=True):
        for key in graph.keys():  # noqa: SIM118  a Data object iterates over pairs
            if graph.is_node_attr(key):
                other[key] = graph[key][order]
    out = net(batch_of(some))
    expected = torch.cat([rows[order] for rows, order in zip(out.split(SIZES), orders, strict=True)])
    if by_order(net):
        assert not torch.allclose(net(batch_of(others)), expected, atol=1e-3)
    else:
        same(net(batch_of(others)), expected)
        assert (out.std(0) > 1e-4).all()  # no constant passes for an equivariant


@pytest.mark.slow
@every_model
@torch.no_grad()
def test_a_graph_alone_is_predicted_as_in_company(name):
    net = network(name)
    some = encoded(net, graphs(*SIZES))
    together = net(batch_of(some))
    same(torch.cat([net(batch_of([graph])) for graph in some]), together)
    assert (together.std(0) > 1e-4).all()


@pytest.mark.slow
@every_model
@torch.no_grad()
def test_filling_up_a_static_shape_changes_nothing(name):
    net = network(name)
    batch = batch_of(encoded(net, graphs(*SIZES)))
    full = pad_batch(batch, [Shape(max_nodes=12, nodes=45, edges=110, graphs=9)], GRAPHS)
    same(net(full)[: len(SIZES)], net(batch))


SEQUENTIAL = {"gpt", "llama", "qwen3", "transformer", "linear_transformer", "performer", "lstm", "gru", "mamba2", "gps"}


@pytest.mark.slow
@every_model
@torch.no_grad()
def test_a_model_of_text_reads_nothing_ahead_or_is_refused(name):
    net = network(name, TEXT, without_arrays, "Causal")
    try:
        check_causal(net, 12)
    except UserError:
        assert name not in SEQUENTIAL
        return
    text = path_graphs([12, 5])
    text.x = torch.arange(17)[:, None] % TOKENS
    before = net(text)
    for place in (0, 3, 11):
        text.x[place] = (text.x[place] + 1) % TOKENS
        after = net(text)
        text.x[place] = place % TOKENS
        assert torch.equal(after[:place], before[:place])  # exactly
        assert torch.equal(after[12:], before[12:])
        assert not torch.equal(after[place], before[place])


def test_there_are_models():
    assert set(MODELS) >= SEQUENTIAL

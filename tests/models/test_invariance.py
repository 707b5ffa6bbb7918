"""Invariance of configured models to node order, to the other graphs of the batch, and to later tokens."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from gt import GraphBatch
from gt.masks import Causal, Complete, Hops, PerHead, Window
from gt.schema import Schema
from gt.train.network import build, network_config
from tests.graphs import path, random_graph

CONFIGS = Path(__file__).parents[2] / "configs"
GRAPHS = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3, max_nodes=64)
TOKENS = Schema(node_vocab=(11,), edge_vocab=(3,), level="node", outputs=11, max_nodes=64)

SMALL = ("model.width=16", "model.depth=2")
DEGREE, NONE = "encoding=[degree]", "encoding=[none]"  # neither depends on the numbering of nodes
MODELS = {
    "GPS": ("model=gps", DEGREE),
    "GPS within one hop": ("model=gps", NONE, "mask.hops=1"),
    "GPS within two hops, gated": ("model=gps", "model/local=gated_gcn", NONE, "mask.hops=2"),
    "GPS of GCN with layer norm": ("model=gps", "model/local=gcn", "model/norm=layer", DEGREE),
    "GPS, one branch after the other": (
        "model=gps", DEGREE, "model.block._target_=gt.layers.SequentialBlock", "+model.block.prenorm=true",
    ),
    "GPS by an additive score, with hop decay": ("model=gps", NONE, "model/score=additive", "model/hint=hop_decay"),
    "GPS gated by edges": ("model=gps", NONE, "model/score=gated", "mask.hops=2"),
    "Transformer": ("model=transformer", DEGREE),
    "Transformer within two hops": ("model=transformer", NONE, "mask.hops=2"),
    "GT": ("model=gt", DEGREE),
    "GIN": ("model=gin", DEGREE),
    "GCN": ("model=gcn", NONE),
    "GNN+": ("model=gnn_plus", "model/local=gated_gcn", "model/jump=max", NONE),
    "virtual node": ("model=virtual_node", "model/jump=concatenate", NONE),
    "GT within two hops": ("model=gt", "+model.block.pairs=true", "encoding=[degree,edges]", "mask.hops=2"),
    "Graphormer": ("model=graphormer",),
    "GRIT": ("model=grit", "encoding=[degree,edges_only]"),  # random walk encodings have float32 precision
    "SAN": ("model=san", "encoding=[degree,edges]", "model.block.attention.gamma=0.1"),
    "EGT": ("model=egt", "encoding=[degree,distance,edges]"),
    "GRASS": ("model=grass", "encoding=[degree,edges]", "mask=hops", "mask.hops=2"),
    "Exphormer": ("model=exphormer", "encoding=[degree,edges]", "mask=virtual", "mask.masks.0.hops=1"),
}  # fmt: skip
BACKENDS = ("auto", "dense", "sdpa", "sparse")
# the backend only affects attention, so the others are tried with GPS and Transformer only
CASES = {
    f"{name}, {backend}": (*choices, *([f"+model.block.attention.backend={backend}"] if backend != "auto" else []))
    for name, choices in MODELS.items()
    for backend in BACKENDS
    if backend == "auto" or (name.startswith(("GPS", "Transformer")) and not (backend == "sdpa" and " by " in name))
}
every_model = pytest.mark.parametrize("choices", CASES.values(), ids=CASES)


@cache
def compose_network(choices):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return network_config(compose("train", overrides=[*SMALL, *choices]))


def model(choices, schema=GRAPHS):
    """A configured model in double precision and eval mode, its parameters and running statistics changed."""
    torch.manual_seed(0)
    net = build(compose_network(choices), schema).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # initial norms and biases would hide mistakes
        data_list = [token_path(9, seed) if schema is TOKENS else random_graph(9, seed) for seed in range(4)]
        net.train()(GraphBatch.from_data_list(data_list))
    return net.eval()


def permute_nodes(graph, seed):
    """The graph with its nodes in another order, and that order: row n of the new graph is row order[n] of the old."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(graph.num_nodes, generator=generator)
    shuffle = torch.randperm(graph.num_edges, generator=generator)
    new = graph.clone()
    new.x = graph.x[order]
    new.edge_index = order.argsort()[graph.edge_index][:, shuffle]
    new.edge_attr = graph.edge_attr[shuffle]
    return new, order


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


SAMPLE = [random_graph(n, seed) for seed, n in enumerate((7, 1, 12, 4, 1, 9))]


@every_model
@torch.no_grad()
def test_predictions_are_permutation_invariant(choices):
    net = model(choices)
    permuted = [permute_nodes(graph, seed)[0] for seed, graph in enumerate(SAMPLE)]
    out = net(GraphBatch.from_data_list(SAMPLE))
    assert_same(net(GraphBatch.from_data_list(permuted)), out)
    assert (out.std(0) > 1e-3).all()  # graphs are told apart: a constant would pass as invariant


@pytest.mark.parametrize("choices", MODELS.values(), ids=MODELS)
@torch.no_grad()
def test_node_predictions_are_permutation_equivariant(choices):
    net = model(choices, Schema(node_vocab=(5, 5), edge_vocab=(3,), level="node", outputs=3))
    graph = random_graph(12, seed=3)
    permuted, order = permute_nodes(graph, seed=1)
    assert_same(net(GraphBatch.from_data_list([permuted])), net(GraphBatch.from_data_list([graph]))[order])


@torch.no_grad()
def test_positions_and_causal_masks_depend_on_node_order():
    batches = [GraphBatch.from_data_list(g) for g in (SAMPLE, [permute_nodes(graph, 1)[0] for graph in SAMPLE])]
    for choices in (("model=transformer",), ("model=transformer", NONE, "mask=causal")):
        net = model(choices)
        assert not torch.allclose(*map(net, batches), atol=1e-3)


@every_model
@torch.no_grad()
def test_predictions_do_not_depend_on_the_batch(choices):
    net = model(choices)
    batched = net(GraphBatch.from_data_list(SAMPLE))
    assert_same(torch.cat([net(GraphBatch.from_data_list([graph])) for graph in SAMPLE]), batched)
    assert_same(net(GraphBatch.from_data_list(SAMPLE[::-1])), batched.flip(0))


@every_model
@torch.no_grad()
def test_padding_does_not_change_predictions(choices):
    net = model(choices)
    padded = net(GraphBatch.from_data_list([*SAMPLE[:3], random_graph(120, seed=9, density=0.02), *SAMPLE[3:]]))
    assert_same(padded[[0, 1, 2, 4, 5, 6]], net(GraphBatch.from_data_list(SAMPLE)))


MASKS = [
    Complete(),
    Causal(),
    Window(30),
    Hops(1),
    Hops(None),
    Hops(3) | Window(30),
    Complete() & Causal(),
    PerHead((Hops(1), Complete(), Causal(), Window(30) | Hops(None))),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mask", MASKS, ids=str)
@torch.no_grad()
def test_masks_do_not_cross_graphs(mask, backend):
    net = model(("model=gps", DEGREE, f"+model.block.attention.backend={backend}"))
    net.masks = [mask] * len(net.masks)
    batch, changed = (GraphBatch.from_data_list(SAMPLE) for _ in range(2))
    for graph in (0, 2, 5):
        in_graph = batch.batch == graph
        changed.x = torch.where(in_graph[:, None], 4 - batch.x, batch.x)
        before, after = net(batch), net(changed)
        others = torch.arange(len(SAMPLE)) != graph
        assert torch.equal(after[others], before[others])  # exactly
        assert not torch.allclose(after[graph], before[graph])


def token_path(length, seed):
    """A path whose nodes are characters."""
    text = path(length, seed)
    text.x = torch.randint(0, 11, (length, 1), generator=torch.Generator().manual_seed(seed))
    return text


CAUSAL = {
    "GPT": ("model=gpt", "mask=causal"),
    "GPT with rotary positions": ("model=gpt", "mask=causal", "encoding=[rope]"),
    "GPT within a window": ("model=gpt", "mask=causal_window", "mask.masks.0.width=3"),
    "GPT within two hops of a path": ("model=gpt", "mask=hops", "mask.hops=2"),
    "GPT with ALiBi": ("model=gpt", "mask=causal", "encoding=[none]", "model/hint=position_decay"),
    "GPT and GINE along the path": ("model=gpt", "mask=causal", "+model/local=gine"),
    "GPS with layer norm": ("model=gps", "model/local=gine", "model/norm=layer", "mask=causal", "encoding=[learned]"),
    "gated GPS": ("model=gps", "model/local=gated_gcn", "model/norm=layer", "mask=causal", "encoding=[sinusoidal]"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [(20, 20, 20), (20, 1, 7, 33)], ids=["equal lengths", "many lengths"])
@pytest.mark.parametrize("choices", CAUSAL.values(), ids=CAUSAL)
@torch.no_grad()
def test_changed_token_leaves_earlier_outputs_unchanged(choices, lengths, backend):
    net = model((*choices, f"+model.block.attention.backend={backend}"), TOKENS)
    texts = [token_path(length, seed) for seed, length in enumerate(lengths)]
    before = net(GraphBatch.from_data_list(texts))
    for position in (0, 1, 10, 19):
        changed = [text.clone() for text in texts]
        changed[0].x[position] = (changed[0].x[position] + 1) % 11
        after = net(GraphBatch.from_data_list(changed))
        assert torch.equal(after[:position], before[:position])  # exactly
        assert torch.equal(after[20:], before[20:])  # the other texts
        assert not torch.equal(after[position], before[position])
        if position + 1 < 20:
            assert not torch.equal(after[position + 1], before[position + 1])

"""Gated blends, LayerScale, stochastic depth, jumping knowledge, virtual nodes and DeepSets, against loops."""

from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from gt import GraphBatch
from gt.cli.config import check
from gt.cli.config_files import CONFIGS
from gt.errors import UserError
from gt.inference.decode import obstacle
from gt.inference.whole_graph import predict_chunks
from gt.layers import (
    GINE,
    Attention,
    FeedForward,
    GatedBlend,
    GatedGCN,
    JumpConcatenate,
    JumpMax,
    ParallelBlock,
    SequentialBlock,
    State,
    VirtualNode,
)
from gt.layers.depth import stochastic_depth
from gt.masks import Complete, Hops, Window
from gt.model import GraphTransformer
from gt.parallel.model import check as check_parallel
from gt.schema import Schema
from gt.train.network import build, network_config
from tests.graphs import random_batch, random_graph

WIDTH = 8
SCHEMA = Schema((5, 5), edge_vocab=(3,), outputs=3)
NODES = Schema((5, 5), edge_vocab=(3,), level="node", outputs=3)
TwoHeads = partial(Attention, heads=2)


def build_from_config(*overrides, schema=SCHEMA):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose("train", ["encoding=none", "model.width=8", "model.depth=2", *overrides])
    check(cfg)
    torch.manual_seed(0)
    return build(network_config(cfg), schema)


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
@pytest.mark.parametrize("prenorm", [False, True])
def test_gated_blend_weights_branches_per_node_and_channel(make, prenorm):
    torch.manual_seed(0)
    batch, x = random_batch((4, 3)), torch.randn(7, WIDTH)
    pairs = Complete()(batch)
    blocks = [
        make(WIDTH, GINE, TwoHeads, norm=nn.LayerNorm, prenorm=prenorm, blend=blend).eval()
        for blend in (partial(GatedBlend, WIDTH), partial(GatedBlend, WIDTH))
    ]
    plain = make(WIDTH, GINE, TwoHeads, norm=nn.LayerNorm, prenorm=prenorm).eval()
    plain.load_state_dict({k: v for k, v in blocks[0].state_dict().items() if "gate" not in k})
    state = State(x)
    torch.testing.assert_close(blocks[0](state, batch, pairs).x, plain(state, batch, pairs).x)  # initially a plain sum
    block = blocks[1]
    nn.init.normal_(block.blend.gate.weight)
    nn.init.normal_(block.blend.gate.bias)

    def step(layer, norm, value):
        return layer(State(norm(value) if prenorm else value), batch, pairs)["x"]

    def weight(rows):
        return torch.stack([1 / (1 + (-(block.blend.gate.weight @ row + block.blend.gate.bias)).exp()) for row in rows])

    local, attention = block.norm_local, block.norm_attention
    first, w = step(block.local, local, x), weight(x)
    if make is ParallelBlock:
        second = step(block.attention, attention, x)
        if prenorm:
            expected = x + 2 * (1 - w) * first + 2 * w * second
        else:
            expected = 2 * (1 - w) * local(x + first) + 2 * w * attention(x + second)
    else:
        middle = x + 2 * (1 - w) * first
        middle = middle if prenorm else local(middle)
        expected = middle + 2 * weight(middle) * step(block.attention, attention, middle)
        expected = expected if prenorm else attention(expected)
    torch.testing.assert_close(block(state, batch, pairs).x, expected)


@pytest.mark.parametrize("prenorm", [False, True])
def test_layer_scale_multiplies_each_branch(prenorm):
    torch.manual_seed(0)
    batch, x = random_batch((4, 3)), torch.randn(7, WIDTH)
    pairs = Complete()(batch)
    block = ParallelBlock(
        WIDTH, attention=TwoHeads, feed_forward=FeedForward, norm=nn.LayerNorm, prenorm=prenorm, layer_scale=0.1
    )
    scales = {name: p for name, p in block.named_parameters() if "scale" in name}
    assert {name: p.tolist() for name, p in scales.items()} == {
        f"scale_{part}.weight": pytest.approx([0.1] * WIDTH) for part in ("attention", "feed_forward")
    }
    for scale in scales.values():
        nn.init.normal_(scale)
    expected = x
    for part in ("attention", "feed_forward"):
        layer, norm, scale = getattr(block, part), getattr(block, f"norm_{part}"), scales[f"scale_{part}.weight"]
        read = norm(expected) if prenorm else expected
        expected = expected + scale * layer(State(read), batch, pairs)["x"]
        expected = expected if prenorm else norm(expected)
    torch.testing.assert_close(block(State(x), batch, pairs).x, expected)


def test_stochastic_depth_skips_whole_graphs():
    torch.manual_seed(0)
    batch = random_batch(tuple([3, 5, 4] * 40), density=0.5)
    pairs = Hops(1)(batch)
    rows = {"x": batch.num_nodes, "e": batch.num_edges, "p": pairs.edges.shape[1], "g": batch.num_graphs}
    before, after = (State(**{name: torch.randn(n, WIDTH) for name, n in rows.items()}) for _ in range(2))
    out = stochastic_depth(before, after, batch, pairs, 0.25)
    kept = []
    for graph in range(batch.num_graphs):
        selections = {
            "x": batch.batch == graph,
            "e": batch.batch[batch.edge_index[0]] == graph,
            "p": batch.batch[pairs.edges[0]] == graph,
            "g": torch.arange(batch.num_graphs) == graph,
        }
        factors = [
            (getattr(out, name) - getattr(before, name))[rows] / (getattr(after, name) - getattr(before, name))[rows]
            for name, rows in selections.items()
        ]
        factor = factors[-1].mean()
        kept.append(bool(factor > 0.5))
        for each in factors:
            torch.testing.assert_close(each, torch.full_like(each, 4 / 3 if kept[-1] else 0.0), rtol=1e-2, atol=1e-3)
    assert 0.6 < sum(kept) / len(kept) < 0.9
    fresh = stochastic_depth(State(before.x), after, batch, pairs, 0.25)
    assert torch.equal(fresh.e, after.e)  # a stream that the block created


def test_stochastic_depth_rate_grows_with_depth(monkeypatch):
    block = partial(ParallelBlock, local=GatedGCN, norm=nn.LayerNorm)
    torch.manual_seed(0)
    net = GraphTransformer(SCHEMA, WIDTH, 4, block, stochastic_depth=0.8)
    batch, rates = random_batch((4, 3)), []
    plain = GraphTransformer(SCHEMA, WIDTH, 4, block)
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(batch), plain.eval()(batch))
    monkeypatch.setattr(
        "gt.model.stochastic_depth", lambda before, after, batch, pairs, rate: rates.append(rate) or before
    )
    net.train()(batch)
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8])
    with pytest.raises(ValueError, match="stochastic_depth"):
        GraphTransformer(SCHEMA, WIDTH, 4, block, stochastic_depth=1.0)


@pytest.mark.parametrize("jump", ["concatenate", "max"])
def test_jumping_knowledge_combines_all_blocks(jump):
    choices = ("model=gin", f"model/jump={jump}", "model.depth=3", "model.head.hidden=0")
    net = build_from_config(*choices, schema=NODES).eval()
    batch, states = random_batch((9,)), []
    for block in net.blocks:
        block.register_forward_hook(lambda module, args, out: states.append(out.x))
    out = net(batch)
    if jump == "max":
        joined = torch.maximum(torch.maximum(states[0], states[1]), states[2])
    else:
        parts = net.jump.linear.weight.split(WIDTH, dim=1)
        joined = sum(state @ part.T for state, part in zip(states, parts, strict=True)) + net.jump.linear.bias
    torch.testing.assert_close(out, net.head(joined, batch))
    assert not torch.allclose(out, net.head(states[-1], batch))
    for chunk in (1, 20):
        torch.testing.assert_close(predict_chunks(net, batch, chunk), out.detach(), atol=1e-5, rtol=1e-5)


def test_unsupported_uses_of_depth_options_are_rejected():
    block = partial(ParallelBlock, attention=TwoHeads, norm=nn.LayerNorm)
    for options, name in (({"jump": JumpMax}, "jump"), ({"stochastic_depth": 0.1}, "stochastic_depth")):
        net = GraphTransformer(NODES, WIDTH, 2, block, Window(2), **options)
        with pytest.raises(UserError, match=name):
            check_parallel(net)
    assert "JumpConcatenate" in obstacle(GraphTransformer(NODES, WIDTH, 2, block, jump=JumpConcatenate))
    with pytest.raises(ValueError, match="depth"):
        GraphTransformer(NODES, WIDTH, 0, jump=JumpMax)


@pytest.mark.parametrize("training", [True, False])
def test_virtual_node_matches_a_loop(training):
    torch.manual_seed(0)
    batch, layer = random_batch((5, 1, 3)), VirtualNode(WIDTH).train(training)
    network = nn.Sequential(
        nn.Linear(WIDTH, 2 * WIDTH), nn.BatchNorm1d(2 * WIDTH), nn.ReLU(),
        nn.Linear(2 * WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(),
    ).train(training)  # fmt: skip
    parts = [layer.linear[0], layer.norms[0], layer.linear[1], layer.norms[1]]
    for ours, reference in zip(parts, (network[0], network[1], network[3], network[4]), strict=True):
        reference.load_state_dict(ours.state_dict())
    x, g = torch.randn(9, WIDTH), torch.randn(3, WIDTH)
    for state in (None, g):
        steps = layer(State(x, g=state), batch, None)
        old = torch.zeros(3, WIDTH) if state is None else state
        sums = torch.stack([sum(x[batch.batch == graph]) for graph in range(3)])
        new = old + network(sums + old)
        torch.testing.assert_close(old + steps["g"], new)
        for node, graph in enumerate(batch.batch.tolist()):
            torch.testing.assert_close(steps["x"][node], new[graph])


@pytest.mark.parametrize("model", ["virtual_node", "deepsets"])
@torch.no_grad()
def test_invariance_to_node_order_and_batch(model):
    net = build_from_config(f"model={model}").double().eval()
    graphs = [random_graph(n, seed) for seed, n in enumerate((6, 1, 4))]
    out = net(GraphBatch.from_data_list(graphs))
    torch.testing.assert_close(torch.cat([net(GraphBatch.from_data_list([graph])) for graph in graphs]), out)
    order = torch.randperm(6)
    graphs[0].x, graphs[0].edge_index = graphs[0].x[order], order.argsort()[graphs[0].edge_index]
    torch.testing.assert_close(net(GraphBatch.from_data_list(graphs)), out)
    assert out.std(0).min() > 1e-4


@torch.no_grad()
def test_deepsets_sums_independent_nodes():
    net = build_from_config("model=deepsets").eval()
    batch = random_batch((5, 1, 3))
    bare = random_batch((5, 1, 3), density=0.0)
    bare.x = batch.x
    torch.testing.assert_close(net(bare), net(batch))  # edges are ignored
    table, rows = net.nodes.table.weight, []
    for first, second in batch.x.tolist():
        x = table[first] + table[5 + second]
        for block in net.blocks:
            ff = block.feed_forward
            x = block.norm_feed_forward(x + ff.project_out(ff.expand(x).relu()))
        rows.append(x)
    sums = torch.stack([sum(rows[0:5]), rows[5], sum(rows[6:9])])
    torch.testing.assert_close(net(batch), net.head.mlp(sums))


@pytest.mark.parametrize(
    ("choices", "parameters"),
    [
        (("model=gps", "model/blend=fixed"), 0),
        (("model=gps", "model/blend=learned"), 2),
        (("model=gps", "model/blend=gated", "model.width=16"), 2 * (16 * 16 + 16)),
    ],
)
def test_blends_of_the_config_group(choices, parameters):
    net = build_from_config(*choices)
    assert sum(p.numel() for name, p in net.named_parameters() if "blend" in name) == parameters
    assert net(random_batch((4, 3))).isfinite().all()

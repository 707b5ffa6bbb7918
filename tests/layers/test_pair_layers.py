"""Layers with a state for each pair, against their equations, one target, source and head at a time."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GraphNorm

from gt.encodings import Degree, Distance, EdgePath, Edges, RelativeWalks
from gt.graph import GraphBatch
from gt.heads import Head, Virtual
from gt.layers import EGT, GRASS, GRIT, SAN, Attention, EdgeGatedBlock, FeedForward, PairBlock, ParallelBlock, State
from gt.layers.dwivedi import EdgeGated
from gt.masks import Complete, Expander, Hops, PerHead, VirtualNodes, with_virtual_nodes
from gt.masks.random import redraw_mask
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.attention.masks import Neighbours
from tests.graphs import random_batch
from tests.layers.test_layers import assert_same, redraw
from tests.models.test_model import ATOMS, BONDS, NEW_ROWS
from tests.models.test_static import assert_padding_is_neutral, plain_and_padded

WIDTH, HEADS = 6, 2
D = WIDTH // HEADS
SCHEMA = Schema((5, 5), edge_vocab=(3,), outputs=3)


@pytest.fixture
def double_precision():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rows(values, width=WIDTH):
    return torch.stack(values) if values else torch.zeros(0, width)


def zeros(*shape):
    return torch.zeros(shape)


def softmax_weights(scores, gate=None):
    """Softmax of a list of numbers, optionally times a list of gates."""
    weights = torch.stack(scores).softmax(0)
    return list(weights if gate is None else weights * torch.stack(gate))


def split_heads(vector):
    return vector.view(HEADS, D)


def grit(layer, x, p, pairs):
    source, target = pairs.edges.tolist()
    q, (k, v) = layer.query(x), layer.key_value(x).chunk(2, 1)
    state = []
    for pair, (j, i) in enumerate(zip(source, target, strict=True)):
        scale, shift = layer.of_pair(p[pair]).chunk(2)
        s = (q[i] + k[j]) * scale
        signed = torch.where(s > 0, s.clamp(min=1e-300).sqrt(), -(-s).clamp(min=1e-300).sqrt())
        state.append(F.relu(signed + shift))
    read = []
    for i in range(len(x)):
        incoming = [pair for pair in range(len(source)) if target[pair] == i]
        heads = []
        for h in range(HEADS):
            own = slice(h * D, (h + 1) * D)
            if not incoming:
                heads.append(zeros(D))
                continue
            w = softmax_weights([(state[pair][own] @ layer.score[h]).clamp(-5, 5) for pair in incoming])
            values = [v[source[pair]][own] + state[pair][own] @ layer.pair_value[h] for pair in incoming]
            heads.append(sum(a * b for a, b in zip(w, values, strict=True)))
        h = torch.cat(heads)
        degree = math.log(1 + int((pairs.batch.edge_index[1] == i).sum()))
        read.append(h * layer.by_degree[0] + degree * h * layer.by_degree[1])
    return {"x": layer.project_out["x"](rows(read)), "p": layer.project_out["p"](rows(state))}


def egt(layer, x, p, pairs):
    source, target = pairs.edges.tolist()
    q, k, v = layer.project_in(x).chunk(3, 1)
    bias, gate = layer.of_pair(p).chunk(2, 1)
    scores = []
    for pair, (j, i) in enumerate(zip(source, target, strict=True)):
        product = (split_heads(q[i]) * split_heads(k[j])).sum(1) / math.sqrt(D)
        scores.append(product.clamp(-5, 5) + bias[pair])
    read = []
    for i in range(len(x)):
        incoming = [pair for pair in range(len(source)) if target[pair] == i]
        heads = []
        for h in range(HEADS):
            if not incoming:
                heads.append(zeros(D))
                continue
            gates = [torch.sigmoid(gate[pair, h]) for pair in incoming]
            w = softmax_weights([scores[pair][h] for pair in incoming], gates)
            total = sum(a * split_heads(v[source[pair]])[h] for a, pair in zip(w, incoming, strict=True))
            heads.append(total * torch.log(1 + sum(gates)))
        read.append(torch.cat(heads))
    return {"x": layer.project_out(rows(read)), "p": layer.project_pair_out(rows(scores, HEADS))}


def san(layer, x, p, pairs):
    source, target = pairs.edges.tolist()
    edges = {tuple(edge) for edge in pairs.batch.edge_index.T.tolist()}
    v, read = layer.value(x), []
    for i in range(len(x)):
        numerator, denominator = zeros(HEADS, D), zeros(HEADS, 1)
        for pair, j in enumerate(source):
            if target[pair] != i or (i == j and (j, i) not in edges):
                continue
            kind, share = ("edge", 1.0) if (j, i) in edges else ("other", layer.gamma)
            q, k = (
                split_heads(part) for part in (layer.query_key[kind](x[n]).chunk(2)[c] for c, n in ((0, i), (1, j)))
            )
            s = (q * k * split_heads(layer.gate[kind](p[pair]))).sum(1, keepdim=True) / math.sqrt(D)
            w = s.clamp(-5, 5).exp() * share / (1 + layer.gamma)
            numerator, denominator = numerator + w * split_heads(v[j]), denominator + w
        read.append((numerator / (denominator + 1e-6)).flatten())
    return {"x": layer.project_out(rows(read))}


def grass(layer, x, p, pairs):
    source, target = (pairs.edges.flip(0) if layer.reverse else pairs.edges).tolist()
    own, sent, of_source, of_target = layer.of_node(x).chunk(4, 1)
    kept, carried, scores = layer.of_pair(p).chunk(3, 1)
    read, states = [], []
    for i in range(len(x)):
        incoming = [pair for pair in range(len(source)) if target[pair] == i]
        numerator, denominator = zeros(WIDTH), zeros(WIDTH)
        for pair in incoming:
            largest = torch.stack([scores[other] for other in incoming]).max(0)[0].detach()
            w = (scores[pair] - largest).exp() + 1e-7**0.5
            numerator, denominator = numerator + w * (sent[source[pair]] + carried[pair]), denominator + w
        read.append(F.mish(own[i] + numerator / (denominator + 1e-7) + layer.bias["x"]))
    for pair, (j, i) in enumerate(zip(source, target, strict=True)):
        states.append(F.mish(of_source[j] + of_target[i] + kept[pair] + layer.bias["p"]))
    x, p = layer.project_out["x"](rows(read)), layer.project_out["p"](rows(states))
    return {"x": layer.scale * x, "p": layer.scale * p}


def gated(layer, x, p, pairs):
    source, target = pairs.edges.tolist()
    q, k, v = layer.project_in(x).chunk(3, 1)
    state = [
        q[i] * k[j] / math.sqrt(D) * layer.project_edge(p[pair])
        for pair, (j, i) in enumerate(zip(source, target, strict=True))
    ]
    read = []
    for i in range(len(x)):
        numerator, denominator = zeros(HEADS, D), zeros(HEADS, 1)
        for pair, j in enumerate(source):
            if target[pair] == i:
                w = split_heads(state[pair]).sum(1, keepdim=True).clamp(-5, 5).exp()
                numerator, denominator = numerator + w * split_heads(v[j]), denominator + w
        read.append((numerator / (denominator + 1e-6)).flatten())
    return {"x": layer.project_out["x"](rows(read)), "p": layer.project_out["p"](rows(state))}


LAYERS = {
    "GRIT": (partial(GRIT, heads=HEADS), grit),
    "EGT": (partial(EGT, heads=HEADS), egt),
    "SAN": (partial(SAN, heads=HEADS, gamma=0.3), san),
    "GRASS": (GRASS, grass),
    "GRASS, turned around": (partial(GRASS, reverse=True), grass),
    "GT under a mask": (partial(EdgeGated, heads=HEADS, pairs=True), gated),
}


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("mask", [Complete(), Neighbours()], ids=["complete", "edges"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_matches_its_equations(name, mask):
    make, reference = LAYERS[name]
    for sizes, density in (((1, 5, 3), 0.4), ((2,), 0.0)):
        batch = random_batch(sizes, density=density)
        pairs, layer = mask(batch), redraw(make(WIDTH))
        x = torch.randn(batch.num_nodes, WIDTH, requires_grad=True)
        p = torch.randn(pairs.count, WIDTH, requires_grad=True)
        ours, expected = layer(State(x, p=p), batch, pairs), reference(layer, x, p, pairs)
        assert tuple(ours) == layer.writes
        assert_same(list(ours.values()), [expected[stream] for stream in ours], [x, p, *layer.parameters()])


@pytest.mark.usefixtures("double_precision")
def test_zero_states_have_finite_gradients():
    """The square root has no finite slope at zero, and a state that no layer has written is zero."""
    for make, _ in LAYERS.values():
        batch, layer = random_batch((4, 3)), make(WIDTH)
        x = torch.zeros(7, WIDTH, requires_grad=True)
        sum(step.square().sum() for step in layer(State(x), batch, Complete()(batch)).values()).backward()
        assert all(t.grad is None or t.grad.isfinite().all() for t in (x, *layer.parameters()))


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["GRIT", "EGT", "SAN", "GT under a mask"])
def test_each_head_uses_its_own_mask(name):
    batch, layer = random_batch((5, 3)), redraw(LAYERS[name][0](WIDTH))
    mask = PerHead((Hops(0), Complete()))
    x, before = torch.randn(8, WIDTH), None
    if isinstance(layer.project_out, nn.ModuleDict):
        layer.project_out["x"] = nn.Identity()
    else:
        layer.project_out = nn.Identity()
    for change in (0.0, 1.0):
        x[0] += change
        after = layer(State(x), batch, mask(batch))["x"][1:5]
        if before is not None:
            assert torch.equal(after[:, :D], before[:, :D])
            assert not torch.allclose(after[:, D:], before[:, D:])
        before = after


def test_egt_does_not_scale_virtual_nodes_by_degree():
    layer, mask = redraw(EGT(WIDTH, HEADS)), Complete() | VirtualNodes(1)
    narrow = random_batch((3, 5))
    wide = with_virtual_nodes(narrow, 1)
    x = torch.randn(wide.num_nodes, WIDTH)
    pairs = mask(wide)
    ours = layer(State(x), wide, pairs)["x"]
    reference = egt(layer, x, torch.zeros(pairs.count, WIDTH), pairs)["x"] - layer.project_out.bias
    gates = torch.sigmoid(layer.of_pair.bias[HEADS:])  # the same for all pairs, whose states are zero
    scale = torch.log(1 + gates * (wide.sizes[wide.batch])[:, None])
    scale[wide.virtual.flatten()] = 1.0
    plain = torch.linalg.solve(layer.project_out.weight, reference.T).T.view(-1, HEADS, D)
    plain = plain / torch.log(1 + gates * wide.sizes[wide.batch][:, None])[..., None]
    torch.testing.assert_close(ours, layer.project_out((plain * scale[..., None]).flatten(1)), rtol=1e-3, atol=1e-3)


mlp = partial(FeedForward, ratio=2)
RRWP, EDGES = RelativeWalks(3, ("x", "p")), Edges(others=False)


def model(block, encodings=(), mask=Complete(), schema=SCHEMA, depth=2, width=8, **options):  # noqa: B008
    torch.manual_seed(0)
    return GraphTransformer(schema, width, depth, block, mask, encodings, **options)


def grit_of(heads):
    return partial(PairBlock, attention=partial(GRIT, heads=heads), feed_forward=mlp)


def test_grit_parameter_counts_match_the_paper():
    zinc = Schema((21,), edge_vocab=(4,), kind="regression")
    net = model(grit_of(8), [RelativeWalks(21, ("x", "p")), EDGES], schema=zinc, width=64, depth=10)
    assert net.parameter_count() == 473_473
    peptides = Schema(ATOMS, edge_vocab=BONDS, kind="binary", outputs=10)
    walks = RelativeWalks(17, ("x", "p"))
    net = model(grit_of(4), [walks, EDGES], schema=peptides, width=96, depth=4, head=partial(Head, hidden=0))
    assert net.parameter_count() == 443_338 + 96 * NEW_ROWS


BLOCKS = {
    "GRIT": (grit_of(2), [RRWP, EDGES]),
    "EGT": (
        partial(
            PairBlock, attention=partial(EGT, heads=2), feed_forward=mlp, pair_feed_forward=mlp, prenorm=True
        ),
        [Distance(3), Edges()],
    ),
    "SAN": (partial(PairBlock, attention=partial(SAN, heads=2, gamma=0.1), feed_forward=mlp), [Edges()]),
    "GRASS": ([partial(PairBlock, attention=partial(GRASS, reverse=back)) for back in (False, True)], [RRWP]),
    "GT": (partial(EdgeGatedBlock, heads=2, pairs=True), [Edges()]),
    "Graphormer": (
        partial(
            ParallelBlock, attention=partial(Attention, heads=2, pair_bias=True), feed_forward=mlp, prenorm=True
        ),
        [Degree(), Distance(3, 2), EdgePath(2, 2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mask", [Hops(2), Complete() | VirtualNodes(1)], ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_padding_does_not_change_results(name, mask):
    assert_padding_is_neutral(model(*BLOCKS[name], mask), *plain_and_padded())


def test_pairs_start_from_edge_features_or_their_kind():
    batch = random_batch((4, 1))
    wide, mask, module = with_virtual_nodes(batch, 2), Complete() | VirtualNodes(2), Edges(virtual=2).module(8, SCHEMA)
    p, pairs = module.pairs(mask(wide)), mask(wide)
    virtual = {int(node): v for row in wide.virtual for v, node in enumerate(row)}
    features = dict(zip(map(tuple, wide.edge_index.T.tolist()), module.edge(batch), strict=True))
    for row, (j, i) in zip(p, pairs.edges.T.tolist(), strict=True):
        kind = 2 + 2 * virtual[j] if j in virtual else 3 + 2 * virtual[i] if i in virtual else int(i != j)
        assert torch.equal(row, features.get((j, i), module.other.weight[kind]))
    assert not Edges(others=False).module(8, SCHEMA).pairs(Hops(0)(batch)).any()


@pytest.mark.usefixtures("double_precision")
def test_graphormer_matches_its_equations():
    """Values and gradients against Ying et al. 2021, one graph at a time, its token first."""
    encodings = [Degree(3), Distance(2, HEADS), EdgePath(2, HEADS)]
    block = partial(
        ParallelBlock, attention=partial(Attention, heads=HEADS, pair_bias=True), feed_forward=FeedForward,
        norm=nn.LayerNorm, prenorm=True,
    )  # fmt: skip
    head = partial(Head, hidden=0, pool=Virtual())
    net = model(block, encodings, Complete() | VirtualNodes(1), norm=nn.LayerNorm, head=head, width=WIDTH)
    redraw(net).eval()
    degree, distance, path = net.encodings
    batch, out = random_batch((5, 1, 4), density=0.35), []
    for graph in batch.to_data_list():
        n, edges = graph.num_nodes, graph.edge_index.T.tolist()
        x = net.nodes(graph.x)
        x = x + rows([
            degree.incoming.weight[min(sum(t == i for _, t in edges), 3)]
            + degree.outgoing.weight[min(sum(s == i for s, _ in edges), 3)]
            for i in range(n)
        ])  # fmt: skip
        x = torch.cat([net.virtual, x])
        bias = distance.table.weight[4].repeat(n + 1, n + 1, 1)  # of the token, which is row 0 and column 0
        kinds = {(t, s): graph.edge_attr[number, 0] for number, (s, t) in enumerate(edges)}
        for i in range(n):
            paths = {i: [()]}  # by node reached, all shortest paths as lists of (target, source)
            frontier = [i]
            while frontier:
                new = {}
                for a in frontier:
                    for s, t in edges:
                        if t == a and s not in paths:
                            new.setdefault(s, []).extend([*steps, (a, s)] for steps in paths[a])
                paths |= new
                frontier = list(new)
            for j in range(n):
                if j not in paths:
                    bias = bias.index_put((torch.tensor(i + 1), torch.tensor(j + 1)), distance.table.weight[3])
                    continue
                steps = min(paths[j], key=lambda steps: [int(kinds[step]) for step in steps])
                b = distance.table.weight[min(len(steps), 2)]
                for k, step in enumerate(steps[:2]):
                    b = b + path.edge.features.table.weight[kinds[step]] @ path.maps[k] / min(len(steps), 2)
                bias = bias.index_put((torch.tensor(i + 1), torch.tensor(j + 1)), b)
        for each in net.blocks:
            q, k, v = each.attention.project_in(each.norm_attention(x)).chunk(3, 1)
            read = []
            for h in range(HEADS):
                own = slice(h * D, (h + 1) * D)
                read.append((q[:, own] @ k[:, own].T / math.sqrt(D) + bias[..., h]).softmax(1) @ v[:, own])
            x = x + each.attention.project_out(torch.cat(read, 1))
            y = each.norm_feed_forward(x)
            x = x + each.feed_forward.project_out(F.relu(each.feed_forward.expand(y)))
        out.append(net.head.mlp(net.norm(x)[0]))
    assert_same([net(batch)], [torch.stack(out)], list(net.parameters()))


def test_virtual_pool_requires_virtual_nodes():
    block = partial(ParallelBlock, attention=partial(Attention, heads=2))
    with pytest.raises(ValueError, match="mask=virtual"):
        model(block, head=partial(Head, pool=Virtual()))
    net = model(block, mask=Complete() | VirtualNodes(2), head=partial(Head, pool=Virtual(), hidden=0)).eval()
    virtual_states = []
    net.head.register_forward_pre_hook(lambda _, args: virtual_states.append(args[2]))
    out = net(random_batch((4, 1)))
    torch.testing.assert_close(out, net.head.mlp(virtual_states[0].mean(1)))


def test_random_masks_are_redrawn_and_averaged_in_evaluation():
    mask = Hops(1) | Expander(2, seed=3)
    assert redraw_mask(mask, 5) == redraw_mask(mask, 5) != redraw_mask(mask, 6)
    assert redraw_mask(Hops(1) | Complete(), 5) == Hops(1) | Complete()
    net = model(partial(PairBlock, attention=GRASS, norm=nn.LayerNorm), [RRWP], mask, redraw=3)
    batch = random_batch((9, 12), density=0.1)
    outputs = [net(batch) for _ in range(4)]
    assert len({tuple(out.flatten().tolist()) for out in outputs}) > 2
    assert not any(isinstance(key, type(mask)) for key in batch.memo)
    expected = []
    for draw in range(3):
        net.redraw, net.masks = 0, [redraw_mask(mask, draw)] * 2
        expected.append(net.eval()(batch))
    net.redraw, net.masks = 3, [mask] * 2
    torch.testing.assert_close(net(batch), torch.stack(expected).mean(0))
    assert net.readings() == set()


@pytest.mark.parametrize("name", LAYERS)
def test_layer_runs_in_bfloat16(name):
    torch.manual_seed(0)
    net = model(partial(PairBlock, attention=LAYERS[name][0], norm=nn.LayerNorm), [RRWP]).to(torch.bfloat16)
    batch = random_batch((4, 1, 6))
    out = net(batch)
    out.square().sum().backward()
    assert out.isfinite().all()


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_acts_only_in_training(name):
    layer = LAYERS[name][0]
    residual = layer(WIDTH).residual
    options = {"attention": partial(layer, dropout=0.5)} if residual else {"attention": layer, "dropout": 0.5}
    net = model(partial(PairBlock, norm=nn.LayerNorm, **options), [RRWP], head=partial(Head, hidden=0))
    batch = random_batch((5, 9))
    assert not torch.equal(net(batch), net(batch))
    net.eval()
    assert torch.equal(net(batch), net(batch))


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d, GraphNorm], ids=lambda norm: norm.__name__)
def test_virtual_pool_does_not_mix_graphs(norm):
    """A graph has the same prediction alone and in a batch, whatever the final norm."""
    block = partial(ParallelBlock, attention=partial(Attention, heads=2), norm=nn.LayerNorm)
    net = model(block, mask=Hops(1) | VirtualNodes(2), norm=norm, head=partial(Head, pool=Virtual()))
    graphs = random_batch((5, 9, 4))
    net(graphs)
    net.eval()
    alone = torch.cat([net(GraphBatch.from_data_list([graph])) for graph in graphs.to_data_list()])
    torch.testing.assert_close(alone, net(graphs), atol=1e-5, rtol=1e-4)

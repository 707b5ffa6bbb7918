"""Networks of layers with a state for each pair, virtual nodes and random masks; Graphormer against its equations."""

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
from gt.layers import EGT, GRASS, GRIT, SAN, Attention, EdgeGatedBlock, FeedForward, PairBlock, ParallelBlock
from gt.masks import Complete, Expander, Hops, VirtualNodes, with_virtual_nodes
from gt.masks.random import redraw_mask
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.graphs import random_batch
from tests.layers.pair_references import HEADS, LAYERS, WIDTH, D
from tests.layers.references import assert_same, redraw, rows
from tests.models.networks import ATOMS, BONDS, NEW_ROWS
from tests.models.test_static import assert_padding_is_neutral, plain_and_padded

SCHEMA = Schema((5, 5), edge_vocab=(3,), outputs=3)
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
                channels = slice(h * D, (h + 1) * D)
                read.append(
                    (q[:, channels] @ k[:, channels].T / math.sqrt(D) + bias[..., h]).softmax(1) @ v[:, channels]
                )
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

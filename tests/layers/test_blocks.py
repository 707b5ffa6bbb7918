"""Blocks against their equations; their blends, dropout and norms."""

from functools import partial

import pytest
import torch
from torch import nn
from torch_geometric.nn import GraphNorm, PairNorm

from gt.graph import GraphBatch
from gt.layers import (
    GCN,
    GINE,
    Attention,
    Blend,
    EdgeGatedBlock,
    FeedForward,
    GatedGCN,
    ParallelBlock,
    SequentialBlock,
    State,
    norms_of,
)
from gt.masks import Complete, Hops
from gt.norms import mixes_rows
from tests.graphs import random_batch
from tests.layers.references import (
    WIDTH,
    apply,
    assert_same,
    batch_norm,
    edge_features,
    looped_edges,
    redraw,
    rows,
    run,
    shapes,
    streams,
)

TwoHeads = partial(Attention, heads=2)
pytestmark = pytest.mark.usefixtures("double_precision")


def attend(layer, x, pairs):
    """What an attention layer adds to x."""
    return layer(State(x), pairs.batch, pairs)["x"]


def looped_edge_gated(block, x, e, batch, training):
    """(x, e) after an `EdgeGatedBlock`, one edge, node and head at a time."""
    attention = block.steps["attention"].layer
    heads, channels = attention.heads, WIDTH // attention.heads
    q, k, v = (w @ x.T for w in attention.project_in.weight.split(WIDTH))  # (WIDTH, N)
    edges = looped_edges(batch)
    e = torch.zeros(len(edges), WIDTH) if e is None else e
    score = {n: q[:, i] * k[:, j] / channels**0.5 * (attention.project_edge.weight @ e[n]) for n, j, i in edges}
    read = []
    for node in range(len(x)):
        per_head = []
        for head in range(heads):
            part = slice(head * channels, (head + 1) * channels)
            weights = [(score[n][part].sum().clamp(-5, 5).exp(), j) for n, j, i in edges if i == node]
            total = sum((w for w, _ in weights), torch.zeros(())) + 1e-6
            per_head.append(sum((w * v[part, j] for w, j in weights), torch.zeros(channels)) / total)
        read.append(torch.cat(per_head))
    out = []
    for stream, old, new in (("x", x, rows(read)), ("e", e, rows([score[n] for n, _, _ in edges]))):
        old = batch_norm(block.norm_attention[stream], old + attention.project_out[stream](new), training)
        ff = block.feed_forward[stream]
        new = ff.project_out(ff.expand(old).relu())
        out.append(batch_norm(block.norm_feed_forward[stream], old + new, training))
    return tuple(out)


@shapes
@edge_features
@pytest.mark.parametrize("training", [True, False])
def test_edge_gated_block_matches_a_loop(sizes, density, with_edges, training):
    batch = random_batch(sizes, density=density)
    block = redraw(EdgeGatedBlock(WIDTH, heads=2))
    other = random_batch((9, 9))
    run(block, *streams(other), other)
    block.train(training)
    x, e = streams(batch, with_edges)
    leaves = [x, e, *block.parameters()]
    assert_same(run(block, x, e, batch, Complete()(batch)), looped_edge_gated(block, x, e, batch, training), leaves)


@pytest.mark.parametrize("make", [GatedGCN, partial(EdgeGatedBlock, heads=2)])
@pytest.mark.parametrize("edges", [0, 1])
def test_statistics_stay_finite_with_few_edges(make, edges):
    batch = random_batch((2, 2), density=0.0)
    if edges:
        batch = random_batch((2, 1), seed=2, density=0.5)
    assert batch.num_edges == edges
    layer, (x, e) = make(WIDTH), streams(batch)
    new_x, new_e = (apply if isinstance(layer, GatedGCN) else run)(layer, x, e, batch)
    (new_x.sum() + new_e.sum()).backward()
    tensors = [*layer.buffers(), new_x, new_e, *(p.grad for p in layer.parameters() if p.grad is not None)]
    assert all(t.isfinite().all() for t in tensors)


def test_blend_weights():
    assert Blend(0.0)(None, None) == (2, 0)
    assert Blend(1.0)(None, None) == (0, 2)
    assert Blend()(None, None) == (1, 1)
    assert not list(Blend(0.3).parameters())
    learned = Blend(0.3, learned=True)
    torch.testing.assert_close(torch.stack(learned(None, None)), torch.tensor([1.4, 0.6]), check_dtype=False)
    (derivative,) = torch.autograd.grad(learned.weight, learned.logit)
    torch.testing.assert_close(derivative, torch.tensor(0.3 * 0.7), check_dtype=False)
    for weight, is_learned in [(-0.1, False), (1.1, False), (0.0, True), (1.0, True)]:
        with pytest.raises(ValueError, match="blend weight cannot be"):
            Blend(weight, is_learned)


def local_step(block, x, e, batch):
    """What the local branch adds to its input, which the output of a residual layer includes."""
    new, new_e = apply(block.local, x, e, batch)
    return (new - x if isinstance(block.local, GatedGCN) else new), new_e


def feed_forward(block, x):
    """x after the feed-forward step of a block."""
    ff = block.feed_forward

    def network(y):
        return ff.project_out(ff.expand(y).relu())

    return x + network(block.norm_feed_forward(x)) if block.prenorm else block.norm_feed_forward(x + network(x))


def reference_block(block, x, e, batch, pairs, w):
    """(x, e) after GPS (Rampasek et al. 2022) or a variant of it, w the weight of the global branch."""
    before, attention = block.norm_local, block.norm_attention
    parallel = isinstance(block, ParallelBlock)
    if block.prenorm:
        step, new_e = local_step(block, before(x), e, batch)
        middle = x + 2 * (1 - w) * step
        return feed_forward(
            block, middle + 2 * w * attend(block.attention, attention(x if parallel else middle), pairs)
        ), new_e
    step, new_e = local_step(block, x, e, batch)
    if parallel:
        read = attention(x + attend(block.attention, x, pairs))
        return feed_forward(block, 2 * (1 - w) * before(x + step) + 2 * w * read), new_e
    middle = before(x + 2 * (1 - w) * step)
    return feed_forward(block, attention(middle + 2 * w * attend(block.attention, middle, pairs))), new_e


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
@pytest.mark.parametrize("local", [GINE, GCN, GatedGCN])
@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.5, 0.8, 1.0, "learned"])
def test_blocks_match_their_equations(make, local, prenorm, weight):
    batch = random_batch((4, 1, 7))
    blend = partial(Blend, 0.7, learned=True) if weight == "learned" else partial(Blend, weight)
    block = make(WIDTH, local, TwoHeads, FeedForward, norm=nn.BatchNorm1d, blend=blend, prenorm=prenorm)
    redraw(block)
    x, e = streams(batch)
    pairs = Hops(2)(batch)
    w = block.blend.logit.sigmoid() if weight == "learned" else weight
    leaves = [x, e, *block.parameters()]
    assert_same(run(block, x, e, batch, pairs), reference_block(block, x, e, batch, pairs, w), leaves)


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
@pytest.mark.parametrize("prenorm", [False, True])
def test_extreme_blend_weight_disables_a_branch(make, prenorm):
    batch = random_batch((5, 3))
    x, e = streams(batch)
    for weight, unused, used in ((0.0, "attention", "local"), (1.0, "local", "attention")):
        block = make(WIDTH, GINE, TwoHeads, norm=nn.LayerNorm, blend=partial(Blend, weight), prenorm=prenorm)
        weights = torch.randn(batch.num_nodes, WIDTH)
        (run(block, x, e, batch, Complete()(batch))[0] * weights).sum().backward()

        def gradient_size(name, block=block):
            return sum(p.grad.abs().sum() for p in getattr(block, name).parameters())

        assert gradient_size(unused) == 0
        assert gradient_size(used) > 0


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
def test_parts_can_be_replaced(make):
    batch = random_batch((5, 3))
    x, e = streams(batch)
    block = make(WIDTH, GINE, TwoHeads, FeedForward)
    replacements = {"local": GCN(WIDTH), "attention": Attention(WIDTH, 3), "feed_forward": FeedForward(WIDTH, 3.0)}
    for name, part in replacements.items():
        setattr(block, name, part)
    rebuilt = make(WIDTH, *(lambda _, part=part: part for part in replacements.values()))
    assert_same(*(run(each, x, e, batch, Complete()(batch)) for each in (block, rebuilt)), [x, e])
    block.attention = None
    without_attention = make(WIDTH, lambda _: replacements["local"], None, lambda _: replacements["feed_forward"])
    assert_same(*(run(each, x, e, batch, Complete()(batch)) for each in (block, without_attention)), [x, e])
    block.norm_local = nn.LayerNorm(WIDTH)
    assert block.norm_local in norms_of(block)


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
@pytest.mark.parametrize("prenorm", [False, True])
def test_single_branch_is_not_scaled(make, prenorm):
    batch = random_batch((5, 3))
    pairs = Complete()(batch)
    x, e = streams(batch)
    options = {"norm": nn.LayerNorm, "prenorm": prenorm}
    block = make(WIDTH, local=GINE, **options)
    assert block.blend is None
    norm = block.norm_local
    assert_same(
        run(block, x, e, batch, pairs),
        (
            x + apply(block.local, norm(x), e, batch)[0] if prenorm else norm(x + apply(block.local, x, e, batch)[0]),
            e,
        ),
        [x, e],
    )
    block = make(WIDTH, attention=TwoHeads, **options)
    norm = block.norm_attention
    expected = x + attend(block.attention, norm(x), pairs) if prenorm else norm(x + attend(block.attention, x, pairs))
    assert_same(run(block, x, None, batch, pairs), (expected, None), [x])
    block = make(WIDTH, feed_forward=FeedForward, **options)
    assert_same(run(block, x, e, batch, pairs), (feed_forward(block, x), e), [x, e])


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock, EdgeGatedBlock])
def test_dropout_acts_only_in_training(make):
    batch = random_batch((5, 3))
    x, e = streams(batch)
    if make is EdgeGatedBlock:
        block = make(WIDTH, heads=2, dropout=0.5)
    else:
        block = make(WIDTH, partial(GatedGCN, dropout=0.5), TwoHeads, partial(FeedForward, dropout=0.5), dropout=0.5)
    pairs = Complete()(batch)
    a, b = (run(block, x, e, batch, pairs) for _ in range(2))
    assert not torch.equal(a[0], b[0])
    assert not torch.equal(a[1], b[1])
    block.eval()
    a, b = (run(block, x, e, batch, pairs) for _ in range(2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


def test_heads_must_divide_the_width():
    for layer in (Attention, EdgeGatedBlock):
        with pytest.raises(ValueError, match="4 heads do not divide a width of 6"):
            layer(6, heads=4)


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("kind", [GraphNorm, PairNorm])
def test_graph_norms_normalise_each_graph_separately(kind, prenorm):
    batch = random_batch((5, 1, 3))
    norm = (lambda width: GraphNorm(width)) if kind is GraphNorm else (lambda width: PairNorm())
    block, x = redraw(ParallelBlock(WIDTH, GCN, norm=norm, prenorm=prenorm)), streams(batch)[0]
    batched = run(block, x, None, batch)[0]
    for graph, x_alone in enumerate(x.split(batch.sizes.tolist())):
        alone = GraphBatch.from_data_list([batch.to_data_list()[graph]])
        torch.testing.assert_close(run(block, x_alone, None, alone)[0], batched[batch.batch == graph])


def test_graph_norm_normalises_edges_per_graph():
    batch = random_batch((5, 4))
    block, (x, e) = redraw(EdgeGatedBlock(WIDTH, heads=2, norm=GraphNorm)), streams(batch)
    batched = run(block, x, e, batch)[1]
    first = batch.batch[batch.edge_index[1]] == 0
    alone = GraphBatch.from_data_list(batch.to_data_list()[:1])
    torch.testing.assert_close(run(block, x[:5], e[first], alone)[1], batched[first])


def test_norms_that_mix_rows_are_recognised():
    class Centred(nn.Module):
        mixes_rows = True

    by_row = [nn.LayerNorm(4), nn.RMSNorm(4), nn.BatchNorm1d(4), nn.Identity()]
    across_rows = [nn.BatchNorm1d(4, track_running_stats=False), GraphNorm(4), PairNorm(), Centred()]
    assert [mixes_rows(norm) for norm in by_row + across_rows] == [False] * 4 + [True] * 4
    assert GatedGCN(WIDTH, norm=GraphNorm).reads == "graph"

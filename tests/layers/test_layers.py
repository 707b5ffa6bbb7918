"""Message passing against PyG or a loop over nodes, blocks against their equations written out."""

from functools import partial

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv, GINEConv, GraphNorm, PairNorm

from gt.graph import GraphBatch
from gt.layers import (
    GCN,
    GINE,
    Attention,
    Blend,
    ConvolutionBlock,
    EdgeGatedBlock,
    EdgeGCN,
    FeedForward,
    GatedGCN,
    ParallelBlock,
    SequentialBlock,
    Smoothing,
    State,
    norms_of,
)
from gt.masks import Complete, Hops
from gt.norms import mixes_rows
from tests.graphs import SIZES, random_batch

WIDTH = 6
TwoHeads = partial(Attention, heads=2)
SHAPES = {  # sizes, density of edges
    **{name: (sizes, 0.3) for name, sizes in SIZES.items()},
    "no edges": ((3, 2), 0.0),
    "crowded": ((6, 5), 0.9),
}
shapes = pytest.mark.parametrize(("sizes", "density"), SHAPES.values(), ids=SHAPES)
edge_features = pytest.mark.parametrize("with_edges", [True, False], ids=["edge features", "no edge features"])


@pytest.fixture(autouse=True)
def _double_and_seeded():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def streams(batch, with_edges=True):
    """x (N, WIDTH) and e (E, WIDTH) or None, leaves that ask for gradients."""
    x = torch.randn(batch.num_nodes, WIDTH, requires_grad=True)
    return x, torch.randn(batch.num_edges, WIDTH, requires_grad=True) if with_edges else None


def apply(layer, x, e, batch):
    """What a local layer makes of x (N, WIDTH) and e (E, WIDTH) or None; a residual one adds to them."""
    steps = layer(State(x, e), batch, None)
    out = State(x, e).plus(steps)
    return (out.x if layer.residual else steps["x"]), out.e


def attended(layer, x, pairs):
    return layer(State(x), pairs.batch, pairs)["x"]


def run(block, x, e, batch, pairs=None):
    """(x, e) after a block."""
    state = block(State(x, e), batch, pairs)
    return state.x, state.e


def stirred(module):
    """The module with every parameter drawn anew: norms and biases would start where mistakes do not show."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


def assert_same(ours, theirs, leaves):
    """Equal tensors (None where both are), and equal gradients of one random sum of them."""
    assert [t is None for t in ours] == [t is None for t in theirs]
    ours, theirs = ([t for t in found if t is not None] for found in (ours, theirs))
    weights = [torch.randn_like(t) for t in ours]
    leaves = [leaf for leaf in leaves if leaf is not None]
    grads = []
    for found in (ours, theirs):
        total = sum((t * w).sum() for t, w in zip(found, weights, strict=True))
        grads.append(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))
    for a, b in zip([*ours, *grads[0]], [*theirs, *grads[1]], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@shapes
@edge_features
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_gine_equals_pyg(sizes, density, with_edges, eps):
    batch = random_batch(sizes, density=density)
    layer = GINE(WIDTH, eps)
    x, e = streams(batch, with_edges)
    nothing = torch.zeros(batch.num_edges, WIDTH)
    expected = GINEConv(layer.mlp, eps=eps)(x, batch.edge_index, nothing if e is None else e)
    assert_same(apply(layer, x, e, batch), (expected, e), [x, e, *layer.parameters()])


@shapes
@edge_features
def test_a_convolution_of_edges_equals_a_loop(sizes, density, with_edges):
    batch = random_batch(sizes, density=density)
    layer, (x, e) = stirred(EdgeGCN(WIDTH)), streams(batch, with_edges)
    new = [layer.bias for _ in range(batch.num_nodes)]
    for number, source, target in looped_edges(batch):
        message = layer.linear.weight @ x[source] + (e[number] if with_edges else 0)
        new[target] = new[target] + message.relu()
    assert_same(apply(layer, x, e, batch), (torch.stack(new), e), [x, e, *layer.parameters()])


@shapes
@pytest.mark.parametrize("directed", [True, False])
def test_gcn_equals_pyg(sizes, density, directed):
    batch = random_batch(sizes, directed=directed, density=density)
    layer, reference = stirred(GCN(WIDTH)), GCNConv(WIDTH, WIDTH)
    reference.lin.weight, reference.bias = layer.linear.weight, layer.linear.bias
    x, e = streams(batch)
    assert_same(apply(layer, x, e, batch), (reference(x, batch.edge_index), e), [x, *layer.parameters()])
    beside = stirred(GCN(WIDTH, root=True))
    reference.lin.weight, reference.bias = beside.linear.weight, beside.linear.bias
    expected = reference(x, batch.edge_index) + x @ beside.root.weight.T + beside.root.bias
    assert_same(apply(beside, x, e, batch), (expected, e), [x, *beside.parameters()])


def test_gcn_begins_as_wide_as_pyg_draws_it():
    torch.manual_seed(0)
    layer, reference = GCN(64, root=True), GCNConv(64, 64)
    ours, theirs = layer.linear.weight, reference.lin.weight
    assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.05)
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)
    assert not layer.linear.bias.any()


@shapes
@pytest.mark.parametrize("directed", [True, False])
def test_smoothing_between_linear_maps_is_pyg_gcn_of_other_widths(sizes, density, directed):
    batch = random_batch(sizes, directed=directed, density=density)
    before, layer, reference = nn.Linear(9, WIDTH, bias=False), stirred(Smoothing(WIDTH)), GCNConv(9, WIDTH)
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
def test_a_convolution_block_is_its_equation(local, norm, activation, residual, with_edges):
    batch = random_batch((5, 3))
    block = stirred(ConvolutionBlock(WIDTH, local, norm, activation, residual=residual))
    x, e = streams(batch, with_edges)
    new, _ = apply(block.local, x, e, batch)
    new = batch_norm(block.norm, new, True) if norm else new
    new = new.tanh() if activation else new
    assert_same(run(block, x, e, batch, None), (x + new if residual else new, e), [x, *block.parameters()])


def test_a_convolution_block_drops_what_it_adds():
    batch = random_batch((40,))
    block = ConvolutionBlock(WIDTH, GCN, activation=None, dropout=0.25)
    x, _ = streams(batch)
    added, whole = run(block, x, None, batch, None)[0] - x, apply(block.local, x, None, batch)[0]
    kept = added != 0
    torch.testing.assert_close(added[kept], whole[kept] / 0.75)
    assert 0.1 < 1 - kept.double().mean() < 0.4
    torch.testing.assert_close(run(block.eval(), x, None, batch)[0], x + whole)


def test_a_convolution_block_refuses_an_activation_beside_that_of_its_layer():
    with pytest.raises(ValueError, match="GatedGCN"):
        ConvolutionBlock(WIDTH, GatedGCN, activation=nn.Tanh)


def looped_edges(batch):
    """[(number, source, target)] in Python integers."""
    return [(number, j, i) for number, (j, i) in enumerate(batch.edge_index.T.tolist())]


def rows(values, width=WIDTH):
    return torch.stack(values) if values else torch.zeros(0, width)


def batch_norm(norm, values, training):
    """Batch normalisation written out; too few rows to train on stay as they are."""
    if training and len(values) < 2:
        return values
    mean = values.mean(0) if training else norm.running_mean
    variance = values.var(0, correction=0) if training else norm.running_var
    return (values - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def looped_gated_gcn(layer, x, e, batch, training):
    own_weight, key_weight, value_weight, query_weight = layer.of_node.weight.split(WIDTH)
    own_bias, key_bias, value_bias, query_bias = layer.of_node.bias.split(WIDTH)
    edges = looped_edges(batch)
    e = torch.zeros(len(edges), WIDTH) if e is None else e
    mixed = {
        n: (key_weight @ x[i] + key_bias) + (query_weight @ x[j] + query_bias) + layer.of_edge(e[n])
        for n, j, i in edges
    }
    new_x = []
    for node in range(len(x)):
        gates = [(mixed[n].sigmoid(), j) for n, j, i in edges if i == node]
        weighted = sum((s * (value_weight @ x[j] + value_bias) for s, j in gates), torch.zeros(WIDTH))
        total = sum((s for s, _ in gates), torch.zeros(WIDTH))
        new_x.append(own_weight @ x[node] + own_bias + weighted / (total + 1e-6))
    new_x = x + batch_norm(layer.norm_x, rows(new_x), training).relu()
    return new_x, e + batch_norm(layer.norm_e, rows([mixed[n] for n, _, _ in edges]), training).relu()


@shapes
@edge_features
@pytest.mark.parametrize("training", [True, False])
def test_gated_gcn_equals_a_loop(sizes, density, with_edges, training):
    if training and sum(sizes) == 1:
        pytest.skip("batch normalisation cannot train on one node")
    batch = random_batch(sizes, density=density)
    layer = stirred(GatedGCN(WIDTH))
    apply(layer, *streams(random_batch((9, 9))), random_batch((9, 9)))  # running statistics unlike those of this batch
    layer.train(training)
    x, e = streams(batch, with_edges)
    assert_same(apply(layer, x, e, batch), looped_gated_gcn(layer, x, e, batch, training), [x, e, *layer.parameters()])


def looped_edge_gated(block, x, e, batch, training):
    attention = block.steps["attention"].layer
    heads, channels = attention.heads, WIDTH // attention.heads
    q, k, v = (w @ x.T for w in attention.project_in.weight.split(WIDTH))  # (WIDTH, N)
    edges = looped_edges(batch)
    e = torch.zeros(len(edges), WIDTH) if e is None else e
    score = {n: q[:, i] * k[:, j] / channels**0.5 * (attention.project_edge.weight @ e[n]) for n, j, i in edges}
    read = []
    for node in range(len(x)):
        out = []
        for head in range(heads):
            part = slice(head * channels, (head + 1) * channels)
            weights = [(score[n][part].sum().clamp(-5, 5).exp(), j) for n, j, i in edges if i == node]
            total = sum((w for w, _ in weights), torch.zeros(())) + 1e-6
            out.append(sum((w * v[part, j] for w, j in weights), torch.zeros(channels)) / total)
        read.append(torch.cat(out))
    found = []
    for stream, old, new in (("x", x, rows(read)), ("e", e, rows([score[n] for n, _, _ in edges]))):
        old = batch_norm(block.norm_attention[stream], old + attention.project_out[stream](new), training)
        ff = block.feed_forward[stream]
        new = ff.project_out(ff.expand(old).relu())
        found.append(batch_norm(block.norm_feed_forward[stream], old + new, training))
    return tuple(found)


@shapes
@edge_features
@pytest.mark.parametrize("training", [True, False])
def test_edge_gated_block_equals_a_loop(sizes, density, with_edges, training):
    batch = random_batch(sizes, density=density)
    block = stirred(EdgeGatedBlock(WIDTH, heads=2))
    other = random_batch((9, 9))
    run(block, *streams(other), other)
    block.train(training)
    x, e = streams(batch, with_edges)
    leaves = [x, e, *block.parameters()]
    assert_same(run(block, x, e, batch, Complete()(batch)), looped_edge_gated(block, x, e, batch, training), leaves)


@pytest.mark.parametrize("make", [GatedGCN, partial(EdgeGatedBlock, heads=2)])
@pytest.mark.parametrize("edges", [0, 1])
def test_training_on_hardly_any_edges_keeps_running_statistics_usable(make, edges):
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
    (slope,) = torch.autograd.grad(learned.weight, learned.logit)
    torch.testing.assert_close(slope, torch.tensor(0.3 * 0.7), check_dtype=False)
    for weight, is_learned in [(-0.1, False), (1.1, False), (0.0, True), (1.0, True)]:
        with pytest.raises(ValueError, match="blend weight cannot be"):
            Blend(weight, is_learned)


def local_step(block, x, e, batch):
    """What the local branch adds to its input: a layer that is residual brought its input along."""
    new, new_e = apply(block.local, x, e, batch)
    return (new - x if isinstance(block.local, GatedGCN) else new), new_e


def fed(block, x):
    ff = block.feed_forward

    def inner(y):
        return ff.project_out(ff.expand(y).relu())

    return x + inner(block.norm_feed_forward(x)) if block.prenorm else block.norm_feed_forward(x + inner(x))


def written_out(block, x, e, batch, pairs, w):
    """GPS (Rampasek et al. 2022) and its relatives, w the share of the global branch."""
    before, attention = block.norm_local, block.norm_attention
    parallel = isinstance(block, ParallelBlock)
    if block.prenorm:
        step, new_e = local_step(block, before(x), e, batch)
        middle = x + 2 * (1 - w) * step
        return fed(
            block, middle + 2 * w * attended(block.attention, attention(x if parallel else middle), pairs)
        ), new_e
    step, new_e = local_step(block, x, e, batch)
    if parallel:
        read = attention(x + attended(block.attention, x, pairs))
        return fed(block, 2 * (1 - w) * before(x + step) + 2 * w * read), new_e
    middle = before(x + 2 * (1 - w) * step)
    return fed(block, attention(middle + 2 * w * attended(block.attention, middle, pairs))), new_e


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
@pytest.mark.parametrize("local", [GINE, GCN, GatedGCN])
@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.5, 0.8, 1.0, "learned"])
def test_blocks_equal_their_equations(make, local, prenorm, weight):
    batch = random_batch((4, 1, 7))
    blend = partial(Blend, 0.7, learned=True) if weight == "learned" else partial(Blend, weight)
    block = make(WIDTH, local, TwoHeads, FeedForward, norm=nn.BatchNorm1d, blend=blend, prenorm=prenorm)
    stirred(block)
    x, e = streams(batch)
    pairs = Hops(2)(batch)
    w = block.blend.logit.sigmoid() if weight == "learned" else weight
    leaves = [x, e, *block.parameters()]
    assert_same(run(block, x, e, batch, pairs), written_out(block, x, e, batch, pairs, w), leaves)


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
@pytest.mark.parametrize("prenorm", [False, True])
def test_a_weight_at_an_end_silences_the_other_branch(make, prenorm):
    batch = random_batch((5, 3))
    x, e = streams(batch)
    for weight, silent, heard in ((0.0, "attention", "local"), (1.0, "local", "attention")):
        block = make(WIDTH, GINE, TwoHeads, norm=nn.LayerNorm, blend=partial(Blend, weight), prenorm=prenorm)
        weights = torch.randn(batch.num_nodes, WIDTH)
        (run(block, x, e, batch, Complete()(batch))[0] * weights).sum().backward()

        def size(name, block=block):
            return sum(p.grad.abs().sum() for p in getattr(block, name).parameters())

        assert size(silent) == 0
        assert size(heard) > 0


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
def test_a_part_can_take_the_place_of_another(make):
    batch = random_batch((5, 3))
    x, e = streams(batch)
    block = make(WIDTH, GINE, TwoHeads, FeedForward)
    others = {"local": GCN(WIDTH), "attention": Attention(WIDTH, 3), "feed_forward": FeedForward(WIDTH, 3.0)}
    for name, part in others.items():
        setattr(block, name, part)
    whole = make(WIDTH, *(lambda _, part=part: part for part in others.values()))
    assert_same(*(run(each, x, e, batch, Complete()(batch)) for each in (block, whole)), [x, e])
    block.attention = None
    alone = make(WIDTH, lambda _: others["local"], None, lambda _: others["feed_forward"])
    assert_same(*(run(each, x, e, batch, Complete()(batch)) for each in (block, alone)), [x, e])
    block.norm_local = nn.LayerNorm(WIDTH)
    assert block.norm_local in norms_of(block)


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
@pytest.mark.parametrize("prenorm", [False, True])
def test_one_branch_alone_is_not_scaled(make, prenorm):
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
    expected = (
        x + attended(block.attention, norm(x), pairs) if prenorm else norm(x + attended(block.attention, x, pairs))
    )
    assert_same(run(block, x, None, batch, pairs), (expected, None), [x])
    block = make(WIDTH, feed_forward=FeedForward, **options)
    assert_same(run(block, x, e, batch, pairs), (fed(block, x), e), [x, e])


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock, EdgeGatedBlock])
def test_dropout_acts_in_training_alone(make):
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
def test_a_norm_by_graph_is_told_the_graph_of_each_row(kind, prenorm):
    batch = random_batch((5, 1, 3))
    norm = (lambda width: GraphNorm(width)) if kind is GraphNorm else (lambda width: PairNorm())
    block, x = stirred(ParallelBlock(WIDTH, GCN, norm=norm, prenorm=prenorm)), streams(batch)[0]
    together = run(block, x, None, batch)[0]
    for graph, rows in enumerate(x.split(batch.sizes.tolist())):
        alone = GraphBatch.from_data_list([batch.to_data_list()[graph]])
        torch.testing.assert_close(run(block, rows, None, alone)[0], together[batch.batch == graph])


def test_edges_are_normalised_by_graph_too():
    batch = random_batch((5, 4))
    block, (x, e) = stirred(EdgeGatedBlock(WIDTH, heads=2, norm=GraphNorm)), streams(batch)
    together = run(block, x, e, batch)[1]
    first = batch.batch[batch.edge_index[1]] == 0
    alone = GraphBatch.from_data_list(batch.to_data_list()[:1])
    torch.testing.assert_close(run(block, x[:5], e[first], alone)[1], together[first])


def test_which_norms_mix_the_rows_of_a_graph():
    class Centred(nn.Module):
        mixes_rows = True

    alone = [nn.LayerNorm(4), nn.RMSNorm(4), nn.BatchNorm1d(4), nn.Identity()]
    together = [nn.BatchNorm1d(4, track_running_stats=False), GraphNorm(4), PairNorm(), Centred()]
    assert [mixes_rows(norm) for norm in alone + together] == [False] * 4 + [True] * 4
    assert GatedGCN(WIDTH, norm=GraphNorm).reads == "graph"

"""Message passing against PyG or a loop over nodes, and blocks against their equations."""

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
def double_precision():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def streams(batch, with_edges=True):
    """Random x (N, WIDTH) and e (E, WIDTH) or None, leaves that require gradients."""
    x = torch.randn(batch.num_nodes, WIDTH, requires_grad=True)
    return x, torch.randn(batch.num_edges, WIDTH, requires_grad=True) if with_edges else None


def apply(layer, x, e, batch):
    """(x, e) after a local layer; the output of a residual layer is added to its input."""
    steps = layer(State(x, e), batch, None)
    out = State(x, e).plus(steps)
    return (out.x if layer.residual else steps["x"]), out.e


def attend(layer, x, pairs):
    """What an attention layer adds to x."""
    return layer(State(x), pairs.batch, pairs)["x"]


def run(block, x, e, batch, pairs=None):
    """(x, e) after a block."""
    state = block(State(x, e), batch, pairs)
    return state.x, state.e


def redraw(module):
    """The module with every parameter redrawn: initial norms and biases would hide mistakes."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


def assert_same(ours, expected, leaves):
    """Assert equal tensors, None in the same places, and equal gradients of one random sum of them."""
    assert [t is None for t in ours] == [t is None for t in expected]
    ours, expected = ([t for t in tensors if t is not None] for tensors in (ours, expected))
    weights = [torch.randn_like(t) for t in ours]
    leaves = [leaf for leaf in leaves if leaf is not None]
    grads = []
    for tensors in (ours, expected):
        total = sum((t * w).sum() for t, w in zip(tensors, weights, strict=True))
        grads.append(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))
    for a, b in zip([*ours, *grads[0]], [*expected, *grads[1]], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@shapes
@edge_features
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_gine_matches_pyg(sizes, density, with_edges, eps):
    batch = random_batch(sizes, density=density)
    layer = GINE(WIDTH, eps)
    x, e = streams(batch, with_edges)
    no_features = torch.zeros(batch.num_edges, WIDTH)
    expected = GINEConv(layer.mlp, eps=eps)(x, batch.edge_index, no_features if e is None else e)
    assert_same(apply(layer, x, e, batch), (expected, e), [x, e, *layer.parameters()])


@shapes
@edge_features
def test_edge_gcn_matches_a_loop(sizes, density, with_edges):
    batch = random_batch(sizes, density=density)
    layer, (x, e) = redraw(EdgeGCN(WIDTH)), streams(batch, with_edges)
    new = [layer.bias for _ in range(batch.num_nodes)]
    for number, source, target in looped_edges(batch):
        message = layer.linear.weight @ x[source] + (e[number] if with_edges else 0)
        new[target] = new[target] + message.relu()
    assert_same(apply(layer, x, e, batch), (torch.stack(new), e), [x, e, *layer.parameters()])


@shapes
@pytest.mark.parametrize("directed", [True, False])
def test_gcn_matches_pyg(sizes, density, directed):
    batch = random_batch(sizes, directed=directed, density=density)
    layer, reference = redraw(GCN(WIDTH)), GCNConv(WIDTH, WIDTH)
    reference.lin.weight, reference.bias = layer.linear.weight, layer.linear.bias
    x, e = streams(batch)
    assert_same(apply(layer, x, e, batch), (reference(x, batch.edge_index), e), [x, *layer.parameters()])
    with_root = redraw(GCN(WIDTH, root=True))
    reference.lin.weight, reference.bias = with_root.linear.weight, with_root.linear.bias
    expected = reference(x, batch.edge_index) + x @ with_root.root.weight.T + with_root.root.bias
    assert_same(apply(with_root, x, e, batch), (expected, e), [x, *with_root.parameters()])


def test_gcn_initialisation_matches_pyg():
    torch.manual_seed(0)
    layer, reference = GCN(64, root=True), GCNConv(64, 64)
    ours, expected = layer.linear.weight, reference.lin.weight
    assert ours.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.05)
    assert ours.std().item() == pytest.approx(expected.std().item(), rel=0.1)
    assert not layer.linear.bias.any()


@shapes
@pytest.mark.parametrize("directed", [True, False])
def test_smoothing_after_a_linear_map_matches_pyg_gcn(sizes, density, directed):
    batch = random_batch(sizes, directed=directed, density=density)
    before, layer, reference = nn.Linear(9, WIDTH, bias=False), redraw(Smoothing(WIDTH)), GCNConv(9, WIDTH)
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
def test_convolution_block_matches_its_equation(local, norm, activation, residual, with_edges):
    batch = random_batch((5, 3))
    block = redraw(ConvolutionBlock(WIDTH, local, norm, activation, residual=residual))
    x, e = streams(batch, with_edges)
    new, _ = apply(block.local, x, e, batch)
    new = batch_norm(block.norm, new, True) if norm else new
    new = new.tanh() if activation else new
    assert_same(run(block, x, e, batch, None), (x + new if residual else new, e), [x, *block.parameters()])


def test_convolution_block_applies_dropout_to_the_update():
    batch = random_batch((40,))
    block = ConvolutionBlock(WIDTH, GCN, activation=None, dropout=0.25)
    x, _ = streams(batch)
    added, undropped = run(block, x, None, batch, None)[0] - x, apply(block.local, x, None, batch)[0]
    kept = added != 0
    torch.testing.assert_close(added[kept], undropped[kept] / 0.75)
    assert 0.1 < 1 - kept.double().mean() < 0.4
    torch.testing.assert_close(run(block.eval(), x, None, batch)[0], x + undropped)


def test_convolution_block_rejects_a_second_activation():
    with pytest.raises(ValueError, match="GatedGCN"):
        ConvolutionBlock(WIDTH, GatedGCN, activation=nn.Tanh)


def looped_edges(batch):
    """[(edge number, source, target)] as Python integers."""
    return [(number, j, i) for number, (j, i) in enumerate(batch.edge_index.T.tolist())]


def rows(values, width=WIDTH):
    """Stack rows, of which there may be none."""
    return torch.stack(values) if values else torch.zeros(0, width)


def batch_norm(norm, values, training):
    """Reference batch normalisation; in training, fewer than two rows are returned unchanged."""
    if training and len(values) < 2:
        return values
    mean = values.mean(0) if training else norm.running_mean
    variance = values.var(0, correction=0) if training else norm.running_var
    return (values - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def looped_gated_gcn(layer, x, e, batch, training):
    """(x, e) after a `GatedGCN`, one edge and one node at a time."""
    self_weight, key_weight, value_weight, query_weight = layer.of_node.weight.split(WIDTH)
    self_bias, key_bias, value_bias, query_bias = layer.of_node.bias.split(WIDTH)
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
        new_x.append(self_weight @ x[node] + self_bias + weighted / (total + 1e-6))
    new_x = x + batch_norm(layer.norm_x, rows(new_x), training).relu()
    return new_x, e + batch_norm(layer.norm_e, rows([mixed[n] for n, _, _ in edges]), training).relu()


@shapes
@edge_features
@pytest.mark.parametrize("training", [True, False])
def test_gated_gcn_matches_a_loop(sizes, density, with_edges, training):
    if training and sum(sizes) == 1:
        pytest.skip("batch normalisation cannot train on one node")
    batch = random_batch(sizes, density=density)
    layer = redraw(GatedGCN(WIDTH))
    apply(layer, *streams(random_batch((9, 9))), random_batch((9, 9)))  # running statistics of another batch
    layer.train(training)
    x, e = streams(batch, with_edges)
    assert_same(apply(layer, x, e, batch), looped_gated_gcn(layer, x, e, batch, training), [x, e, *layer.parameters()])


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
    together = run(block, x, None, batch)[0]
    for graph, rows in enumerate(x.split(batch.sizes.tolist())):
        alone = GraphBatch.from_data_list([batch.to_data_list()[graph]])
        torch.testing.assert_close(run(block, rows, None, alone)[0], together[batch.batch == graph])


def test_graph_norm_normalises_edges_per_graph():
    batch = random_batch((5, 4))
    block, (x, e) = redraw(EdgeGatedBlock(WIDTH, heads=2, norm=GraphNorm)), streams(batch)
    together = run(block, x, e, batch)[1]
    first = batch.batch[batch.edge_index[1]] == 0
    alone = GraphBatch.from_data_list(batch.to_data_list()[:1])
    torch.testing.assert_close(run(block, x[:5], e[first], alone)[1], together[first])


def test_norms_that_mix_rows_are_recognised():
    class Centred(nn.Module):
        mixes_rows = True

    by_row = [nn.LayerNorm(4), nn.RMSNorm(4), nn.BatchNorm1d(4), nn.Identity()]
    across_rows = [nn.BatchNorm1d(4, track_running_stats=False), GraphNorm(4), PairNorm(), Centred()]
    assert [mixes_rows(norm) for norm in by_row + across_rows] == [False] * 4 + [True] * 4
    assert GatedGCN(WIDTH, norm=GraphNorm).reads == "graph"

"""Batches filled up to a static shape: the same predictions, losses and gradients as without padding, in few shapes."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounter

from gt.attention import Demand
from gt.attention.scores import Additive, HopDecay, PositionDecay
from gt.data import static
from gt.data.batch_sampler import Batches
from gt.data.batching import GraphDataset, gather
from gt.data.static import Shape, batch_sizes, bound, pad_batch, shapes_of
from gt.encodings import Degree, RandomWalk
from gt.graph import GraphBatch
from gt.heads import Head, Max, Mean, Sum
from gt.layers import (
    GCN,
    GINE,
    Attention,
    ConvolutionBlock,
    EdgeGatedBlock,
    FeedForward,
    GatedGCN,
    ParallelBlock,
    SequentialBlock,
    VirtualNode,
)
from gt.losses import loss
from gt.masks import Complete, Hops, VirtualNodes, with_virtual_nodes
from gt.model import GraphTransformer
from gt.norms import apply_norm
from gt.schema import Schema
from tests.data.test_batch_sampler import opened
from tests.data.test_batching import pack
from tests.graphs import random_batch, random_graph

SCHEMA = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3, max_nodes=9)
SIZES = (4, 1, 9, 6, 2, 1)
SHAPE = Shape(max_nodes=12, nodes=41, edges=90, graphs=9)

attention = partial(Attention, heads=2)
feed = partial(FeedForward, ratio=2)
MODELS = {
    "gps": partial(ParallelBlock, local=GatedGCN, attention=attention, feed_forward=feed),
    "gps, prenorm": partial(ParallelBlock, local=GINE, attention=attention, feed_forward=feed, prenorm=True),
    "in sequence": partial(SequentialBlock, local=GatedGCN, attention=attention, feed_forward=feed),
    "gin": partial(ParallelBlock, local=GINE),
    "gcn": partial(ParallelBlock, local=GCN, feed_forward=feed),
    "gated_gcn": partial(ParallelBlock, local=GatedGCN),
    "transformer": partial(ParallelBlock, attention=attention, feed_forward=feed),
    "gnn_plus": partial(ConvolutionBlock, local=GINE, norm=nn.BatchNorm1d, feed_forward=feed),
    "virtual_node": partial(SequentialBlock, local=GINE, attention=VirtualNode),
    "gt": EdgeGatedBlock,
}


def packed(level: str = "graph"):
    return pack([random_graph(n, i, density=0.4) for i, n in enumerate(SIZES)], level)


def both(level: str = "graph", schema: Schema = SCHEMA, shape: Shape = SHAPE) -> tuple[GraphBatch, GraphBatch]:
    graphs = packed(level)
    every = range(len(SIZES))
    plain = gather(graphs, list(every)).finish()
    generator = torch.Generator().manual_seed(1)
    plain.extras = {"random_walk": torch.rand(plain.num_nodes, 3, generator=generator)}
    return plain, pad_batch(plain, [shape], schema)


def step(net: nn.Module, batch: GraphBatch, schema: Schema) -> tuple[torch.Tensor, float, list[torch.Tensor]]:
    """Predictions, loss and gradients."""
    net.zero_grad()
    prediction = net(batch)
    found = loss(schema, prediction, batch.y)
    found.backward()
    return prediction.detach(), float(found.detach()), [p.grad.clone() for p in net.parameters() if p.grad is not None]


def same(net: nn.Module, plain: GraphBatch, full: GraphBatch, schema: Schema = SCHEMA) -> None:
    """The same in training and in evaluation, and the same running statistics left behind."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for mode in (True, False):
        net.load_state_dict(before)
        net.train(mode)
        prediction, cost, gradients = step(net, plain, schema)
        after = {name: value.clone() for name, value in net.state_dict().items()}
        net.load_state_dict(before)
        again, cost_again, gradients_again = step(net, full, schema)
        torch.testing.assert_close(again[: len(prediction)], prediction, atol=1e-5, rtol=1e-5)
        assert cost_again == pytest.approx(cost, abs=1e-5)
        assert len(gradients) == len(gradients_again) > 0
        for one, other in zip(gradients, gradients_again, strict=True):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, after[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
@pytest.mark.parametrize("model", MODELS)
def test_padding_changes_nothing(model, norm):
    torch.manual_seed(0)
    net = GraphTransformer(
        SCHEMA, 8, 2, partial(MODELS[model], norm=norm), encodings=[RandomWalk(3, 2), Degree()], norm=norm,
        embedding_norm=norm, head=partial(Head, pool=[Sum(), Mean(), Max()], hidden=1),
    )  # fmt: skip
    same(net, *both())


@pytest.mark.parametrize("mask", [Hops(1), Hops(2), Complete() | VirtualNodes(2), Hops(1) | VirtualNodes(1)])
@pytest.mark.parametrize("backend", ["dense", "sparse", "sdpa"])
def test_padding_changes_nothing_under_any_mask(mask, backend):
    torch.manual_seed(0)
    block = partial(
        ParallelBlock, local=GatedGCN, attention=partial(Attention, heads=2, backend=backend), norm=nn.BatchNorm1d
    )
    same(GraphTransformer(SCHEMA, 8, 2, block, mask=mask), *both())


@pytest.mark.parametrize("mask", [Complete(), Hops(2)])
@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize(
    "options",
    [{"hint": HopDecay}, {"hint": PositionDecay}, {"score": Additive}, {"edges": True}],
    ids=["hop decay", "position decay", "additive score", "edges"],
)
def test_padding_changes_nothing_where_a_bias_is_learned(options, backend, mask):
    """A bias has gradients from all rows of the padded view, also from those of graphs without a node."""
    torch.manual_seed(0)
    plain, full = both(shape=replace(SHAPE, nodes=sum(SIZES) + 1))
    assert 0 in full.sizes
    learned = partial(Attention, heads=2, backend=backend, **options)
    block = partial(ParallelBlock, local=GINE, attention=learned)
    same(GraphTransformer(SCHEMA, 8, 2, block, mask=mask), plain, full)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_numbers_without_a_label_and_targets_of_nodes(kind):
    torch.manual_seed(0)
    schema = replace(SCHEMA, kind=kind, outputs=1)
    plain, full = both(schema=schema)
    assert full.y.dtype == torch.float32
    assert full.y[len(SIZES) :].isnan().all()
    net = GraphTransformer(schema, 8, 1, MODELS["gps"])
    plain.y = (plain.y > 0).float()
    full.y[: len(SIZES)] = plain.y
    same(net, plain, full, schema)

    nodes = replace(SCHEMA, level="node", outputs=sum(SIZES))
    plain, full = both("node", nodes)
    assert (full.y[plain.num_nodes :] == -100).all()
    same(GraphTransformer(nodes, 8, 1, MODELS["gps"]), plain, full, nodes)


def test_what_a_filled_batch_holds():
    plain, full = both()
    assert (full.num_graphs, full.num_nodes, full.num_edges, full.max_nodes) == (9, 41, 90, 12)
    assert full.padding == (3, 41 - plain.num_nodes)
    assert full.node_mask.sum() == plain.num_nodes
    assert full.edge_mask.sum() == plain.num_edges
    assert torch.equal(full.edge_index[:, : plain.num_edges], plain.edge_index)
    loops = full.edge_index[:, plain.num_edges :]
    assert torch.equal(loops[0], loops[1])
    assert (loops >= plain.num_nodes).all()
    assert (full.edge_index[1].diff() >= 0).all()
    assert full.sizes.max() <= full.max_nodes
    assert torch.equal(full.ptr[: len(SIZES) + 1], plain.ptr)
    assert full.ptr[-1] == 41
    wide = with_virtual_nodes(full, 2)
    assert int(wide.node_mask.sum()) == plain.num_nodes + 2 * len(SIZES)
    moved = full.to("cpu")
    assert moved.padding == full.padding
    assert torch.equal(moved.node_mask, full.node_mask)


def test_a_batch_that_no_shape_holds_is_refused():
    for small in (replace(SHAPE, edges=10), replace(SHAPE, nodes=sum(SIZES)), replace(SHAPE, max_nodes=8),
                  replace(SHAPE, graphs=6), replace(SHAPE, nodes=100)):  # fmt: skip
        with pytest.raises(ValueError, match="no shape holds 6 graphs"):
            both(shape=small)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("real", [0, 1, 2, 5])
def test_batch_norm_over_real_rows_alone(momentum, real):
    torch.manual_seed(real)
    norm, plain = nn.BatchNorm1d(4, momentum=momentum), nn.BatchNorm1d(4, momentum=momentum)
    for _ in range(3):
        rows, batch = torch.randn(7, 4) * 3 + 1, random_batch((7,))
        masked = replace(batch, node_mask=torch.arange(7) < real)
        got, expected = apply_norm(norm, rows, masked), apply_norm(plain, rows[:real], batch)
        torch.testing.assert_close(got[:real], expected)
        assert got.isfinite().all()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=80).map(np.array),
    batch_size=st.integers(1, 9),
    budget=st.none() | st.integers(1, 200),
    density=st.integers(0, 4),
    seed=st.integers(0, 9),
)
def test_every_batch_of_every_epoch_fits_one_of_few_shapes(sizes, batch_size, budget, density, seed):
    edges = np.random.default_rng(seed).integers(0, density * sizes + 1)
    batches = Batches(sizes, batch_size, shuffle=True, seed=seed, budget=budget)
    shapes = shapes_of(batches.plan(), sizes, edges, bound(sizes, edges, batch_size, budget))
    assert len(shapes) <= 8
    assert len(set(shapes)) == len(shapes)
    for epoch in range(3):
        for row in batch_sizes(batches.plan(epoch), sizes, edges).tolist():
            assert any(shape.holds(*row) for shape in shapes)


def test_a_dataset_gives_batches_of_few_shapes_complete_with_masks():
    graphs = pack([random_graph(1 + n % 9, n) for n in range(60)])
    graphs.schema = SCHEMA
    ids = np.arange(60)
    sizes, edges = graphs.sizes, np.diff(graphs.edge_ptr)
    batches = Batches(sizes, 7, shuffle=True)
    shapes = shapes_of(batches.plan(), sizes, edges, bound(sizes, edges, 7, None))
    dataset = GraphDataset(graphs, ids, shapes)
    batches.readings = lambda: [(Hops(2), Demand())]
    seen, labelled = set(), 0
    for epoch in range(3):
        batches.set_epoch(epoch)
        for request in batches:
            batch = dataset[request]
            seen.add((batch.max_nodes, batch.num_nodes, batch.num_edges, batch.num_graphs))
            assert batch.num_graphs - batch.padding[0] == len(request.samples)
            assert set(batch.memo) == {Hops(2)}
            labelled += int((batch.y != -100).sum())
    assert labelled == 3 * 60
    assert len(seen) <= len(shapes) <= 8


def test_a_compiled_network_is_compiled_once_a_shape(tmp_path, monkeypatch):
    monkeypatch.setattr(static, "MAX_SHAPES", 3)
    data = opened(tmp_path, static=True)
    dense = partial(attention, backend="dense")  # sparse products cannot be compiled
    block = partial(ParallelBlock, local=GatedGCN, attention=dense, feed_forward=feed)
    net = GraphTransformer(data.schema, 8, 1, block, mask=Complete())
    data.readings = net.readings
    counter = CompileCounter()
    compiled = torch.compile(net, backend=counter, dynamic=False)
    torch._dynamo.reset()
    loader, seen = data.loader("train"), set()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            cost = loss(data.schema, compiled(batch), batch.y)
            cost.backward()
            torch.testing.assert_close(cost, loss(data.schema, net(batch), batch.y))
            seen.add((batch.max_nodes, batch.num_nodes, batch.num_edges, batch.num_graphs))
    assert counter.frame_count == len(seen) <= 3

"""Batches padded to static shapes: predictions, losses and gradients as without padding, in few shapes."""

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
from tests.data.test_batch_sampler import open_data
from tests.data.test_batching import pack
from tests.graphs import random_batch, random_graph

SCHEMA = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3, max_nodes=9)
SIZES = (4, 1, 9, 6, 2, 1)
SHAPE = Shape(max_nodes=12, nodes=41, edges=90, graphs=9)

attention = partial(Attention, heads=2)
feed_forward = partial(FeedForward, ratio=2)
MODELS = {
    "gps": partial(ParallelBlock, local=GatedGCN, attention=attention, feed_forward=feed_forward),
    "gps, prenorm": partial(ParallelBlock, local=GINE, attention=attention, feed_forward=feed_forward, prenorm=True),
    "in sequence": partial(SequentialBlock, local=GatedGCN, attention=attention, feed_forward=feed_forward),
    "gin": partial(ParallelBlock, local=GINE),
    "gcn": partial(ParallelBlock, local=GCN, feed_forward=feed_forward),
    "gated_gcn": partial(ParallelBlock, local=GatedGCN),
    "transformer": partial(ParallelBlock, attention=attention, feed_forward=feed_forward),
    "gnn_plus": partial(ConvolutionBlock, local=GINE, norm=nn.BatchNorm1d, feed_forward=feed_forward),
    "virtual_node": partial(SequentialBlock, local=GINE, attention=VirtualNode),
    "gt": EdgeGatedBlock,
}


def packed_graphs(level: str = "graph"):
    return pack([random_graph(n, i, density=0.4) for i, n in enumerate(SIZES)], level)


def plain_and_padded(
    level: str = "graph", schema: Schema = SCHEMA, shape: Shape = SHAPE
) -> tuple[GraphBatch, GraphBatch]:
    graphs = packed_graphs(level)
    ids = range(len(SIZES))
    plain = gather(graphs, list(ids)).finish()
    generator = torch.Generator().manual_seed(1)
    plain.extras = {"random_walk": torch.rand(plain.num_nodes, 3, generator=generator)}
    return plain, pad_batch(plain, [shape], schema)


def training_step(net: nn.Module, batch: GraphBatch, schema: Schema) -> tuple[torch.Tensor, float, list[torch.Tensor]]:
    """Predictions, loss and gradients."""
    net.zero_grad()
    prediction = net(batch)
    value = loss(schema, prediction, batch.y)
    value.backward()
    return prediction.detach(), float(value.detach()), [p.grad.clone() for p in net.parameters() if p.grad is not None]


def assert_padding_is_neutral(net: nn.Module, plain: GraphBatch, padded: GraphBatch, schema: Schema = SCHEMA) -> None:
    """Assert equal results in training and in evaluation, and equal running statistics afterwards."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for mode in (True, False):
        net.load_state_dict(before)
        net.train(mode)
        prediction, value, gradients = training_step(net, plain, schema)
        after = {name: value.clone() for name, value in net.state_dict().items()}
        net.load_state_dict(before)
        padded_prediction, padded_value, padded_gradients = training_step(net, padded, schema)
        torch.testing.assert_close(padded_prediction[: len(prediction)], prediction, atol=1e-5, rtol=1e-5)
        assert padded_value == pytest.approx(value, abs=1e-5)
        assert len(gradients) == len(padded_gradients) > 0
        for expected, actual in zip(gradients, padded_gradients, strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
        for name, tensor in net.state_dict().items():
            torch.testing.assert_close(tensor, after[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
@pytest.mark.parametrize("model", MODELS)
def test_padding_does_not_change_results(model, norm):
    torch.manual_seed(0)
    net = GraphTransformer(
        SCHEMA, 8, 2, partial(MODELS[model], norm=norm), encodings=[RandomWalk(3, 2), Degree()], norm=norm,
        embedding_norm=norm, head=partial(Head, pool=[Sum(), Mean(), Max()], hidden=1),
    )  # fmt: skip
    assert_padding_is_neutral(net, *plain_and_padded())


@pytest.mark.parametrize("mask", [Hops(1), Hops(2), Complete() | VirtualNodes(2), Hops(1) | VirtualNodes(1)])
@pytest.mark.parametrize("backend", ["dense", "sparse", "sdpa"])
def test_padding_with_every_mask_and_backend(mask, backend):
    torch.manual_seed(0)
    block = partial(
        ParallelBlock, local=GatedGCN, attention=partial(Attention, heads=2, backend=backend), norm=nn.BatchNorm1d
    )
    assert_padding_is_neutral(GraphTransformer(SCHEMA, 8, 2, block, mask=mask), *plain_and_padded())


@pytest.mark.parametrize("mask", [Complete(), Hops(2)])
@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize(
    "options",
    [{"hint": HopDecay}, {"hint": PositionDecay}, {"score": Additive}, {"edges": True}],
    ids=["hop decay", "position decay", "additive score", "edges"],
)
def test_padding_with_learned_attention_biases(options, backend, mask):
    """A bias receives gradients from all rows of the padded view, including those of graphs without nodes."""
    torch.manual_seed(0)
    plain, padded = plain_and_padded(shape=replace(SHAPE, nodes=sum(SIZES) + 1))
    assert 0 in padded.sizes
    biased = partial(Attention, heads=2, backend=backend, **options)
    block = partial(ParallelBlock, local=GINE, attention=biased)
    assert_padding_is_neutral(GraphTransformer(SCHEMA, 8, 2, block, mask=mask), plain, padded)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_padding_of_numeric_and_node_targets(kind):
    torch.manual_seed(0)
    schema = replace(SCHEMA, kind=kind, outputs=1)
    plain, padded = plain_and_padded(schema=schema)
    assert padded.y.dtype == torch.float32
    assert padded.y[len(SIZES) :].isnan().all()
    net = GraphTransformer(schema, 8, 1, MODELS["gps"])
    plain.y = (plain.y > 0).float()
    padded.y[: len(SIZES)] = plain.y
    assert_padding_is_neutral(net, plain, padded, schema)

    nodes = replace(SCHEMA, level="node", outputs=sum(SIZES))
    plain, padded = plain_and_padded("node", nodes)
    assert (padded.y[plain.num_nodes :] == -100).all()
    assert_padding_is_neutral(GraphTransformer(nodes, 8, 1, MODELS["gps"]), plain, padded, nodes)


def test_layout_of_a_padded_batch():
    plain, padded = plain_and_padded()
    assert (padded.num_graphs, padded.num_nodes, padded.num_edges, padded.max_nodes) == (9, 41, 90, 12)
    assert padded.padding == (3, 41 - plain.num_nodes)
    assert padded.node_mask.sum() == plain.num_nodes
    assert padded.edge_mask.sum() == plain.num_edges
    assert torch.equal(padded.edge_index[:, : plain.num_edges], plain.edge_index)
    loops = padded.edge_index[:, plain.num_edges :]
    assert torch.equal(loops[0], loops[1])
    assert (loops >= plain.num_nodes).all()
    assert (padded.edge_index[1].diff() >= 0).all()
    assert padded.sizes.max() <= padded.max_nodes
    assert torch.equal(padded.ptr[: len(SIZES) + 1], plain.ptr)
    assert padded.ptr[-1] == 41
    wide = with_virtual_nodes(padded, 2)
    assert int(wide.node_mask.sum()) == plain.num_nodes + 2 * len(SIZES)
    copy = padded.to("cpu")
    assert copy.padding == padded.padding
    assert torch.equal(copy.node_mask, padded.node_mask)


def test_batch_that_fits_no_shape_is_rejected():
    for too_small in (replace(SHAPE, edges=10), replace(SHAPE, nodes=sum(SIZES)), replace(SHAPE, max_nodes=8),
                  replace(SHAPE, graphs=6), replace(SHAPE, nodes=100)):  # fmt: skip
        with pytest.raises(ValueError, match="no shape holds 6 graphs"):
            plain_and_padded(shape=too_small)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("real", [0, 1, 2, 5])
def test_batch_norm_ignores_padding_rows(momentum, real):
    torch.manual_seed(real)
    norm, plain = nn.BatchNorm1d(4, momentum=momentum), nn.BatchNorm1d(4, momentum=momentum)
    for _ in range(3):
        rows, batch = torch.randn(7, 4) * 3 + 1, random_batch((7,))
        masked = replace(batch, node_mask=torch.arange(7) < real)
        actual, expected = apply_norm(norm, rows, masked), apply_norm(plain, rows[:real], batch)
        torch.testing.assert_close(actual[:real], expected)
        assert actual.isfinite().all()
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
def test_every_batch_fits_one_of_few_shapes(sizes, batch_size, budget, density, seed):
    edges = np.random.default_rng(seed).integers(0, density * sizes + 1)
    batches = Batches(sizes, batch_size, shuffle=True, seed=seed, budget=budget)
    shapes = shapes_of(batches.plan(), sizes, edges, bound(sizes, edges, batch_size, budget))
    assert len(shapes) <= 8
    assert len(set(shapes)) == len(shapes)
    for epoch in range(3):
        for row in batch_sizes(batches.plan(epoch), sizes, edges).tolist():
            assert any(shape.holds(*row) for shape in shapes)


def test_dataset_yields_few_shapes_with_masks_prepared():
    graphs = pack([random_graph(1 + n % 9, n) for n in range(60)])
    graphs.schema = SCHEMA
    ids = np.arange(60)
    sizes, edges = graphs.sizes, np.diff(graphs.edge_ptr)
    batches = Batches(sizes, 7, shuffle=True)
    shapes = shapes_of(batches.plan(), sizes, edges, bound(sizes, edges, 7, None))
    dataset = GraphDataset(graphs, ids, shapes)
    batches.readings = lambda: [(Hops(2), Demand())]
    seen_shapes, labelled = set(), 0
    for epoch in range(3):
        batches.set_epoch(epoch)
        for request in batches:
            batch = dataset[request]
            seen_shapes.add((batch.max_nodes, batch.num_nodes, batch.num_edges, batch.num_graphs))
            assert batch.num_graphs - batch.padding[0] == len(request.samples)
            assert set(batch.memo) == {Hops(2)}
            labelled += int((batch.y != -100).sum())
    assert labelled == 3 * 60
    assert len(seen_shapes) <= len(shapes) <= 8


def test_network_is_compiled_once_per_shape(tmp_path, monkeypatch):
    monkeypatch.setattr(static, "MAX_SHAPES", 3)
    data = open_data(tmp_path, static=True)
    dense = partial(attention, backend="dense")  # sparse products cannot be compiled
    block = partial(ParallelBlock, local=GatedGCN, attention=dense, feed_forward=feed_forward)
    net = GraphTransformer(data.schema, 8, 1, block, mask=Complete())
    data.readings = net.readings
    counter = CompileCounter()
    compiled = torch.compile(net, backend=counter, dynamic=False)
    torch._dynamo.reset()
    loader, seen_shapes = data.loader("train"), set()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            value = loss(data.schema, compiled(batch), batch.y)
            value.backward()
            torch.testing.assert_close(value, loss(data.schema, net(batch), batch.y))
            seen_shapes.add((batch.max_nodes, batch.num_nodes, batch.num_edges, batch.num_graphs))
    assert counter.frame_count == len(seen_shapes) <= 3

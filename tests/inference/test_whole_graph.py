"""Inference on whole graphs in chunks, against the ordinary forward pass."""

from functools import partial

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from gt.attention.scores import Additive, HopDecay, PositionDecay
from gt.encodings import Degree, Rotary
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.heads import Head
from gt.inference.whole_graph import WholeGraph, predict, predict_chunks, work_ranges
from gt.layers import (
    GCN,
    GINE,
    Attention,
    Blend,
    Chain,
    EdgeGatedBlock,
    FeedForward,
    GatedGCN,
    Parallel,
    ParallelBlock,
    Residual,
    SequentialBlock,
)
from gt.masks import Expander, Hops, PerHead, VirtualNodes, Window
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.foreign import Derived, LinearAttention, Parted, Recurrent

NODES = 60


def graph(edges: int = 240, features: bool = True) -> GraphBatch:
    """A directed graph with hubs, isolated nodes and a self-loop."""
    generator = torch.Generator().manual_seed(0)
    ends = (torch.rand(2, edges, generator=generator) ** 2 * (NODES - 5)).long()
    ends = torch.unique(torch.cat([ends, torch.tensor([[3], [3]])], 1), dim=1) if edges else ends
    data = Data(
        x=torch.randn(NODES, 6, generator=generator),
        edge_index=ends,
        edge_attr=torch.randn(ends.shape[1], 3, generator=generator) if features else None,
        y=torch.randint(0, 4, (NODES,), generator=generator),
    )
    return GraphBatch.from_data_list([data])


def network(block, mask, features: bool = True, **options) -> GraphTransformer:
    """Three blocks with norms that have seen data, in evaluation mode."""
    torch.manual_seed(1)
    schema = Schema(node_floats=6, edge_floats=3 if features else 0, level="node", outputs=4)
    net = GraphTransformer(schema, width=16, depth=3, block=block, mask=mask, head=partial(Head, hidden=0), **options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
    return net.eval()


def attention(**options):
    return partial(Attention, heads=4, **options)


feed = partial(FeedForward, dropout=0.1)
gps = partial(
    ParallelBlock, local=GatedGCN, attention=attention(), feed_forward=feed, blend=partial(Blend, learned=True)
)
BLOCKS = {
    "gps": gps,
    "gps, edges read by attention": partial(
        ParallelBlock, local=GatedGCN, attention=attention(edges=True, edge_values=True), feed_forward=feed
    ),
    "gin": partial(ParallelBlock, local=GINE),
    "gcn": partial(ParallelBlock, local=GCN, feed_forward=feed),
    "gatedgcn, pre-norm": partial(ParallelBlock, local=GatedGCN, feed_forward=feed, norm=nn.LayerNorm, prenorm=True),
    "transformer": partial(ParallelBlock, attention=attention(), feed_forward=feed),
    "additive score, hop decay": partial(
        ParallelBlock, attention=attention(score=Additive, hint=partial(HopDecay, most=3)), feed_forward=feed
    ),
    "sequential": partial(SequentialBlock, local=GatedGCN, attention=attention(edges=True), feed_forward=feed),
    "sequential, pre-norm": partial(
        SequentialBlock, local=GINE, attention=attention(), feed_forward=feed, prenorm=True
    ),
    "gt": partial(EdgeGatedBlock, heads=4),
    "interleaved": [partial(ParallelBlock, local=GatedGCN), partial(ParallelBlock, attention=attention())],
}
residual = partial(Residual, norm=nn.LayerNorm)
BLOCKS["chains within a chain"] = partial(
    Chain,
    steps={
        "twice": partial(
            Chain, steps={"local": partial(residual, layer=GatedGCN), "attention": partial(residual, layer=attention())}
        ),
        "mix": partial(
            Parallel,
            branches={"local": partial(residual, layer=GINE), "attention": partial(residual, layer=attention())},
            blend=Blend,
        ),
        "feed": partial(residual, layer=feed),
    },
)
MASKS = {
    "one hop": Hops(1),
    "two hops": Hops(2),
    "self": Hops(0),
    "by layer": [Hops(1), Window(2), Hops(2)],
    "sparse": Hops(1) | Expander(4),
    "by head": PerHead([Hops(0), Hops(1), Hops(2), Expander(4)]),
    "virtual nodes": Hops(1) | VirtualNodes(2),
    "virtual nodes in a layer": [Hops(1), VirtualNodes(1), Hops(2)],
}


def assert_chunks_match(net: GraphTransformer, batch: GraphBatch, chunk: int) -> None:
    with torch.no_grad():
        expected = net(batch)
    torch.testing.assert_close(predict_chunks(net, batch, chunk), expected, atol=1e-5, rtol=1e-5)
    assert expected.std(0).min() > 1e-3  # predictions differ between nodes


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("features", [True, False])
def test_every_block_matches_forward_pass(block, features):
    net = network(block, Hops(1), features, encodings=[Degree(8)])
    for chunk in (1, 70):
        assert_chunks_match(net, graph(features=features), chunk)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_every_mask_matches_forward_pass(mask):
    assert_chunks_match(network(gps, mask), graph(), 70)
    assert_chunks_match(network(BLOCKS["sequential"], mask), graph(), 70)


def test_redrawn_masks_are_averaged_as_in_forward_pass():
    net = network(gps, Hops(1) | Expander(4), redraw=3)
    batch = graph()
    assert_chunks_match(net, batch, 70)
    net.redraw = 0
    single = net(batch)
    net.redraw = 3
    assert (net(batch) - single).abs().max() > 1e-3


def test_graph_without_edges():
    for block in ("gps", "sequential", "gt", "gcn"):
        assert_chunks_match(network(BLOCKS[block], Hops(1)), graph(edges=0), 7)


def test_dense_backend_matches_forward_pass():
    for mask in (MASKS["by head"], Hops(2)):
        hinted = attention(backend="dense", hint=partial(HopDecay, most=3))
        assert_chunks_match(network(partial(ParallelBlock, attention=hinted), mask), graph(), 70)


def test_chunks_read_nodes_outside_the_chunk():
    batch, net = graph(), network(gps, Hops(1))
    alone = GraphBatch.from_data_list(
        [Data(x=batch.x[:20], edge_index=torch.empty(2, 0).long(), edge_attr=batch.edge_attr[:0])]
    )
    with torch.no_grad():
        assert (net(alone) - predict_chunks(net, batch, 70)[:20]).abs().max() > 1e-2


def test_work_ranges_cover_all_nodes_within_the_chunk_size():
    work = torch.tensor([3, 1, 9, 1, 1, 1, 5, 2])
    ranges = list(work_ranges(work, 5))
    assert ranges == [(0, 2), (2, 3), (3, 6), (6, 7), (7, 8)]
    assert list(work_ranges(work, 100)) == [(0, 8)]


def test_pyg_batch_is_rejected():
    graph = Data(x=torch.zeros(2, 1, dtype=torch.long), edge_index=torch.tensor([[0, 1], [1, 0]]))
    net = GraphTransformer(Schema(node_vocab=(1,)), width=8, depth=0)
    with pytest.raises(TypeError, match="a network takes a GraphBatch, not a DataBatch"):
        predict(net, Batch.from_data_list([graph]))


def test_predict_chunks_only_large_whole_graphs(monkeypatch):
    batch, net, chunks = graph(), network(gps, Hops(1)), []
    monkeypatch.setattr("gt.inference.whole_graph.predict_chunks", lambda net, batch, chunk: chunks.append(chunk))
    fields = {name: getattr(batch, name) for name in ("ptr", "edge_index", "max_nodes", "x", "edge_attr", "y")}
    predict(net, batch)
    predict(net, WholeGraph(**fields, chunk=10_000))
    assert chunks == []
    chunked = WholeGraph(**fields, chunk=50).to("cpu")
    predict(net, chunked)
    assert chunks == [50]
    with pytest.raises(UserError, match=r"data\.evaluate=sampled"):
        predict(nn.Linear(1, 1), chunked)


def test_training_mode_and_positions_are_rejected():
    batch = graph()
    with pytest.raises(ValueError, match="evaluation mode"):
        predict_chunks(network(gps, Hops(1)).train(), batch, 10)
    for net in (
        network(partial(ParallelBlock, attention=attention(hint=PositionDecay)), Hops(1)),
        network(gps, Hops(1), encodings=[Rotary()]),
    ):
        with pytest.raises(UserError, match="position"):
            predict_chunks(net, batch, 10)


@pytest.mark.parametrize(
    "options",
    [
        {"attention": LinearAttention},
        {"attention": Derived},
        {"local": Recurrent},
        {"local": Parted},
        {"feed_forward": nn.Identity},
    ],
)
def test_layer_without_declared_reads_is_rejected_by_name(options):
    block = partial(ParallelBlock, **options)
    foreign = next(iter(options.values())).__name__
    with pytest.raises(UserError, match=f"{foreign} in block 1") as caught:
        predict_chunks(network([BLOCKS["gin"], block], Hops(1)), graph(), 70)
    assert "\n" not in str(caught.value)


class Level(nn.Module):
    """A blend with a factor that depends on all nodes."""

    def forward(self, state, batch):
        return state.x.mean().sigmoid(), 1.0


@pytest.mark.parametrize("make", [ParallelBlock, SequentialBlock])
def test_blend_that_reads_all_nodes_is_rejected_by_name(make):
    net = network(partial(make, local=GINE, attention=attention(), blend=Level), Hops(1))
    with pytest.raises(UserError, match="Level in block 0"):
        predict_chunks(net, graph(), 70)


def test_custom_layer_that_declares_its_reads_matches_forward_pass():
    class Neighbours(nn.Module):
        reads = "edges"

        def __init__(self, width):
            super().__init__()
            self.map = nn.Linear(width, width)

        def forward(self, state, batch, pairs):
            source, target = batch.edge_index
            return {"x": self.map(torch.zeros_like(state.x).index_add(0, target, state.x[source].relu()))}

    assert_chunks_match(network(partial(ParallelBlock, local=Neighbours), Hops(1)), graph(), 70)

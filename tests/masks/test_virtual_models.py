"""Models with virtual nodes against rows appended by hand, and batches prepared for them."""

import copy
import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from gt.data.batch_sampler import Request
from gt.data.batching import GraphDataset
from gt.data.text.language import TextDataset
from gt.encodings import Degree, RandomWalk, Rotary
from gt.graph import GraphBatch
from gt.inference.analysis import attention_reach
from gt.layers import GINE, Attention, EdgeGatedBlock, FeedForward, GatedGCN, ParallelBlock
from gt.masks import Complete, Expander, Hops, PerHead, VirtualNodes, Window
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.data.test_batching import pack
from tests.graphs import path, random_batch, random_graph

SCHEMA = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3, max_nodes=64)


def exphormer(block, mask=Hops(1) | Expander(4) | VirtualNodes(2), level="graph", **options):  # noqa: B008
    torch.manual_seed(0)
    schema = Schema(node_vocab=(5, 5), edge_vocab=(3,), level=level, outputs=3, max_nodes=64)
    return GraphTransformer(schema, 16, 2, block, mask, **options).eval().double()


BLOCKS = {
    "GPS": partial(ParallelBlock, local=GatedGCN, attention=partial(Attention, heads=2), feed_forward=FeedForward),
    "GINE": partial(ParallelBlock, local=GINE, attention=partial(Attention, heads=2), norm=nn.LayerNorm),
    "attention": partial(ParallelBlock, attention=partial(Attention, heads=2), norm=nn.LayerNorm, prenorm=True),
}


@pytest.mark.parametrize("backend", ["dense", "sdpa", "sparse"])
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@torch.no_grad()
def test_output_is_independent_of_the_batch(block, backend):
    graphs = [random_graph(n, seed, directed=False) for seed, n in enumerate((1, 7, 30, 2, 5))]
    for mask in (Hops(1) | Expander(4) | VirtualNodes(2), [VirtualNodes(1), Hops(1)], VirtualNodes(1)):
        net = exphormer(block, mask, encodings=[Rotary(), Degree()])
        for layer in net.modules():
            if isinstance(layer, Attention):
                layer.backend = backend
        together = net(GraphBatch.from_data_list(graphs))
        alone = torch.cat([net(GraphBatch.from_data_list([graph])) for graph in graphs])
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("level", ["graph", "node"])
def test_model_matches_explicit_virtual_rows(level):
    net = exphormer(BLOCKS["attention"], Window(1) | VirtualNodes(2), level, norm=nn.LayerNorm)
    batch = random_batch((5, 1, 8))
    x, outputs = net.embed(batch), []
    for low, high in itertools.pairwise(batch.ptr.tolist()):
        size = high - low
        state = torch.cat([x[low:high], net.virtual])
        position = torch.arange(size)
        allowed = torch.ones(size + 2, size + 2, dtype=torch.bool)
        allowed[:size, :size] = (position[:, None] - position).abs() <= 1
        for block in net.blocks:
            layer = block.attention
            q, k, v = layer.project_in(block.norm_attention(state)).view(size + 2, 3, 2, 8).permute(1, 2, 0, 3)
            scores = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(~allowed, -torch.inf)
            read = scores.softmax(-1) @ v
            state = state + layer.project_out(read.transpose(0, 1).flatten(1))
        state = net.norm(state[:size])
        outputs.append(net.head.mlp(state.mean(0, keepdim=True) if level == "graph" else state))
    torch.testing.assert_close(net(batch), torch.cat(outputs), rtol=1e-9, atol=1e-9)


def test_virtual_node_connects_isolated_nodes():
    net, batch = exphormer(BLOCKS["attention"], VirtualNodes(1), "node"), random_batch((6, 4))
    changed = copy.copy(batch)
    changed.x = batch.x.clone()
    changed.x[0] = (changed.x[0] + 1) % 5
    differs = (net(batch) != net(changed)).any(1)
    assert differs[:6].all()
    assert not differs[6:].any()


def test_larger_graph_in_the_batch_changes_nothing():
    net = exphormer(BLOCKS["GPS"])
    graphs = [random_graph(n, n, directed=False) for n in (4, 1, 9)]
    with_larger = net(GraphBatch.from_data_list([graphs[0], random_graph(60, 9, density=0.05), *graphs[1:]]))
    torch.testing.assert_close(with_larger[[0, 2, 3]], net(GraphBatch.from_data_list(graphs)), rtol=1e-9, atol=1e-9)


def test_only_attention_uses_virtual_nodes():
    for block in (partial(ParallelBlock, local=GINE), partial(EdgeGatedBlock, heads=2)):
        net = exphormer(block)
        assert net.virtual is None
        assert net(random_batch((3, 1))).shape == (2, 3)
    assert exphormer(BLOCKS["GPS"], Hops(1)).virtual is None
    local, attention = partial(ParallelBlock, local=GINE), BLOCKS["attention"]
    net = exphormer([local, attention], [VirtualNodes(3), VirtualNodes(1)])
    assert net.virtual.shape == (1, 16)  # the first layer does not use its three
    assert net(random_batch((3, 1))).shape == (2, 3)


def test_virtual_rows_are_initialised_and_trained():
    net = exphormer(BLOCKS["GPS"])
    net(random_batch((6, 4))).square().sum().backward()
    assert (net.virtual.grad != 0).all()
    wide = GraphTransformer(SCHEMA, 64, 1, BLOCKS["GPS"], VirtualNodes(30), init_std=0.02)
    assert wide.virtual.std().item() == pytest.approx(0.02, rel=0.1)


def test_mixed_precision_trains():
    torch.manual_seed(0)
    net, batch = GraphTransformer(SCHEMA, 16, 2, BLOCKS["GPS"], Hops(1) | VirtualNodes(1)), random_batch((6, 1, 4))
    expected = net(batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(batch)
    out.float().square().sum().backward()
    torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.1)


def test_encodings_see_only_real_nodes():
    net = exphormer(BLOCKS["GPS"], encodings=[RandomWalk(4, 4)])
    batch = random_batch((6, 4))
    names = RandomWalk(4, 4).arrays
    batch.extras = {name: torch.rand(10, 4, dtype=torch.float64) for name in names}
    assert net(batch).shape == (2, 3)


def test_collation_prepares_everything_the_model_reads():
    masks = {Hops(1) | VirtualNodes(2), Window(1) | VirtualNodes(1)}
    packed = pack([random_graph(n, n) for n in (6, 3, 9)])
    nets = [
        GraphTransformer(Schema(vocab, outputs=2), 8, 2, BLOCKS["attention"], list(masks)) for vocab in ((5, 5), (5,))
    ]
    batches = [
        GraphDataset(packed, np.arange(3))[Request((0, 1, 2), tuple(nets[0].readings()))],
        TextDataset(np.arange(50) % 5, 8)[Request((0, 8, 45), tuple(nets[1].readings()))],
    ]
    for net, batch in zip(nets, batches, strict=True):
        (wide,) = batch.memo.values()
        assert wide.virtual_nodes == 2
        assert set(wide.memo) == masks
        before = {mask: set(vars(pairs)) for mask, pairs in wide.memo.items()}
        net(batch)
        assert {mask: set(vars(pairs)) for mask, pairs in wide.memo.items()} == before
        assert list(batch.memo.values()) == [wide]


def test_prepared_batch_needs_no_device_synchronisation():
    masks = [Hops(1) | VirtualNodes(2), VirtualNodes(1) | Complete()]
    net = GraphTransformer(Schema((5, 5), outputs=2), 8, 2, BLOCKS["attention"], masks, encodings=[Rotary()])
    for layer in net.modules():
        if isinstance(layer, Attention):
            layer.backend = "dense"
    graphs = pack([random_graph(n, n) for n in (6, 3, 5)])
    batch = GraphDataset(graphs, np.arange(3))[Request((0, 1, 2), tuple(net.readings("meta")))]
    assert net.to("meta")(batch.to("meta")).shape == (3, 2)  # reading a value of a meta tensor raises


def test_reach_counts_virtual_nodes_as_out_of_reach():
    net = GraphTransformer(SCHEMA, 16, 1, BLOCKS["attention"], Hops(0) | VirtualNodes(1)).eval()
    reach = attention_reach(net, [GraphBatch.from_data_list([path(4), path(2)])], max_hops=2)
    assert reach.even[0].tolist() == pytest.approx([0.5, 0, 0, 0.5])
    assert reach.share[0].sum(-1).tolist() == pytest.approx([1, 1])


def test_mask_with_wrong_number_of_heads_is_rejected():
    with pytest.raises(ValueError, match="mask of block 1 has 3 heads, its attention has 2"):
        GraphTransformer(SCHEMA, 8, 2, BLOCKS["GPS"], [Hops(1), PerHead([Hops(1)] * 3)])

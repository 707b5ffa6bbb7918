"""Virtual nodes: the wide batch, what masks say of it, and a model on it, against constructions by hand."""

import copy
import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from gt.analysis import attention_reach
from gt.data.batching import GraphDataset
from gt.data.text import TextDataset
from gt.encodings import Degree, RandomWalk, Rotary
from gt.graph import GraphBatch
from gt.layers import GINE, Attention, EdgeGatedBlock, FeedForward, GatedGCN, ParallelBlock
from gt.masks import Causal, Complete, Expander, Hops, PerHead, RandomEdges, Strided, VirtualNodes, Window
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.data.test_batching import pack
from tests.graphs import SIZES, path, random_batch, random_graph

REAL = [Complete(), Hops(None), Hops(0), Hops(1), Causal(), Window(1), Strided(2), RandomEdges(2), Expander(4)]
SCHEMA = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3, max_nodes=64)
every_size = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def table(pairs, head=0):
    """(N, N) of both forms, checked to be the same and to be False at padding."""
    batch = pairs.batch
    used = pairs.edges if pairs.edge_heads is None else pairs.edges[:, pairs.edge_heads[:, head]]
    of_edges, of_dense = (torch.zeros(batch.num_nodes, batch.num_nodes, dtype=torch.bool) for _ in range(2))
    of_edges[used[1], used[0]] = True
    dense = pairs.dense[:, head if pairs.dense.shape[1] > 1 else 0]
    for b, (low, high) in enumerate(itertools.pairwise(batch.ptr.tolist())):
        of_dense[low:high, low:high] = dense[b, : high - low, : high - low]
    assert dense.sum() == of_dense.sum()
    assert torch.equal(of_edges, of_dense)
    return of_edges


def widened(batch, real_table, wide_nodes, used):
    """(N, N) of the wide batch: real nodes as in their own table, beside them ``used`` virtual ones, pair by pair."""
    wide = batch.with_virtual_nodes(wide_nodes)
    expected = torch.zeros(wide.num_nodes, wide.num_nodes, dtype=torch.bool)
    names = []  # what each node of the wide batch is: a real node, or which virtual one
    for b, (low, high) in enumerate(itertools.pairwise(batch.ptr.tolist())):
        names += [(b, node, None) for node in range(low, high)] + [(b, None, rank) for rank in range(wide_nodes)]
    for (i, (graph, node, rank)), (j, (other, source, read)) in itertools.product(enumerate(names), repeat=2):
        if graph != other:
            continue
        if rank is None and read is None:
            expected[i, j] = real_table[node, source]
        else:
            expected[i, j] = (rank is None or rank < used) and (read is None or read < used)
    return expected


@every_size
@pytest.mark.parametrize("count", [1, 3])
def test_the_wide_batch_has_nodes_at_the_end_of_each_graph_and_the_same_edges(sizes, count):
    batch = random_batch(sizes)
    wide = batch.with_virtual_nodes(count)
    assert wide.sizes.tolist() == [size + count for size in sizes]
    assert (wide.max_nodes, wide.equal_sizes) == (max(sizes) + count, batch.equal_sizes)
    assert wide.num_nodes == wide.ptr[-1] == sum(sizes) + count * len(sizes)
    assert torch.equal(wide.batch[wide.real], batch.batch)
    assert torch.equal(wide.position[wide.real], batch.position)
    assert torch.equal(wide.edge_index, wide.real[batch.edge_index])
    assert (wide.edge_index[1].diff() >= 0).all()
    assert sorted([*wide.real.tolist(), *wide.virtual.flatten().tolist()]) == list(range(wide.num_nodes))
    assert (wide.batch[wide.virtual] == torch.arange(len(sizes))[:, None]).all()
    assert (wide.in_degree[wide.virtual] == 0).all()
    assert batch.with_virtual_nodes(count) is wide
    assert wide.with_virtual_nodes(count) is wide
    assert wide.with_virtual_nodes(0) is batch.with_virtual_nodes(0) is batch


def test_fillers_stay_fillers():
    batch = random_batch((2, 1))
    batch.node_mask = torch.tensor([True, False, True])
    assert batch.with_virtual_nodes(1).node_mask.tolist() == [True, False, True, True, True]


@every_size
@pytest.mark.parametrize("mask", REAL, ids=str)
def test_masks_on_a_wide_batch(mask, sizes):
    batch = random_batch(sizes, seed=3)
    wide, real = batch.with_virtual_nodes(3), table(mask(batch))
    for asked, used in ((mask, 0), (mask | VirtualNodes(1), 1), (VirtualNodes(3) | mask, 3)):
        pairs, expected = asked(wide), widened(batch, real, 3, used)
        assert torch.equal(table(pairs), expected)
        assert pairs.count == expected.sum()
        assert pairs.all_read == expected.any(1).all()
        assert pairs.limits is None
        keys = pairs.edges[1] * wide.num_nodes + pairs.edges[0]
        assert (keys.diff() > 0).all()
        assert asked.virtual_nodes == used


@every_size
def test_virtual_nodes_among_other_masks(sizes):
    batch = random_batch(sizes, seed=4)
    wide, nothing = batch.with_virtual_nodes(2), torch.zeros(sum(sizes), sum(sizes), dtype=torch.bool)
    cases = [
        (VirtualNodes(2), nothing, 2),
        (VirtualNodes(2) | VirtualNodes(1), nothing, 2),
        (VirtualNodes(2) & VirtualNodes(1), nothing, 1),
        (VirtualNodes(2) & Complete(), nothing, 0),
        ((Window(1) | VirtualNodes(2)) & (Causal() | VirtualNodes(1)), table((Window(1) & Causal())(batch)), 1),
    ]
    for mask, real, used in cases:
        assert torch.equal(table(mask(wide)), widened(batch, real, 2, used))
        assert mask(wide).count == mask(wide).edges.shape[1]


@every_size
def test_each_head_reads_through_its_own_number_of_virtual_nodes(sizes):
    batch = random_batch(sizes, seed=5)
    parts = (Hops(1) | VirtualNodes(2), Causal(), VirtualNodes(1))
    wide = batch.with_virtual_nodes(2)
    for mask, used in ((PerHead(parts), (2, 0, 1)), (PerHead(parts) | VirtualNodes(1), (2, 1, 1))):
        pairs = mask(wide)
        assert (pairs.heads, mask.virtual_nodes) == (3, 2)
        for head, real in enumerate((Hops(1), Causal(), None)):
            nothing = torch.zeros(sum(sizes), sum(sizes), dtype=torch.bool)
            expected = widened(batch, nothing if real is None else table(real(batch)), 2, used[head])
            assert torch.equal(table(pairs, head), expected)
        assert not pairs.all_read


def test_too_few_virtual_nodes():
    batch = random_batch((3, 2))
    for asked, there in ((VirtualNodes(1), batch), (Hops(1) | VirtualNodes(3), batch.with_virtual_nodes(2))):
        for form in ("edges", "dense", "count", "all_read"):
            if form == "all_read" and there.virtual_nodes:
                continue
            with pytest.raises(ValueError, match=r"reads \d virtual nodes of each graph and this batch has \d"):
                getattr(asked(there), form)
    with pytest.raises(ValueError, match="number of virtual nodes must be 1 or more, not 0"):
        VirtualNodes(0)


def test_moving_takes_the_wide_batch_along():
    batch = random_batch((3, 5))
    wide = batch.with_virtual_nodes(2)
    edges = (Hops(1) | VirtualNodes(2))(wide).edges
    for there in (batch.to("meta").with_virtual_nodes(2), wide.to("meta")):
        assert there.device.type == there.real.device.type == there.virtual.device.type == "meta"
        assert there.narrow.wide[2] is there
        assert there.narrow.device.type == "meta"
        pairs = (Hops(1) | VirtualNodes(2))(there)
        assert pairs.edges.shape == edges.shape
        assert pairs.batch is there
    assert torch.equal((Hops(1) | VirtualNodes(2))(batch.to("cpu").with_virtual_nodes(2)).edges, edges)


# ---- models


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
def test_a_graph_is_read_alike_alone_and_among_others(block, backend):
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
def test_a_model_equals_rows_appended_by_hand_and_attention_with_a_matrix(level):
    net = exphormer(BLOCKS["attention"], Window(1) | VirtualNodes(2), level, norm=nn.LayerNorm)
    batch = random_batch((5, 1, 8))
    x, outputs = net.embed(batch), []
    for low, high in itertools.pairwise(batch.ptr.tolist()):
        size = high - low
        state = torch.cat([x[low:high], net.virtual])
        place = torch.arange(size)
        allowed = torch.ones(size + 2, size + 2, dtype=torch.bool)
        allowed[:size, :size] = (place[:, None] - place).abs() <= 1
        for block in net.blocks:
            layer = block.attention
            q, k, v = layer.project_in(block.norm_attention(state)).view(size + 2, 3, 2, 8).permute(1, 2, 0, 3)
            scores = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(~allowed, -torch.inf)
            read = scores.softmax(-1) @ v
            state = state + layer.project_out(read.transpose(0, 1).flatten(1))
        state = net.norm(state[:size])
        outputs.append(net.head.mlp(state.mean(0, keepdim=True) if level == "graph" else state))
    torch.testing.assert_close(net(batch), torch.cat(outputs), rtol=1e-9, atol=1e-9)


def test_a_virtual_node_carries_messages_between_nodes_that_read_nobody():
    net, batch = exphormer(BLOCKS["attention"], VirtualNodes(1), "node"), random_batch((6, 4))
    changed = copy.copy(batch)
    changed.x = batch.x.clone()
    changed.x[0] = (changed.x[0] + 1) % 5
    moved = (net(batch) != net(changed)).any(1)
    assert moved[:6].all()
    assert not moved[6:].any()


def test_a_larger_graph_beside_changes_nothing():
    net = exphormer(BLOCKS["GPS"])
    some = [random_graph(n, n, directed=False) for n in (4, 1, 9)]
    padded = net(GraphBatch.from_data_list([some[0], random_graph(60, 9, density=0.05), *some[1:]]))
    torch.testing.assert_close(padded[[0, 2, 3]], net(GraphBatch.from_data_list(some)), rtol=1e-9, atol=1e-9)


def test_only_attention_asks_for_virtual_nodes():
    for block in (partial(ParallelBlock, local=GINE), partial(EdgeGatedBlock, heads=2)):
        net = exphormer(block)
        assert net.virtual is None
        assert net(random_batch((3, 1))).shape == (2, 3)
    assert exphormer(BLOCKS["GPS"], Hops(1)).virtual is None
    local, attention = partial(ParallelBlock, local=GINE), BLOCKS["attention"]
    net = exphormer([local, attention], [VirtualNodes(3), VirtualNodes(1)])
    assert net.virtual.shape == (1, 16)  # the first layer has no use for its three
    assert net(random_batch((3, 1))).shape == (2, 3)


def test_virtual_rows_are_trained_and_drawn():
    net = exphormer(BLOCKS["GPS"])
    net(random_batch((6, 4))).square().sum().backward()
    assert (net.virtual.grad != 0).all()
    wide = GraphTransformer(SCHEMA, 64, 1, BLOCKS["GPS"], VirtualNodes(30), init_std=0.02)
    assert wide.virtual.std().item() == pytest.approx(0.02, rel=0.1)


def test_mixed_precision_trains():
    torch.manual_seed(0)
    net, batch = GraphTransformer(SCHEMA, 16, 2, BLOCKS["GPS"], Hops(1) | VirtualNodes(1)), random_batch((6, 1, 4))
    exact = net(batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(batch)
    out.float().square().sum().backward()
    torch.testing.assert_close(out.float(), exact, atol=0.1, rtol=0.1)


def test_encodings_see_the_real_nodes_only():
    net = exphormer(BLOCKS["GPS"], encodings=[RandomWalk(4, 4)])
    batch = random_batch((6, 4))
    names = RandomWalk(4, 4).arrays
    batch.extras = {name: torch.rand(10, 4, dtype=torch.float64) for name in names}
    assert net(batch).shape == (2, 3)


def test_collation_prepares_the_wide_batch_and_a_model_computes_nothing_more():
    masks = {Hops(1) | VirtualNodes(2), Window(1) | VirtualNodes(1)}
    packed = pack([random_graph(n, n) for n in (6, 3, 9)])
    batches = [
        GraphDataset(packed, np.arange(3), masks).__getitems__([0, 1, 2]),
        TextDataset(torch.arange(50) % 5, 8, masks).__getitems__([0, 8, 45]),
    ]
    for batch in batches:
        assert not batch.pairs
        wide = batch.wide[2]
        assert set(wide.pairs) == masks
        before = {mask: set(vars(pairs)) for mask, pairs in wide.pairs.items()}
        one, other = masks
        vocab = (5, 5) if batch.x.shape[1] == 2 else (5,)
        net = GraphTransformer(Schema(vocab, outputs=2), 8, 2, BLOCKS["attention"], [one, other])
        net(batch)
        assert {mask: set(vars(pairs)) for mask, pairs in wide.pairs.items()} == before
        assert batch.wide == {2: wide}


def test_a_prepared_batch_waits_for_no_device():
    masks = [Hops(1) | VirtualNodes(2), VirtualNodes(1) | Complete()]
    batch = GraphDataset(pack([random_graph(n, n) for n in (6, 3, 5)]), np.arange(3), masks).__getitems__([0, 1, 2])
    net = GraphTransformer(Schema((5, 5), outputs=2), 8, 2, BLOCKS["attention"], masks, encodings=[Rotary()])
    for layer in net.modules():
        if isinstance(layer, Attention):
            layer.backend = "dense"
    assert net.to("meta")(batch.to("meta")).shape == (3, 2)  # reading a value of a meta tensor raises


def test_reach_counts_virtual_nodes_as_out_of_reach():
    net = GraphTransformer(SCHEMA, 16, 1, BLOCKS["attention"], Hops(0) | VirtualNodes(1)).eval()
    reach = attention_reach(net, [GraphBatch.from_data_list([path(4), path(2)])], most=2)
    assert reach.even[0].tolist() == pytest.approx([0.5, 0, 0, 0.5])
    assert reach.share.sum(-1).flatten().tolist() == pytest.approx([1, 1])


def test_a_mask_for_other_heads_is_refused_when_the_model_is_built():
    with pytest.raises(ValueError, match="mask of block 1 tells 3 heads apart, its attention has 2"):
        GraphTransformer(SCHEMA, 8, 2, BLOCKS["GPS"], [Hops(1), PerHead([Hops(1)] * 3)])

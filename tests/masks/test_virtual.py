"""Virtual nodes: the wide batch, and its masks against loops over all pairs."""

import itertools

import pytest
import torch

from gt.graph import WHOLE_DEGREES
from gt.layers.local import smooth
from gt.masks import (
    Causal,
    Complete,
    Expander,
    Hops,
    PerHead,
    RandomEdges,
    Strided,
    VirtualNodes,
    Window,
    with_virtual_nodes,
)
from tests.graphs import SIZES, random_batch

REAL = [Complete(), Hops(None), Hops(0), Hops(1), Causal(), Window(1), Strided(2), RandomEdges(2), Expander(4)]
every_size = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def pair_table(pairs, head=0):
    """(N, N) the pairs that a head uses; checks that both forms agree and that padding is False."""
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


def expected_table(batch, real_table, wide_nodes, used):
    """(N, N) of the wide batch, pair by pair: ``real_table`` for real nodes, and ``used`` virtual nodes."""
    wide = with_virtual_nodes(batch, wide_nodes)
    expected = torch.zeros(wide.num_nodes, wide.num_nodes, dtype=torch.bool)
    names = []  # of each node of the wide batch: its graph, and its index if real or its rank if virtual
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
def test_wide_batch_appends_nodes_and_keeps_edges(sizes, count):
    batch = random_batch(sizes)
    wide = with_virtual_nodes(batch, count)
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
    assert with_virtual_nodes(batch, count) is wide
    assert with_virtual_nodes(wide, count) is wide
    assert with_virtual_nodes(wide, 0) is with_virtual_nodes(batch, 0) is batch


def test_wide_batch_keeps_whole_graph_degrees():
    batch = random_batch((4, 1, 6), seed=1)
    degrees = torch.stack([batch.in_degree + 3, batch.out_degree + 5])
    batch.memo[WHOLE_DEGREES] = degrees
    wide = with_virtual_nodes(batch, 2)
    assert wide.memo[WHOLE_DEGREES][:, wide.real].equal(degrees)
    x = torch.randn(wide.num_nodes, 8)
    torch.testing.assert_close(smooth(x, wide)[wide.real], smooth(x[wide.real], batch))


def test_padding_nodes_stay_masked():
    batch = random_batch((2, 1))
    batch.node_mask = torch.tensor([True, False, True])
    assert with_virtual_nodes(batch, 1).node_mask.tolist() == [True, False, True, True, True]


@every_size
@pytest.mark.parametrize("mask", REAL, ids=str)
def test_masks_on_wide_batch_match_loops(mask, sizes):
    batch = random_batch(sizes, seed=3)
    wide, real = with_virtual_nodes(batch, 3), pair_table(mask(batch))
    for combined, used in ((mask, 0), (mask | VirtualNodes(1), 1), (VirtualNodes(3) | mask, 3)):
        pairs, expected = combined(wide), expected_table(batch, real, 3, used)
        assert torch.equal(pair_table(pairs), expected)
        assert pairs.count == expected.sum()
        assert pairs.all_read == expected.any(1).all()
        assert pairs.limits is None
        keys = pairs.edges[1] * wide.num_nodes + pairs.edges[0]
        assert (keys.diff() > 0).all()
        assert combined.virtual_nodes == used


@every_size
def test_virtual_nodes_combined_with_other_masks(sizes):
    batch = random_batch(sizes, seed=4)
    wide, empty = with_virtual_nodes(batch, 2), torch.zeros(sum(sizes), sum(sizes), dtype=torch.bool)
    cases = [
        (VirtualNodes(2), empty, 2),
        (VirtualNodes(2) | VirtualNodes(1), empty, 2),
        (VirtualNodes(2) & VirtualNodes(1), empty, 1),
        (VirtualNodes(2) & Complete(), empty, 0),
        ((Window(1) | VirtualNodes(2)) & (Causal() | VirtualNodes(1)), pair_table((Window(1) & Causal())(batch)), 1),
    ]
    for mask, real, used in cases:
        assert torch.equal(pair_table(mask(wide)), expected_table(batch, real, 2, used))
        assert mask(wide).count == mask(wide).edges.shape[1]


@every_size
def test_heads_use_different_numbers_of_virtual_nodes(sizes):
    batch = random_batch(sizes, seed=5)
    parts = (Hops(1) | VirtualNodes(2), Causal(), VirtualNodes(1))
    wide = with_virtual_nodes(batch, 2)
    for mask, used in ((PerHead(parts), (2, 0, 1)), (PerHead(parts) | VirtualNodes(1), (2, 1, 1))):
        pairs = mask(wide)
        assert (pairs.heads, mask.virtual_nodes) == (3, 2)
        for head, real in enumerate((Hops(1), Causal(), None)):
            empty = torch.zeros(sum(sizes), sum(sizes), dtype=torch.bool)
            expected = expected_table(batch, empty if real is None else pair_table(real(batch)), 2, used[head])
            assert torch.equal(pair_table(pairs, head), expected)
        assert not pairs.all_read


def test_too_few_virtual_nodes_are_rejected():
    batch = random_batch((3, 2))
    for mask, given in ((VirtualNodes(1), batch), (Hops(1) | VirtualNodes(3), with_virtual_nodes(batch, 2))):
        for form in ("edges", "dense", "count", "all_read"):
            if form == "all_read" and given is not batch:
                continue
            with pytest.raises(ValueError, match=r"reads \d virtual nodes of each graph and this batch has \d"):
                getattr(mask(given), form)
    with pytest.raises(ValueError, match="number of virtual nodes must be 1 or more, not 0"):
        VirtualNodes(0)


def test_wide_batch_moves_with_the_batch():
    batch = random_batch((3, 5))
    wide = with_virtual_nodes(batch, 2)
    edges = (Hops(1) | VirtualNodes(2))(wide).edges
    for moved in (with_virtual_nodes(batch.to("meta"), 2), wide.to("meta")):
        assert moved.device.type == moved.real.device.type == moved.virtual.device.type == "meta"
        assert with_virtual_nodes(moved.narrow, 2) is moved
        assert moved.narrow.device.type == "meta"
        pairs = (Hops(1) | VirtualNodes(2))(moved)
        assert pairs.edges.shape == edges.shape
        assert pairs.batch is moved
    assert torch.equal((Hops(1) | VirtualNodes(2))(with_virtual_nodes(batch.to("cpu"), 2)).edges, edges)

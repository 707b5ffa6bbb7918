"""Each mask against a truth table filled in by plain loops."""

import copy
import itertools
import pickle
from dataclasses import dataclass

import networkx as nx
import pytest
import torch

from gt.errors import UserError
from gt.masks import (
    Causal,
    Complete,
    Expander,
    Hops,
    Intersection,
    Mask,
    PerHead,
    RandomEdges,
    Strided,
    Union,
    VirtualNodes,
    Window,
    with_virtual_nodes,
)
from tests.graphs import SIZES, random_batch

RULES = {
    Complete(): lambda i, j, hops: True,
    Causal(): lambda i, j, hops: j <= i,
    Window(0): lambda i, j, hops: j == i,
    Window(2): lambda i, j, hops: abs(i - j) <= 2,
    Hops(0): lambda i, j, hops: i == j,
    Hops(1): lambda i, j, hops: hops <= 1,
    Hops(2): lambda i, j, hops: hops <= 2,
    Hops(5): lambda i, j, hops: hops <= 5,
    Hops(1) & Causal(): lambda i, j, hops: hops <= 1 and j <= i,
    Causal() & Hops(2): lambda i, j, hops: hops <= 2 and j <= i,
    Window(1) & Causal(): lambda i, j, hops: i - 1 <= j <= i,
    Hops(1) | Window(1): lambda i, j, hops: hops <= 1 or abs(i - j) <= 1,
    (Hops(1) | Window(1)) & Causal(): lambda i, j, hops: (hops <= 1 or abs(i - j) <= 1) and j <= i,
    Complete() | Hops(1): lambda i, j, hops: True,
    Strided(1): lambda i, j, hops: True,
    Strided(3): lambda i, j, hops: (i - j) % 3 == 0,
    Strided(100): lambda i, j, hops: i == j,
    (Window(2) | Strided(2)) & Causal(): lambda i, j, hops: j <= i and (i - j <= 2 or (i - j) % 2 == 0),
    Strided(2) & Hops(1): lambda i, j, hops: hops <= 1 and (i - j) % 2 == 0,
}  # fmt: skip


def truth_table(batch, rule):
    """(N, N) bool, whether node i reads node j, by NetworkX's shortest paths and a loop over all pairs."""
    table = torch.zeros(batch.num_nodes, batch.num_nodes, dtype=torch.bool)
    reads = nx.DiGraph([(int(i), int(j)) for j, i in batch.edge_index.T])  # from the reader to its source
    reads.add_nodes_from(range(batch.num_nodes))
    hops = dict(nx.all_pairs_shortest_path_length(reads))
    for i, j in itertools.product(range(batch.num_nodes), repeat=2):
        if batch.batch[i] == batch.batch[j]:
            far = hops[i].get(j, float("inf"))
            table[i, j] = rule(int(batch.position[i]), int(batch.position[j]), far)
    return table


def edges_table(pairs):
    table = torch.zeros(pairs.batch.num_nodes, pairs.batch.num_nodes, dtype=torch.bool)
    table[pairs.edges[1], pairs.edges[0]] = True
    return table


def dense_table(pairs, head=0):
    """The dense form of a head as (N, N); checks that padding is False."""
    batch, dense = pairs.batch, pairs.dense[:, head]
    table = torch.zeros(batch.num_nodes, batch.num_nodes, dtype=torch.bool)
    for b in range(batch.num_graphs):
        low, high = int(batch.ptr[b]), int(batch.ptr[b + 1])
        table[low:high, low:high] = dense[b, : high - low, : high - low]
    assert dense.sum() == table.sum()
    return table


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("mask", RULES, ids=str)
@pytest.mark.parametrize("directed", [True, False])
def test_edges_and_dense_form_match_truth_table(mask, sizes, directed):
    batch = random_batch(sizes, seed=3, directed=directed)
    pairs, truth = mask(batch), truth_table(batch, RULES[mask])
    assert torch.equal(edges_table(pairs), truth)
    assert torch.equal(dense_table(pairs), truth)
    assert pairs.count == truth.sum()
    assert pairs.all_read == truth.any(1).all()
    keys = pairs.edges[1] * batch.num_nodes + pairs.edges[0]
    assert (keys.diff() > 0).all()  # sorted by (target, source), no duplicates


@dataclass(frozen=True)
class Ahead(Mask):
    """A mask that defines only `allows`: each node reads those after it."""

    def allows(self, batch, source, target):
        return (source > target)[:, None]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_mask_with_only_allows_matches_truth_table(sizes):
    batch = random_batch(sizes, seed=3)
    for mask, rule in (
        (Ahead(), lambda i, j, hops: j > i),
        (Ahead() & Hops(1), lambda i, j, hops: j > i and hops <= 1),
    ):
        truth = truth_table(batch, rule)
        assert torch.equal(edges_table(mask(batch)), truth)
        assert torch.equal(dense_table(mask(batch)), truth)


@dataclass(frozen=True)
class ByHead(Mask):
    """A mask that distinguishes heads by itself: the first reads ahead, the second back."""

    heads: int = 2

    def allows(self, batch, source, target):
        return torch.stack([source > target, source < target], dim=1)


@pytest.mark.parametrize("virtual", [0, 2])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_per_head_allows_is_consistent_in_every_form(sizes, virtual):
    batch = random_batch(sizes, seed=3)
    ahead, back = ((lambda i, j, hops: j > i), (lambda i, j, hops: j < i))
    near, both = ((lambda i, j, hops: j > i and hops <= 1), (lambda i, j, hops: j < i or hops <= 1))
    for mask, rules in (
        (ByHead(), (ahead, back)),
        (ByHead() & Hops(1), (near, lambda i, j, hops: j < i and hops <= 1)),
        (ByHead() | Hops(1), (lambda i, j, hops: j > i or hops <= 1, both)),
    ):
        pairs = (mask | VirtualNodes(virtual) if virtual else mask)(with_virtual_nodes(batch, virtual))
        real = pairs.batch.real if virtual else slice(None)
        for head, rule in enumerate(rules):
            truth = truth_table(batch, rule)
            listed = torch.zeros(pairs.batch.num_nodes, pairs.batch.num_nodes, dtype=torch.bool)
            listed[*pairs.edges[:, pairs.edge_heads[:, head]].flip(0)] = True
            assert torch.equal(listed[real][:, real], truth)
            assert torch.equal(dense_table(pairs, head), listed)


def test_mask_without_keys_or_allows_is_rejected():
    with pytest.raises(TypeError, match="Mask defines neither keys nor allows"):
        Mask().keys(random_batch((2,)))


@pytest.mark.parametrize(
    ("returned", "description"),
    [
        (lambda rows: rows, r"\(29,\) of torch\.bool"),
        (lambda rows: rows[:, None].float(), r"\(29, 1\) of torch\.float32"),
        (lambda rows: rows[:, None].expand(-1, 3), r"\(29, 3\) of torch\.bool"),
        (lambda rows: None, "a NoneType"),
    ],
)
def test_allows_of_wrong_shape_or_dtype_is_rejected(returned, description):
    class Same(Mask):
        def allows(self, batch, source, target):
            return returned(source == target)

    batch = random_batch((5, 2))
    for mask in (Same(), Same() | Window(1), PerHead((Same(), Hops(1)))):
        with pytest.raises(UserError, match=rf"Same\.allows returns {description}, expected \(29, 1\)"):
            _ = mask(batch).edges


def test_unhashable_mask_is_rejected():
    @dataclass
    class Thawed(Mask):
        size: int = 2

    with pytest.raises(UserError, match=r"Thawed is not hashable.*@dataclass\(frozen=True\)"):
        Thawed()


def test_unlimited_hops_equal_complete():
    assert Hops(None) == Hops() == Complete() == Hops(schedule=[1, None]).at(1)
    for mask in (Hops(2), Hops(schedule=[None, 1]), Hops(None)):
        for copied in (pickle.loads(pickle.dumps(mask)), copy.deepcopy(mask)):
            assert copied == mask
            assert type(copied) is type(mask)


RANDOM = [RandomEdges(2), Expander(4), Expander(2, seed=3)]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("mask", RANDOM, ids=str)
def test_random_masks_are_consistent_in_every_form(mask, sizes):
    batch = random_batch(sizes, seed=3)
    drawn, hops, causal = (edges_table(part(batch)) for part in (mask, Hops(1), Causal()))
    cases = {mask: drawn, mask | Hops(1): drawn | hops, Causal() & mask: drawn & causal}
    cases[(Hops(1) | mask) & Causal()] = (hops | drawn) & causal
    for combined, expected in cases.items():
        pairs = combined(batch)
        assert torch.equal(edges_table(pairs), expected)
        assert torch.equal(dense_table(pairs), expected)
        assert pairs.count == expected.sum()
        assert pairs.all_read == expected.any(1).all()
        reader, source = (batch.batch[:, None] == batch.batch).nonzero().T
        assert torch.equal(combined.allows(batch, source, reader)[:, 0], expected[reader, source])


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_per_head_matches_its_parts(sizes):
    batch = random_batch(sizes, seed=5)
    parts = (Hops(1), Causal(), Complete(), Window(1) & Causal())
    for mask, expected in ((PerHead(parts), parts), (PerHead(parts) & Causal(), [p & Causal() for p in parts])):
        pairs = mask(batch)
        assert pairs.dense.shape[1] == pairs.heads == 4
        for head, part in enumerate(expected):
            assert torch.equal(dense_table(pairs, head), dense_table(part(batch)))
            used = pairs.edges[:, pairs.edge_heads[:, head]]
            assert torch.equal(used, part(batch).edges)


@pytest.mark.parametrize("mask", [*RULES, PerHead((Hops(1), Causal()))], ids=str)
def test_rowptr_and_colptr_index_the_edges(mask):
    pairs = mask(random_batch((1, 6, 4), seed=2))
    source, target = pairs.edges
    for node in range(pairs.batch.num_nodes):
        assert (target[pairs.rowptr[node] : pairs.rowptr[node + 1]] == node).all()
        edges = pairs.by_source[pairs.colptr[node] : pairs.colptr[node + 1]]
        assert (source[edges] == node).all()
        assert (target[edges].diff() > 0).all()
    assert pairs.rowptr[-1] == pairs.colptr[-1] == len(source)


def test_pairs_are_cached_on_the_batch():
    batch = random_batch((3, 4))
    assert Hops(2)(batch) is Hops(2)(batch)
    assert Hops(2)(batch) is not Hops(1)(batch)


def test_equal_masks_compare_and_hash_equal():
    assert Hops(1) | Causal() == Union([Hops(1), Causal()])
    assert hash(Hops(1) & Window(2)) == hash(Intersection((Hops(1), Window(2))))
    assert Hops(1) & Causal() != Hops(1) | Causal()


def test_only_unbounded_hops_reach_other_components():
    batch = random_batch((6,), density=0.0)
    assert Hops(None)(batch).count == 36
    assert Hops(100)(batch).count == 6


def test_invalid_masks_are_rejected():
    with pytest.raises(ValueError, match="hops must be 0 or more, not -1"):
        Hops(-1)
    with pytest.raises(ValueError, match="width of a window"):
        Window(-2)
    with pytest.raises(ValueError, match="a stride must be 1 or more, not 0"):
        Strided(0)
    with pytest.raises(ValueError, match="at least one mask"):
        Union(())
    with pytest.raises(ValueError, match="cannot itself distinguish heads"):
        PerHead((PerHead((Causal(), Complete())), Causal()))
    with pytest.raises(ValueError, match="2 and 3 heads cannot be combined"):
        PerHead((Causal(),) * 2) | PerHead((Causal(),) * 3)


@pytest.mark.parametrize("mask", [Hops(0), Hops(1), Causal(), Window(1), Complete()], ids=str)
def test_of_edges_maps_each_edge_to_its_pair(mask):
    batch = random_batch((1, 6, 4), density=0.4)
    pairs = mask(batch)
    index = {pair: place for place, pair in enumerate(map(tuple, pairs.edges.T.tolist()))}
    expected = [index.get(edge, len(index)) for edge in map(tuple, batch.edge_index.T.tolist())]
    assert pairs.of_edges.tolist() == expected
    assert (len(index) in expected) == (mask not in (Hops(1), Complete()))  # these contain every edge

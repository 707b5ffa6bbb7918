"""Random masks: what their docstrings promise of every draw."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gt.graph import GraphBatch, path_graphs
from gt.masks import Expander, RandomEdges
from gt.masks.random import hashed, splitmix64
from tests.graphs import SIZES, random_graph


def splitmix64_reference(state: int) -> int:
    """splitmix64 on Python integers, which do not overflow."""
    word = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & word
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & word
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & word
    return state ^ (state >> 31)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_splitmix64_matches_reference(state):
    found = int(splitmix64(torch.tensor([state]))) % (1 << 64)
    assert found == splitmix64_reference(state % (1 << 64))


def test_reference_has_known_first_output():
    assert splitmix64_reference(0) == 0xE220A8397B1DCDAF


@given(st.integers(-(1 << 70), 1 << 70), st.lists(st.integers(0, 1 << 40), max_size=4))
def test_hash_depends_on_every_part(seed, parts):
    state = splitmix64_reference(seed % (1 << 64))
    for part in parts:
        state = splitmix64_reference(state ^ part)
    given_parts = [torch.tensor([part]) for part in parts] or [torch.zeros(1, dtype=torch.long)]
    expected = state if parts else splitmix64_reference(state)
    assert int(hashed(seed, given_parts)) == expected % (1 << 63)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 6), st.integers(0, 99))
def test_random_edges_match_a_loop(sizes, degree, seed):
    batch = path_graphs(sizes)
    expected = set()
    for low, size in zip(batch.ptr.tolist(), sizes, strict=False):
        for i in range(size if size > 1 else 0):
            others = [j for j in range(size) if j != i]
            for draw in range(degree):
                parts = [torch.tensor([part]) for part in (size, i, draw)]
                expected.add((low + others[int(hashed(seed, parts)) % (size - 1)], low + i))
    assert set(map(tuple, RandomEdges(degree, seed)(batch).edges.T.tolist())) == expected


def test_random_edges_are_uniform():
    batch = path_graphs([101])
    reads = torch.zeros(101, dtype=torch.long)
    for seed in range(100):
        pairs = RandomEdges(3, seed)(batch)
        assert pairs.edges[0].unique().numel() > 70  # about 1 - 1 / e^3 of 101 nodes are read at all
        reads += pairs.edges[0].bincount(minlength=101)
    assert 290 < reads.double().mean() <= 300  # 3 draws of 100 sometimes coincide
    assert (reads - 297).abs().max() < 4 * 297**0.5


@pytest.mark.parametrize("mask", [RandomEdges(3), RandomEdges(1, seed=4), Expander(4), Expander(2, seed=7)], ids=str)
def test_draw_is_independent_of_the_batch(mask):
    sizes = (1, 30, 2, 5, 30, 9)
    batch = path_graphs(sizes)
    for graph, size in enumerate(sizes):
        of_graph = batch.batch[mask(batch).edges[1]] == graph
        assert torch.equal(mask(batch).edges[:, of_graph] - batch.ptr[graph], mask(path_graphs([size])).edges)


def test_draws_differ_by_seed_and_size():
    batch = path_graphs([40, 41])
    for make in (RandomEdges, Expander):
        assert not torch.equal(make(4, 0)(batch).edges, make(4, 1)(batch).edges)
        source, target = make(4)(batch).edges
        first = set(zip(source[target < 30].tolist(), target[target < 30].tolist(), strict=True))
        in_second_graph = (target >= 40) & (target < 70)
        second = set(zip((source[in_second_graph] - 40).tolist(), (target[in_second_graph] - 40).tolist(), strict=True))
        assert len(first & second) < len(first) / 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.sampled_from([2, 4, 6]), st.integers(0, 999))
def test_expander_is_connected_symmetric_and_nearly_regular(sizes, degree, seed):
    batch = path_graphs(sizes)
    source, target = Expander(degree, seed)(batch).edges
    assert (source != target).all()
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    assert {(j, i) for i, j in pairs} == pairs
    graph = nx.Graph(list(pairs))
    graph.add_nodes_from(range(batch.num_nodes))
    assert nx.number_connected_components(graph) == len(sizes)
    for node, reads in graph.degree:
        size = int(batch.sizes[batch.batch[node]])
        if size <= degree + 1:
            assert reads == size - 1
        else:
            assert 2 <= reads <= degree


def test_expander_of_degree_two_is_one_cycle():
    for seed in range(5):
        graph = nx.Graph(Expander(2, seed)(path_graphs([50])).edges.T.tolist())
        assert nx.is_connected(graph)
        assert {reads for _, reads in graph.degree} == {2}


@pytest.mark.parametrize("degree", [4, 6])
def test_expanders_are_nearly_ramanujan(degree):
    passed = total = 0
    for size in (20, 50, 100, 300, 1000):
        for seed in range(10 if size < 1000 else 3):
            pairs = Expander(degree, seed)(path_graphs([size]))
            values = torch.linalg.eigvalsh(pairs.dense[0, 0].double())
            assert values[-2] < 2 * (degree - 1) ** 0.5 + 0.1  # for every draw
            passed += int(values[-1] - values[-2] >= degree - 2 * (degree - 1) ** 0.5 - 0.1)
            total += 1
    assert passed / total > 0.95, passed / total  # Exphormer redraws until this holds


def test_invalid_degrees_are_rejected():
    for degree in (0, 1, 3, -2):
        with pytest.raises(ValueError, match="must be even and 2 or more"):
            Expander(degree)
    with pytest.raises(ValueError, match="degree of random edges must be 1 or more, not 0"):
        RandomEdges(0)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_input_edges_have_no_effect(sizes):
    graphs = [random_graph(n, i) for i, n in enumerate(sizes)]
    batch = GraphBatch.from_data_list(graphs)
    for mask in (RandomEdges(2), Expander(4)):
        assert torch.equal(mask(batch).edges, mask(path_graphs(sizes)).edges)

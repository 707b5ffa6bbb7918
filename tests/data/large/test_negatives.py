"""Negative sampling for links, against a list of all pairs without a link."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gt.data.large.negatives import AnotherTarget, AnyPair, Negatives
from gt.errors import UserError

NO_LINKS = np.empty((0, 2), dtype=np.int64)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Links with duplicates, reverses and self-loops, in the smallest integer type, as stores keep them."""
    nodes = draw(st.integers(1, 7))
    node = st.integers(0, nodes - 1)
    links = draw(st.lists(st.tuples(node, node), max_size=30))
    return np.array(links, dtype=np.uint8).reshape(-1, 2), nodes


def free_pairs(links: np.ndarray, nodes: int) -> list[tuple[int, int]]:
    """All ordered pairs of distinct nodes that are linked in neither direction."""
    linked = {(a, b) for a, b in links.tolist()} | {(b, a) for a, b in links.tolist()}
    return [(a, b) for a, b in itertools.product(range(nodes), repeat=2) if a != b and (a, b) not in linked]


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_unlinked_pairs_are_enumerated_in_order(graph: tuple[np.ndarray, int]) -> None:
    links, nodes = graph
    expected = free_pairs(links, nodes)
    negatives = AnyPair(links, nodes)
    assert negatives.free[-1] == len(expected)
    assert negatives._pairs(np.arange(len(expected))).T.tolist() == [list(pair) for pair in expected]


@settings(max_examples=100, deadline=None)
@given(graphs(), st.integers(0, 99))
def test_draws_are_unlinked_pairs(graph: tuple[np.ndarray, int], seed: int) -> None:
    links, nodes = graph
    expected = set(free_pairs(links, nodes))
    sources = np.array(sorted({a for a, _ in expected}) * 3, dtype=np.int64)
    positive = np.stack([sources, sources])
    if expected:
        drawn = AnyPair(links, nodes).draw(positive, np.random.default_rng(seed))
        assert set(map(tuple, drawn.T.tolist())) <= expected
    drawn = AnotherTarget(links, nodes).draw(positive, np.random.default_rng(seed))
    assert drawn[0].tolist() == sources.tolist()
    assert set(map(tuple, drawn.T.tolist())) <= expected


@pytest.mark.parametrize("kind", [AnyPair, AnotherTarget])
def test_draws_are_uniform(kind: type[Negatives]) -> None:
    links = np.array([[0, 1], [2, 0], [3, 3]])
    positive = np.zeros((2, 30_000), dtype=np.int64) if kind is AnotherTarget else np.zeros((2, 60_000), dtype=np.int64)
    drawn = kind(links, 5).draw(positive, np.random.default_rng(0))
    values, counts = np.unique(drawn, axis=1, return_counts=True)
    expected = [list(p) for p in free_pairs(links, 5) if kind is AnyPair or p[0] == 0]
    assert values.T.tolist() == expected
    mean = positive.shape[1] / len(expected)
    assert np.abs(counts - mean).max() < 5 * mean**0.5


def test_draws_from_millions_of_nodes() -> None:
    nodes = 3_000_000
    links = np.random.default_rng(0).integers(nodes, size=(1000, 2)).astype(np.int32)
    positive = links.T.astype(np.int64)
    linked = set(map(tuple, np.concatenate([links, links[:, ::-1]]).tolist()))
    for kind in (AnyPair, AnotherTarget):
        drawn = kind(links, nodes).draw(positive, np.random.default_rng(1))
        assert drawn.min() >= 0
        assert drawn.max() < nodes
        assert drawn.max() > nodes / 2
        assert not linked & set(map(tuple, drawn.T.tolist()))


def test_no_unlinked_pair_is_an_error() -> None:
    complete = np.array(list(itertools.combinations(range(4), 2)))
    with pytest.raises(UserError, match="all pairs of nodes"):
        AnyPair(complete, 4).draw(np.zeros((2, 1), dtype=np.int64), np.random.default_rng(0))
    star = np.array([[0, 1], [2, 0], [0, 3]])
    with pytest.raises(UserError, match="node 0 is linked to all others"):
        AnotherTarget(star, 4).draw(np.array([[1, 0], [0, 1]]), np.random.default_rng(0))
    with pytest.raises(UserError, match="all pairs of nodes"):
        AnyPair(NO_LINKS, 1).draw(np.zeros((2, 1), dtype=np.int64), np.random.default_rng(0))

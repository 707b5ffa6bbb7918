"""Samplers against brute force."""

from pathlib import Path

import numpy as np
import pytest

from gt.data.large.clusters import clusters
from gt.data.large.sampling import Adjacency, Clusters, Full, Neighbours, Partition, Sample, Sampler, choose
from gt.errors import UserError

NODES = 50
SAMPLERS = {
    "neighbours": Neighbours([3, 2], 7),
    "all neighbours": Neighbours([None, None], 7),
    "partition": Partition(6),
    "clusters": Clusters(9, 2),
}


def some_edges(nodes: int = NODES, edges: int = 300, seed: int = 0) -> np.ndarray:
    """(2, E) sorted by (target, source): hubs, isolated nodes, a self-loop, an edge that stands there twice."""
    draw = np.random.default_rng(seed)
    ends = (draw.random((2, edges)) ** 2 * (nodes - 5)).astype(np.uint8)
    ends = np.concatenate([ends, [[3, 7, 7], [3, 8, 8]]], 1).astype(np.uint8)  # stores keep small types
    return ends[:, np.lexsort(ends)]


def opened(sampler: Sampler, folder: Path, edges: np.ndarray | None = None) -> Sampler:
    sampler.open(Adjacency.of(some_edges() if edges is None else edges, NODES), folder)
    return sampler


def marked(roots: np.ndarray) -> np.ndarray:
    is_root = np.zeros(NODES, bool)
    is_root[roots] = True
    return is_root


def check(sample: Sample, edges: np.ndarray) -> None:
    """A subgraph of the graph, edges in the order that batches need."""
    assert (np.diff(sample.nodes) > 0).all()
    assert (np.diff(sample.edges) > 0).all()
    np.testing.assert_array_equal(sample.nodes[sample.ends], edges[:, sample.edges])
    assert sample.nodes.dtype == sample.ends.dtype == np.int64
    np.testing.assert_array_equal(np.lexsort(sample.ends), np.arange(len(sample.edges)))


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_sees_every_root_once_in_equally_many_steps_of_each_process(sampler, world, tmp_path):
    edges, roots = some_edges(), np.random.default_rng(1).permutation(NODES)[:31]
    opened(sampler, tmp_path)
    plan = sampler.plan(roots, world, np.random.default_rng(0))
    assert len(plan) == sampler.steps(len(roots), world)
    assert len(plan) % world == 0
    seen = []
    for step, nodes in enumerate(plan):
        sample = sampler.sample(nodes, marked(roots), np.random.default_rng(step))
        check(sample, edges)
        seen.append(sample.nodes[sample.roots])
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.sort(roots))


@pytest.mark.parametrize("sampler", [s for n, s in SAMPLERS.items() if n in ("partition", "clusters")])
def test_parts_hold_every_node_once_and_all_edges_between_them(sampler, tmp_path):
    edges = some_edges()
    opened(sampler, tmp_path)
    plan = sampler.plan(np.arange(5), 1, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(np.concatenate(plan)), np.arange(NODES))
    for nodes in plan:
        sample = sampler.sample(nodes, marked(np.arange(5)), np.random.default_rng(0))
        np.testing.assert_array_equal(sample.nodes, np.sort(nodes))
        np.testing.assert_array_equal(sample.edges, np.flatnonzero(np.isin(edges, nodes).all(0)))


def test_neighbours_are_all_or_exactly_so_many_distinct_ones(tmp_path):
    edges = some_edges()
    sampler = opened(Neighbours([4, 2], 6), tmp_path)
    roots = np.array([8, 0, 1, 44, 49, 3])
    for seed in range(20):
        sample = sampler.sample(roots, marked(roots), np.random.default_rng(seed))
        target = edges[1, sample.edges]
        met, nodes = set(), set(roots)
        for most in (4, 2):
            drawn = {node: sample.edges[target == node] for node in nodes}  # ascending, so distinct: see `check`
            for node, rows in drawn.items():
                assert len(rows) == min(most, (edges[1] == node).sum())
            met |= nodes
            nodes = {int(source) for rows in drawn.values() for source in edges[0, rows]} - met
        check(sample, edges)
        assert set(sample.nodes) == met | nodes
        assert not np.isin(target, sorted(nodes)).any()  # the last that are met read nobody
        for degrees, ends in zip(sample.degrees, edges[::-1], strict=True):  # those of the whole graph
            np.testing.assert_array_equal(degrees, np.bincount(ends, minlength=NODES)[sample.nodes])


def test_without_a_limit_neighbours_are_the_whole_neighbourhood(tmp_path):
    edges = some_edges()
    sampler = opened(Neighbours([None, None], 6), tmp_path)
    roots = np.array([20, 8])
    sample = sampler.sample(roots, marked(roots), np.random.default_rng(0))
    near = np.union1d(roots, edges[0, np.isin(edges[1], roots)])
    np.testing.assert_array_equal(sample.edges, np.flatnonzero(np.isin(edges[1], near)))


def test_a_choice_is_of_distinct_numbers_all_alike():
    sizes = np.repeat([3, 5, 9], 20_000)
    chosen = choose(sizes, 3, np.random.default_rng(0))
    assert (np.diff(np.sort(chosen, 1)) > 0).all()
    for size in (5, 9):
        rows = np.sort(chosen[sizes == size], 1)
        _, counts = np.unique(rows @ [100, 10, 1], return_counts=True)
        kinds = size * (size - 1) * (size - 2) // 6
        assert len(counts) == kinds
        spread = (20_000 / kinds * (1 - 1 / kinds)) ** 0.5
        assert abs(counts - 20_000 / kinds).max() < 4.5 * spread
    assert (np.sort(chosen[sizes == 3], 1) == [0, 1, 2]).all()


def test_parts_are_dealt_out_anew():
    sampler = Partition(4)
    sampler.adjacency = Adjacency.of(some_edges(), NODES)
    one, other = (sampler.plan(np.arange(5), 1, np.random.default_rng(epoch)) for epoch in (0, 1))
    assert not np.array_equal(one[0], other[0])
    assert np.array_equal(one[0], sampler.plan(np.arange(5), 1, np.random.default_rng(0))[0])


def test_a_graph_without_edges(tmp_path):
    for sampler in (Neighbours([3], 5), Partition(3), Clusters(4, 2)):
        opened(sampler, tmp_path / type(sampler).__name__, np.empty((2, 0), np.uint8))
        for nodes in sampler.plan(np.arange(9), 1, np.random.default_rng(0)):
            sample = sampler.sample(nodes, marked(np.arange(9)), np.random.default_rng(0))
            assert sample.ends.shape == (2, 0)
            assert len(sample.nodes)


def test_the_whole_graph_is_one_step_with_a_share_of_the_roots(tmp_path):
    sampler = opened(Full(), tmp_path)
    plan = sampler.plan(np.arange(9), 2, np.random.default_rng(0))
    assert [nodes.tolist() for nodes in plan] == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    assert sampler.sample(plan[0], marked(plan[0]), np.random.default_rng(0)) is None


def planted(groups: int, size: int, seed: int = 0) -> np.ndarray:
    """(2, E) edges in both directions, 9 of 10 within a group; nodes in random order."""
    draw = np.random.default_rng(seed)
    source = draw.integers(0, groups * size, 8 * groups * size)
    near = source // size * size + draw.integers(0, size, len(source))
    target = np.where(draw.random(len(source)) < 0.9, near, draw.integers(0, groups * size, len(source)))
    ends = draw.permutation(groups * size)[np.stack([source, target])]
    ends = np.concatenate([ends, ends[::-1]], 1)
    return ends[:, np.lexsort(ends)]


def test_clusters_are_balanced_and_cut_few_edges():
    edges = planted(20, 100)
    rows = Adjacency.of(edges, 2000)
    for parts, least in ((20, 0.5), (4, 0.6)):
        part = clusters(rows.pointer, rows.source, parts)
        sizes = np.bincount(part, minlength=parts)
        assert sizes.max() <= np.ceil(1.1 * 2000 / parts)
        assert sizes.min() >= 2000 // parts // 2
        kept = (part[edges[0]] == part[edges[1]]).mean()
        assert kept > least  # at random 1 / parts
    grid = np.arange(1600).reshape(40, 40)
    links = np.concatenate(
        [np.stack([grid[1:].ravel(), grid[:-1].ravel()]), np.stack([grid[:, 1:].ravel(), grid[:, :-1].ravel()])], 1
    )
    links = np.random.default_rng(0).permutation(1600)[np.concatenate([links, links[::-1]], 1)]
    links = links[:, np.lexsort(links)]
    part = clusters(*(getattr(Adjacency.of(links, 1600), name) for name in ("pointer", "source")), 8)
    assert (part[links[0]] == part[links[1]]).mean() > 0.8


def test_clusters_of_awkward_graphs():
    for nodes, parts in ((5, 5), (1, 1), (7, 3)):
        for edges in (np.empty((2, 0), int), np.zeros((2, 3), int)):
            rows = Adjacency.of(edges, nodes)
            assert np.bincount(clusters(rows.pointer, rows.source, parts), minlength=parts).min() > 0


def test_clusters_are_kept_beside_the_store(tmp_path, monkeypatch):
    first = opened(Clusters(9, 2), tmp_path)
    monkeypatch.setattr("gt.data.large.sampling.clusters", lambda *args: pytest.fail("found again"))
    again = opened(Clusters(9, 3), tmp_path)
    np.testing.assert_array_equal(first.order, again.order)
    with pytest.raises(pytest.fail.Exception):
        opened(Clusters(8, 2), tmp_path)


def test_wrong_options_are_one_line(tmp_path):
    for make in (
        lambda: Neighbours([], 3),
        lambda: Neighbours([0], 3),
        lambda: Neighbours([2], 0),
        lambda: Partition(0),
        lambda: Clusters(3, 4),
        lambda: opened(Clusters(3, 1), tmp_path).steps(9, 4),
    ):
        with pytest.raises(UserError):
            make()

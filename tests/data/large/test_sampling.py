"""Samplers and clusters of one large graph, against brute force."""

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


def random_edges(nodes: int = NODES, edges: int = 300, seed: int = 0) -> np.ndarray:
    """(2, E) sorted by (target, source), with hubs, isolated nodes, a self-loop and a duplicate edge."""
    rng = np.random.default_rng(seed)
    ends = (rng.random((2, edges)) ** 2 * (nodes - 5)).astype(np.uint8)
    ends = np.concatenate([ends, [[3, 7, 7], [3, 8, 8]]], 1).astype(np.uint8)  # stores keep small types
    return ends[:, np.lexsort(ends)]


def open_sampler(sampler: Sampler, folder: Path, edges: np.ndarray | None = None) -> Sampler:
    sampler.open(Adjacency.of(random_edges() if edges is None else edges, NODES), folder)
    return sampler


def root_mask(roots: np.ndarray) -> np.ndarray:
    is_root = np.zeros(NODES, bool)
    is_root[roots] = True
    return is_root


def assert_subgraph(sample: Sample, edges: np.ndarray) -> None:
    """Assert that the sample is a subgraph, its edges in the order that batches need."""
    assert (np.diff(sample.nodes) > 0).all()
    assert (np.diff(sample.edges) > 0).all()
    np.testing.assert_array_equal(sample.nodes[sample.ends], edges[:, sample.edges])
    assert sample.nodes.dtype == sample.ends.dtype == np.int64
    np.testing.assert_array_equal(np.lexsort(sample.ends), np.arange(len(sample.edges)))


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_epoch_visits_each_root_once(sampler, world, tmp_path):
    edges, roots = random_edges(), np.random.default_rng(1).permutation(NODES)[:31]
    open_sampler(sampler, tmp_path)
    plan = sampler.plan(roots, world, np.random.default_rng(0))
    assert len(plan) == sampler.steps(len(roots), world)
    assert len(plan) % world == 0
    visited = []
    for step, nodes in enumerate(plan):
        sample = sampler.sample(nodes, root_mask(roots), np.random.default_rng(step))
        assert_subgraph(sample, edges)
        visited.append(sample.nodes[sample.roots])
    np.testing.assert_array_equal(np.sort(np.concatenate(visited)), np.sort(roots))


@pytest.mark.parametrize("sampler", [s for n, s in SAMPLERS.items() if n in ("partition", "clusters")])
def test_parts_are_induced_subgraphs_covering_all_nodes(sampler, tmp_path):
    edges = random_edges()
    open_sampler(sampler, tmp_path)
    plan = sampler.plan(np.arange(5), 1, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(np.concatenate(plan)), np.arange(NODES))
    for nodes in plan:
        sample = sampler.sample(nodes, root_mask(np.arange(5)), np.random.default_rng(0))
        np.testing.assert_array_equal(sample.nodes, np.sort(nodes))
        np.testing.assert_array_equal(sample.edges, np.flatnonzero(np.isin(edges, nodes).all(0)))


def test_neighbours_are_distinct_and_limited_by_fanout(tmp_path):
    edges = random_edges()
    sampler = open_sampler(Neighbours([4, 2], 6), tmp_path)
    roots = np.array([8, 0, 1, 44, 49, 3])
    for seed in range(20):
        sample = sampler.sample(roots, root_mask(roots), np.random.default_rng(seed))
        target = edges[1, sample.edges]
        inner, nodes = set(), set(roots)
        for fanout in (4, 2):
            drawn = {node: sample.edges[target == node] for node in nodes}  # distinct, see `assert_subgraph`
            for node, rows in drawn.items():
                assert len(rows) == min(fanout, (edges[1] == node).sum())
            inner |= nodes
            nodes = {int(source) for rows in drawn.values() for source in edges[0, rows]} - inner
        assert_subgraph(sample, edges)
        assert set(sample.nodes) == inner | nodes
        assert not np.isin(target, sorted(nodes)).any()  # the outermost nodes have no incoming edges
        for degrees, ends in zip(sample.degrees, edges[::-1], strict=True):  # in the whole graph
            np.testing.assert_array_equal(degrees, np.bincount(ends, minlength=NODES)[sample.nodes])


def test_unlimited_fanout_takes_all_neighbours(tmp_path):
    edges = random_edges()
    sampler = open_sampler(Neighbours([None, None], 6), tmp_path)
    roots = np.array([20, 8])
    sample = sampler.sample(roots, root_mask(roots), np.random.default_rng(0))
    inner = np.union1d(roots, edges[0, np.isin(edges[1], roots)])
    np.testing.assert_array_equal(sample.edges, np.flatnonzero(np.isin(edges[1], inner)))


def test_choose_is_uniform_without_replacement():
    sizes = np.repeat([3, 5, 9], 20_000)
    chosen = choose(sizes, 3, np.random.default_rng(0))
    assert (np.diff(np.sort(chosen, 1)) > 0).all()
    for size in (5, 9):
        rows = np.sort(chosen[sizes == size], 1)
        _, counts = np.unique(rows @ [100, 10, 1], return_counts=True)
        subsets = size * (size - 1) * (size - 2) // 6
        assert len(counts) == subsets
        deviation = (20_000 / subsets * (1 - 1 / subsets)) ** 0.5
        assert abs(counts - 20_000 / subsets).max() < 4.5 * deviation
    assert (np.sort(chosen[sizes == 3], 1) == [0, 1, 2]).all()


def test_partition_changes_by_seed():
    sampler = Partition(4)
    sampler.adjacency = Adjacency.of(random_edges(), NODES)
    first, second = (sampler.plan(np.arange(5), 1, np.random.default_rng(epoch)) for epoch in (0, 1))
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(first[0], sampler.plan(np.arange(5), 1, np.random.default_rng(0))[0])


def test_graph_without_edges(tmp_path):
    for sampler in (Neighbours([3], 5), Partition(3), Clusters(4, 2)):
        open_sampler(sampler, tmp_path / type(sampler).__name__, np.empty((2, 0), np.uint8))
        for nodes in sampler.plan(np.arange(9), 1, np.random.default_rng(0)):
            sample = sampler.sample(nodes, root_mask(np.arange(9)), np.random.default_rng(0))
            assert sample.ends.shape == (2, 0)
            assert len(sample.nodes)


def test_full_graph_splits_roots_over_processes(tmp_path):
    sampler = open_sampler(Full(), tmp_path)
    plan = sampler.plan(np.arange(9), 2, np.random.default_rng(0))
    assert [nodes.tolist() for nodes in plan] == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    assert sampler.sample(plan[0], root_mask(plan[0]), np.random.default_rng(0)) is None


def planted_clusters(groups: int, size: int, seed: int = 0) -> np.ndarray:
    """(2, E) edges in both directions, 9 of 10 within a group; nodes in random order."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, groups * size, 8 * groups * size)
    partner = source // size * size + rng.integers(0, size, len(source))
    target = np.where(rng.random(len(source)) < 0.9, partner, rng.integers(0, groups * size, len(source)))
    ends = rng.permutation(groups * size)[np.stack([source, target])]
    ends = np.concatenate([ends, ends[::-1]], 1)
    return ends[:, np.lexsort(ends)]


def test_clusters_are_balanced_and_cut_few_edges():
    edges = planted_clusters(20, 100)
    rows = Adjacency.of(edges, 2000)
    for parts, minimum in ((20, 0.5), (4, 0.6)):
        part = clusters(rows.pointer, rows.source, parts)
        sizes = np.bincount(part, minlength=parts)
        assert sizes.max() <= np.ceil(1.1 * 2000 / parts)
        assert sizes.min() >= 2000 // parts // 2
        uncut = (part[edges[0]] == part[edges[1]]).mean()
        assert uncut > minimum  # chance is 1 / parts
    grid = np.arange(1600).reshape(40, 40)
    links = np.concatenate(
        [np.stack([grid[1:].ravel(), grid[:-1].ravel()]), np.stack([grid[:, 1:].ravel(), grid[:, :-1].ravel()])], 1
    )
    links = np.random.default_rng(0).permutation(1600)[np.concatenate([links, links[::-1]], 1)]
    links = links[:, np.lexsort(links)]
    part = clusters(*(getattr(Adjacency.of(links, 1600), name) for name in ("pointer", "source")), 8)
    assert (part[links[0]] == part[links[1]]).mean() > 0.8


def test_no_cluster_is_empty():
    for nodes, parts in ((5, 5), (1, 1), (7, 3)):
        for edges in (np.empty((2, 0), int), np.zeros((2, 3), int)):
            rows = Adjacency.of(edges, nodes)
            assert np.bincount(clusters(rows.pointer, rows.source, parts), minlength=parts).min() > 0


def test_clusters_are_cached_beside_the_store(tmp_path, monkeypatch):
    first = open_sampler(Clusters(9, 2), tmp_path)
    monkeypatch.setattr("gt.data.large.sampling.clusters", lambda *args: pytest.fail("recomputed"))
    second = open_sampler(Clusters(9, 3), tmp_path)
    np.testing.assert_array_equal(first.order, second.order)
    with pytest.raises(pytest.fail.Exception):
        open_sampler(Clusters(8, 2), tmp_path)


def test_invalid_options_are_rejected(tmp_path):
    for call in (
        lambda: Neighbours([], 3),
        lambda: Neighbours([0], 3),
        lambda: Neighbours([2], 0),
        lambda: Partition(0),
        lambda: Clusters(3, 4),
        lambda: open_sampler(Clusters(3, 1), tmp_path).steps(9, 4),
    ):
        with pytest.raises(UserError):
            call()

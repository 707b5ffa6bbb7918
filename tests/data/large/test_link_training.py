"""Training batches of link prediction: their links are hidden from the input, sampling, and reproducible draws."""

from pathlib import Path

import numpy as np
import pytest

from gt.data.batch_sampler import Request
from gt.data.large.link_training import InputGraph, LinkBatches
from gt.data.large.links import LinkData
from gt.data.large.sampling import Clusters, Full, Neighbours, Partition, Sampler
from gt.errors import UserError
from tests.data.large.small_links import (
    EDGES,
    NODES,
    TRAIN,
    edges_of,
    epoch_batches,
    link_data,
    network,
    open_data,
    pairs,
)


@pytest.fixture
def data(tmp_path: Path) -> LinkData:
    return open_data(link_data(tmp_path))


@pytest.mark.parametrize("links", [[(0, 1)], [(1, 0), (2, 3)], [(5, 0)], [(4, 4)], [(11, 3)], EDGES.tolist(), []])
def test_input_graph_without_given_edges(data: LinkData, links: list[tuple[int, int]]) -> None:
    whole = data.graph.batch
    removed = {frozenset(pair) for pair in links}
    expected = [edge for edge in edges_of(whole) if frozenset(edge[:2]) not in removed]
    graph = InputGraph(whole)
    rest = graph.without(graph.between(np.array(links, dtype=np.int64).reshape(-1, 2).T))
    assert edges_of(rest) == expected
    assert (rest.num_nodes, rest.max_nodes) == (NODES, NODES)
    assert len(edges_of(whole)) == 2 * len(EDGES)


def test_training_batch_hides_its_links(data: LinkData) -> None:
    batches = epoch_batches(data)
    assert sorted(pair for batch in batches for pair in pairs(batch.links)[:2]) == sorted(map(tuple, TRAIN.tolist()))
    linked = {frozenset(pair) for pair in [*EDGES.tolist(), *TRAIN.tolist()]}
    for batch in batches:
        assert batch.y is not None
        assert batch.y.flatten().tolist() == [1, 1, 0, 0]
        positive, negative = pairs(batch.links)[:2], pairs(batch.links)[2:]
        removed = {frozenset(pair) for pair in positive}
        assert edges_of(batch) == [edge for edge in edges_of(data.graph.batch) if frozenset(edge[:2]) not in removed]
        for pair in negative:
            assert pair[0] != pair[1]
            assert frozenset(pair) not in linked


def test_ranked_negatives_keep_the_source(tmp_path: Path) -> None:
    for batch in epoch_batches(open_data(link_data(tmp_path, ranked=True))):
        assert batch.links is not None
        assert batch.links[0, :2].tolist() == batch.links[0, 2:].tolist()


@pytest.mark.parametrize("fanout", [(1,), (2, 1), (None, None), (3, None, 2)])
@pytest.mark.parametrize("number", range(3))
def test_neighbour_sample_around_links(tmp_path: Path, fanout: tuple[int | None, ...], number: int) -> None:
    """Each node's feature is its index, which identifies it in a sample."""
    whole, data = open_data(link_data(tmp_path)), open_data(link_data(tmp_path, sampler=Neighbours(fanout)))
    for full, sample in zip(epoch_batches(whole, number), epoch_batches(data, number), strict=True):
        assert sample.x is not None
        nodes = sample.x[:, 0]
        assert len(nodes.unique()) == len(nodes) == sample.num_nodes == sample.max_nodes
        assert [tuple(nodes[list(pair)].tolist()) for pair in pairs(sample.links)] == pairs(full.links)
        assert sample.y is not None
        assert full.y is not None
        assert sample.y.equal(full.y)
        drawn = [(int(nodes[s]), int(nodes[t]), *row) for s, t, *row in map(list, edges_of(sample))]
        remaining = edges_of(full)
        assert all(drawn.count(edge) <= remaining.count(edge) for edge in drawn)
        roots = {node for pair in pairs(full.links) for node in pair}
        in_degree = {node: sum(edge[1] == node for edge in remaining) for node in roots}
        expected = [in_degree[node] if fanout[0] is None else min(in_degree[node], fanout[0]) for node in sorted(roots)]
        assert [sum(edge[1] == node for edge in drawn) for node in sorted(roots)] == expected
        if fanout == (None, None):
            inner = {edge[0] for edge in remaining if edge[1] in roots} | roots
            assert sorted(drawn) == sorted(edge for edge in remaining if edge[1] in inner)


@pytest.mark.parametrize("sampler", [Partition(2), Clusters(2, 1)])
def test_samplers_without_roots_are_rejected(tmp_path: Path, sampler: Sampler) -> None:
    with pytest.raises(UserError, match=f"{type(sampler).__name__} does not sample around links"):
        link_data(tmp_path, sampler=sampler)


@pytest.mark.parametrize("sampler", [None, Full(), Neighbours((2, 2)), Neighbours((1,))])
def test_input_does_not_depend_on_the_training_link(tmp_path: Path, sampler: Sampler | None) -> None:
    """The model's input for a training link is the same whether the graph has that link never, once or repeatedly."""
    without_link = EDGES[~(np.sort(EDGES, 1) == [1, 2]).all(1)]
    with_duplicates = np.concatenate([EDGES, [[1, 2], [2, 1]]])
    inputs = []
    for edges in (EDGES, without_link, with_duplicates):
        data = open_data(link_data(tmp_path, edges, sampler=sampler))
        batch = data.dataset("train")[Request((TRAIN.tolist().index([2, 1]),), draw=(0,))]
        assert batch.x is not None
        inputs.append((edges_of(batch), batch.x.tolist(), network()(batch)))
    for variant in inputs[1:]:
        assert variant[:2] == inputs[0][:2]
        assert variant[2].equal(inputs[0][2])
    whole = open_data(link_data(tmp_path, without_link)).graph.batch
    assert edges_of(whole) != edges_of(open_data(link_data(tmp_path)).graph.batch)  # the graphs themselves differ


def test_draws_are_unique_over_ranks_and_epochs(tmp_path: Path) -> None:
    draws, numbers = [], []
    for rank in range(2):
        sampler = LinkBatches(np.ones(12), 2, shuffle=True, rank=rank, world=2)
        for number in range(3):
            sampler.set_epoch(number)
            batches = list(sampler)
            assert len(batches) == len(sampler) == 3
            draws += [batch.draw for batch in batches]
            numbers += [(number, link) for batch in batches for link in batch.samples]
    assert len(set(draws)) == len(draws)
    assert sorted(numbers) == [(number, link) for number in range(3) for link in range(12)]


def test_resumed_epoch_draws_the_same(data: LinkData) -> None:
    whole = list(LinkBatches(np.ones(12), 2, shuffle=True, seed=1, epoch=4))
    resumed = LinkBatches(np.ones(12), 2, shuffle=True, seed=1, epoch=4, first=2)
    assert list(resumed) == whole[2:]
    resumed.set_epoch(5)
    assert len(list(resumed)) == 6
    first, repeated, next_epoch = (epoch_batches(data, number) for number in (0, 0, 1))
    assert [pairs(b.links) for b in first] == [pairs(b.links) for b in repeated]
    assert {pairs(b.links)[2] for b in first} != {pairs(b.links)[2] for b in next_epoch}

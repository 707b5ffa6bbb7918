"""Batches: the same graphs as PyG packs, and every sample where it belongs, whatever the ranks and epochs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from gt.attention import Demand
from gt.data.batch_sampler import Batches, Request
from gt.data.batching import GraphDataset, gather, runs, tensor
from gt.data.packed import Graphs, pointers
from gt.data.store import load, save
from gt.masks import Hops
from gt.schema import Schema
from tests.graphs import random_graph

GRAPHS = [
    random_graph(5, 0),
    random_graph(1, 1),
    random_graph(9, 2, density=0.6),
    random_graph(4, 3, density=0.0),
    random_graph(2, 4, density=1.0),
    random_graph(1, 5),
    random_graph(7, 6),
]


def pack(graphs: list[Data], level: str = "graph") -> Graphs:
    """PyG graphs as a store would hold them; with ``level="node"`` each node has a target."""
    sizes = np.array([graph.num_nodes for graph in graphs])
    edges = np.array([graph.num_edges for graph in graphs])
    nodes = {"x": torch.cat([graph.x for graph in graphs]).numpy().astype(np.uint8)}
    nodes["hint"] = np.arange(sizes.sum() * 2, dtype=np.float64).reshape(-1, 2)
    by_graph = {}
    if level == "graph":
        by_graph["y"] = torch.cat([graph.y for graph in graphs]).numpy()
    else:
        nodes["y"] = np.arange(sizes.sum(), dtype=np.uint16)
    return Graphs(
        pointers(sizes),
        pointers(edges),
        torch.cat([graph.edge_index for graph in graphs], dim=1).numpy().astype(np.uint8),
        Schema(max_nodes=int(sizes.max())),
        nodes=nodes,
        edges={"edge_attr": torch.cat([graph.edge_attr for graph in graphs]).numpy().astype(np.uint8)},
        graphs=by_graph,
    ).sort_edges()


@pytest.mark.parametrize(
    "ids",
    [[0, 1, 2, 3, 4, 5, 6], [6, 2, 4, 0], [2, 2, 0, 2], [3], [1], [1, 5], [3, 1, 5], [4, 3, 1, 2]],
    ids=["all", "any order", "repeats", "no edges", "one node", "single nodes", "no edges at all", "mixed"],
)
@pytest.mark.parametrize("level", ["graph", "node"])
def test_gathered_graphs_are_those_that_pyg_batches(ids, level):
    packed = pack(GRAPHS, level)
    batch, expected = gather(packed, ids).finish(), Batch.from_data_list([GRAPHS[i] for i in ids])
    assert torch.equal(batch.ptr, expected.ptr)
    assert torch.equal(batch.batch, expected.batch)
    assert torch.equal(batch.x, expected.x)
    rows = torch.cat([torch.arange(packed.node_ptr[i], packed.node_ptr[i + 1]) for i in ids])
    assert torch.equal(batch.extras["hint"], torch.stack([2 * rows, 2 * rows + 1], dim=1).float())
    assert torch.equal(batch.y, expected.y if level == "graph" else rows)
    assert batch.extras.keys() == {"hint"}
    assert batch.max_nodes == max(GRAPHS[i].num_nodes for i in ids)
    assert isinstance(batch.max_nodes, int)
    assert batch.equal_sizes == (len({GRAPHS[i].num_nodes for i in ids}) == 1)
    kinds = {batch.x.dtype, batch.edge_index.dtype, batch.edge_attr.dtype, batch.y.dtype, batch.ptr.dtype}
    assert kinds == {torch.int64}

    def listed(index, attributes):
        return [tuple(row) for row in torch.cat([index.flip(0).T, attributes], dim=1).tolist()]

    edges = listed(batch.edge_index, batch.edge_attr)
    assert edges == sorted(listed(expected.edge_index, expected.edge_attr))  # by target, then source
    assert torch.equal(batch.in_degree, torch.bincount(expected.edge_index[1], minlength=len(expected.x)))


def test_features_may_be_absent():
    packed = pack(GRAPHS)
    packed.nodes, packed.edges, packed.graphs = {}, {}, {}
    batch = gather(packed, [2, 0])
    assert batch.x is None
    assert batch.edge_attr is None
    assert batch.y is None
    assert batch.extras == {}


@pytest.mark.parametrize("count", [256, 257])
def test_numbers_of_graphs_in_the_smallest_type_do_not_overflow(count, tmp_path):
    graphs = pack([random_graph(1 + i % 3, i) for i in range(count)])
    graphs.splits = {"test": np.array([0, count - 1])}
    save(graphs, tmp_path / "store")
    stored = load(tmp_path / "store")
    dataset = GraphDataset(stored, stored.splits["test"])
    assert torch.equal(dataset[Request((1,))].x, gather(graphs, [count - 1]).x)


def test_a_dataset_gives_whole_batches_with_their_masks():
    packed = pack(GRAPHS)
    dataset = GraphDataset(packed, np.array([6, 3, 2]))
    assert len(dataset) == 3
    assert dataset.sizes.tolist() == [7, 4, 9]
    batch = dataset[Request((2, 0), ((Hops(2), Demand()), (Hops(None), Demand())))]
    assert torch.equal(batch.x, gather(packed, [2, 6]).x)
    assert set(batch.memo) == {Hops(2), Hops(None)}
    assert {"position", "sizes"} <= vars(batch).keys()


def test_runs_and_types():
    assert runs(np.array([7, 0, 3]), np.array([2, 0, 3])).tolist() == [7, 8, 3, 4, 5]
    types = {np.uint8: torch.int64, np.int64: torch.int64, bool: torch.int64, np.float64: torch.float32}
    for before, after in types.items():
        assert tensor(np.ones(2, before)).dtype == after


# ---- which samples go together

SIZES = st.lists(st.integers(1, 40), max_size=60).map(np.array)
ANY = {"sizes": SIZES, "batch_size": st.integers(1, 9), "world": st.integers(1, 5), "seed": st.integers(0, 9)}


class Small(Batches):
    """Pools of two batches, so that short lists have several."""

    pool = 2


def every(sizes, batch_size, world, **options):
    """What each rank computes in each batch that it takes: nothing where a batch does not count for it."""
    ranks = [list(Small(sizes, batch_size, rank=rank, world=world, **options)) for rank in range(world)]
    return [[list(batch.samples) if batch.counts else [] for batch in rank] for rank in ranks]


def members(ranks):
    return [sample for rank in ranks for batch in rank for sample in batch]


@given(**ANY)
def test_evaluation_sees_each_sample_once_over_all_ranks_and_none_has_nothing_to_do(sizes, batch_size, world, seed):
    ranks = every(sizes, batch_size, world, seed=seed)
    assert sorted(members(ranks)) == list(range(len(sizes)))
    assert all(len(batch) <= batch_size for rank in ranks for batch in rank)
    for number, rank in enumerate(ranks):
        assert len(rank) == len(Small(sizes, batch_size, rank=number, world=world))
        assert (len(rank) > 0) == (len(sizes) > 0)  # a rank without batches would miss what all do together
        assert all(rank) or rank == [[]]
    if world == 1:
        seen = [sizes[i] for batch in ranks[0] for i in batch]
        assert seen == sorted(seen)


@given(**ANY, epoch=st.integers(0, 3))
def test_ranks_train_step_by_step_on_the_batches_of_one_process_as_large_as_all(sizes, batch_size, world, seed, epoch):
    options = {"seed": seed, "shuffle": True, "epoch": epoch}
    ranks = every(sizes, batch_size, world, **options)
    [alone] = every(sizes, batch_size * world, 1, **options)
    together = [sorted(sample for batch in step for sample in batch) for step in zip(*ranks, strict=True)]
    assert together == [sorted(batch) for batch in alone]
    assert sorted(members(ranks)) == list(range(len(sizes)))
    assert all(len(batch) <= batch_size for rank in ranks for batch in rank)
    for step in zip(*ranks, strict=True):  # shared evenly, in number and in size
        assert max(map(len, step)) - min(map(len, step)) <= 1


@given(sizes=SIZES, batch_size=st.integers(1, 9), pairs=st.integers(0, 4000), world=st.integers(1, 3))
def test_evaluation_takes_up_to_twice_as_many_graphs_while_their_padded_pairs_are_few(sizes, batch_size, pairs, world):
    ranks = every(sizes, batch_size, world, pairs=pairs)
    assert sorted(members(ranks)) == list(range(len(sizes)))
    for batch in (batch for rank in ranks for batch in rank if batch):
        assert len(batch) <= 2 * batch_size
        assert len(batch) <= batch_size or len(batch) * sizes[batch].max() ** 2 <= pairs
    if world == 1:
        plain, doubled = (len(every(sizes, n, 1)[0]) for n in (batch_size, 2 * batch_size))
        assert len(every(sizes, batch_size, 1, pairs=10**9)[0]) == doubled
        assert len(every(sizes, batch_size, 1, pairs=0)[0]) == plain


def test_a_batch_that_does_not_count_has_no_targets():
    packed = pack(GRAPHS)
    dataset = GraphDataset(packed, np.arange(3))
    plan = [list(Batches(np.array([5, 1, 9]), 2, shuffle=True, rank=rank, world=4)) for rank in range(4)]
    batches = [[dataset[request] for request in rank] for rank in plan]
    assert [[batch.y is not None for batch in rank] for rank in batches] == [[True], [True], [True], [False]]
    assert all(batch.num_graphs == 1 for rank in batches for batch in rank)


@given(**ANY, rank=st.integers(0, 4), shuffle=st.booleans(), first=st.integers(0, 12))
def test_the_length_is_that_of_a_whole_epoch_and_a_resumed_one_skips_once(
    sizes, batch_size, world, seed, rank, shuffle, first
):
    options = {"shuffle": shuffle, "seed": seed, "rank": rank % world, "world": world}
    whole = list(Small(sizes, batch_size, **options))
    resumed = Small(sizes, batch_size, first=first, **options)
    assert len(resumed) == len(whole)
    assert list(resumed) == whole[first:]
    assert list(resumed) == whole
    assert len(resumed) == len(whole)


@given(sizes=SIZES, batch_size=st.integers(1, 9), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_the_order_depends_on_seed_and_epoch_alone(sizes, batch_size, seed, epoch):
    first = Small(sizes, batch_size, shuffle=True, seed=seed)
    list(first)
    first.set_epoch(epoch)
    assert list(first) == list(Small(sizes, batch_size, shuffle=True, seed=seed, epoch=epoch))


def test_other_epochs_and_seeds_bring_other_graphs_together():
    sizes = np.random.default_rng(0).integers(1, 50, 600)

    def company(**options):
        return {frozenset(batch.samples) for batch in Batches(sizes, 8, shuffle=True, **options)}

    first = company(seed=0, epoch=0)
    for other in (company(seed=0, epoch=1), company(seed=1, epoch=0), company(seed=1, epoch=1)):
        assert len(first & other) < len(first) / 10
    evaluation = Batches(sizes, 8)
    before = list(evaluation)
    evaluation.set_epoch(3)
    assert list(evaluation) == before


def test_graphs_of_like_size_meet_and_little_is_padded():
    sizes = np.random.default_rng(0).geometric(0.03, 4000)

    def padding(batches):
        return sum(len(batch) * sizes[batch].max() for batch in batches) / sizes.sum() - 1

    def plan(**options):
        return [list(batch.samples) for batch in Batches(sizes, 32, **options)]

    order = np.random.default_rng(1).permutation(len(sizes))
    at_random = padding([order[low : low + 32] for low in range(0, len(sizes), 32)])
    assert padding(plan(shuffle=False)) < padding(plan(shuffle=True)) < at_random / 3


def test_batches_of_a_pool_are_runs_of_its_sizes():
    sizes = np.arange(64)[::-1].copy()
    batches = Batches(sizes, 4, shuffle=True, seed=3)
    batches.pool = 16  # one pool holds all
    plan = [list(batch.samples) for batch in batches]
    assert sorted(sorted(sizes[batch]) for batch in plan) == np.arange(64).reshape(16, 4).tolist()
    firsts = [sizes[batch].min() for batch in plan]
    assert firsts != sorted(firsts)  # but they come in any order

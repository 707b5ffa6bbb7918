"""Batching: collation against PyG's `Batch`, and which samples each rank takes in each epoch."""

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
    """PyG graphs packed as in a store; with ``level="node"`` each node has a target."""
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
def test_gather_equals_pyg_batch(ids, level):
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
    dtypes = {batch.x.dtype, batch.edge_index.dtype, batch.edge_attr.dtype, batch.y.dtype, batch.ptr.dtype}
    assert dtypes == {torch.int64}

    def edge_rows(index, attributes):
        return [tuple(row) for row in torch.cat([index.flip(0).T, attributes], dim=1).tolist()]

    edges = edge_rows(batch.edge_index, batch.edge_attr)
    assert edges == sorted(edge_rows(expected.edge_index, expected.edge_attr))  # by target, then source
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
def test_graph_ids_of_small_dtypes_do_not_overflow(count, tmp_path):
    graphs = pack([random_graph(1 + i % 3, i) for i in range(count)])
    graphs.splits = {"test": np.array([0, count - 1])}
    save(graphs, tmp_path / "store")
    stored = load(tmp_path / "store")
    dataset = GraphDataset(stored, stored.splits["test"])
    assert torch.equal(dataset[Request((1,))].x, gather(graphs, [count - 1]).x)


def test_dataset_returns_batches_with_masks():
    packed = pack(GRAPHS)
    dataset = GraphDataset(packed, np.array([6, 3, 2]))
    assert len(dataset) == 3
    assert dataset.sizes.tolist() == [7, 4, 9]
    batch = dataset[Request((2, 0), ((Hops(2), Demand()), (Hops(None), Demand())))]
    assert torch.equal(batch.x, gather(packed, [2, 6]).x)
    assert set(batch.memo) == {Hops(2), Hops(None)}
    assert {"position", "sizes"} <= vars(batch).keys()


def test_runs_and_tensor_types():
    assert runs(np.array([7, 0, 3]), np.array([2, 0, 3])).tolist() == [7, 8, 3, 4, 5]
    dtypes = {np.uint8: torch.int64, np.int64: torch.int64, bool: torch.int64, np.float64: torch.float32}
    for before, after in dtypes.items():
        assert tensor(np.ones(2, before)).dtype == after


# ---- grouping of samples into batches

SIZES = st.lists(st.integers(1, 40), max_size=60).map(np.array)
SETTINGS = {"sizes": SIZES, "batch_size": st.integers(1, 9), "world": st.integers(1, 5), "seed": st.integers(0, 9)}


class SmallPools(Batches):
    """Pools of two batches, so that even short lists have several pools."""

    pool = 2


def batches_by_rank(sizes, batch_size, world, **options):
    """The samples of each batch of each rank; none in a dummy batch."""
    ranks = [list(SmallPools(sizes, batch_size, rank=rank, world=world, **options)) for rank in range(world)]
    return [[list(batch.samples) if batch.counts else [] for batch in rank] for rank in ranks]


def samples_of(ranks):
    return [sample for rank in ranks for batch in rank for sample in batch]


@given(**SETTINGS)
def test_evaluation_visits_each_sample_once_over_all_ranks(sizes, batch_size, world, seed):
    ranks = batches_by_rank(sizes, batch_size, world, seed=seed)
    assert sorted(samples_of(ranks)) == list(range(len(sizes)))
    assert all(len(batch) <= batch_size for rank in ranks for batch in rank)
    for number, rank in enumerate(ranks):
        assert len(rank) == len(SmallPools(sizes, batch_size, rank=number, world=world))
        assert (len(rank) > 0) == (len(sizes) > 0)  # a rank without batches would miss collective operations
        assert all(rank) or rank == [[]]
    if world == 1:
        seen = [sizes[i] for batch in ranks[0] for i in batch]
        assert seen == sorted(seen)


@given(**SETTINGS, epoch=st.integers(0, 3))
def test_ranks_share_the_batches_of_a_single_process(sizes, batch_size, world, seed, epoch):
    options = {"seed": seed, "shuffle": True, "epoch": epoch}
    ranks = batches_by_rank(sizes, batch_size, world, **options)
    [single] = batches_by_rank(sizes, batch_size * world, 1, **options)
    combined = [sorted(sample for batch in step for sample in batch) for step in zip(*ranks, strict=True)]
    assert combined == [sorted(batch) for batch in single]
    assert sorted(samples_of(ranks)) == list(range(len(sizes)))
    assert all(len(batch) <= batch_size for rank in ranks for batch in rank)
    for step in zip(*ranks, strict=True):  # shared evenly
        assert max(map(len, step)) - min(map(len, step)) <= 1


@given(sizes=SIZES, batch_size=st.integers(1, 9), pairs=st.integers(0, 4000), world=st.integers(1, 3))
def test_evaluation_batches_double_while_padded_pairs_are_few(sizes, batch_size, pairs, world):
    ranks = batches_by_rank(sizes, batch_size, world, pairs=pairs)
    assert sorted(samples_of(ranks)) == list(range(len(sizes)))
    for batch in (batch for rank in ranks for batch in rank if batch):
        assert len(batch) <= 2 * batch_size
        assert len(batch) <= batch_size or len(batch) * sizes[batch].max() ** 2 <= pairs
    if world == 1:
        plain, doubled = (len(batches_by_rank(sizes, n, 1)[0]) for n in (batch_size, 2 * batch_size))
        assert len(batches_by_rank(sizes, batch_size, 1, pairs=10**9)[0]) == doubled
        assert len(batches_by_rank(sizes, batch_size, 1, pairs=0)[0]) == plain


def test_dummy_batch_has_no_targets():
    packed = pack(GRAPHS)
    dataset = GraphDataset(packed, np.arange(3))
    plan = [list(Batches(np.array([5, 1, 9]), 2, shuffle=True, rank=rank, world=4)) for rank in range(4)]
    batches = [[dataset[request] for request in rank] for rank in plan]
    assert [[batch.y is not None for batch in rank] for rank in batches] == [[True], [True], [True], [False]]
    assert all(batch.num_graphs == 1 for rank in batches for batch in rank)


@given(**SETTINGS, rank=st.integers(0, 4), shuffle=st.booleans(), first=st.integers(0, 12))
def test_resumed_epoch_skips_batches_only_once(sizes, batch_size, world, seed, rank, shuffle, first):
    options = {"shuffle": shuffle, "seed": seed, "rank": rank % world, "world": world}
    full = list(SmallPools(sizes, batch_size, **options))
    resumed = SmallPools(sizes, batch_size, first=first, **options)
    assert len(resumed) == len(full)
    assert list(resumed) == full[first:]
    assert list(resumed) == full
    assert len(resumed) == len(full)


@given(sizes=SIZES, batch_size=st.integers(1, 9), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_order_depends_only_on_seed_and_epoch(sizes, batch_size, seed, epoch):
    first = SmallPools(sizes, batch_size, shuffle=True, seed=seed)
    list(first)
    first.set_epoch(epoch)
    assert list(first) == list(SmallPools(sizes, batch_size, shuffle=True, seed=seed, epoch=epoch))


def test_epochs_and_seeds_regroup_graphs():
    sizes = np.random.default_rng(0).integers(1, 50, 600)

    def groups(**options):
        return {frozenset(batch.samples) for batch in Batches(sizes, 8, shuffle=True, **options)}

    first = groups(seed=0, epoch=0)
    for other in (groups(seed=0, epoch=1), groups(seed=1, epoch=0), groups(seed=1, epoch=1)):
        assert len(first & other) < len(first) / 10
    evaluation = Batches(sizes, 8)
    before = list(evaluation)
    evaluation.set_epoch(3)
    assert list(evaluation) == before


def test_grouping_by_size_reduces_padding():
    sizes = np.random.default_rng(0).geometric(0.03, 4000)

    def padding(batches):
        return sum(len(batch) * sizes[batch].max() for batch in batches) / sizes.sum() - 1

    def plan(**options):
        return [list(batch.samples) for batch in Batches(sizes, 32, **options)]

    order = np.random.default_rng(1).permutation(len(sizes))
    at_random = padding([order[low : low + 32] for low in range(0, len(sizes), 32)])
    assert padding(plan(shuffle=False)) < padding(plan(shuffle=True)) < at_random / 3


def test_pool_is_sorted_by_size_before_batching():
    sizes = np.arange(64)[::-1].copy()
    batches = Batches(sizes, 4, shuffle=True, seed=3)
    batches.pool = 16  # a single pool holds all samples
    plan = [list(batch.samples) for batch in batches]
    assert sorted(sorted(sizes[batch]) for batch in plan) == np.arange(64).reshape(16, 4).tolist()
    smallest = [sizes[batch].min() for batch in plan]
    assert smallest != sorted(smallest)  # but the batches are shuffled

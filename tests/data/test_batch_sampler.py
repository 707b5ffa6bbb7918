"""Batches by node budget, loaders with workers, and the logged shares of padding and waiting."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gt.data.batch_sampler import Batches
from gt.data.graphs import GraphData
from gt.data.packed import Graphs
from gt.data.source import Source
from gt.graph import GraphBatch
from gt.layers import Attention, ParallelBlock
from gt.masks import Hops
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.callbacks import Loading
from tests.data.test_batching import pack
from tests.graphs import random_graph

SIZES = st.lists(st.integers(1, 40), max_size=60).map(np.array)
SETTINGS = {"sizes": SIZES, "budget": st.integers(1, 150), "world": st.integers(1, 4), "seed": st.integers(0, 9)}


class SmallPools(Batches):
    """Pools of two batches, so that even short lists have several pools."""

    pool = 2


def batches_by_rank(sizes, budget, world, **options):
    """The samples of each batch of each rank; none in a dummy batch."""
    batches = [list(SmallPools(sizes, 1, budget=budget, rank=rank, world=world, **options)) for rank in range(world)]
    return [[list(batch.samples) if batch.counts else [] for batch in rank] for rank in batches]


def within_budget(batch, sizes, budget):
    return len(batch) <= 1 or len(batch) * sizes[batch].max() <= budget


@given(**SETTINGS)
def test_evaluation_visits_each_sample_once_within_budget(sizes, budget, world, seed):
    found = batches_by_rank(sizes, budget, world, seed=seed)
    assert sorted(i for rank in found for batch in rank for i in batch) == list(range(len(sizes)))
    assert all(within_budget(batch, sizes, budget) for rank in found for batch in rank)
    for rank in range(world):
        assert len(SmallPools(sizes, 1, budget=budget, rank=rank, world=world)) == len(found[rank])


def test_epoch_with_too_many_batches_is_redrawn():
    sizes = np.random.default_rng(0).integers(5, 60, 22)
    batches = Batches(sizes, 1, shuffle=True, budget=74)
    plans = [batches.plan(epoch) for epoch in range(100)]
    assert any(len(batches._draw_epoch(epoch)) > batches.total for epoch in range(100))
    assert {len(plan) for plan in plans} == {batches.total}
    assert all(sorted(np.concatenate(plan)) == list(range(22)) for plan in plans)
    assert len({tuple(np.concatenate(plan)) for plan in plans}) == 100


def test_nodes_and_pairs_are_balanced_over_ranks():
    sizes = np.minimum(np.exp(np.random.default_rng(0).normal(3.2, 0.6, 20_000)).astype(int) + 2, 500)
    batches = Batches(sizes, 32, shuffle=True, world=8)
    shares = [[sizes[batches.share(batch, rank)] for rank in range(8)] for batch in batches.plan()]
    for power, bound in ((1, 0.01), (2, 0.08)):  # graphs dealt out at random: 0.16 and 0.49
        work = np.array([[(share**power).sum() for share in step] for step in shares])
        assert work.max(1).sum() / work.mean(1).sum() - 1 < bound  # all ranks wait for the slowest


@given(**SETTINGS, first=st.integers(0, 9))
def test_training_steps_are_equal_over_ranks_and_epochs(sizes, budget, world, seed, first):
    lengths = set()
    for epoch in range(4):
        options = {"seed": seed, "shuffle": True, "epoch": epoch}
        found = batches_by_rank(sizes, budget, world, **options)
        lengths |= {len(rank) for rank in found} | {len(SmallPools(sizes, 1, budget=budget, world=world, **options))}
        seen = [i for rank in found for batch in rank for i in batch]
        assert sorted(seen) == list(range(len(sizes)))
        assert all(within_budget(batch, sizes, budget) for rank in found for batch in rank)
        assert all(any(step) for step in zip(*found, strict=True))
        resumed = list(SmallPools(sizes, 1, budget=budget, world=world, first=first, **options))
        assert [list(batch.samples) if batch.counts else [] for batch in resumed] == found[0][first:]
    assert len(lengths) == 1


def test_budget_fills_batches_and_pads_less_than_fixed_size():
    sizes = np.random.default_rng(0).geometric(0.03, 4000)
    for epoch in range(5):
        batches = Batches(sizes, 1, shuffle=True, epoch=epoch, budget=1500)
        plan = [list(request.samples) for request in batches]
        seen = [i for batch in plan for i in batch]
        assert len(seen) >= 0.99 * len(sizes)
        rows = sum(len(batch) * sizes[batch].max() for batch in plan)
        requests = Batches(sizes, len(sizes) // len(plan), shuffle=True, epoch=epoch)
        fixed = [list(request.samples) for request in requests]
        assert rows < sum(len(batch) * sizes[batch].max() for batch in fixed)
        assert 1 - sizes[seen].sum() / rows < 0.2
        assert rows / len(plan) > 0.85 * 1500  # batches are full


def test_graph_above_budget_gets_its_own_batch():
    sizes = np.array([3, 90, 4, 2, 70, 3])
    assert sorted(sorted(batch.samples) for batch in Batches(sizes, 1, budget=10)) == [[0, 3], [1], [2, 5], [4]]


# ---- within a data module


class Random(Source):
    """Sixty random graphs, generated in memory."""

    name = "random"

    def __init__(self, root: Path) -> None:
        self.root = root

    def key(self) -> dict[str, Any]:
        return {}

    def build(self) -> Graphs:
        graphs = pack([random_graph(1 + n % 9, n) for n in range(60)])
        graphs.schema = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3, max_nodes=9)
        graphs.splits = {"train": np.arange(40), "valid": np.arange(40, 60)}
        return graphs


def open_data(root: Path, **options: Any) -> GraphData:
    data = GraphData(Random(root), **{"batch_size": 8} | options)
    data.open([])
    return data


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("budget", [None, 40])
def test_loader_yields_each_graph_once(tmp_path, static, budget):
    data = open_data(tmp_path, static=static, batch_nodes=budget)
    for split in ("train", "valid"):
        loader = data.loader(split)
        batches = list(loader)
        assert len(batches) == len(loader)
        hints = torch.cat([batch.extras["hint"][: batch.num_nodes - batch.padding[1], 0] for batch in batches])
        graphs = data.graphs
        first, last = graphs.splits[split][[0, -1]]
        rows = np.arange(graphs.node_ptr[first], graphs.node_ptr[last + 1])
        assert sorted(hints.tolist()) == (2.0 * rows).tolist()
        assert all((batch.node_mask is not None) == static for batch in batches)
        assert sum(int((batch.y >= 0).sum()) for batch in batches) == last - first + 1


@pytest.mark.parametrize(("options", "pairs", "sizes"), [
    ({}, 10**6, [16, 4]),  # twice the training batch of 8
    ({}, 16 * 6**2, [8, 12]),  # twice only while the padded pairs are few: graphs of 1 to 9 nodes
    ({}, 0, [8, 8, 4]),
    ({"eval_batch_size": 20}, 0, [20]),  # set explicitly
    ({"eval_batch_size": 3, "batch_nodes": 40}, 10**6, [3] * 6 + [2]),
])  # fmt: skip
def test_evaluation_batch_size(tmp_path, options, pairs, sizes, monkeypatch):
    monkeypatch.setattr("gt.data.datamodule.PAIRS", pairs)
    data = open_data(tmp_path, **options)
    assert sorted(batch.num_graphs for batch in data.loader("valid")) == sorted(sizes)
    assert {batch.num_graphs for batch in open_data(tmp_path).loader("train")} == {8}


def test_invalid_batch_nodes_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="batch_nodes must be 1 or more, not 0"):
        GraphData(Random(tmp_path), batch_nodes=0)


class ScheduledNetwork:
    """The readings of a network whose mask follows a schedule."""

    def __init__(self) -> None:
        block = partial(ParallelBlock, attention=partial(Attention, heads=2))
        self.net = GraphTransformer(Schema(node_vocab=(5, 5)), 8, 1, block, mask=Hops(schedule=(1, 2)))

    def __call__(self) -> set:
        return self.net.readings()


def test_workers_follow_the_mask_schedule(tmp_path):
    data = open_data(tmp_path, workers=1)
    network = ScheduledNetwork()
    data.readings = network
    loader = data.loader("train")
    for progress, mask in ((0.0, Hops(1)), (0.6, Hops(2)), (0.0, Hops(1))):
        network.net.set_progress(progress)
        batches = list(loader)
        assert len(batches) == 5
        for batch in batches:
            assert set(batch.memo) == {mask}
            pairs = batch.memo[mask]
            assert pairs.batch is batch
            prepared = vars(pairs).keys()
            assert {"safe_dense"} <= prepared or {"native_dense"} <= prepared or {"rowptr", "by_source"} <= prepared
            fresh = GraphBatch(batch.ptr, batch.edge_index, batch.max_nodes)
            assert torch.equal(mask(fresh).dense, pairs.dense)


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: GraphBatch, batch_idx: int) -> torch.Tensor:
        return self.weight * batch.num_nodes

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("static", [False, True])
def test_padding_and_waiting_are_logged(tmp_path, static, monkeypatch):
    clock = iter(range(10**6))  # advances by a second per reading
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    data = open_data(tmp_path, static=static)
    trainer = pl.Trainer(
        max_epochs=1, callbacks=[Loading()], logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(Net(), train_dataloaders=data.loader("train"))
    batches = list(data.loader("train"))
    rows = sum(batch.num_graphs * batch.max_nodes for batch in batches)
    real = int(data.dataset("train").sizes.sum())
    assert float(trainer.callback_metrics["data/padding"]) == pytest.approx(1 - real / rows)
    # read twice per batch in the loader and once in the callback: one of every three seconds is spent waiting
    assert float(trainer.callback_metrics["data/wait"]) == pytest.approx(1 / 3, abs=0.5 / len(batches))


@settings(max_examples=20)
@given(sizes=SIZES, seed=st.integers(0, 9))
def test_budget_order_depends_only_on_seed_and_epoch(sizes, seed):
    first = SmallPools(sizes, 1, shuffle=True, seed=seed, budget=60)
    list(first)
    first.set_epoch(2)
    assert list(first) == list(SmallPools(sizes, 1, shuffle=True, seed=seed, budget=60, epoch=2))

"""The data module for node targets on one graph: sampled batches, exact evaluation, training with Lightning."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from gt.attention.costs import Demand
from gt.data.large.nodes import NodeData, SingleGraph, Steps, refuse_dense
from gt.data.large.sampling import Clusters, Full, Neighbours, Partition, Sampler
from gt.data.packed import Graphs, pointers
from gt.data.source import Source
from gt.encodings import RandomWalk
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.heads import Head
from gt.inference.whole_graph import WholeGraph, predict
from gt.layers import GCN, Attention, GatedGCN, ParallelBlock
from gt.layers.local import smooth, sum_of_messages
from gt.masks import Complete, Expander, Hops
from gt.model import GraphTransformer
from gt.schema import UNLABELLED, Schema
from gt.train.feed import Feed
from gt.train.optim import Optimisation
from gt.train.run import depth_notice
from gt.train.task import Task
from tests.data.modules import make_data

NODES = 300


def make_graph(binary: bool = False) -> Graphs:
    """A random graph in which most neighbours share a class, and noisy features indicate the class."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, NODES)
    ends = rng.integers(0, NODES, (2, 6 * NODES))
    ends = ends[:, (classes[ends[0]] == classes[ends[1]]) | (rng.random(ends.shape[1]) < 0.1)]
    x = (2 * np.eye(3)[classes] + rng.normal(size=(NODES, 3))).astype(np.float32)
    order = rng.permutation(NODES - 20)
    labels = np.where(rng.random((NODES, 2)) < 0.2, np.nan, np.eye(3)[classes][:, :2]).astype(np.float32)
    return Graphs(
        node_ptr=pointers(np.array([NODES])),
        edge_ptr=pointers(np.array([ends.shape[1]])),
        edge_index=ends,
        nodes={"x": x, "y": labels if binary else classes, "extra": x[:, :1]},
        edges={"edge_attr": rng.random((ends.shape[1], 2)).astype(np.float32)},
        splits={"train": np.sort(order[:150]), "valid": order[150:220], "test": order[220:]},
        schema=Schema(
            node_floats=3, edge_floats=2, level="node", max_nodes=NODES,
            kind="binary" if binary else "multiclass", outputs=2 if binary else 3,
        ),
    ).sort_edges()  # fmt: skip


class RandomGraph(Source):
    name = "made"

    def __init__(self, folder: Path, binary: bool = False):
        self.root, self.binary = folder, binary

    def key(self) -> dict[str, Any]:
        return {"binary": self.binary}

    def build(self) -> Graphs:
        return make_graph(self.binary)


def open_data(folder: Path, sampler: Sampler | None = None, evaluate: Any = "full", **options: Any) -> NodeData:
    data: NodeData = make_data(
        NodeData, RandomGraph, folder, **{"chunk": 500} | options, sampler=sampler, evaluate=evaluate
    )
    data.open([])
    return data


SAMPLERS = {
    "full": Full,
    "neighbours": partial(Neighbours, [3, 2], 40),
    "partition": partial(Partition, 4),
    "clusters": partial(Clusters, 12, 3),
}


def network(data: NodeData, mask=Hops(1)) -> GraphTransformer:  # noqa: B008
    torch.manual_seed(0)
    block = partial(ParallelBlock, local=GatedGCN, attention=partial(Attention, heads=2))
    return GraphTransformer(data.schema, width=16, depth=2, block=block, mask=mask, head=partial(Head, hidden=0))


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("binary", [False, True])
def test_batches_are_subgraphs_with_targets_at_roots(make, binary, tmp_path):
    data, graphs = (
        make_data(NodeData, RandomGraph, tmp_path, sampler=make(), chunk=500, binary=binary),
        make_graph(binary),
    )
    data.open([RandomWalk(3)])
    walks = RandomWalk(3).compute(graphs)["random_walk"]
    index = {tuple(row): node for node, row in enumerate(graphs.nodes["x"])}
    roots = []
    for batch in data.loader("train"):
        nodes = np.array([index[tuple(row)] for row in batch.x.numpy()])
        assert (np.diff(nodes) > 0).all()
        assert batch.ptr.tolist() == [0, len(nodes)]
        assert (batch.rowptr[1:] >= batch.rowptr[:-1]).all()
        torch.testing.assert_close(batch.extras["extra"][:, 0], batch.x[:, 0])
        np.testing.assert_allclose(batch.extras["random_walk"].numpy(), walks[nodes], rtol=2**-11, atol=1e-7)
        # each edge of the batch, with its features, is an edge of the graph
        actual = np.c_[nodes[batch.edge_index.numpy()].T, batch.edge_attr.numpy()]
        allowed = {tuple(row) for row in np.c_[graphs.edge_index.T, graphs.edges["edge_attr"]]}
        assert {tuple(row) for row in actual} <= allowed
        y = batch.y.numpy()
        at_roots = (~np.isnan(y)).any(1) if binary else y != UNLABELLED
        np.testing.assert_array_equal(y[at_roots], graphs.nodes["y"][nodes[at_roots]])
        roots += nodes[at_roots].tolist()
    train = graphs.splits["train"]
    labelled = train[~np.isnan(graphs.nodes["y"][train]).all(1)] if binary else train
    assert sorted(roots) == labelled.tolist()
    assert len(data.dataset("train")) == 150
    torch.testing.assert_close(data.targets("train").numpy(), graphs.nodes["y"][train], equal_nan=True)


@pytest.mark.parametrize("operation", ["smooth", "messages", "sums"])
def test_sums_over_sampled_edges_are_unbiased(operation, tmp_path):
    """Otherwise a layer would be evaluated on other sums than in training, and outermost nodes would weigh most."""

    def apply(batch: GraphBatch) -> torch.Tensor:
        if operation == "smooth":
            return smooth(batch.x, batch)
        return sum_of_messages(batch.x, batch.edge_attr @ torch.ones(2, 3) if operation == "messages" else None, batch)

    data, graphs = open_data(tmp_path, Neighbours([3, 2], 40)), make_graph()
    index = {tuple(row): node for node, row in enumerate(graphs.nodes["x"])}
    exact = apply(SingleGraph(graphs).batch(None))
    total, squares, count = torch.zeros(NODES, 3), torch.zeros(NODES, 3), torch.zeros(NODES, 1)
    loader = data.loader("train")
    for _ in range(150):
        for batch in loader:
            nodes = torch.tensor([index[tuple(row)] for row in batch.x.numpy()])
            roots = (batch.y != UNLABELLED).nonzero()[:, 0]
            values = apply(batch)[roots]
            total.index_add_(0, nodes[roots], values)
            squares.index_add_(0, nodes[roots], values.square())
            count.index_add_(0, nodes[roots], torch.ones(len(roots), 1))
        loader.sampler.set_epoch(loader.sampler.epoch + 1)
    sampled = count[:, 0] > 0
    mean, n = total[sampled] / count[sampled], count[sampled]
    error = ((squares[sampled] / n - mean.square()).clamp(min=0) / n).sqrt()
    assert int(sampled.sum()) == 150
    assert ((mean - exact[sampled]).abs() <= 5 * error + 1e-4).all()
    assert error.max() > 0.01  # some nodes have more than three neighbours


def test_unlimited_fanout_gives_exact_outputs(tmp_path):
    data, graphs = open_data(tmp_path, Neighbours([None, None], 40)), make_graph()
    index = {tuple(row): node for node, row in enumerate(graphs.nodes["x"])}
    torch.manual_seed(0)
    block = partial(ParallelBlock, local=GCN)
    net = GraphTransformer(data.schema, 16, 2, block, head=partial(Head, hidden=0)).eval()
    with torch.no_grad():
        expected = net(SingleGraph(graphs).batch(None))
        for batch in data.loader("train"):
            roots = (batch.y != UNLABELLED).nonzero()[:, 0]
            nodes = [index[tuple(row)] for row in batch.x[roots].numpy()]
            torch.testing.assert_close(net(batch)[roots], expected[nodes], rtol=1e-4, atol=1e-4)


def test_sampling_is_reproducible_and_varies_by_epoch(tmp_path):
    data = open_data(tmp_path, Neighbours([2], 40))

    def samples(epoch: int, first: int = 0) -> list[torch.Tensor]:
        steps = Steps(4, True, epoch=epoch, first=first)
        return [data.dataset("train")[request].x for request in steps]

    first_epoch, repeated, second_epoch = samples(0), samples(0), samples(1)
    assert all(torch.equal(a, b) for a, b in zip(first_epoch, repeated, strict=True))
    assert not torch.equal(first_epoch[0], second_epoch[0])
    resumed = samples(0, first=3)
    assert len(resumed) == 1
    assert torch.equal(resumed[0], first_epoch[3])


@pytest.mark.parametrize("evaluate", ["full", "sampled"])
@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_ranks_evaluate_each_node_once(make, evaluate, tmp_path):
    data = open_data(tmp_path, make(), evaluate)
    labels = []
    for rank in range(3):
        requests = data.batches("valid", rank=rank, world=3)
        for request in requests:
            y = data.dataset("valid")[request].y
            labels += y[y != UNLABELLED].tolist()
    assert sorted(labels) == sorted(data.targets("valid").tolist())


def test_full_evaluation_is_chunked_and_shares_arrays(tmp_path):
    data = open_data(tmp_path, Neighbours([2], 40))
    valid, test = (next(iter(data.loader(split))) for split in ("valid", "test"))
    assert isinstance(valid, WholeGraph)
    assert (valid.num_nodes, valid.chunk) == (NODES, 500)
    assert valid.x.data_ptr() == test.x.data_ptr()
    assert valid.edge_index.data_ptr() == test.edge_index.data_ptr()
    assert not (valid.y == test.y).all()
    net = network(data).eval()
    parts = {name: getattr(valid, name) for name in ("ptr", "edge_index", "max_nodes", "x", "edge_attr", "y")}
    with torch.no_grad():
        torch.testing.assert_close(predict(net, valid), net(GraphBatch(**parts)), atol=1e-5, rtol=1e-5)


def test_workers_draw_the_same_samples(tmp_path):
    data = open_data(tmp_path, Neighbours([2], 40))
    expected = [batch.x for batch in data.loader("train")]
    data.workers = 2
    assert [data.workers_for(split) for split in ("train", "valid")] == [2, 0]
    for parallel, single in zip(data.loader("train"), expected, strict=True):
        assert torch.equal(parallel.x, single)


@pytest.mark.parametrize("mask", [Hops(2), Hops(1) | Expander(4)], ids=["hops", "expander"])
def test_masks_are_computed_on_the_sample(mask, tmp_path):
    data = open_data(tmp_path, Partition(4))
    data.readings = network(data, mask).readings
    for batch in data.loader("train"):
        (pairs,) = batch.memo.values()
        assert torch.equal(pairs.edges[1] * batch.num_nodes + pairs.edges[0], mask.keys(batch))


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_training_reaches_accuracy(make, tmp_path):
    data = open_data(tmp_path, make())
    measures, criterion = data.measures()
    task = Task(network(data), data.schema, measures, criterion, Optimisation(lr=1e-2, warmup=0), seed=0)
    trainer = pl.Trainer(
        max_epochs=40 if make is Full else 10, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=Feed(data))
    scores = trainer.test(task, datamodule=Feed(data), verbose=False)[0]
    assert scores["test/accuracy"] > 0.75  # chance is 1/3


def test_mask_that_exceeds_memory_is_rejected(tmp_path, monkeypatch):
    data = open_data(tmp_path)
    batch = next(iter(data.loader("train")))
    demand = Demand(device="cpu", half=False, heads=4, channels=4)
    refuse_dense(batch, [(Complete(), demand), (Hops(1), demand)])
    monkeypatch.setattr("os.sysconf", lambda name: 1000)  # a million bytes of memory
    refuse_dense(batch, [(Hops(1), demand)])
    with pytest.raises(UserError, match=r"90,000 pairs.*mask=one_hop"):
        refuse_dense(batch, [(Complete(), demand)])


def test_several_graphs_are_rejected(tmp_path):
    class Two(RandomGraph):
        def build(self) -> Graphs:
            graphs = make_graph()
            graphs.node_ptr = np.array([0, NODES, NODES])
            graphs.edge_ptr = np.array([0, graphs.edge_index.shape[1], graphs.edge_index.shape[1]])
            return graphs

    with pytest.raises(UserError, match="2 graphs"):
        NodeData(Two(tmp_path)).open([])
    with pytest.raises(ValueError, match="chunk"):
        NodeData(RandomGraph(tmp_path), chunk=0)


def test_notice_if_sampling_is_shallower_than_network(tmp_path):
    data = open_data(tmp_path, Neighbours([3, None], 40))
    assert depth_notice(data, network(data)) == ""
    deeper = GraphTransformer(data.schema, 16, 4, partial(ParallelBlock, local=GCN))
    assert "2 hops deep and the network has 4 layers" in depth_notice(data, deeper)
    assert "data.sampler.fanout=[3,null,null,null]" in depth_notice(data, deeper)
    assert depth_notice(open_data(tmp_path, Full()), deeper) == ""

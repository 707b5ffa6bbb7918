"""PyG datasets as stores: batches against those of PyG, targets, splits, and new data for a trained model."""

from functools import partial

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset

from gt.data.batch_sampler import Request
from gt.data.batching import gather
from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.own.pyg import PyG, build, one_graph
from gt.errors import UserError
from gt.graph import GraphBatch
from tests.data.own.pyg_datasets import SIZES, CollatedDataset, Uncollated, assert_same_batches, random_graphs
from tests.graphs import random_graph


class SplitDataset(InMemoryDataset):
    """One split per dataset, as in ZINC and LRGBDataset: the training graphs by default."""

    def __init__(self, root, split="train"):
        super().__init__(None)
        index = ["train", "val", "test"].index(split)
        self.data, self.slices = self.collate([random_graph(size, 50 * index + size) for size in SIZES[index:]])


class IndexSplitDataset(InMemoryDataset):
    """Splits that are ranges of all graphs, as in MalNetTiny; without features, and with an integer as ``y``."""

    def __init__(self, split=None):
        super().__init__(None)
        graphs = [random_graph(size, i) for i, size in enumerate(SIZES)]
        plain = [Data(edge_index=g.edge_index, num_nodes=g.num_nodes, y=i % 2) for i, g in enumerate(graphs)]
        self.data, self.slices = self.collate(plain)
        if split is not None:
            self._indices = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}[split]


class SplitIgnored(InMemoryDataset):
    """Takes a split but always holds all graphs, as CSL of GNNBenchmarkDataset does."""

    def __init__(self, split="train"):
        super().__init__(None)
        self.data, self.slices = self.collate([random_graph(size, i) for i, size in enumerate(SIZES)])


@pytest.mark.parametrize("make", [CollatedDataset, Uncollated, partial(CollatedDataset, transform=lambda graph: graph)])
def test_categories_and_classes(make):
    expected = random_graphs()
    store = assert_same_batches(build({"": make(expected)}, "own"), expected)
    assert store.schema.node_vocab == tuple((torch.cat([g.x for g in expected]).max(0).values + 1).tolist())
    assert len(store.schema.edge_vocab) == 1
    assert (store.schema.level, store.schema.kind, store.schema.outputs) == ("graph", "multiclass", 3)
    assert store.schema.max_nodes == 7
    assert sorted(np.concatenate(list(store.splits.values()))) == list(range(len(SIZES)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_float_features_and_targets(dtype):
    expected = random_graphs(
        x=lambda g, i: torch.rand(g.num_nodes, 3, dtype=torch.float64).to(dtype),
        edge_attr=lambda g, i: torch.rand(g.num_edges, dtype=torch.float64).to(dtype),  # a vector becomes a column
        y=lambda g, i: torch.tensor([i / 7]),
    )
    store = build({"": CollatedDataset(expected)}, "own")
    for graph in expected:
        graph.x, graph.edge_attr = graph.x.float(), graph.edge_attr.float()[:, None]
    assert_same_batches(store, expected)
    assert (store.schema.node_floats, store.schema.edge_floats) == (3, 1)
    assert (store.schema.node_vocab, store.schema.kind, store.schema.outputs) == ((), "regression", 1)


def test_flat_categories_become_a_column():
    expected = random_graphs(x=lambda g, i: g.x[:, 0], edge_attr=lambda g, i: g.edge_attr[:, 0])
    store = build({"": CollatedDataset(expected)}, "own")
    for graph in expected:
        graph.x, graph.edge_attr = graph.x[:, None], graph.edge_attr[:, None]
    assert_same_batches(store, expected)


def test_in_degree_replaces_missing_features(capsys, tmp_path):
    expected = random_graphs(x=lambda g, i: torch.bincount(g.edge_index[1], minlength=g.num_nodes)[:, None])
    plain = [Data(edge_index=g.edge_index, num_nodes=g.num_nodes, y=g.y) for g in expected]
    for graph in expected:
        del graph.edge_attr
    store = assert_same_batches(build({"": CollatedDataset(plain)}, "own"), expected)
    assert store.schema.node_vocab == (1 + max(int(g.x.max()) for g in expected),)
    data = GraphData(PyG(partial(CollatedDataset, plain), root=str(tmp_path)))
    data.open([])
    assert "its in-degree: there are no features" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("y", "kind", "outputs"),
    [
        (lambda i: torch.tensor([i % 4]), "multiclass", 4),
        (lambda i: i % 4, "multiclass", 4),
        (lambda i: torch.tensor([[i % 2, i % 3 == 0]]), "binary", 2),
        (lambda i: torch.tensor([[i % 2, float("nan")]]), "binary", 2),
        (lambda i: torch.tensor([float(i % 2)]), "binary", 1),
        (lambda i: torch.tensor([[i % 2, i]]), "regression", 2),
        (lambda i: torch.tensor([i * 0.5, 1.0, 2.0]), "regression", 3),  # one flat row per graph
        (lambda i: float(i), "regression", 1),
    ],
)
def test_kind_of_target_is_inferred(y, kind, outputs):
    store = build({"": CollatedDataset(random_graphs(y=lambda g, i: y(i)))}, "own")
    assert (store.schema.level, store.schema.kind, store.schema.outputs) == ("graph", kind, outputs)
    expected = np.array([np.asarray(y(i), dtype=np.float64).reshape(-1) for i in range(len(SIZES))])
    np.testing.assert_allclose(store.graphs["y"].reshape(expected.shape), expected)


def test_arbitrary_classes_are_numbered_and_named():
    store = build({"": CollatedDataset(random_graphs(y=lambda g, i: torch.tensor([[-1, 1, 70][i % 3]])))}, "own")
    assert store.schema.names == ("-1", "1", "70")
    assert store.graphs["y"].tolist() == [i % 3 for i in range(len(SIZES))]


def test_explicit_kind_overrides_inference():
    graphs = random_graphs(y=lambda g, i: torch.tensor([i % 5]))
    assert build({"": CollatedDataset(graphs)}, "own", kind="regression").schema.kind == "regression"
    with pytest.raises(UserError, match=r"^own, graph 2: 2 is neither 0 nor 1: set data.kind=regression or multiclass"):
        build({"": CollatedDataset(graphs)}, "own", kind="binary")


def test_node_targets():
    expected = random_graphs(y=lambda g, i: torch.arange(g.num_nodes) % 3)
    store = assert_same_batches(build({"": CollatedDataset(expected)}, "own"), expected)
    assert (store.schema.level, store.schema.outputs) == ("node", 3)
    assert "y" not in store.graphs
    assert sorted(np.concatenate(list(store.splits.values()))) == list(range(len(SIZES)))


def test_node_targets_of_each_split(tmp_path):
    expected = random_graphs(y=lambda g, i: torch.arange(g.num_nodes) % 3)
    data = GraphData(PyG(partial(CollatedDataset, expected), root=str(tmp_path)))
    data.open([])
    for split in ("train", "valid", "test"):
        targets = torch.cat([batch.y for batch in data.loader(split)])
        assert sorted(targets.tolist()) == sorted(data.targets(split).tolist())
        expected_targets = [v for g in data.graphs.splits[split] for v in expected[g].y.tolist()]
        assert sorted(targets.tolist()) == sorted(expected_targets)


def test_splits_of_the_dataset_are_kept(tmp_path):
    data = GraphData(PyG(partial(SplitDataset, root=str(tmp_path / "unused")), root=str(tmp_path)))
    data.open([])
    expected = [graph for split in ("train", "val", "test") for graph in SplitDataset("unused", split)]
    assert_same_batches(data.graphs, expected)
    assert [len(data.graphs.splits[s]) for s in ("train", "valid", "test")] == [12, 11, 10]
    assert np.concatenate([data.graphs.splits[s] for s in ("train", "valid", "test")]).tolist() == list(range(33))


def test_named_split_is_read_alone(tmp_path):
    data = GraphData(PyG(partial(SplitDataset, root=str(tmp_path / "unused"), split="val"), root=str(tmp_path)))
    data.open([])
    assert sum(map(len, data.graphs.splits.values())) == len(data.graphs) == 11


def test_splits_that_are_index_ranges(tmp_path):
    data = GraphData(PyG(IndexSplitDataset, root=str(tmp_path)))
    data.open([])
    assert [len(data.graphs.splits[s]) for s in ("train", "valid", "test")] == [6, 3, 3]
    assert data.graphs.graphs["y"].tolist() == [i % 2 for i in range(12)]
    assert data.graphs.sizes.tolist() == list(SIZES)


def test_identical_splits_give_way_to_a_random_split(tmp_path):
    data = GraphData(PyG(SplitIgnored, root=str(tmp_path)))
    data.open([])
    assert len(data.graphs) == len(SIZES)
    assert sorted(np.concatenate(list(data.graphs.splits.values()))) == list(range(len(SIZES)))


def test_random_split_is_stratified():
    graphs = [random_graph(2, i) for i in range(200)]
    for number, graph in enumerate(graphs):
        graph.y = torch.tensor([0 if number < 20 else 1 if number < 60 else 2])
    store = build({"": CollatedDataset(graphs)}, "own", split_seed=1)
    counts = {split: np.bincount(store.graphs["y"][ids]).tolist() for split, ids in store.splits.items()}
    assert {split: sum(count) for split, count in counts.items()} == {"train": 160, "valid": 20, "test": 20}
    for split, fraction in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        np.testing.assert_allclose(counts[split], np.array([20, 40, 140]) * fraction, atol=1)
    again, other = (build({"": CollatedDataset(graphs)}, "own", split_seed=seed).splits for seed in (1, 2))
    assert np.array_equal(store.splits["test"], again["test"])
    assert not np.array_equal(store.splits["test"], other["test"])
    two_splits = build({"": CollatedDataset(graphs)}, "own", fractions=(0.5, 0.5, 0)).splits
    assert {split: len(ids) for split, ids in two_splits.items()} == {"train": 100, "valid": 100}


def test_store_key_depends_on_data_and_split_seed(tmp_path):
    graphs, equal = random_graphs(), random_graphs()
    changed = random_graphs()
    changed[3].x = changed[3].x + 1
    keys = [PyG(partial(CollatedDataset, dataset), root=str(tmp_path)).key() for dataset in (graphs, equal, changed)]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] != PyG(partial(CollatedDataset, graphs), split_seed=1, root=str(tmp_path)).key()


def test_masks_of_one_graph_become_splits():
    graph = random_graph(30, 0)
    graph.y = torch.arange(30) % 3
    parts = torch.randperm(30, generator=torch.Generator().manual_seed(0))[:24].split(8)
    for name, ids in zip(("train", "val", "test"), parts, strict=True):
        graph[f"{name}_mask"] = torch.zeros(30, dtype=torch.bool).index_fill(0, ids, True)
    store = one_graph(CollatedDataset([graph]), "cora")
    batch = gather(store, [0])
    reference = GraphBatch.from_data_list([graph])
    assert torch.equal(batch.x, reference.x)
    assert torch.equal(batch.y, reference.y)
    assert torch.equal(batch.edge_index, reference.edge_index)
    assert (len(store), store.schema.level, store.schema.outputs) == (1, "node", 3)
    for split, ids in zip(("train", "valid", "test"), parts, strict=True):
        assert store.splits[split].tolist() == sorted(ids.tolist())
    multi_split = graph.clone()
    for name in ("train", "val", "test"):
        multi_split[f"{name}_mask"] = torch.stack([graph[f"{name}_mask"], graph[f"{name}_mask"].roll(1)], dim=1)
    splits = one_graph(CollatedDataset([multi_split]), "cora").splits
    for split, ids in store.splits.items():
        assert np.array_equal(splits[f"0.{split}"], ids)
        assert np.array_equal(splits[f"1.{split}"], np.sort((ids + 1) % 30))


def test_each_split_of_one_graph_has_own_targets(tmp_path):
    graph = random_graph(30, 0)
    graph.y = torch.arange(30) % 3
    for index, name in enumerate(("train", "val", "test")):
        graph[f"{name}_mask"] = torch.arange(30) // 10 == index
    data = NodeData(PyG(partial(CollatedDataset, [graph]), root=str(tmp_path)))
    data.open([])
    for split, ids in (("train", range(10)), ("valid", range(10, 20)), ("test", range(20, 30))):
        [batch] = list(data.loader(split))
        assert (batch.y != -100).nonzero().flatten().tolist() == list(ids)
        assert batch.y[list(ids)].tolist() == [i % 3 for i in ids] == data.targets(split).tolist()
    with pytest.raises(UserError, match="12 graphs, but one is needed"):
        NodeData(PyG(partial(CollatedDataset, random_graphs()), root=str(tmp_path))).open([])


def test_masks_in_several_graphs_are_rejected():
    masked = random_graphs(
        y=lambda g, i: torch.arange(g.num_nodes) % 3, train_mask=lambda g, i: torch.ones(g.num_nodes, dtype=torch.bool)
    )
    with pytest.raises(UserError, match="own has masks of nodes in several graphs"):
        build({"": CollatedDataset(masked)}, "own")


def test_one_graph_without_masks_is_split_at_random():
    graph = random_graph(30, 0)
    graph.y = torch.arange(30) % 3
    graph.y[5] = -100  # unlabelled
    store = one_graph(CollatedDataset([graph]), "cora")
    assert sorted(np.concatenate(list(store.splits.values()))) == [i for i in range(30) if i != 5]


def test_overlapping_or_empty_masks_are_rejected():
    graph = random_graph(6, 0)
    graph.y = torch.arange(6) % 2
    for name, start in (("train", 0), ("val", 1), ("test", 4)):
        graph[f"{name}_mask"] = (torch.arange(6) >= start) & (torch.arange(6) < start + 2)
    with pytest.raises(UserError, match=r"^cora: node 1 is in more than one split mask"):
        one_graph(CollatedDataset([graph]), "cora")
    graph.val_mask[:] = False
    with pytest.raises(UserError, match=r"^cora: no labelled node is in val_mask"):
        one_graph(CollatedDataset([graph]), "cora")


def open_for_model(data, schema):
    data.open([], schema)
    assert data.has("all")
    return data.graphs


def test_new_graphs_use_the_categories_of_training(tmp_path):
    training_graphs = random_graphs()
    trained = GraphData(PyG(partial(CollatedDataset, training_graphs), root=str(tmp_path)))
    trained.open([])
    new_graphs = [graph for graph in training_graphs if int(graph.x.max()) < int(trained.schema.node_vocab[0]) - 1]
    assert new_graphs  # the largest category is in none of them
    for graph in new_graphs:
        del graph["y"]
    store = open_for_model(GraphData(PyG(partial(CollatedDataset, new_graphs), root=str(tmp_path))), trained.schema)
    assert store.schema.node_vocab == trained.schema.node_vocab
    assert (store.graphs["y"] == -100).all()
    assert torch.equal(gather(store, range(len(new_graphs))).x, torch.cat([graph.x for graph in new_graphs]))
    unknown_categories = random_graphs(x=lambda graph, number: graph.x + 9)
    with pytest.raises(UserError, match="graph 0"):
        open_for_model(GraphData(PyG(partial(CollatedDataset, unknown_categories), root=str(tmp_path))), trained.schema)
    wider = random_graphs(x=lambda graph, number: torch.cat([graph.x, graph.x], 1))
    with pytest.raises(UserError, match="graph 0: x is"):
        open_for_model(GraphData(PyG(partial(CollatedDataset, wider), root=str(tmp_path))), trained.schema)


def test_new_graphs_use_classes_and_degrees_of_training(tmp_path):
    featureless = [
        Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes, y=7 + n % 3)
        for n, graph in enumerate(random_graphs())
    ]
    trained = GraphData(PyG(partial(CollatedDataset, featureless), root=str(tmp_path)))
    trained.open([])
    assert trained.schema.outputs in (3, 10)
    new_graphs = [graph for graph in featureless if graph.y == 9]
    hub = torch.stack([torch.arange(1, 40), torch.zeros(39, dtype=torch.long)])
    new_graphs.append(Data(edge_index=hub, num_nodes=40, y=9))
    store = open_for_model(GraphData(PyG(partial(CollatedDataset, new_graphs), root=str(tmp_path))), trained.schema)
    label = trained.schema.names.index("9") if trained.schema.names else 9
    assert store.graphs["y"].tolist() == [label] * len(new_graphs)
    assert store.schema.node_vocab == trained.schema.node_vocab
    assert int(store.nodes["x"].max()) == trained.schema.node_vocab[0] - 1  # the hub exceeds all training degrees


def test_new_single_graph_has_all_nodes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    graph = random_graph(30, 0)
    graph.y = torch.randint(0, 2, (30,), generator=generator)
    trained = NodeData(PyG(partial(CollatedDataset, [graph]), root=str(tmp_path)))
    trained.open([])
    del graph["y"]
    data = NodeData(PyG(partial(CollatedDataset, [graph]), root=str(tmp_path)))
    data.open([], trained.schema)
    assert len(data.dataset("all")) == 30
    assert torch.equal(data.dataset("all")[Request((0,), draw=(0, 1))].x, graph.x)

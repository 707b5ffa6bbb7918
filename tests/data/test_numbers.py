"""Scaling of real numbers: moments against scikit-learn, of the training split only, for every source."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch_geometric.data import Data

from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.molecules.molecules import Molecules
from gt.data.numbers import CHUNK_ROWS, MIN_TRAIN_NODES, decades, feature_moments, moments
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.data.own.pyg import PyG
from gt.errors import UserError
from gt.layers import GINE, FeedForward, ParallelBlock
from gt.losses import loss
from gt.model import GraphTransformer
from tests.data.modules import make_data
from tests.data.own.pyg_datasets import CollatedDataset

GRAPHS = 40
RING = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


def test_moments_equal_scikit_learn() -> None:
    y = np.random.default_rng(0).normal(3, 5, (50, 5)).astype(np.float32)
    y[::3, 1] = np.nan
    y[:, 2] = 0.1  # not representable in binary: the mean of many differs in the last digit
    y[:, 3] = np.nan
    y[:, 4] = 1e6 + y[:, 0]
    mean, scale = moments(y)
    known = [0, 1, 4]
    expected = StandardScaler().fit(y[:, known])
    np.testing.assert_allclose(np.array(mean)[known], expected.mean_, rtol=1e-6)
    np.testing.assert_allclose(np.array(scale)[known], expected.scale_, rtol=1e-6)
    assert mean[2] == pytest.approx(0.1)
    assert (scale[2], mean[3], scale[3]) == (1.0, 0.0, 1.0)


def test_moments_of_many_rows_and_of_no_rows() -> None:
    values = np.random.default_rng(0).normal(-4, 2, (2 * CHUNK_ROWS + 5, 1))
    mean, scale = moments(values)
    assert mean[0] == pytest.approx(values.mean())
    assert scale[0] == pytest.approx(values.std())
    assert moments(values[:0]) == ((0.0,), (1.0,))


def test_indicator_columns_are_not_scaled() -> None:
    draw = np.random.default_rng(0)
    values = np.stack([draw.integers(2, size=90), np.ones(90), np.zeros(90), draw.normal(700, 9, 90)], axis=1)
    mean, scale = feature_moments(values)
    assert (mean[:3], scale[:3]) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert mean[3] == pytest.approx(values[:, 3].mean())
    assert scale[3] == pytest.approx(values[:, 3].std())


def test_decades() -> None:
    powers = np.logspace(-2, 2, 101)[:, None]
    assert 3.5 < decades(powers) < 4
    assert decades(np.concatenate([powers, 1 + powers], 1)) == decades(powers)
    assert decades(powers - 1) == 0
    assert decades(np.concatenate([powers, powers - 1], 1)) == 0  # one column has no logarithm
    assert decades(np.full((3, 1), np.nan)) == 0


class Rings(CollatedDataset):
    """Rings of four nodes: a feature around 500 and one of 0 or 1, an edge feature, and targets around 3,000."""

    def __init__(self, y: Any = None, level: str = "graph") -> None:
        draw = torch.Generator().manual_seed(0)
        graphs = []
        for n in range(GRAPHS):
            x = torch.stack([500 + 90 * torch.randn(4, generator=draw), torch.arange(4) % 2], 1)
            target = torch.tensor([3000.0 + 7 * n]) if level == "graph" else 3000 + torch.randn(4, generator=draw)
            attr = torch.randn(4, 1, generator=draw) - 40
            graphs.append(Data(x=x, edge_index=RING, edge_attr=attr, y=target if y is None else y[n]))
        super().__init__(graphs)


@pytest.mark.parametrize("level", ["graph", "node"])
def test_graphs_are_scaled_by_the_training_split(tmp_path: Path, level: str) -> None:
    data = GraphData(PyG(partial(Rings, level=level), root=str(tmp_path), fractions=(0.5, 0.2, 0.3)))
    data.open([])
    train = [Rings(level=level)[int(n)] for n in data.graphs.splits["train"]]
    x, attr, y = (torch.cat([graph[key] for graph in train]).numpy() for key in ("x", "edge_attr", "y"))
    schema = data.schema
    np.testing.assert_allclose(schema.node_mean, [x[:, 0].mean(), 0.0], rtol=1e-5)
    np.testing.assert_allclose(schema.node_scale, [x[:, 0].std(), 1.0], rtol=1e-5)
    np.testing.assert_allclose(schema.edge_mean, attr.mean(0), rtol=1e-5)
    np.testing.assert_allclose(schema.edge_scale, attr.std(0), rtol=1e-5)
    np.testing.assert_allclose(schema.mean, [y.mean()], rtol=1e-6)
    np.testing.assert_allclose(schema.scale, [y.std()], rtol=1e-4)
    for batch in data.loader("valid"):  # stored and measured values are not scaled
        assert batch.x[:, 0].mean() > 300
        assert batch.y.mean() > 2000


class Ring(CollatedDataset):
    """A single ring; the first nodes are for training and have smaller features and targets than the others."""

    def __init__(self, nodes: int, train: int) -> None:
        node = torch.arange(nodes)
        edges = torch.stack([node, node.roll(1)])
        data = Data(x=1.5 * node[:, None].float(), edge_index=edges, y=2.5 * node.float())
        data.train_mask, data.val_mask = node < train, node >= train
        super().__init__([data])


@pytest.mark.parametrize("train", [MIN_TRAIN_NODES - 1, MIN_TRAIN_NODES])
def test_single_graph_is_scaled_by_sufficiently_many_training_nodes(tmp_path: Path, train: int) -> None:
    data = NodeData(PyG(partial(Ring, 2 * MIN_TRAIN_NODES, train), root=str(tmp_path)))
    data.open([])
    assert data.schema.node_mean == pytest.approx(
        [1.5 * (train - 1 if train >= MIN_TRAIN_NODES else 2 * MIN_TRAIN_NODES - 1) / 2]
    )
    assert data.schema.mean == pytest.approx([2.5 * (train - 1) / 2])  # the targets of other nodes are unknown


def test_scaling_can_be_disabled(tmp_path: Path) -> None:
    data = GraphData(PyG(Rings, root=str(tmp_path), normalise=False, standardise=False))
    data.open([])
    assert (data.schema.mean, data.schema.node_mean, data.schema.edge_mean) == ((), (), ())


def csv_graphs(folder: Path, targets: list[float], **options: Any) -> DataModule:
    names = {"nodes.csv": "graph,node,size\n", "edges.csv": "graph,source,target\n", "graphs.csv": "graph,price\n"}
    rows = {
        "nodes.csv": [f"{n},{node},{500 + n + node / 2}" for n in range(len(targets)) for node in (0, 1)],
        "edges.csv": [f"{n},0,1" for n in range(len(targets))],
        "graphs.csv": [f"{n},{y}" for n, y in enumerate(targets)],
    }
    for name, header in names.items():
        (folder / name).write_text(header + "\n".join(rows[name]) + "\n")
    return make_data(GraphData, CSVGraphs, str(folder), root=str(folder / "root"), **options)


def graph_files(folder: Path, targets: list[float], **options: Any) -> DataModule:
    path = folder / "graphs.jsonl"
    graph = {"nodes": [{"id": 0, "size": 1.5}, {"id": 1, "size": 700.0}], "edges": [{"source": 0, "target": 1}]}
    lines = [json.dumps({"directed": False, "graph": {"price": y}, **graph}) for y in targets]
    path.write_text("\n".join(lines))
    return make_data(GraphData, GraphFiles, str(path), root=str(folder / "root"), **options)


def csv_nodes(folder: Path, targets: list[float], **options: Any) -> DataModule:
    (folder / "nodes.csv").write_text("node,size,y\n" + "".join(f"{n},{n + 0.5},{y}\n" for n, y in enumerate(targets)))
    (folder / "edges.csv").write_text("source,target\n0,1\n1,2\n")
    return make_data(NodeData, CSVGraphs, str(folder), root=str(folder / "root"), **options)


def pyg(folder: Path, targets: list[float], **options: Any) -> DataModule:
    return make_data(GraphData, PyG, partial(Rings, y=torch.tensor(targets)[:, None]), root=str(folder), **options)


def molecules(folder: Path, targets: list[float], **options: Any) -> DataModule:
    pytest.importorskip("rdkit")
    path = folder / "m.csv"
    path.write_text("smiles,price\n" + "".join(f"{'C' * (n + 1)}O,{y}\n" for n, y in enumerate(targets)))
    return make_data(GraphData, Molecules, str(path), root=str(folder / "root"), split="random", processes=1, **options)


SOURCES = [csv_graphs, graph_files, csv_nodes, pyg, molecules]
PRICES = [10 ** (n / 10) + 0.25 for n in range(GRAPHS)]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("log", [False, True])
def test_targets_of_every_source_are_scaled(tmp_path: Path, source: Any, log: bool) -> None:
    data = source(tmp_path, PRICES, log=log)
    data.open([])
    y = data.targets("train").double()
    y = y.log() if log else y
    assert (data.schema.kind, data.schema.log) == ("regression", log)
    assert data.schema.mean == pytest.approx([float(y.mean())], rel=1e-5)
    assert data.schema.scale == pytest.approx([float(y.std(correction=0))], rel=1e-5)


@pytest.mark.parametrize(
    ("source", "location"),
    [
        (csv_graphs, "graphs.csv, line 9"),
        (graph_files, "line 8|graph 8|graph 7"),
        (csv_nodes, "nodes.csv, line 9"),
        (pyg, "graph 7"),
        (molecules, "line 9"),
    ],
)
def test_target_without_logarithm_is_reported_by_row(tmp_path: Path, source: Any, location: str) -> None:
    with pytest.raises(UserError, match=rf"({location}).* -3\b.*data\.log=false"):
        source(tmp_path, [*PRICES[:7], -3.0, *PRICES[8:]], log=True).open([])


def test_log_turns_integer_targets_into_regression(tmp_path: Path) -> None:
    targets = [float(n % 3 + 1) for n in range(GRAPHS)]
    data = csv_nodes(tmp_path, [int(n) for n in targets], log=True)
    data.open([])
    assert data.schema.kind == "regression"
    with pytest.raises(UserError, match=r"data\.log=true"):
        csv_nodes(tmp_path, [int(n) for n in targets], log=True, kind="multiclass").open([])


def test_scaling_options_change_the_store_key(tmp_path: Path) -> None:
    options: list[dict[str, Any]] = [{}, {"log": True}, {"normalise": False}]
    assert len({str(csv_graphs(tmp_path, PRICES, **each).source.key()) for each in options}) == 3


class Bonds(CollatedDataset):
    """Graphs whose class shows in a small feature, beside an uninformative one of up to 762."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        graphs = []
        for n in range(120):
            noise = 762 * torch.rand(4, 1, generator=draw)
            signal = 0.02 * (n % 2) + 0.005 * torch.randn(4, 1, generator=draw)
            graphs.append(Data(x=torch.cat([noise, signal], 1), edge_index=RING, y=torch.tensor([n % 2])))
        super().__init__(graphs)


def fit_net(data: DataModule, epochs: int) -> dict[str, float]:
    """Train a small network for some epochs and return its test scores."""
    torch.manual_seed(0)
    data.open([])
    net = GraphTransformer(data.schema, 16, 2, partial(ParallelBlock, local=GINE, feed_forward=FeedForward))
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in data.loader("train"):
            optimiser.zero_grad()
            loss(data.schema, net(batch), batch.y).backward()
            optimiser.step()
    net.eval()
    measures, _ = data.measures()
    with torch.no_grad():
        for batch in data.loader("test"):
            measures.update(net(batch), batch.y)
    return {name: float(value) for name, value in measures.compute().items()}


def test_small_feature_is_learned_beside_a_large_one(tmp_path: Path) -> None:
    assert fit_net(GraphData(PyG(Bonds, root=str(tmp_path), fractions=(0.6, 0.1, 0.3))), epochs=12)["accuracy"] > 0.9


def test_targets_in_the_thousands_are_learned(tmp_path: Path) -> None:
    lines = []
    for n in range(150):
        graph = {"nodes": [{"id": 0, "kind": n % 10}, {"id": 1, "kind": 0}], "edges": [{"source": 0, "target": 1}]}
        lines.append(json.dumps({"directed": False, "graph": {"y": 1000.0 + 100 * (n % 10)}, **graph}))
    (tmp_path / "graphs.jsonl").write_text("\n".join(lines))
    data = GraphData(GraphFiles(str(tmp_path / "graphs.jsonl"), root=str(tmp_path)))
    assert fit_net(data, epochs=15)["mae"] < 100  # the best constant has 250

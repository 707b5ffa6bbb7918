"""Class weights: learned from the training split only, for every source with classes or yes/no answers."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch_geometric.data import Data, InMemoryDataset
from torchmetrics import MetricCollection

from gt.cli.command import check_command
from gt.cli.composing import compose_config
from gt.data.graphs import GraphData
from gt.data.large.links import LinkData
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.csv_links import CSVLinks
from gt.data.own.graph_files import GraphFiles
from gt.data.own.pyg import PyG
from gt.data.text.classification import TextClassification
from gt.errors import UserError
from gt.losses import balanced
from gt.schema import UNLABELLED, Schema
from gt.train.objective import try_out
from tests.data.sources import write_source

RARE = np.arange(60) % 10 == 0


class PairGraphs(InMemoryDataset):
    """Graphs of two nodes, each with a class or with yes/no answers."""

    def __init__(self, y):
        super().__init__(None)
        edge_index = torch.tensor([[0, 1], [1, 0]])
        self.data, self.slices = self.collate([Data(x=torch.ones(2, 1), edge_index=edge_index, y=row) for row in y])


def nodes(folder):
    labels = ["" if n == 7 else ["often", "rare"][int(rare)] for n, rare in enumerate(RARE)]
    (folder / "nodes.csv").write_text("node,x,label\n" + "".join(f"{n},0.5,{y}\n" for n, y in enumerate(labels)))
    (folder / "edges.csv").write_text("source,target\n0,1\n")
    return NodeData(CSVGraphs(str(folder), root=str(folder)), weights="balanced")


def texts(folder):
    (folder / "a.tsv").write_text("text\tlabel\n" + "".join(f"word\t{'ab'[int(rare)]}\n" for rare in RARE))
    return GraphData(TextClassification(str(folder / "a.tsv"), root=str(folder)), weights="balanced")


def graph_files(folder):
    lines = [
        json.dumps({"graph": {"label": "ab"[int(rare)]}, "nodes": [{"id": 0, "x": 0.5}], "edges": []}) for rare in RARE
    ]
    (folder / "g.jsonl").write_text("\n".join(lines))
    return GraphData(GraphFiles(str(folder / "g.jsonl"), kind="multiclass", root=str(folder)), weights="balanced")


def pyg(folder):
    classes = torch.tensor(RARE + 2 * (np.arange(60) % 5 == 1))
    return GraphData(PyG(partial(PairGraphs, classes), root=str(folder)), weights="balanced")


@pytest.mark.parametrize("make_data", [nodes, texts, graph_files, pyg])
def test_balanced_weights_equal_scikit_learn(make_data, tmp_path, capsys):
    data = make_data(tmp_path)
    data.open([])
    train = data.targets("train").numpy()
    expected = compute_class_weight("balanced", classes=np.arange(data.schema.outputs), y=train)
    np.testing.assert_allclose(data.schema.weights, expected)
    assert data.graphs.schema == data.schema
    rarest = data.schema.names[-1] if data.schema.names else "2"
    assert f"{rarest} ({expected[-1]:.3g})" in capsys.readouterr().out


def test_binary_weights_are_ratios_of_no_to_yes(tmp_path, capsys):
    answers = torch.stack([torch.tensor(RARE), torch.tensor(~RARE)], dim=1).float()
    answers[3, 0] = torch.nan
    data = GraphData(PyG(partial(PairGraphs, answers[:, None]), kind="binary", root=str(tmp_path)), weights="balanced")
    data.open([])
    train = data.targets("train")
    np.testing.assert_allclose(data.schema.weights, (train == 0).sum(0) / (train == 1).sum(0))
    assert "weight of yes" in capsys.readouterr().out


def test_missing_labels_and_classes_do_not_affect_weights():
    target = torch.tensor([0, 0, 0, 2, UNLABELLED])
    assert balanced(Schema(outputs=3), target) == pytest.approx((4 / 9, 1, 4 / 3))
    target = torch.tensor([[1.0, 1.0], [0.0, torch.nan], [0.0, 1.0]])
    assert balanced(Schema(kind="binary", outputs=2), target) == (2.0, 1.0)


def test_new_data_keep_the_weights_of_the_model(tmp_path, capsys):
    data = texts(tmp_path)
    data.open([])
    capsys.readouterr()
    new = texts(tmp_path)
    new.open([], data.schema)
    assert new.schema.weights == data.schema.weights
    assert "weigh" not in capsys.readouterr().out


def test_weights_for_regression_and_links_are_rejected(tmp_path):
    files, root = str(write_source("csv graphs", tmp_path, {})), str(tmp_path)
    with pytest.raises(UserError, match=r"data\.weights.*label"):
        GraphData(CSVGraphs(files, root=root), weights="balanced").open([])
    (tmp_path / "edges.csv").write_text("source,target\n" + "".join(f"{n},{n + 1}\n" for n in range(20)))
    with pytest.raises(UserError, match=r"data\.weights.*link"):
        LinkData(CSVLinks(str(tmp_path), root=root), weights="balanced").open([])


def test_weights_with_a_custom_loss_are_rejected(tmp_path):
    data = texts(tmp_path)
    data.open([])
    with pytest.raises(UserError, match=r"data\.weights"):
        try_out(torch.nn.CrossEntropyLoss(), MetricCollection({}), data)


@pytest.mark.parametrize(
    "option", ["csv_graphs", "csv_nodes", "graph_files", "graph_file_nodes", "text_classification", "molecules"]
)
def test_weights_are_the_same_option_for_all_data(option):
    overrides = [f"data={option}", "data.path=here", "data.weights=balanced"]
    assert compose_config(check_command(overrides)).data.weights == "balanced"

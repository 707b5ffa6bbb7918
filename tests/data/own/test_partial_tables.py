"""Tables in which some samples lack a split or a target: these are in no split, and a line counts them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.errors import UserError
from tests.data.modules import make_data
from tests.runs import network, predictions, write_run

SPLITS = ["train", "train", "valid", "test", ""] * 8
LABELS = ["a", "b", "b"] * 13 + ["a"]


def write_nodes(folder: Path, splits: list[str] = SPLITS) -> Path:
    """Write a ring of forty nodes, each with a numeric feature, a label and a split."""
    folder.mkdir(exist_ok=True)
    names = [f"n{n}" for n in range(len(splits))]
    nodes = {"node": names, "size": np.arange(len(splits)) / 4, "label": LABELS, "split": splits}
    pd.DataFrame(nodes).to_csv(folder / "nodes.csv", index=False)
    pd.DataFrame({"source": names, "target": [*names[1:], names[0]]}).to_csv(folder / "edges.csv", index=False)
    return folder


def write_graphs(path: Path, **attributes: list) -> Path:
    """Write graphs of two nodes as lines of JSON, each with one value from every list."""
    nodes, edges = [{"id": 0, "kind": "C"}, {"id": 1, "kind": "O"}], [{"source": 0, "target": 1}]
    rows = [dict(zip(attributes, values, strict=True)) for values in zip(*attributes.values(), strict=True)]
    path.write_text("\n".join(json.dumps({"graph": row, "nodes": nodes, "edges": edges}) for row in rows))
    return path


def open_data(source: type, module: type, path: Path, **options):
    data = make_data(module, source, str(path), root=str(path.parent / "root"), **options)
    data.open([])
    return data


def test_nodes_without_split_are_read_but_not_scored(tmp_path, capsys):
    graphs = open_data(CSVGraphs, NodeData, write_nodes(tmp_path / "mine")).graphs
    for split in ("train", "valid", "test"):
        assert graphs.splits[split].tolist() == [n for n, name in enumerate(SPLITS) if name == split]
    assert graphs.nodes["x"][:, 0].tolist() == [n / 4 for n in range(40)]
    assert graphs.edge_index.shape == (2, 40)
    message = "  8 of 40 nodes have no split: visible to other nodes, but neither trained on nor scored"
    assert message in capsys.readouterr().out.splitlines()


def test_nodes_without_target_are_counted(tmp_path, capsys):
    folder = write_nodes(tmp_path / "mine")
    table = pd.read_csv(folder / "nodes.csv").drop(columns="split")
    table["label"] = [["a", "b", None][n % 3] for n in range(40)]
    table.to_csv(folder / "nodes.csv", index=False)
    graphs = open_data(CSVGraphs, NodeData, folder).graphs
    assert sum(map(len, graphs.splits.values())) == 27
    message = "  13 of 40 nodes have no label: visible to other nodes, but neither trained on nor scored"
    assert message in capsys.readouterr().out.splitlines()


def test_folds_include_nodes_without_split(tmp_path, capsys):
    graphs = open_data(CSVGraphs, NodeData, write_nodes(tmp_path / "mine"), folds=4).graphs
    assert sum(len(graphs.splits[split]) for split in ("train", "valid", "test")) == 40
    assert "no split" not in capsys.readouterr().out


def test_new_nodes_need_no_split(tmp_path):
    run = write_run(tmp_path, CSVGraphs, network("model=gcn"), NodeData, path=str(write_nodes(tmp_path / "mine")))
    trained = predictions(run, "--split", "test")
    for splits in (SPLITS, [""] * 40):
        table = predictions(run, f"data.path={write_nodes(tmp_path / 'new', splits)}")
        assert len(table) == 40
        np.testing.assert_allclose(
            table["probability"][3::5].astype(float), trained["probability"].astype(float), rtol=1e-4
        )


def test_empty_split_column_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"nodes\.csv: column 'split' is empty in all rows: fill it in"):
        open_data(CSVGraphs, NodeData, write_nodes(tmp_path / "mine", [""] * 40))


def test_graphs_without_split_are_dropped_and_counted(tmp_path, capsys):
    splits = ["train", "valid", None, "test", " "] * 8
    path = write_graphs(tmp_path / "g.jsonl", y=LABELS, split=splits)
    graphs = open_data(GraphFiles, GraphData, path).graphs
    assert graphs.splits["train"].tolist() == list(range(0, 40, 5))
    assert sum(map(len, graphs.splits.values())) == 24
    assert "  16 of 40 graphs have no split and are left out" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0.5, 1.25, None, 3.75] * 10, "regression"), ([2, 5, None, 5] * 10, "multiclass"), (["a", "b", None, "b"] * 10,
     "multiclass")],
)  # fmt: skip
@pytest.mark.parametrize("with_splits", [True, False])
def test_graphs_without_target_are_dropped_and_counted(values, kind, with_splits, tmp_path, capsys):
    attributes = {"t": values, "other": [n / 8 for n in range(40)]}
    attributes |= {"split": ["train"] * 20 + ["valid"] * 10 + ["test"] * 10} if with_splits else {}
    graphs = open_data(GraphFiles, GraphData, write_graphs(tmp_path / "g.jsonl", **attributes), target="t").graphs
    assert graphs.schema.kind == kind
    kept = np.sort(np.concatenate(list(graphs.splits.values())))
    assert kept.tolist() == [n for n, value in enumerate(values) if value is not None]
    assert "  10 of 40 graphs have no t and are left out" in capsys.readouterr().out.splitlines()


def test_graphs_without_any_target_are_dropped_and_counted(tmp_path, capsys):
    attributes = {"t": [0.5, None, 1.5, None] * 10, "u": [2.5, None, None, 0.25] * 10}
    graphs = open_data(
        GraphFiles, GraphData, write_graphs(tmp_path / "g.jsonl", **attributes), target=["t", "u"]
    ).graphs
    assert sum(map(len, graphs.splits.values())) == 30
    assert "  10 of 40 graphs have none of t, u and are left out" in capsys.readouterr().out.splitlines()

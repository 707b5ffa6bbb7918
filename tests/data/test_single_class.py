"""Targets with a single class are rejected in one line before training, for every file format."""

import pandas as pd
import pytest
import torch
from torch_geometric.data import Data

from gt.data.molecules.molecules import Molecules
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.data.own.pyg import PyG
from gt.data.text.classification import TextClassification
from gt.errors import UserError
from gt.metrics import metrics
from tests.data.own.test_partial_tables import write_graphs

ROWS = 12


@pytest.mark.parametrize(("label", "value"), [("a", ", 'a'"), (0, "")])
@pytest.mark.parametrize("by_node", [True, False])
def test_csv_tables(label, value, by_node, tmp_path):
    nodes = [f"n{n}" for n in range(ROWS)]
    graph_column = {} if by_node else {"graph": [f"g{n}" for n in range(ROWS)]}
    label_column = {"label": [label] * ROWS}
    node_table = pd.DataFrame({**graph_column, "node": nodes, "size": [n / 8 for n in range(ROWS)]})
    node_table.assign(**(label_column if by_node else {})).to_csv(tmp_path / "nodes.csv", index=False)
    if not by_node:
        pd.DataFrame({**graph_column, **label_column}).to_csv(tmp_path / "graphs.csv", index=False)
    pd.DataFrame({**graph_column, "source": nodes, "target": nodes}).to_csv(tmp_path / "edges.csv", index=False)
    schema = CSVGraphs(str(tmp_path), target="label").build().schema
    with pytest.raises(UserError) as caught:  # only if labels are learned: otherwise such a column may be a placeholder
        metrics(schema)
    assert str(caught.value) == f"'label' has one class only{value}: there is nothing to tell apart"


def test_graph_files(tmp_path):
    path = write_graphs(tmp_path / "g.jsonl", y=["a", None, "a"] * 8)
    schema = GraphFiles(str(path), target="y").build().schema
    with pytest.raises(UserError, match=r"'y' has one class only, 'a': there is nothing to tell apart"):
        metrics(schema)


def test_pyg_graphs(tmp_path):
    graphs = [Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([0])) for _ in range(ROWS)]
    torch.save(graphs, tmp_path / "g.pt")
    schema = PyG(path=str(tmp_path / "g.pt")).build().schema
    with pytest.raises(UserError, match=r"'y' has one class only: there is nothing to tell apart"):
        metrics(schema)


def test_molecules(tmp_path):
    pd.DataFrame({"smiles": ["C" * n for n in range(1, ROWS)], "y": "a"}).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(UserError, match=r"m\.csv: 'y' holds only one value: there is nothing to learn"):
        list(Molecules(str(tmp_path / "m.csv"), target="y").build())


def test_texts(tmp_path):
    table = pd.DataFrame({"text": [f"text number {n}" for n in range(40)], "label": "a"})
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"every training text of .*t\.csv has the label 'a'"):
        TextClassification(str(tmp_path / "t.csv")).build()

"""Predictions from the command line and from Python equal those in training, for every kind of data."""

import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import from_smiles

import gt
from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData
from gt.data.large.links import LinkData
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.data.own.pyg import PyG
from gt.data.text.classification import TextClassification
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.errors import UserError
from gt.train import checkpoint
from gt.train.network import encodings_of
from tests.data.large.small_links import NODES, Links
from tests.data.modules import make_data
from tests.prediction.tables import as_json, graph_tables, single_graph_tables, write_tables
from tests.runs import network, predictions, run_folder, write_run

CLOSE = {"rtol": 0, "atol": 1e-6}
SMILES = [f"{'C' * (n % 7 + 1)}{end}" for n in range(10) for end in ("O", "N", "Cl")]


def training_outputs(run: Path, data: DataModule, split: str = "test") -> torch.Tensor:
    """The outputs of a run's network for a split, batch by batch as in training, in the order of the loader."""
    task = checkpoint.load(run)
    data.open(encodings_of(task.hparams["config"]))
    with torch.inference_mode():
        return torch.cat([task(batch) for batch in data.loader(split)])


def links(root: str) -> Links:
    return Links(Path(root))


def certainty(scores: torch.Tensor) -> np.ndarray:
    return np.sort(scores.softmax(1).max(1).values.numpy())


def sorted_column(table: pd.DataFrame, name: str = "probability") -> np.ndarray:
    return np.sort(table[name].astype(float).to_numpy())


def test_molecules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rdkit")
    from gt.data import graphs as stored
    from gt.data import objects
    from gt.data.molecules.molecules import Molecules

    split = ["train"] * 20 + ["valid"] * 5 + ["test"] * 5
    pd.DataFrame({"smiles": SMILES, "logS": np.arange(30) * 0.1, "split": split}).to_csv(tmp_path / "a.csv")
    options = {"path": str(tmp_path / "a.csv"), "target": "logS", "processes": 1}
    run = write_run(tmp_path, Molecules, network("encoding=[rwse]", "encoding.rwse.dim=4"), **options)
    expected = (
        training_outputs(run, make_data(GraphData, Molecules, root=str(tmp_path / "root"), **options))[:, 0]
        .sort()
        .values
    )
    (tmp_path / "new.csv").write_text("\n".join(["smiles", *SMILES[25:]]))
    from_command = predictions(run, f"data.path={tmp_path / 'new.csv'}")
    task = gt.load(run)
    with pytest.warns(UserWarning, match="item 1"):
        table = task.predict([*SMILES[25:26], "no molecule", *SMILES[26:]])
    assert table["smiles"].tolist() == [*SMILES[25:26], "no molecule", *SMILES[26:]]
    assert table["prediction"].isna().tolist() == [False, True, False, False, False, False]
    assert list(table.attrs["unreadable"]) == [1]
    np.testing.assert_allclose(sorted_column(table.dropna(), "prediction"), expected, **CLOSE)
    np.testing.assert_allclose(table["prediction"].dropna(), from_command["prediction"].astype(float), **CLOSE)
    with monkeypatch.context() as patch:
        patch.setattr(stored, "temporary_store", None)  # so few are kept in memory
        in_memory = task.predict(SMILES)["prediction"]
        patch.undo()
        patch.setattr(objects, "CHUNK", 7)
        np.testing.assert_array_equal(task.predict(SMILES)["prediction"], in_memory)
    from ogb.utils import smiles2graph

    featurised = [(text, smiles2graph(text)) for text in SMILES[25:]]
    graphs = [
        Data(smiles=text, x=torch.from_numpy(features["node_feat"]),
             edge_index=torch.from_numpy(features["edge_index"]), edge_attr=torch.from_numpy(features["edge_feat"]))
        for text, features in featurised
    ]  # fmt: skip
    np.testing.assert_allclose(task.predict(graphs)["prediction"], task.predict(SMILES[25:])["prediction"], rtol=1e-5)
    with pytest.raises(UserError, match=r"item 1: .*smiles2graph"):
        task.predict([graphs[0], from_smiles(SMILES[26])])
    embeddings = task.embed([*SMILES[25:], "no molecule"])
    with pytest.raises(UserError, match="in a list"):  # a string is a sequence of letters, each of which is a molecule
        task.predict(SMILES[0])
    assert len(embeddings) == 6
    assert np.isnan(embeddings).all(1).tolist() == [False] * 5 + [True]


def test_networkx_and_pyg_graphs(tmp_path: Path) -> None:
    tables = graph_tables(with_numbers=True)
    (tmp_path / "mine.json").write_text(json.dumps(as_json(tables)))
    options = {"path": str(tmp_path / "mine.json")}
    run = write_run(tmp_path, GraphFiles, network("encoding=[rwse]", "encoding.rwse.dim=4"), **options)
    data = make_data(GraphData, GraphFiles, root=str(tmp_path / "root"), **options)
    expected = certainty(training_outputs(run, data))
    graphs = [nx.node_link_graph(each, edges="links") for each in as_json(tables)[24:]]
    table = gt.load(run).predict(graphs, probabilities=True)
    np.testing.assert_allclose(sorted_column(table), expected, **CLOSE)
    np.testing.assert_allclose(table.filter(like="probability_").sum(axis=1), 1, atol=1e-6)
    from_command = predictions(run, "--split", "test")
    np.testing.assert_allclose(table["probability"], from_command["probability"].astype(float), **CLOSE)
    data.open([])
    batch = data.dataset("test").batch(next(iter(data.batches("test"))))
    with pytest.raises(UserError, match=r"pass an? nx\.DiGraph|pass an? nx\.Graph"):
        gt.load(run).predict(
            [graph.to_undirected() if graph.is_directed() else graph.to_directed() for graph in graphs]
        )
    batch.y = None
    from_pyg = gt.load(run).predict(batch.to_data_list())
    np.testing.assert_allclose(sorted_column(from_pyg), expected, **CLOSE)


def test_nodes_of_one_graph_and_of_several(tmp_path: Path) -> None:
    nodes, edges = single_graph_tables()
    write_tables(tmp_path / "mine", nodes, edges, None)
    options = {"path": str(tmp_path / "mine")}
    run = write_run(tmp_path, CSVGraphs, network("encoding=[rwse]", "encoding.rwse.dim=4"), NodeData, **options)
    data = make_data(NodeData, CSVGraphs, root=str(tmp_path / "root"), **options)
    expected = training_outputs(run, data).softmax(1).max(1).values
    graph = nx.DiGraph()
    for record in nodes.drop(columns=["label", "split"]).to_dict("records"):
        graph.add_node(record.pop("node"), **record)
    graph.add_edges_from(edges.itertuples(index=False))
    table = gt.load(run).predict([graph])
    assert table["node"].tolist() == nodes["node"].tolist()
    np.testing.assert_allclose(table["probability"], expected, **CLOSE)
    from_command = predictions(run, "--split", "all", f"data.path={tmp_path / 'mine'}")
    np.testing.assert_allclose(table["probability"], from_command["probability"].astype(float), **CLOSE)
    twice = gt.load(run).predict([graph, graph])
    np.testing.assert_allclose(twice["probability"], torch.cat([expected, expected]), **CLOSE)


def test_links(tmp_path: Path, capsys: Any) -> None:
    source = {"_target_": "tests.prediction.test_trained.links", "root": str(tmp_path)}
    config = {"_target_": "gt.data.large.links.LinkData", "source": source}
    run = run_folder(tmp_path / "run", LinkData(Links(tmp_path)), config, network("model=gcn", "mask=one_hop"))
    data = LinkData(Links(tmp_path))
    expected = training_outputs(run, data)[:, 0].sigmoid().numpy()
    (batch,) = list(data.loader("test"))
    pairs = batch.links.T.numpy()
    (tmp_path / "pairs.csv").write_text(
        "\n".join(
            ["name,source,target", *(f"p{n},{a},{b}" for n, (a, b) in enumerate(pairs)), f"odd,3,{NODES}", "x,a,1"]
        )
    )
    from_command = predictions(run, "--pairs", str(tmp_path / "pairs.csv"), "--trust")
    assert from_command.columns.tolist() == ["name", "source", "target", "prediction"]
    np.testing.assert_allclose(from_command["prediction"][: len(pairs)].astype(float), expected, **CLOSE)
    assert from_command["prediction"][len(pairs) :].tolist() == ["", ""]
    assert "2 rows of" in capsys.readouterr().out
    graph = Data(
        y=torch.arange(NODES),  # of nodes: these are ignored
        x=batch.x,
        edge_index=batch.edge_index,
        edge_attr=batch.edge_attr,
        edge_label_index=torch.from_numpy(pairs.T),
    )
    table = gt.load(run).predict([graph])
    assert table["from_node"].tolist() == pairs[:, 0].tolist()
    np.testing.assert_allclose(table["prediction"], expected, **CLOSE)


def test_texts(tmp_path: Path) -> None:
    texts = [f"this is text {n} of many words" for n in range(40)]
    rows = [f"{text}\t{'good' if n % 2 else 'bad'}" for n, text in enumerate(texts)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    options = {"path": str(tmp_path / "mine.tsv"), "longest": 5}
    run = write_run(tmp_path, TextClassification, **options)
    data = make_data(GraphData, TextClassification, root=str(tmp_path / "root"), **options)
    expected, split = training_outputs(run, data), predictions(run, "--split", "test")
    with pytest.warns(UserWarning, match="item 4"):
        table = gt.load(run).predict([*split["text"], " "])
    assert table["prediction"][:4].tolist() == split["prediction"].tolist()
    np.testing.assert_allclose(sorted_column(table[:4]), certainty(expected), **CLOSE)


def test_next_tokens(tmp_path: Path) -> None:
    text = "to be, or not to be\n" * 40
    (tmp_path / "a.txt").write_text(text)
    options = {"path": str(tmp_path / "a.txt"), "context": 20}
    run = write_run(tmp_path, Text, network("mask=causal"), LanguageData, **options)
    data = make_data(LanguageData, Text, root=str(tmp_path / "root"), **options)
    expected = training_outputs(run, data, "valid")[-20:].softmax(1).max(1).values
    table = gt.load(run).predict(["to be, or not to be\n", "to be"])
    assert "".join(table["token"]) == "to be, or not to be\nto be"
    np.testing.assert_allclose(table["probability"], torch.cat([expected, expected[:5]]), **CLOSE)


def test_unreadable_items_are_rejected(tmp_path: Path) -> None:
    rows = [f"text number {n}\t{n % 2}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    task = gt.load(write_run(tmp_path, TextClassification, path=str(tmp_path / "mine.tsv")))
    for items, message in (([], "none"), ([3], "int"), (["a", nx.path_graph(2)], "one kind")):
        with pytest.raises(UserError, match=message):
            task.predict(items)
    with pytest.raises(UserError, match="PyG"):
        task.predict([nx.path_graph(2)])


def test_wandb_artifact_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"text number {n}\t{n % 2}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    run = write_run(tmp_path, TextClassification, path=str(tmp_path / "mine.tsv"))
    requested: list[str] = []

    class Api:
        def artifact(self, name: str) -> "Api":
            requested.append(name)
            return self

        def download(self) -> str:
            return str(run / "checkpoints")

    monkeypatch.setattr("wandb.Api", Api)
    assert len(gt.load("me/things/model-1:best").predict(["text"])) == 1
    assert requested == ["me/things/model-1:best"]
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(UserError, match="0 checkpoints"):
        gt.load("model-1:v0")


def test_model_of_pyg_molecules_does_not_read_smiles(tmp_path: Path) -> None:
    """Their atoms have nine features as well, but with other codes than OGB's."""
    pytest.importorskip("rdkit")
    graphs = [from_smiles(text) for text in SMILES]
    for number, graph in enumerate(graphs):
        graph.y = torch.tensor([float(number)])
    torch.save(graphs, tmp_path / "graphs.pt")
    task = gt.load(write_run(tmp_path, PyG, network("encoding=none"), path=str(tmp_path / "graphs.pt")))
    assert len(task.schema.node_vocab) == 9
    assert task.predict(graphs[:3])["prediction"].notna().all()
    with pytest.raises(UserError, match="neither texts nor molecules"):
        task.predict(SMILES[:3])

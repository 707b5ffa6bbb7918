"""``python -m gt.predict`` on each kind of data: correct predictions, in the order and under the names of the data."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from gt.data.batch_sampler import Request
from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.ogb.code2 import FunctionNames
from gt.data.ogb.graphs import OGBMolecules
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.data.text.classification import TextClassification
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.predict import main
from tests.cli.prediction_runs import LABELS, MODEL, molecule_run, write_graph_tables
from tests.data.ogb_files import write_code2
from tests.runs import run_folder, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return molecule_run(tmp_path)


def test_binary_tasks_in_the_order_of_the_split(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(run), "--split", "train"])
    path = run / "predictions-train.csv"
    assert str(path) in capsys.readouterr().out
    table = pd.read_csv(path)
    assert table.columns.tolist() == ["graph", "prediction_0", "prediction_1", "target_0", "target_1"]
    assert table["graph"].tolist() == [3, 0]  # the split's order, though batches are sorted by size
    np.testing.assert_array_equal(table[["target_0", "target_1"]], LABELS[[3, 0], :2])
    data = GraphData(OGBMolecules("ogbg-molclintox", str(run.parent)))
    data.open([])
    from gt import load

    for row, graph in enumerate(table["graph"]):
        (position,) = np.flatnonzero(data.graphs.splits["train"] == graph)
        batch = data.dataset("train")[Request((int(position),))]
        with torch.no_grad():
            expected = load(run / "checkpoints" / "best.ckpt")(batch).sigmoid()[0]
        np.testing.assert_allclose(table.loc[row, ["prediction_0", "prediction_1"]].astype(float), expected, rtol=1e-5)


def test_function_names_are_written_as_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_code2(tmp_path / "ogbg_code2", ["get name", "set name", "get it", "run", "set it"], [0, 1, 2])
    source = {"_target_": "gt.data.ogb.code2.FunctionNames", "root": str(tmp_path)}
    config = {"_target_": "gt.data.graphs.GraphData", "source": source}
    run = run_folder(tmp_path / "run", GraphData(FunctionNames(str(tmp_path))), config, MODEL)
    main([str(run)])
    table = pd.read_csv(run / "predictions-test.csv", keep_default_na=False)
    assert table["target"].tolist() == ["set it"]
    assert set(table["prediction"][0].split()) <= {"get", "name", "set", "it", "__UNK__"}
    assert "F1" in capsys.readouterr().out


def predict_own_data(folder: Path, kind: type, split: str = "test", **options: object) -> pd.DataFrame:
    """The table of predictions of a run on the user's own data."""
    main([str(write_run(folder, kind, MODEL, **options)), "--split", split])
    return pd.read_csv(folder / "run" / f"predictions-{split}.csv", keep_default_na=False)


def test_own_graphs_keep_their_names(tmp_path: Path) -> None:
    write_graph_tables(tmp_path / "mine", by_node=False)
    table = predict_own_data(tmp_path, CSVGraphs, path=str(tmp_path / "mine"))
    assert table.columns.tolist() == ["graph", "prediction", "probability", "target"]
    assert table["graph"].tolist() == ["mol7", "mol8", "mol9"]
    assert table["target"].tolist() == [1, 0, 1]


def test_nodes_of_own_graphs_keep_their_names(tmp_path: Path) -> None:
    write_graph_tables(tmp_path / "mine", by_node=True)
    table = predict_own_data(tmp_path, CSVGraphs, path=str(tmp_path / "mine"))
    assert table["graph"].tolist() == ["mol7"] * 2 + ["mol8"] * 2 + ["mol9"] * 2
    assert table["node"].tolist() == ["C7", "O7", "C8", "O8", "C9", "O9"]
    assert table["target"].tolist() == [1, 1, 0, 0, 1, 1]


def test_name_columns_keep_the_headers_of_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_graph_tables(folder, by_node=True)
    for name, header in {"nodes": "GRAPH,id,kind,label", "graphs": "Graph,Split"}.items():
        _, rows = (folder / f"{name}.csv").read_text().split("\n", 1)
        (folder / f"{name}.csv").write_text(f"{header}\n{rows}")
    table = predict_own_data(tmp_path, CSVGraphs, path=str(folder))
    assert table.columns.tolist() == ["Graph", "id", "prediction", "probability", "target"]
    assert table["id"].tolist() == ["C7", "O7", "C8", "O8", "C9", "O9"]
    main([str(tmp_path / "run"), f"data.path={folder}", "--split", "all", "--out", str(tmp_path / "all.csv")])
    new = pd.read_csv(tmp_path / "all.csv")
    assert new.columns.tolist() == ["GRAPH", "id", "kind", "label", "prediction", "probability"]
    assert new["id"].tolist() == pd.read_csv(folder / "nodes.csv")["id"].tolist()


def test_nodes_of_a_single_graph_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    nodes = [
        f"paper{i},{i % 3},{'abc'[i % 3]},{'train' if i < 20 else 'valid' if i % 2 else 'test'}" for i in range(30)
    ]
    (tmp_path / "mine" / "nodes.csv").write_text("\n".join(["node,size,label,split", *nodes]))
    (tmp_path / "mine" / "edges.csv").write_text("source,target\npaper3,paper22\npaper22,paper28\n")
    table = predict_own_data(tmp_path, CSVGraphs, module=NodeData, path=str(tmp_path / "mine"))
    assert table["node"].tolist() == ["paper20", "paper22", "paper24", "paper26", "paper28"]
    assert table["target"].tolist() == ["c", "b", "a", "c", "b"]


def test_nodes_of_graph_files_keep_their_names(tmp_path: Path) -> None:
    graphs = [
        {
            "directed": True,
            "nodes": [{"id": f"{atom}{i}", "kind": i % 3, "label": i % 2} for atom in "CO"],
            "links": [{"source": f"C{i}", "target": f"O{i}"}],
            "graph": {"split": "train" if i < 5 else "valid" if i < 7 else "test"},
        }
        for i in range(9)
    ]
    for number, graph in enumerate(graphs):
        (tmp_path / f"{number}.json").write_text(json.dumps(graph))
    table = predict_own_data(tmp_path, GraphFiles, path=str(tmp_path / "*.json"))
    assert table["graph"].tolist() == [7, 7, 8, 8]
    assert table["node"].tolist() == ["C7", "O7", "C8", "O8"]


def test_molecules_are_identified_by_row_and_smiles(tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    from gt.data.molecules.molecules import Molecules

    rows = [f"{'C' * (i + 1)},{i / 2},{'train' if i < 6 else 'valid' if i < 8 else 'test'}" for i in range(11)]
    rows[2] = "no molecule,1,train"  # skipped, so graph numbers differ from row numbers
    (tmp_path / "mine.csv").write_text("\n".join(["smiles,value,split", *rows]))
    table = predict_own_data(tmp_path, Molecules, path=str(tmp_path / "mine.csv"), processes=1)
    assert table.columns.tolist() == ["graph", "row", "smiles", "prediction", "target"]
    assert table["row"].tolist() == [8, 9, 10]
    assert table["smiles"].tolist() == ["C" * 9, "C" * 10, "C" * 11]
    assert table["target"].tolist() == [4, 4.5, 5]


def test_metrics_use_the_targets_present_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rdkit")
    from gt.data.molecules.molecules import Molecules

    rows = [f"{'C' * (i + 1)},{i / 2},{i % 3},{'train' if i < 6 else 'valid' if i < 8 else 'test'}" for i in range(11)]
    (tmp_path / "mine.csv").write_text("\n".join(["smiles,a,b,split", *rows]))
    run = write_run(tmp_path, Molecules, MODEL, path=str(tmp_path / "mine.csv"), target=["a", "b"], processes=1)
    (tmp_path / "new.csv").write_text("smiles,b\nCCO,1\nCCN,2\nCCC,\n")
    main([str(run), f"data.path={tmp_path / 'new.csv'}", "--out", str(tmp_path / "out.csv")])
    table = pd.read_csv(tmp_path / "out.csv")
    match = re.search(r" mae ([\d.]+)", capsys.readouterr().out)
    assert match is not None
    assert float(match[1]) == pytest.approx((table["prediction_b"] - [1, 2, np.nan]).abs().mean(), abs=1e-3)
    config = run / ".hydra" / "config.yaml"  # as written when only molecules had class weights
    cfg = OmegaConf.load(config)
    cfg.data.source.weights = "none"
    OmegaConf.save(cfg, config)
    (tmp_path / "none.csv").write_text("smiles\nCCO\n")
    main([str(run), f"data.path={tmp_path / 'none.csv'}", "--out", str(tmp_path / "out.csv")])
    assert "mae" not in capsys.readouterr().out


def test_labelled_texts_keep_their_text_and_label(tmp_path: Path) -> None:
    rows = [f"this is text {i}\t{'good' if i % 2 else 'bad'}" for i in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    table = predict_own_data(tmp_path, TextClassification, path=str(tmp_path / "mine.tsv"))
    numbers = [int(text.removeprefix("this is text ")) for text in table["text"]]
    assert len(set(numbers)) == 4
    assert table["target"].tolist() == ["good" if number % 2 else "bad" for number in numbers]


def test_every_token_after_the_first_is_predicted_once(tmp_path: Path) -> None:
    text = "to be, or not\nto be" * 5
    (tmp_path / "a.train.txt").write_text(text * 3)
    (tmp_path / "a.valid.txt").write_text(text)
    table = predict_own_data(
        tmp_path, Text, "valid", path=str(tmp_path / "a.*.txt"), module=LanguageData, context=8, batch_size=4
    )
    assert table.columns.tolist() == ["token", "prediction", "probability", "target"]
    assert table["token"].tolist() == list(range(len(text) - 1))
    assert "".join(table["target"]) == text[1:]

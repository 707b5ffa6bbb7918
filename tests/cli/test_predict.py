"""``python -m gt.predict``: tables of correct predictions in the order of the data, and errors in one line."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from gt.cli.new_data import check_schema
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
from gt.errors import UserError
from gt.predict import arguments, main
from gt.prediction.models import Answer
from gt.prediction.table import Columns
from gt.prediction.table import write as write_predictions
from gt.schema import UNLABELLED, Schema
from gt.train.trust import trusted
from tests.data.ogb_files import write, write_code2
from tests.runs import network, run_folder, run_of

LABELS = np.array([[0, 1, np.nan], [1, 1, 0], [np.nan, 0, 1], [0, 0, 1]])
MODEL = {
    "model": {"_target_": "gt.model.GraphTransformer", "_partial_": True, "width": 8, "depth": 0},
    "mask": {"_target_": "gt.masks.Complete"},
    "encoding": {},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on four molecules with two binary tasks: 3 and 0 for training, 1 for validation, 2 for the test."""
    write(tmp_path / "ogbg_molclintox", LABELS[:, :2])
    source = {"_target_": "gt.data.ogb.graphs.OGBMolecules", "dataset": "ogbg-molclintox", "root": str(tmp_path)}
    config = {"_target_": "gt.data.graphs.GraphData", "source": source}
    return run_folder(tmp_path / "run", GraphData(OGBMolecules("ogbg-molclintox", str(tmp_path))), config, MODEL)


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


def test_default_split_and_output_file(run: Path, tmp_path: Path) -> None:
    main([str(run / "checkpoints" / "best.ckpt"), "--out", str(tmp_path / "new" / "mine.csv"), "--device", "cpu"])
    assert pd.read_csv(tmp_path / "new" / "mine.csv")["graph"].tolist() == [2]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine.csv"]


@pytest.mark.parametrize("name", ["x.parquet", "x.TSV", "x.csv.zip"])
def test_file_names_of_other_formats_are_rejected(name: str) -> None:
    for words in (["run", "--out", name], ["run", f"out={name}"]):
        with pytest.raises(UserError, match=rf"--out {re.escape(name)}: the table is written as CSV"):
            arguments(words)
    assert arguments(["run", "--out", "x.CSV.gz"]).out == Path("x.CSV.gz")


def test_data_root_can_be_overridden(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ogbg_molclintox").rename(tmp_path / "elsewhere" / "ogbg_molclintox")
    main([str(run), f"data.root={tmp_path / 'elsewhere'}", "--split", "valid"])
    assert pd.read_csv(run / "predictions-valid.csv")["graph"].tolist() == [1]


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
    main([str(run_of(folder, kind, MODEL, **options)), "--split", split])
    return pd.read_csv(folder / "run" / f"predictions-{split}.csv", keep_default_na=False)


def write_graph_tables(folder: Path, by_node: bool) -> None:
    """Write ten graphs of two nodes as CSV tables, with nodes in reverse order; the last three are the test split."""
    folder.mkdir()
    splits = ["train"] * 5 + ["valid"] * 2 + ["test"] * 3
    label = "" if by_node else ",active"
    rows = [f"mol{i},{splits[i]}{'' if by_node else f',{i % 2}'}" for i in range(10)]
    (folder / "graphs.csv").write_text("\n".join([f"graph,split{label}", *rows]))
    nodes = [f"mol{i},{atom}{i},{i % 3},{i % 2}" for i in reversed(range(10)) for atom in "CO"]
    last = "label" if by_node else "charge"
    (folder / "nodes.csv").write_text("\n".join([f"graph,node,kind,{last}", *nodes]))
    (folder / "edges.csv").write_text("\n".join(["graph,source,target", *(f"mol{i},C{i},O{i}" for i in range(10))]))


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
    run = run_of(tmp_path, Molecules, MODEL, path=str(tmp_path / "mine.csv"), target=["a", "b"], processes=1)
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.ckpt"], "no checkpoint at"),
        (["RUN", "--split", "tset"], "no split 'tset', only train, valid, test"),
        (["RUN", "optim.lr=1"], "only the data may be changed"),
        (["RUN", "data.rot=x"], "data.rot"),
        (["RUN", "data=nothing"], "no option 'nothing'"),
        (["RUN", "data.root=ROOT/nowhere", "--split", "valid"], "ogbg-molclintox is not in"),
        (["RUN", "data.dataset=ogbg-moltox21"], "its outputs is 2"),
    ],
)
def test_errors_are_reported_in_one_line(
    run: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(run.parent / "ogbg_moltox21", np.tile(LABELS, 4))
    monkeypatch.setattr(
        "gt.data.ogb.download.urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(UserError) as caught:
        main([word.replace("RUN", str(run)).replace("ROOT", str(run.parent)) for word in words])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(run.glob("predictions*"))


def test_checkpoint_outside_its_run_folder_is_rejected(run: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    moved = (run / "checkpoints" / "best.ckpt").rename(tmp_path / "alone" / "best.ckpt")
    with pytest.raises(UserError, match="the data are configured in the run folder"):
        main([str(moved)])


def test_columns_of_classes_and_regression() -> None:
    schema = Schema(kind="multiclass", outputs=3, names=("a", "b", "c"))
    scores = torch.tensor([[0.0, 2.0, 0.0], [5.0, 0.0, 0.0]])
    columns = Columns(schema)(Answer(scores), torch.tensor([2, UNLABELLED]), lambda answers: None)
    assert (columns["prediction"], columns["target"]) == (["b", "a"], ["c", ""])
    np.testing.assert_allclose(columns["probability"], scores.softmax(1).max(1).values)
    columns = Columns(Schema(kind="regression", outputs=1))(Answer(torch.tensor([[1.5]])), None, lambda answers: None)
    assert list(columns) == ["prediction"]
    schema = Schema(kind="multiclass", outputs=2, positions=2)
    columns = Columns(schema)(Answer(torch.tensor([[0.0, 1.0, 1.0, 0.0]])), None, lambda answers: None)
    assert columns["prediction"] == ["1 0"]


def test_model_of_another_schema_is_rejected() -> None:
    ours = Schema(node_vocab=(3,), outputs=2, names=("no", "yes"))
    check_schema(ours, Schema(node_vocab=(3,), outputs=2, max_nodes=7))
    with pytest.raises(UserError, match=r"its node_vocab is \(3,\), theirs is \(4,\)"):
        check_schema(ours, Schema(node_vocab=(4,), outputs=2))
    with pytest.raises(UserError, match="other names"):
        check_schema(ours, Schema(node_vocab=(3,), outputs=2, names=("a", "b")))


def test_arguments_in_any_order() -> None:
    parsed = arguments(["run", "data.root=x", "--split", "valid", "other", "data.batch_size=2", "out=a.csv"])
    assert parsed.runs == [Path("run"), Path("other")]
    assert parsed.overrides == ["data.root=x", "data.batch_size=2"]
    assert (parsed.split, parsed.out, parsed.level, parsed.trust) == ("valid", Path("a.csv"), None, False)


def test_numbers_are_written_in_shortest_exact_form(tmp_path: Path) -> None:
    double = [0.13436424411240122, 1234567890.5]
    single = np.array([5.207, 1 / 3], np.float32)
    write_predictions(pd.DataFrame({"own": double, "target": single}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().split() == [
        "own,target",
        "0.13436424411240122,5.207",
        "1234567890.5,0.33333334",
    ]


CUSTOM_MASK = """
from gt.masks import Complete

class Mine(Complete):
    pass
"""


def test_custom_classes_are_imported_only_if_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_parts_to_trust.py").write_text(CUSTOM_MASK)
    monkeypatch.syspath_prepend(tmp_path)
    rows = [f"this is text {i}\t{'good' if i % 2 else 'bad'}" for i in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    net = {**network(), "mask": {"_target_": "my_parts_to_trust.Mine"}}
    run = run_of(tmp_path, TextClassification, net, path=str(tmp_path / "mine.tsv"))
    sys.modules.pop("my_parts_to_trust", None)
    with pytest.raises(UserError, match=r"my_parts_to_trust\.Mine.*--trust"):
        main([str(run)])
    assert "my_parts_to_trust" not in sys.modules
    main([str(run), "--trust"])
    assert "4 predictions" in capsys.readouterr().out
    sys.modules.pop("my_parts_to_trust", None)
    (tmp_path / "my_parts_to_trust.py").unlink()
    with pytest.raises(UserError, match=r"best\.ckpt: there is nothing called 'my_parts_to_trust\.Mine'.* PYTHONPATH$"):
        main([str(run), "--trust"])


def test_custom_data_class_is_imported_only_if_trusted(run: Path) -> None:
    config = run / ".hydra" / "config.yaml"
    cfg = OmegaConf.load(config)
    cfg.data._target_ = "antigravity.Data"
    OmegaConf.save(cfg, config)
    with pytest.raises(UserError, match=r"antigravity\.Data"):
        main([str(run)])
    assert "antigravity" not in sys.modules


def test_load_accepts_a_run_folder(run: Path, tmp_path: Path) -> None:
    from gt import load

    assert load(run).schema == load(run / "checkpoints" / "best.ckpt").schema
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        load(tmp_path / "empty")


def test_old_checkpoint_is_rejected_for_new_data(tmp_path: Path) -> None:
    write_graph_tables(tmp_path / "mine", by_node=False)
    run = run_of(tmp_path, CSVGraphs, path=str(tmp_path / "mine"))
    path = run / "checkpoints" / "best.ckpt"
    saved = torch.load(path, weights_only=True)
    newer = ("node_names", "node_categories", "edge_names", "edge_categories", "degree", "undirected", "answers")
    saved["hyper_parameters"]["schema"] = {
        name: value for name, value in saved["hyper_parameters"]["schema"].items() if name not in (*newer, "longest")
    }
    torch.save(saved, path)
    main([str(run)])
    assert len(pd.read_csv(run / "predictions-test.csv")) == 3
    with pytest.raises(UserError, match="train again"):
        main([str(run), f"data.path={tmp_path / 'mine'}"])


def test_unwritable_output_file_is_reported(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out FILE"):
        main([str(run), "--out", str(tmp_path / "file" / "mine.csv")])


@pytest.mark.parametrize(
    ("name", "is_trusted"),
    [
        ("gt.masks.Hops", True),
        ("torch.nn.LayerNorm", True),
        ("torch_geometric.nn.SAGEConv", True),
        ("pytorch_lightning.Trainer", True),
        ("os.system", False),
        ("gt.prediction.table.os.system", False),
        ("torch.nn.functional.importlib.import_module", False),
        ("gt.masks.by_head", True),
        ("torch_geometric.transforms.NormalizeFeatures", True),
        ("gt.train.construct.import_object", False),
        ("gt.data.files.write_metadata", False),
        ("torch_geometric.nn.Sequential", False),  # it generates Python code from its arguments
    ],
)
def test_names_are_trusted_by_their_defining_module(name: str, is_trusted: bool) -> None:
    assert trusted(name) is is_trusted

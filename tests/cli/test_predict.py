"""``python -m gt.predict``: arguments, output files, errors in one line, and which checkpoints are trusted."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from gt.cli.new_data import check_schema
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.text.classification import TextClassification
from gt.errors import UserError
from gt.predict import arguments, main
from gt.prediction.models import Answer
from gt.prediction.table import Columns
from gt.prediction.table import write as write_predictions
from gt.schema import UNLABELLED, Schema
from gt.train.trust import trusted
from tests.cli.prediction_runs import LABELS, molecule_run, write_graph_tables
from tests.data.ogb_files import write_molecules
from tests.runs import network, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return molecule_run(tmp_path)


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
    write_molecules(run.parent / "ogbg_moltox21", np.tile(LABELS, 4))
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
    run = write_run(tmp_path, TextClassification, net, path=str(tmp_path / "mine.tsv"))
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
    run = write_run(tmp_path, CSVGraphs, path=str(tmp_path / "mine"))
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

"""Predictions for new molecules: every row of a file, in order, read as the training data were."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gt.cli.explanation_page import molecule
from gt.errors import UserError
from gt.prediction.labels import atoms_of
from tests.runs import float_columns, network, predictions, write_run

pytest.importorskip("rdkit")
from gt.data.molecules.molecules import Molecules

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
SMILES = [f"{'C' * (n % 7 + 1)}{end}" for n in range(10) for end in ("O", "N", "Cl")]
SPLIT = ["train"] * 20 + ["valid"] * 5 + ["test"] * 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 30 molecules, each with a real-valued target."""
    folder = tmp_path_factory.mktemp("molecules")
    table = pd.DataFrame({"smiles": SMILES, "logS": np.arange(30) * 100.5, "split": SPLIT})
    table.to_csv(folder / "mine.csv", index=False)
    return write_run(folder, Molecules, path=str(folder / "mine.csv"), processes=1)


def test_rdkit_warnings_are_suppressed(capfd: Any) -> None:
    smiles = "[H+].CC"  # RDKit warns of a hydrogen without neighbours
    assert atoms_of(smiles) == ["H", "C", "C"]
    assert "<svg" in molecule(smiles, np.zeros(3))
    assert capfd.readouterr().err == ""


def write_csv(run: Path, text: str, name: str = "new.csv") -> str:
    path = run.parent / name
    path.write_text(text)
    return f"data.path={path}"


def test_new_file_of_test_rows_matches_split(run: Path, capsys: Any) -> None:
    split = predictions(run, "--split", "test")
    scores = re.findall(r"[\d.]+", capsys.readouterr().out.splitlines()[-1].partition(".csv")[2])
    pairs = zip(split["smiles"], split["target"], strict=True)
    rows = [f"n{n},{smiles},{value}" for n, (smiles, value) in enumerate(pairs)]
    table = predictions(run, write_csv(run, "\n".join(["id,smiles,logS", *rows[::-1]])))
    assert table.columns.tolist() == ["id", "smiles", "logS", "prediction"]
    assert table["id"].tolist() == ["n4", "n3", "n2", "n1", "n0"]
    np.testing.assert_allclose(float_columns(table, "prediction")[::-1], float_columns(split, "prediction"), **CLOSE)
    repeated = re.findall(r"[\d.]+", capsys.readouterr().out.partition(".csv")[2])
    assert scores
    np.testing.assert_allclose(np.array(repeated, float), np.array(scores, float), rtol=1e-6)


def test_every_row_is_kept_even_without_molecule(run: Path, capsys: Any) -> None:
    rows = ["CCO,a", "no molecule,b", ",c", "CCO,d", "CC,e,too many", f"{'C' * 300},f"]
    table = predictions(run, write_csv(run, "\n".join(["smiles,comment", *rows])))
    assert table["smiles"].tolist() == ["CCO", "no molecule", "", "CCO", "", "C" * 300]
    assert table["comment"].tolist() == ["a", "b", "c", "d", "", "f"]
    assert table["prediction"].astype(bool).tolist() == [True, False, False, True, False, True]
    assert table["prediction"][0] == table["prediction"][3]
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [1, 2, 4]
    lines = ("line 3", "line 4", "line 6")
    assert all(line in reason for line, reason in zip(lines, listed["reason"], strict=True))
    output = capsys.readouterr().out
    assert "3 rows of 6" in output
    assert "rmse" not in output


@pytest.mark.parametrize(("rows", "count"), [([], 0), (["CCO"], 1), (["not one"], 1)])
def test_files_with_zero_or_one_row(run: Path, rows: list[str], count: int) -> None:
    table = predictions(run, write_csv(run, "\n".join(["smiles", *rows]) + "\n"))
    assert table.columns.tolist() == ["smiles", "prediction"]
    assert table["prediction"].astype(bool).tolist() == [row == "CCO" for row in rows]
    assert len(table) == count


def test_molecule_column_may_have_another_name(run: Path) -> None:
    table = predictions(run, write_csv(run, "number,compound\n1,CCO\n2,CCN\n"))
    assert all(table["prediction"])
    assert table.equals(predictions(run, write_csv(run, "number,compound\n1,CCO\n2,CCN\n"), "data.smiles=compound"))
    with pytest.raises(UserError, match="'compond'"):
        predictions(run, write_csv(run, "compound\nCCO\n"), "data.smiles=compond")


def test_ensemble_with_different_molecule_columns(run: Path, tmp_path: Path) -> None:
    runs, each = {}, []
    for name in ("smiles", "compound"):
        (tmp_path / name).mkdir()
        data = pd.DataFrame({name: SMILES, "logS": np.arange(30) / 8, "split": SPLIT})
        data.to_csv(tmp_path / name / "mine.csv", index=False)
        options = {"path": str(tmp_path / name / "mine.csv"), "processes": 1}
        runs[name] = write_run(tmp_path / name, Molecules, network("encoding=[rwse]", "encoding.rwse.dim=4"), **options)
    for new in (["--split", "test"], [write_csv(run, "molecule\nCCO\nCCN\n")]):
        each = [float_columns(predictions(folder, *new), "prediction") for folder in runs.values()]
        table = predictions(runs["smiles"], str(runs["compound"]), *new)
        np.testing.assert_allclose(float_columns(table, "prediction"), np.mean(each, 0), **CLOSE)
    moved = predictions(runs["smiles"], f"data.path={tmp_path / 'compound' / 'mine.csv'}", "--split", "test")
    expected = predictions(runs["smiles"], "--split", "test")
    np.testing.assert_allclose(float_columns(moved, "prediction"), float_columns(expected, "prediction"), **CLOSE)


def test_predicted_file_can_be_predicted_again(run: Path) -> None:
    first = predictions(run, write_csv(run, "smiles\nCCO\n"))
    repeated = predictions(run, write_csv(run, first.to_csv(index=False)))
    assert repeated.columns.tolist() == ["smiles", "prediction of the file", "prediction"]
    assert repeated["prediction of the file"].tolist() == repeated["prediction"].tolist()


def test_read_only_root_and_no_files_left_behind(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path for path in run.parent.rglob("*") if "predicted" not in path.name}
    path = write_csv(run, "smiles\nCCO\n", "again.csv")
    (run.parent / "root").chmod(0o555)
    tmp_path.chmod(0o555)
    try:
        assert all(predictions(run, path)["prediction"])
    finally:
        (run.parent / "root").chmod(0o755)
        tmp_path.chmod(0o755)
    assert {path for path in run.parent.rglob("*") if "predicted" not in path.name} == before | {Path(path[10:])}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("no", "yes"), [("inactive", "active"), ("-1", "1"), ("0", "1")])
def test_labels_are_scored_by_training_classes(tmp_path: Path, no: str, yes: str, capsys: Any) -> None:
    data = pd.DataFrame({"smiles": SMILES, "label": [(no, yes)[n % 2] for n in range(30)], "split": SPLIT})
    data.to_csv(tmp_path / "mine.csv", index=False)
    run = write_run(tmp_path, Molecules, path=str(tmp_path / "mine.csv"), processes=1)
    predictions(run, "--split", "test")
    score = capsys.readouterr().out.splitlines()[-1].partition(".csv")[2]
    data[data["split"] == "test"].iloc[::-1].to_csv(tmp_path / "new.csv", index=False)
    predictions(run, f"data.path={tmp_path / 'new.csv'}")
    assert capsys.readouterr().out.splitlines()[-1].partition(".csv")[2] == score != ""


def test_classes_keep_their_names_in_partial_file(tmp_path: Path, capsys: Any) -> None:
    data = pd.DataFrame({"smiles": SMILES, "label": [("low", "mid", "high")[n % 3] for n in range(30)]})
    data.to_csv(tmp_path / "mine.csv", index=False)
    run = write_run(tmp_path, Molecules, path=str(tmp_path / "mine.csv"), processes=1, split="random")
    every = predictions(run, "--split", "all")
    data[data["label"] == "mid"].to_csv(tmp_path / "new.csv", index=False)
    table = predictions(run, f"data.path={tmp_path / 'new.csv'}")
    assert table["prediction"].tolist() == every[every["label"] == "mid"]["prediction"].tolist()
    accuracy = (table["prediction"] == "mid").mean()
    assert f"accuracy {accuracy:.4f}" in capsys.readouterr().out


def test_molecule_beyond_position_table_has_no_prediction(tmp_path: Path) -> None:
    pd.DataFrame({"smiles": SMILES, "y": np.arange(30) / 8, "split": SPLIT}).to_csv(tmp_path / "mine.csv", index=False)
    run = write_run(tmp_path, Molecules, network("encoding=learned"), path=str(tmp_path / "mine.csv"), processes=1)
    (tmp_path / "new.csv").write_text(f"smiles\nCCO\n{'C' * 300}\nCCN\n")
    table = predictions(run, f"data.path={tmp_path / 'new.csv'}")
    assert table["prediction"].astype(bool).tolist() == [True, False, True]
    assert pd.read_csv(tmp_path / "predicted.unreadable.csv")["row"].tolist() == [1]
    (tmp_path / "long.csv").write_text(f"smiles\n{'C' * 300}\n")
    assert predictions(run, f"data.path={tmp_path / 'long.csv'}")["prediction"].tolist() == [""]

"""New molecules: every row of a table is predicted as the model has learned to read such, in the order of the file."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gt.cli.explanation_page import molecule
from gt.errors import UserError
from gt.prediction.labels import atoms_of
from tests.runs import network, numbers, predictions, run_of

pytest.importorskip("rdkit")
from gt.data.molecules.molecules import Molecules

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
SMILES = [f"{'C' * (n % 7 + 1)}{end}" for n in range(10) for end in ("O", "N", "Cl")]
SPLIT = ["train"] * 20 + ["valid"] * 5 + ["test"] * 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 30 molecules with a number each."""
    folder = tmp_path_factory.mktemp("molecules")
    table = pd.DataFrame({"smiles": SMILES, "logS": np.arange(30) * 100.5, "split": SPLIT})
    table.to_csv(folder / "mine.csv", index=False)
    return run_of(folder, Molecules, path=str(folder / "mine.csv"), processes=1)


def test_rdkit_is_silent_about_a_molecule_whose_atoms_are_named_or_drawn(capfd: Any) -> None:
    odd = "[H+].CC"  # RDKit warns of a hydrogen that no atom holds
    assert atoms_of(odd) == ["H", "C", "C"]
    assert "<svg" in molecule(odd, np.zeros(3))
    assert capfd.readouterr().err == ""


def written(run: Path, text: str, name: str = "new.csv") -> str:
    path = run.parent / name
    path.write_text(text)
    return f"data.path={path}"


def test_a_fresh_file_of_the_test_rows_is_predicted_as_the_split_is(run: Path, capsys: Any) -> None:
    split = predictions(run, "--split", "test")
    scores = re.findall(r"[\d.]+", capsys.readouterr().out.splitlines()[-1].partition(".csv")[2])
    pairs = zip(split["smiles"], split["target"], strict=True)
    rows = [f"n{n},{smiles},{value}" for n, (smiles, value) in enumerate(pairs)]
    found = predictions(run, written(run, "\n".join(["id,smiles,logS", *rows[::-1]])))
    assert found.columns.tolist() == ["id", "smiles", "logS", "prediction"]
    assert found["id"].tolist() == ["n4", "n3", "n2", "n1", "n0"]
    np.testing.assert_allclose(numbers(found, "prediction")[::-1], numbers(split, "prediction"), **CLOSE)
    again = re.findall(r"[\d.]+", capsys.readouterr().out.partition(".csv")[2])
    assert scores
    np.testing.assert_allclose(np.array(again, float), np.array(scores, float), rtol=1e-6)


def test_every_row_without_labels_splits_or_even_a_molecule(run: Path, capsys: Any) -> None:
    rows = ["CCO,a", "no molecule,b", ",c", "CCO,d", "CC,e,too many", f"{'C' * 300},f"]
    found = predictions(run, written(run, "\n".join(["smiles,comment", *rows])))
    assert found["smiles"].tolist() == ["CCO", "no molecule", "", "CCO", "", "C" * 300]
    assert found["comment"].tolist() == ["a", "b", "c", "d", "", "f"]
    assert found["prediction"].astype(bool).tolist() == [True, False, False, True, False, True]
    assert found["prediction"][0] == found["prediction"][3]
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [1, 2, 4]
    lines = ("line 3", "line 4", "line 6")
    assert all(line in reason for line, reason in zip(lines, listed["reason"], strict=True))
    said = capsys.readouterr().out
    assert "3 rows of 6" in said
    assert "rmse" not in said


@pytest.mark.parametrize(("rows", "count"), [([], 0), (["CCO"], 1), (["not one"], 1)])
def test_files_of_no_row_and_of_one(run: Path, rows: list[str], count: int) -> None:
    found = predictions(run, written(run, "\n".join(["smiles", *rows]) + "\n"))
    assert found.columns.tolist() == ["smiles", "prediction"]
    assert found["prediction"].astype(bool).tolist() == [row == "CCO" for row in rows]
    assert len(found) == count


def test_the_column_of_molecules_may_have_another_name(run: Path) -> None:
    found = predictions(run, written(run, "number,compound\n1,CCO\n2,CCN\n"))
    assert all(found["prediction"])
    assert found.equals(predictions(run, written(run, "number,compound\n1,CCO\n2,CCN\n"), "data.smiles=compound"))
    with pytest.raises(UserError, match="'compond'"):
        predictions(run, written(run, "compound\nCCO\n"), "data.smiles=compond")


def test_an_ensemble_whose_files_named_the_molecules_differently(run: Path, tmp_path: Path) -> None:
    runs, each = {}, []
    for name in ("smiles", "compound"):
        (tmp_path / name).mkdir()
        table = pd.DataFrame({name: SMILES, "logS": np.arange(30) / 8, "split": SPLIT})
        table.to_csv(tmp_path / name / "mine.csv", index=False)
        options = {"path": str(tmp_path / name / "mine.csv"), "processes": 1}
        runs[name] = run_of(tmp_path / name, Molecules, network("encoding=[rwse]", "encoding.rwse.dim=4"), **options)
    for new in (["--split", "test"], [written(run, "molecule\nCCO\nCCN\n")]):
        each = [numbers(predictions(folder, *new), "prediction") for folder in runs.values()]
        found = predictions(runs["smiles"], str(runs["compound"]), *new)
        np.testing.assert_allclose(numbers(found, "prediction"), np.mean(each, 0), **CLOSE)
    moved = predictions(runs["smiles"], f"data.path={tmp_path / 'compound' / 'mine.csv'}", "--split", "test")
    expected = predictions(runs["smiles"], "--split", "test")
    np.testing.assert_allclose(numbers(moved, "prediction"), numbers(expected, "prediction"), **CLOSE)


def test_own_predictions_are_no_obstacle(run: Path) -> None:
    first = predictions(run, written(run, "smiles\nCCO\n"))
    again = predictions(run, written(run, first.to_csv(index=False)))
    assert again.columns.tolist() == ["smiles", "prediction of the file", "prediction"]
    assert again["prediction of the file"].tolist() == again["prediction"].tolist()


def test_a_read_only_root_and_nothing_is_left_behind(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    kept = {path for path in run.parent.rglob("*") if "predicted" not in path.name}
    path = written(run, "smiles\nCCO\n", "again.csv")
    (run.parent / "root").chmod(0o555)
    tmp_path.chmod(0o555)
    try:
        assert all(predictions(run, path)["prediction"])
    finally:
        (run.parent / "root").chmod(0o755)
        tmp_path.chmod(0o755)
    assert {path for path in run.parent.rglob("*") if "predicted" not in path.name} == kept | {Path(path[10:])}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("no", "yes"), [("inactive", "active"), ("-1", "1"), ("0", "1")])
def test_answers_are_scored_by_the_words_of_the_training(tmp_path: Path, no: str, yes: str, capsys: Any) -> None:
    table = pd.DataFrame({"smiles": SMILES, "label": [(no, yes)[n % 2] for n in range(30)], "split": SPLIT})
    table.to_csv(tmp_path / "mine.csv", index=False)
    run = run_of(tmp_path, Molecules, path=str(tmp_path / "mine.csv"), processes=1)
    predictions(run, "--split", "test")
    score = capsys.readouterr().out.splitlines()[-1].partition(".csv")[2]
    table[table["split"] == "test"].iloc[::-1].to_csv(tmp_path / "new.csv", index=False)
    predictions(run, f"data.path={tmp_path / 'new.csv'}")
    assert capsys.readouterr().out.splitlines()[-1].partition(".csv")[2] == score != ""


def test_classes_keep_their_names_where_a_file_has_some_of_them(tmp_path: Path, capsys: Any) -> None:
    table = pd.DataFrame({"smiles": SMILES, "label": [("low", "mid", "high")[n % 3] for n in range(30)]})
    table.to_csv(tmp_path / "mine.csv", index=False)
    run = run_of(tmp_path, Molecules, path=str(tmp_path / "mine.csv"), processes=1, split="random")
    every = predictions(run, "--split", "all")
    table[table["label"] == "mid"].to_csv(tmp_path / "new.csv", index=False)
    found = predictions(run, f"data.path={tmp_path / 'new.csv'}")
    assert found["prediction"].tolist() == every[every["label"] == "mid"]["prediction"].tolist()
    right = (found["prediction"] == "mid").mean()
    assert f"accuracy {right:.4f}" in capsys.readouterr().out


def test_a_molecule_beyond_a_table_of_positions_is_left_empty(tmp_path: Path) -> None:
    pd.DataFrame({"smiles": SMILES, "y": np.arange(30) / 8, "split": SPLIT}).to_csv(tmp_path / "mine.csv", index=False)
    run = run_of(tmp_path, Molecules, network("encoding=learned"), path=str(tmp_path / "mine.csv"), processes=1)
    (tmp_path / "new.csv").write_text(f"smiles\nCCO\n{'C' * 300}\nCCN\n")
    found = predictions(run, f"data.path={tmp_path / 'new.csv'}")
    assert found["prediction"].astype(bool).tolist() == [True, False, True]
    assert pd.read_csv(tmp_path / "predicted.unreadable.csv")["row"].tolist() == [1]
    (tmp_path / "long.csv").write_text(f"smiles\n{'C' * 300}\n")
    assert predictions(run, f"data.path={tmp_path / 'long.csv'}")["prediction"].tolist() == [""]

"""``python -m gt.report``: scores, differing settings and curves of several runs on one page."""

import json
import sys
from datetime import datetime
from pathlib import Path

import pytest

from gt import report as program
from gt.cli.comparison import curves, differences, page, scores
from gt.cli.run_list import Run
from gt.errors import UserError


def make_run(folder: Path, rate: str, score: float | None, mode: str = "max") -> Run:
    csv = folder / "csv" / "version_0" / "metrics.csv"
    csv.parent.mkdir(parents=True)
    csv.write_text("step,train/loss,valid/accuracy\n1,2.0,\n2,1.0,0.5\n")
    settings = {"optim.lr": rate, "seed": "0", "name": folder.name, "logger.csv.name": folder.name}
    result = (
        {}
        if score is None
        else {"criterion": "accuracy", "mode": mode, "scores": {"accuracy": score, "loss": 2 - score}}
    )
    return Run(folder, "finished" if result else "stopped", settings, result, datetime(2026, 1, 1))


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path / "a", "0.1", 0.5),
        make_run(tmp_path / "b", "0.2", 0.7),
        make_run(tmp_path / "<c>", "0.2", None),
    ]


def test_differences_exclude_equal_settings_and_run_names(runs):
    assert differences(runs) == {"optim.lr": ["0.1", "0.2", "0.2"]}
    assert differences(runs[1:]) == {}


def test_best_score_is_bold(runs):
    table = scores(runs, ["a", "b", "c"])
    assert "<b>0.7000</b>" in table
    assert "<b>1.3000</b>" in table  # the lowest loss
    assert table.count("<b>") == 2


def test_curves_have_one_panel_per_name(runs):
    figure = curves(runs, ["train/loss", "valid/loss", "valid/accuracy"])
    assert [axes.get_title() for axes in figure.axes] == ["train/loss", "valid/accuracy"]
    assert [len(axes.get_lines()) for axes in figure.axes] == [3, 3]
    lines = curves([runs[0]] * 12, ["train/loss"]).axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12
    assert curves(runs, ["valid/loss"]) is None


def test_page_names_runs_relative_to_their_common_folder(runs, tmp_path):
    text = page(runs, tmp_path)
    assert ">b</td>" in text
    assert "&lt;c&gt;" in text


def test_parent_folder_stands_for_all_its_runs(tmp_path, monkeypatch, capsys):
    for name, rate in (("x/0", 0.1), ("x/1", 0.2), ("y", 0.3)):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").write_text(json.dumps({"optim": {"lr": rate}}))
    out = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path / "x"), str(tmp_path / "y"), "--out", str(out)])
    program.main()
    assert f"3 runs: {out}" in capsys.readouterr().out
    assert ">x/1</td>" in out.read_text()
    monkeypatch.chdir(tmp_path)
    # a relative and an absolute path
    monkeypatch.setattr(sys, "argv", ["report", "x", str(tmp_path / "y"), "--out", str(out)])
    program.main()
    assert ">x/1</td>" in out.read_text()
    assert ">y</td>" in out.read_text()
    monkeypatch.setattr(sys, "argv", ["report", "y", "--out", str(out)])
    program.main()
    assert f"1 run: {out}" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path / "x" / "0" / ".hydra")])
    with pytest.raises(UserError, match="no run"):
        program.main()

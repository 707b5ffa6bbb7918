"""The arranged workspace and report are built without a network, of names that a run logs."""

import json
import re
import sys

import pandas as pd
import pytest
import wandb

from gt import dashboard
from gt.errors import UserError
from tests.small_runs import train, write_graphs


def names_in(value):
    """Every string in a JSON value."""
    if isinstance(value, dict):
        return {name for part in value.values() for name in names_in(part)}
    if isinstance(value, list):
        return {name for part in value for name in names_in(part)}
    return {value} if isinstance(value, str) else set()


def test_the_workspace_shows_what_is_logged(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dashboard", "--out", str(tmp_path / "w.json"), "--project", "mine"])
    dashboard.main()
    written = json.loads((tmp_path / "w.json").read_text())
    assert str(tmp_path / "w.json") in capsys.readouterr().out
    sections = written["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections][:5] == ["Result", "Training", "Attention", "Speed", "Pictures"]
    report = json.loads((tmp_path / "w-report.json").read_text())
    headings = [part["children"][0]["text"] for part in report["spec"]["blocks"] if part["type"] == "heading"]
    assert headings == ["Result", "Training", "Attention", "Speed", "Pictures"]
    grids = [part["metadata"]["panelBankSectionConfig"]["panels"] for part in report["spec"]["blocks"][1:]
             if part["type"] == "panel-grid"]  # fmt: skip
    told = ("train/", "valid/", "optim/", "attention/", "result/", "report/", "memory/")
    for grid, section in zip(grids, sections, strict=False):
        one, other = ({name for name in names_in(part) if name.startswith(told)} for part in (grid, section["panels"]))
        assert one == other != set()
    overrides = ["data=graph_files", "model=gps", "trainer.max_epochs=1"]
    train(tmp_path / "run", *write_graphs(tmp_path), *overrides)
    logged = set(pd.read_csv(next((tmp_path / "run").rglob("metrics.csv"))).columns)
    shown = {name for name in names_in(sections) if name.startswith(("train/", "valid/", "optim/", "data/", "memory/"))}
    assert len(shown) == 8
    assert shown <= logged
    patterns = [name for name in names_in(sections) if name.startswith("attention/")]
    looked = {name for name in logged if name.startswith("attention/")}
    assert all(any(re.fullmatch(pattern, name) for name in looked) for pattern in patterns)
    assert all(sum(bool(re.fullmatch(pattern, name)) for pattern in patterns) == 1 for name in looked)


def test_a_team_is_named_without_a_network(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["dashboard", "--out", str(tmp_path / "w.json"), "--entity", "mine"])
    dashboard.main()
    assert (tmp_path / "w-report.json").exists()


def test_an_upload_without_a_network_is_one_line(tmp_path, monkeypatch):
    def no_network():
        raise wandb.errors.AuthenticationError("nobody answers")

    monkeypatch.setattr(wandb, "Api", no_network)
    monkeypatch.setattr("gt.train.logging.online", lambda: True)
    for team in ([], ["--entity", "mine"]):
        monkeypatch.setattr(sys, "argv", ["dashboard", "--out", str(tmp_path / "w.json"), "--upload", *team])
        with pytest.raises(UserError, match=r"cannot be reached: nobody answers; without --upload"):
            dashboard.main()

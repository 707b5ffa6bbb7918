"""``python -m gt.dashboard``: workspace and report show what a run logs, and are built without network access."""

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


def test_workspace_and_report_show_logged_names(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dashboard", "--out", str(tmp_path / "w.json"), "--project", "mine"])
    dashboard.main()
    workspace = json.loads((tmp_path / "w.json").read_text())
    assert str(tmp_path / "w.json") in capsys.readouterr().out
    sections = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections][:5] == ["Result", "Training", "Attention", "Speed", "Pictures"]
    report = json.loads((tmp_path / "w-report.json").read_text())
    headings = [part["children"][0]["text"] for part in report["spec"]["blocks"] if part["type"] == "heading"]
    assert headings == ["Result", "Training", "Attention", "Speed", "Pictures"]
    grids = [part["metadata"]["panelBankSectionConfig"]["panels"] for part in report["spec"]["blocks"][1:]
             if part["type"] == "panel-grid"]  # fmt: skip
    prefixes = ("train/", "valid/", "optim/", "attention/", "result/", "report/", "memory/")
    for grid, section in zip(grids, sections, strict=False):
        ours, expected = (
            {name for name in names_in(part) if name.startswith(prefixes)} for part in (grid, section["panels"])
        )
        assert ours == expected != set()
    overrides = ["data=graph_files", "model=gps", "trainer.max_epochs=1"]
    train(tmp_path / "run", *write_graphs(tmp_path), *overrides)
    logged = set(pd.read_csv(next((tmp_path / "run").rglob("metrics.csv"))).columns)
    shown = {name for name in names_in(sections) if name.startswith(("train/", "valid/", "optim/", "data/", "memory/"))}
    assert len(shown) == 8
    assert shown <= logged
    patterns = [name for name in names_in(sections) if name.startswith("attention/")]
    attention_names = {name for name in logged if name.startswith("attention/")}
    assert all(any(re.fullmatch(pattern, name) for name in attention_names) for pattern in patterns)
    assert all(sum(bool(re.fullmatch(pattern, name)) for pattern in patterns) == 1 for name in attention_names)


def test_team_can_be_set_without_network_access(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["dashboard", "--out", str(tmp_path / "w.json"), "--entity", "mine"])
    dashboard.main()
    assert (tmp_path / "w-report.json").exists()


def test_upload_without_network_access_is_reported(tmp_path, monkeypatch):
    def no_network():
        raise wandb.errors.AuthenticationError("nobody answers")

    monkeypatch.setattr(wandb, "Api", no_network)
    monkeypatch.setattr("gt.train.logging.online", lambda: True)
    for team in ([], ["--entity", "mine"]):
        monkeypatch.setattr(sys, "argv", ["dashboard", "--out", str(tmp_path / "w.json"), "--upload", *team])
        with pytest.raises(UserError, match=r"cannot be reached: nobody answers; without --upload"):
            dashboard.main()

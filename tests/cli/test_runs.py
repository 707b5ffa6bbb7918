"""``python -m gt.runs``: the list of runs with settings and scores, filters, and deletion."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gt import runs as program
from gt.cli.new_data import run_config
from gt.cli.run_list import matching, runs_below
from gt.errors import UserError
from gt.train.job import locked


@pytest.fixture
def runs_folder(tmp_path):
    for name, rate, score in (("a", 0.001, 0.5), ("b", 0.01, 0.7), ("sweep/0", 0.001, None)):
        hydra = tmp_path / "runs" / name / ".hydra"
        hydra.mkdir(parents=True)
        (hydra / "config.yaml").write_text(
            yaml.safe_dump({"optim": {"lr": rate}, "data": {"batch_size": 8}, "seed": 0})
        )
        choices = {"data": "text", "model": "gps", "hydra/launcher": "basic"}
        (hydra / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))
        if score is not None:
            scores = {
                "split": "test" if name == "a" else "valid",
                "criterion": "accuracy",
                "mode": "max",
                "best_valid": score,
                "scores": {"accuracy": score},
            }
            (hydra.parent / "result.json").write_text(json.dumps(scores))
    return tmp_path / "runs"


def run_program(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["runs", *map(str, words)])
    program.main()


def matching_names(runs_folder, *filters):
    return {str(run.folder.relative_to(runs_folder)) for run in matching(list(runs_below(runs_folder)), filters)}


def test_runs_are_chosen_by_options_and_settings(runs_folder):
    assert matching_names(runs_folder) == {"a", "b", "sweep/0"}
    assert matching_names(runs_folder, "optim.lr=1e-3") == {"a", "sweep/0"}
    assert matching_names(runs_folder, "optim.lr=1e-3", "state=finished") == {"a"}
    assert matching_names(runs_folder, "model=g*") == {"a", "b", "sweep/0"}
    assert matching_names(runs_folder, "data=molecules") == set()
    with pytest.raises(UserError, match=r"optim\.lr"):
        matching(list(runs_below(runs_folder)), ["optim.rl=1"])


def test_run_killed_at_the_start_is_listed(runs_folder):
    (runs_folder / "b" / ".hydra" / "hydra.yaml").write_text("")
    (runs_folder / "sweep" / "0" / ".hydra" / "hydra.yaml").write_text("hydra:\n  runtime: {}\n")
    assert matching_names(runs_folder) == {"a", "b", "sweep/0"}
    assert matching_names(runs_folder, "model=gps") == {"a"}


def test_truncated_result_file_is_named(runs_folder):
    (runs_folder / "a" / "result.json").write_text('{"split": "te')
    with pytest.raises(UserError, match=r"a.result\.json is truncated or damaged: copy it again, or remove it"):
        matching_names(runs_folder)


def test_sort_by_score_lists_the_best_first(runs_folder, monkeypatch, capsys, tmp_path):
    run_program(monkeypatch, runs_folder, "--sort", "score", "--show", "optim.lr", "--csv", tmp_path / "runs.csv")
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["run", "b", "a", "sweep/0"]
    assert "0.01" in lines[1]
    header = lines[0].split(",")
    rows = {line.split(",")[0]: dict(zip(header, line.split(","), strict=True)) for line in lines[1:]}
    assert rows["a"]["test"] == rows["a"]["valid"] != ""
    assert (rows["b"]["valid"] != "", rows["b"]["test"]) == (True, "")  # its scores are of the validation split
    assert "3 runs" in capsys.readouterr().out


def test_undefined_scores_are_sorted_last(runs_folder, monkeypatch, tmp_path):
    for name, score in (("c", math.nan), ("d", 0.9)):
        shutil.copytree(runs_folder / "a", runs_folder / name)
        result = json.loads((runs_folder / "a" / "result.json").read_text()) | {"scores": {"accuracy": score}}
        (runs_folder / name / "result.json").write_text(json.dumps(result))
    for age, name in enumerate("bacd"):  # b, the newest, would be listed first, but is not the best
        os.utime(runs_folder / name / ".hydra" / "config.yaml", (1e9 - age, 1e9 - age))
    run_program(monkeypatch, runs_folder, "--sort", "score", "--csv", tmp_path / "runs.csv")
    listed = [line.split(",")[0] for line in (tmp_path / "runs.csv").read_text().splitlines()[1:]]
    assert listed[:3] == ["d", "b", "a"]


def test_only_listed_runs_are_deleted(runs_folder, monkeypatch, capsys):
    with pytest.raises(UserError, match="--delete"):
        run_program(monkeypatch, runs_folder, "--delete")
    run_program(monkeypatch, runs_folder, "state=stopped")
    assert matching_names(runs_folder) == {"a", "b", "sweep/0"}
    run_program(monkeypatch, runs_folder, "state=stopped", "--delete")
    assert matching_names(runs_folder) == {"a", "b"}
    run_program(monkeypatch, runs_folder, "optim.lr=5", "--delete")
    assert "no run" in capsys.readouterr().out
    assert matching_names(runs_folder) == {"a", "b"}


def test_filter_without_match_lists_available_values(runs_folder, monkeypatch, capsys):
    (runs_folder / "sweep" / "0" / "failure.json").write_text("{}")
    run_program(monkeypatch, runs_folder, "optim.lr=1e-3", "state=fail")
    assert (
        capsys.readouterr().out
        == f"no run below {runs_folder} matches optim.lr=1e-3 state=fail: state is failed, finished\n"
    )
    with pytest.raises(UserError, match=r"'optim\.rl': did you mean 'optim\.lr'"):
        run_program(monkeypatch, runs_folder, "--show", "optim.rl")


def test_pruned_trial_is_not_listed_as_stopped(runs_folder):
    (runs_folder / "sweep" / "0" / "pruned.json").write_text("{}")
    assert matching_names(runs_folder, "state=stopped") == set()
    assert matching_names(runs_folder, "state=pruned") == {"sweep/0"}


def test_running_run_is_not_deleted(runs_folder, monkeypatch):
    """In a child process, as record locks do not apply to the process that holds them."""
    with locked(runs_folder / "sweep" / "0"):
        command = [sys.executable, "-m", "gt.runs", str(runs_folder), "optim.lr=0.001", "--delete"]
        process = subprocess.run(
            command, cwd=Path(program.__file__).parents[1], capture_output=True, text=True, check=True
        )
    assert "running" in process.stdout
    assert matching_names(runs_folder) == {"b", "sweep/0"}


@pytest.mark.parametrize("content", ["", "optim:\n  lr: 1", "optim: [1,", "- 1"])
def test_truncated_configuration_is_named(content, runs_folder):
    (runs_folder / "a" / ".hydra" / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml is truncated or damaged: copy it again"):
        run_config(runs_folder / "a", [], trust=False)
    if content == "optim: [1,":
        with pytest.raises(UserError, match=r"config\.yaml is truncated or damaged: copy it again, or remove its run"):
            matching_names(runs_folder)

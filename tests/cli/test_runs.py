"""The list of runs: what each was and scored, which ones fit, and what is deleted."""

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
def folder(tmp_path):
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


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["runs", *map(str, words)])
    program.main()


def names(folder, *filters):
    return {str(run.folder.relative_to(folder)) for run in matching(list(runs_below(folder)), filters)}


def test_runs_are_chosen_by_options_and_settings(folder):
    assert names(folder) == {"a", "b", "sweep/0"}
    assert names(folder, "optim.lr=1e-3") == {"a", "sweep/0"}
    assert names(folder, "optim.lr=1e-3", "state=finished") == {"a"}
    assert names(folder, "model=g*") == {"a", "b", "sweep/0"}
    assert names(folder, "data=molecules") == set()
    with pytest.raises(UserError, match=r"optim\.lr"):
        matching(list(runs_below(folder)), ["optim.rl=1"])


def test_a_run_that_was_killed_as_it_began_is_listed_with_what_is_known(folder):
    (folder / "b" / ".hydra" / "hydra.yaml").write_text("")
    (folder / "sweep" / "0" / ".hydra" / "hydra.yaml").write_text("hydra:\n  runtime: {}\n")
    assert names(folder) == {"a", "b", "sweep/0"}
    assert names(folder, "model=gps") == {"a"}


def test_a_result_that_is_cut_off_is_named(folder):
    (folder / "a" / "result.json").write_text('{"split": "te')
    with pytest.raises(UserError, match=r"a.result\.json is truncated or damaged: copy it again, or remove it"):
        names(folder)


def test_the_best_come_first(folder, monkeypatch, capsys, tmp_path):
    run(monkeypatch, folder, "--sort", "score", "--show", "optim.lr", "--csv", tmp_path / "runs.csv")
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["run", "b", "a", "sweep/0"]
    assert "0.01" in lines[1]
    header = lines[0].split(",")
    of = {line.split(",")[0]: dict(zip(header, line.split(","), strict=True)) for line in lines[1:]}
    assert of["a"]["test"] == of["a"]["valid"] != ""
    assert (of["b"]["valid"] != "", of["b"]["test"]) == (True, "")  # its last scores are those of validation
    assert "3 runs" in capsys.readouterr().out


def test_an_undefined_score_hides_no_better_one(folder, monkeypatch, tmp_path):
    for name, score in (("c", math.nan), ("d", 0.9)):
        shutil.copytree(folder / "a", folder / name)
        result = json.loads((folder / "a" / "result.json").read_text()) | {"scores": {"accuracy": score}}
        (folder / name / "result.json").write_text(json.dumps(result))
    for place, name in enumerate("bacd"):  # the last of them is listed first, and is not the best
        os.utime(folder / name / ".hydra" / "config.yaml", (1e9 - place, 1e9 - place))
    run(monkeypatch, folder, "--sort", "score", "--csv", tmp_path / "runs.csv")
    found = [line.split(",")[0] for line in (tmp_path / "runs.csv").read_text().splitlines()[1:]]
    assert found[:3] == ["d", "b", "a"]


def test_only_what_was_listed_is_deleted(folder, monkeypatch, capsys):
    with pytest.raises(UserError, match="--delete"):
        run(monkeypatch, folder, "--delete")
    run(monkeypatch, folder, "state=stopped")
    assert names(folder) == {"a", "b", "sweep/0"}
    run(monkeypatch, folder, "state=stopped", "--delete")
    assert names(folder) == {"a", "b"}
    run(monkeypatch, folder, "optim.lr=5", "--delete")
    assert "no run" in capsys.readouterr().out
    assert names(folder) == {"a", "b"}


def test_what_no_run_has_is_said_with_what_there_is(folder, monkeypatch, capsys):
    (folder / "sweep" / "0" / "failure.json").write_text("{}")
    run(monkeypatch, folder, "optim.lr=1e-3", "state=fail")
    assert (
        capsys.readouterr().out
        == f"no run below {folder} matches optim.lr=1e-3 state=fail: state is failed, finished\n"
    )
    with pytest.raises(UserError, match=r"'optim\.rl': did you mean 'optim\.lr'"):
        run(monkeypatch, folder, "--show", "optim.rl")


def test_a_trial_that_was_given_up_is_not_one_that_was_stopped(folder):
    (folder / "sweep" / "0" / "pruned.json").write_text("{}")
    assert names(folder, "state=stopped") == set()
    assert names(folder, "state=pruned") == {"sweep/0"}


def test_a_run_at_work_is_left(folder, monkeypatch):
    """Record locks do not hold against their own process: a child looks."""
    with locked(folder / "sweep" / "0"):
        words = [sys.executable, "-m", "gt.runs", str(folder), "optim.lr=0.001", "--delete"]
        done = subprocess.run(words, cwd=Path(program.__file__).parents[1], capture_output=True, text=True, check=True)
    assert "running" in done.stdout
    assert names(folder) == {"b", "sweep/0"}


@pytest.mark.parametrize("kept", ["", "optim:\n  lr: 1", "optim: [1,", "- 1"])
def test_a_configuration_that_is_cut_off_is_named(kept, folder):
    (folder / "a" / ".hydra" / "config.yaml").write_text(kept)
    with pytest.raises(UserError, match=r"config\.yaml is truncated or damaged: copy it again"):
        run_config(folder / "a", [], trust=False)
    if kept == "optim: [1,":
        with pytest.raises(UserError, match=r"config\.yaml is truncated or damaged: copy it again, or remove its run"):
            names(folder)

"""A sweep goes on when a job of it fails, and ranks what finished however it ends."""

import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import gt.run
import train
from gt.errors import UserError
from gt.sweep import Ranking, failures, ranked, show


@pytest.fixture(autouse=True)
def own_logging():
    """Hydra gives the root logger handlers that print where this test's output goes."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def sweep(monkeypatch, folder: Path, *overrides: str) -> int:
    """The exit code of a sweep that runs in this process."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *overrides, f"hydra.sweep.dir={folder}"])
    GlobalHydra.instance().clear()
    threads = torch.get_num_threads()
    try:
        train.command()
    except SystemExit as end:
        return end.code
    finally:
        torch.set_num_threads(threads)
    return 0


def outcome(value: float) -> dict:
    scores = {"accuracy": value}
    return {"split": "test", "criterion": "accuracy", "mode": "max", "best_valid": value, "scores": scores,
            "baseline": scores, "overrides": [f"seed={value}", "encoding=[rwse]"]}  # fmt: skip


def test_the_jobs_after_one_that_diverges_run_and_it_is_ranked_as_failed(monkeypatch, tmp_path, capsys):
    (tmp_path / "input.txt").write_text("".join(f"{a} and {b} make {a + b};\n" for a in range(9) for b in range(9)))
    small = ("data=text", f"data.path={tmp_path}/input.txt", "data.context=8", "model.width=8", "model.depth=1",
             "model.block.attention.heads=1", "logger=csv", "trainer=cpu", "debug=smoke",
             "trainer.gradient_clip_val=null")  # fmt: skip
    code = sweep(monkeypatch, tmp_path / "sweep", *small, "optim.lr=1e-3,1e30,2e-3")
    assert code != 0
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert {result["job"] for result in ranked(tmp_path / "sweep")} == {"0", "2"}
    (failed,) = failures(tmp_path / "sweep")
    assert failed["job"] == "1"
    assert "optim.lr=1e+30" in failed["overrides"]
    assert "the loss is" in failed["reason"]
    kept = (tmp_path / "sweep" / "ranking.txt").read_text()
    for text in (said.out, kept):
        assert all(f"optim.lr={rate}" in text.replace("\n", "") for rate in ("0.001", "1e+30", "0.002"))
        assert "the loss is" in text
    assert said.err.splitlines()[-1].startswith("error: ")


@pytest.fixture
def jobs(monkeypatch):
    """Runs that train nothing: the job with seed n ends as the n-th of these says."""

    def install(*ends):
        def run(cfg):
            end = ends[cfg.seed]
            if isinstance(end, BaseException):
                raise end
            (Path(gt.run.HydraConfig.get().runtime.output_dir) / "result.json").write_text(json.dumps(outcome(end)))
            return end

        monkeypatch.setattr(gt.run, "run", run)

    return install


@pytest.mark.parametrize("end", [UserError("mend me"), OSError(28, "No space", "a.txt"), ZeroDivisionError("a bug")])
def test_whatever_a_job_raises_the_others_run(end, jobs, monkeypatch, tmp_path, capsys):
    jobs(0.1, end, 0.3)
    assert sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert [result["best_valid"] for result in ranked(tmp_path)] == [0.3, 0.1]
    assert [failed["job"] for failed in failures(tmp_path)] == ["1"]
    said = capsys.readouterr()
    assert "encoding=[rwse]" in said.out
    assert str(end.args[-1]) in said.err


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 130), (SystemExit(130), 130), (SystemExit(143), 143)])
def test_a_sweep_that_is_stopped_ranks_what_finished(end, code, jobs, monkeypatch, tmp_path, capsys):
    jobs(0.1, end, 0.3)
    assert sweep(monkeypatch, tmp_path, "seed=0,1,2") == code
    assert [result["best_valid"] for result in ranked(tmp_path)] == [0.1]
    assert "0.1000" in (tmp_path / "ranking.txt").read_text()
    assert "0.1000" in capsys.readouterr().out


def test_a_sweep_of_which_nothing_finishes_says_why(jobs, monkeypatch, tmp_path, capsys):
    jobs(UserError("this"), UserError("that"))
    assert sweep(monkeypatch, tmp_path, "seed=0,1") == 1
    kept = (tmp_path / "ranking.txt").read_text()
    assert "this" in kept
    assert "that" in kept


def test_a_sweep_without_a_failure_ends_with_0_and_forgets_an_earlier_one(jobs, monkeypatch, tmp_path):
    jobs(UserError("this"), 0.2)
    assert sweep(monkeypatch, tmp_path, "seed=0,1") == 1
    jobs(0.1, 0.2)
    assert sweep(monkeypatch, tmp_path, "seed=0,1") == 0
    assert failures(tmp_path) == []
    assert "this" not in (tmp_path / "ranking.txt").read_text()
    jobs(0.1, UserError("now the other"))
    assert sweep(monkeypatch, tmp_path, "seed=0,1") == 1
    assert [result["job"] for result in ranked(tmp_path)] == ["0"]


def test_a_failed_job_keeps_no_network_alive(jobs, monkeypatch, tmp_path):
    """Hydra holds on to each error until the sweep ends."""
    alive, counts = [], []

    class Network:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    def run(cfg):
        counts.append(len(alive))
        network = Network()
        raise UserError(f"{type(network).__name__} does not fit")

    monkeypatch.setattr(gt.run, "run", run)
    assert sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert counts == [0, 0, 0]


def test_a_job_that_failed_and_was_resumed_is_ranked(tmp_path):
    for job in "01":
        (tmp_path / job).mkdir()
        (tmp_path / job / "failure.json").write_text(json.dumps({"overrides": ["seed=1"], "reason": "disk full"}))
    (tmp_path / "1" / "result.json").write_text(json.dumps(outcome(0.5)))
    assert [failed["job"] for failed in show(tmp_path)] == ["0"]
    assert [result["job"] for result in ranked(tmp_path)] == ["1"]


def test_a_command_that_never_became_a_sweep_ranks_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Ranking, "folder", tmp_path)  # of a sweep before, in the same process
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text(json.dumps(outcome(0.5)))
    assert sweep(monkeypatch, tmp_path, "modle=gps") == 1
    assert capsys.readouterr().out == ""

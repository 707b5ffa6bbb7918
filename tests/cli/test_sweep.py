"""Sweeps: failed jobs do not stop the others, and the finished jobs are ranked however the sweep ends."""

import errno
import json
import math
import os
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import gt.train.run
import train
from gt.cli.settings import failures, job_results
from gt.cli.sweep import Ranking, show
from gt.errors import UserError
from tests.cli.sweeps import fake_result, restore_logging, run_sweep  # noqa: F401


def test_diverging_job_is_ranked_as_failed(monkeypatch, tmp_path, capsys):
    (tmp_path / "input.txt").write_text("".join(f"{a} and {b} make {a + b};\n" for a in range(9) for b in range(9)))
    small = ("data=text", f"data.path={tmp_path}/input.txt", "data.context=8", "model.width=8", "model.depth=1",
             "model.block.attention.heads=1", "logger=csv", "trainer=cpu", "debug=smoke",
             "trainer.gradient_clip_val=null")  # fmt: skip
    code = run_sweep(monkeypatch, tmp_path / "sweep", *small, "optim.lr=1e-3,1e30,2e-3")
    assert code != 0
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert {job["job"] for job in job_results(tmp_path / "sweep")} == {"0", "2"}
    (failed,) = failures(tmp_path / "sweep")
    assert failed["job"] == "1"
    assert "optim.lr=1e+30" in failed["overrides"]
    assert "the loss is" in failed["reason"]
    saved = (tmp_path / "sweep" / "ranking.txt").read_text()
    for text in (output.out, saved):
        assert all(f"optim.lr={rate}" in text.replace("\n", "") for rate in ("0.001", "1e+30", "0.002"))
        assert "the loss is" in text
    assert output.err.splitlines()[-1].startswith("error: ")


@pytest.fixture
def fake_jobs(monkeypatch):
    """Replace the runs by fake ones: the job with seed n returns or raises the n-th of the given outcomes."""

    def install(*ends):
        def run(cfg):
            end = ends[cfg.seed]
            if isinstance(end, BaseException):
                raise end
            (Path(gt.train.run.HydraConfig.get().runtime.output_dir) / "result.json").write_text(
                json.dumps(fake_result(end))
            )
            return end

        monkeypatch.setattr(gt.train.run, "run", run)

    return install


@pytest.mark.parametrize("end", [UserError("mend me"), OSError(28, "No space", "a.txt"), ZeroDivisionError("a bug")])
def test_errors_of_a_job_do_not_stop_the_others(end, fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(0.1, end, 0.3)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert [job["best_valid"] for job in job_results(tmp_path)] == [0.1, 0.3]
    assert [failed["job"] for failed in failures(tmp_path)] == ["1"]
    output = capsys.readouterr()
    assert "encoding=[rwse]" in output.out
    job_error, sweep_error = output.err.splitlines()  # and no message of Hydra's own
    assert all(line.startswith("error: ") for line in (job_error, sweep_error))
    assert str(end.args[-1]) in job_error


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 130), (SystemExit(130), 130), (SystemExit(143), 143)])
def test_stopped_sweep_ranks_its_finished_jobs(end, code, fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(0.1, end, 0.3)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2") == code
    assert [job["best_valid"] for job in job_results(tmp_path)] == [0.1]
    assert "0.1000" in (tmp_path / "ranking.txt").read_text()
    assert "0.1000" in capsys.readouterr().out


def test_ranking_without_finished_jobs_lists_the_reasons(fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(UserError("this"), UserError("that"))
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1") == 1
    ranking = (tmp_path / "ranking.txt").read_text()
    assert "this" in ranking
    assert "that" in ranking


def test_successful_resumption_clears_earlier_failures(fake_jobs, monkeypatch, tmp_path):
    fake_jobs(UserError("this"), 0.2)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1") == 1
    fake_jobs(0.1, 0.2)
    assert resume_sweep(monkeypatch, tmp_path) == 0
    assert failures(tmp_path) == []
    assert "this" not in (tmp_path / "ranking.txt").read_text()


def test_full_disk_keeps_the_previous_ranking(fake_jobs, monkeypatch, tmp_path):
    fake_jobs(0.1)
    assert run_sweep(monkeypatch, tmp_path, "seed=0") == 0
    (tmp_path / "ranking.txt").write_text("the one before")

    def raise_disk_full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", raise_disk_full)
    with pytest.raises(OSError, match="No space left") as error:
        show(tmp_path)
    assert error.value.filename == str(tmp_path / "ranking.txt")
    assert (tmp_path / "ranking.txt").read_text() == "the one before"


@pytest.mark.parametrize("other", [["seed=2"], ["sweep=optuna", "optim.lr=1,2"]])
def test_folder_of_another_sweep_is_rejected(other, fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(0.1, 0.2, 0.9)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1") == 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run_sweep(monkeypatch, tmp_path, *other) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path} already holds a sweep: continue it with python train.py -m resume={tmp_path}, or choose "
        "another hydra.sweep.dir\n"
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_failed_job_frees_its_network(fake_jobs, monkeypatch, tmp_path):
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

    monkeypatch.setattr(gt.train.run, "run", run)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert counts == [0, 0, 0]


def test_failed_job_that_later_finished_is_ranked(tmp_path):
    for job in "01":
        (tmp_path / job).mkdir()
        (tmp_path / job / "failure.json").write_text(json.dumps({"overrides": ["seed=1"], "reason": "disk full"}))
    (tmp_path / "1" / "result.json").write_text(json.dumps(fake_result(0.5)))
    assert [failed["job"] for failed in show(tmp_path)] == ["0"]
    assert [job["job"] for job in job_results(tmp_path)] == ["1"]


def test_rejected_command_ranks_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Ranking, "folder", tmp_path)  # of an earlier sweep in the same process
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text(json.dumps(fake_result(0.5)))
    assert run_sweep(monkeypatch, tmp_path, "modle=gps") == 1
    assert capsys.readouterr().out == ""


def resume_sweep(monkeypatch, folder: Path, *words: str) -> int:
    """Resume a sweep in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", f"resume={folder}", *words])
    GlobalHydra.instance().clear()
    try:
        train.command()
    except SystemExit as end:
        return end.code
    return 0


def test_resumed_sweep_runs_only_missing_jobs(fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(0.1, UserError("mend me"), KeyboardInterrupt(), 0.4)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2,3") == 130
    (tmp_path / "2" / "checkpoints").mkdir()
    (tmp_path / "2" / "checkpoints" / "last.ckpt").write_text("")
    started = []
    monkeypatch.setattr(gt.train.run, "run", lambda cfg: started.append((cfg.seed, cfg.resume)) or math.nan)
    assert resume_sweep(monkeypatch, tmp_path) == 0
    assert started == [(1, None), (2, str(tmp_path / "2")), (3, None)]
    fake_jobs(9.0, 0.2, 0.3, UserError("now this"))
    assert resume_sweep(monkeypatch, tmp_path) == 1
    assert [job["best_valid"] for job in job_results(tmp_path)] == [0.1, 0.2, 0.3]
    assert [failed["job"] for failed in failures(tmp_path)] == ["3"]
    capsys.readouterr()
    assert resume_sweep(monkeypatch, tmp_path, "optim.lr=1") == 1
    assert "optim.lr=1" in capsys.readouterr().err


def test_lost_process_fails_only_its_job(fake_jobs, monkeypatch, tmp_path):
    fake_jobs(0.1, SystemExit(1), 0.3)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert [failed["job"] for failed in failures(tmp_path)] == ["1"]
    assert [job["job"] for job in job_results(tmp_path)] == ["0", "2"]

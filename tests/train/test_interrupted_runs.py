"""Runs stopped by a signal or a crash at any moment: what is saved, and that resumed runs give the same results."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import gt.train.checkpoint_io
import gt.train.run
from gt.data.own.graph_files import GraphFiles
from gt.errors import UserError
from gt.train.interrupts import SIGNALS
from gt.train.task import Task
from tests.small_runs import TINY, train, write_graphs
from tests.train.signals import assert_same_run, short_report, signal_at_call, train_until_signal  # noqa: F401  a fixture

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    return write_graphs(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory) -> Path:
    """An uninterrupted run: five batches and a validation in each of two epochs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, *data)
    return folder


MOMENTS = {
    "the first batch": (Task, "training_step", 1),
    "the middle of an epoch": (Task, "training_step", 3),
    "the last batch of an epoch": (Task, "training_step", 5),
    "a validation": (Task, "validation_step", 2),
    "the end of a validation": (Task, "on_validation_epoch_end", 1),
    "the last batch of all": (Task, "training_step", 10),
    "the last validation": (Task, "validation_step", 4),
    "the end of the last validation": (Task, "on_validation_epoch_end", 2),
    "the test": (Task, "test_step", 1),
    "the report": (gt.train.run, "write_report", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_resumed_run_matches_uninterrupted_run(moment, uninterrupted, data, tmp_path, capfd):
    folder, signum = tmp_path / "run", SIGNALS[list(MOMENTS).index(moment) % len(SIGNALS)]
    train_until_signal(MOMENTS[moment], signum, folder, *data)
    assert not (folder / "report.html").exists()
    assert f"python train.py resume={folder}" in capfd.readouterr().out
    train(folder, *data, resume=True)
    assert_same_run(folder, uninterrupted)


SCONTROL = {"requeued": "#!/bin/sh\necho $@ > asked\n", "not requeued": "#!/bin/sh\necho no such job >&2\nexit 1\n"}


@pytest.mark.parametrize("case", SCONTROL)
def test_slurm_job_is_requeued_at_its_time_limit(case, data, tmp_path, monkeypatch, capfd):
    (tmp_path / "scontrol").write_text(SCONTROL[case])
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    train_until_signal((Task, "training_step", 3), signal.SIGTERM, tmp_path / "other", *data)
    assert not (tmp_path / "asked").exists()
    train_until_signal((Task, "training_step", 3), signal.SIGUSR1, tmp_path / "run", *data)
    if case == "requeued":
        assert (tmp_path / "asked").read_text() == "requeue 1234\n"
        assert "SLURM job 1234 is requeued" in capfd.readouterr().out
    else:
        assert "SLURM job 1234 is not requeued: no such job" in capfd.readouterr().out


def test_signal_before_first_checkpoint_offers_no_resume(data, tmp_path, capfd):
    train_until_signal((GraphFiles, "key", 1), signal.SIGTERM, tmp_path / "run", *data)
    assert "resume=" not in capfd.readouterr().out


OTHER_MOMENTS = {
    "validations within an epoch": (("trainer.val_check_interval=2",), (Task, "validation_step", 2)),
    "after one within an epoch": (("trainer.val_check_interval=2",), (Task, "on_validation_epoch_end", 1)),
    "the last step's validation": (
        ("trainer.max_steps=4", "trainer.val_check_interval=2"),
        (Task, "validation_step", 4),
    ),
    "the middle of a step": (("trainer.accumulate_grad_batches=2",), (Task, "training_step", 1)),
    "a validation in the last, short step": (("trainer.accumulate_grad_batches=2",), (Task, "validation_step", 1)),
    "the test after an early stop": (
        ("callbacks.early_stopping.patience=1", "optim.lr=1e-12", "trainer.max_epochs=4"),
        (Task, "test_step", 1),
    ),
    "a rate that falls on a plateau": (
        (
            *("optim/schedule=plateau", "optim.schedule.patience=0", "+optim.schedule.threshold=10"),
            *("trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=3"),
        ),
        (Task, "training_step", 8),
    ),
    "an epoch without validation": (("trainer.check_val_every_n_epoch=2",), (Task, "training_step", 5)),
}


@pytest.mark.parametrize("case", OTHER_MOMENTS)
def test_resuming_under_other_validation_schedules(case, data, tmp_path):
    options, moment = OTHER_MOMENTS[case]
    train(tmp_path / "whole", *data, *options)
    train_until_signal(moment, signal.SIGTERM, tmp_path / "run", *data, *options)
    train(tmp_path / "run", *data, *options, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_run_stopped_repeatedly(uninterrupted, data, tmp_path):
    folder, resume = tmp_path / "run", False
    for moment in ("the middle of an epoch", "a validation", "the first batch", "a validation", "the test"):
        with pytest.MonkeyPatch.context() as patch:
            owner, name, _ = MOMENTS[moment]
            signal_at_call(patch, owner, name, 1, signal.SIGINT)
            with pytest.raises(SystemExit):
                train(folder, *data, resume=resume)
        resume = True
    train(folder, *data, resume=True)
    assert_same_run(folder, uninterrupted)


def test_crash_keeps_the_last_epoch_whatever_its_score(data, tmp_path):
    options = (*data, "optim.lr=1e-12", "trainer.max_epochs=3")  # nothing improves after the first epoch
    train_until_crash(tmp_path / "run", 13, *options)
    assert saved_step(tmp_path / "run", "best") == 5
    assert saved_step(tmp_path / "run", "last") == 10


def test_crash_keeps_the_last_timed_checkpoint(data, tmp_path):
    train_until_crash(tmp_path / "run", 4, *data, "callbacks.last.minutes=0")
    assert saved_step(tmp_path / "run", "last") == 3
    assert saved_step(tmp_path / "run", "previous") == 2
    train_until_crash(tmp_path / "slow", 4, *data, "callbacks.last.minutes=1")
    assert not list((tmp_path / "slow").glob("checkpoints/*"))


def train_until_crash(folder: Path, call: int, *overrides: str) -> None:
    """Train until an error in the given training step, counted from 1."""
    original, calls = Task.training_step, []

    def training_step(*args):
        calls.append(args)
        if len(calls) == call:
            raise RuntimeError("a crash")
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "training_step", training_step)
        with pytest.raises(RuntimeError, match="a crash"):
            train(folder, *overrides)


def saved_step(folder: Path, name: str) -> int:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]


def test_copy_of_finished_run_refers_to_itself(uninterrupted, data, tmp_path, capsys):
    copy = tmp_path / "elsewhere"
    shutil.copytree(uninterrupted, copy)
    moved = uninterrupted.rename(uninterrupted.with_name("moved"))
    try:
        train(copy, *data, resume=True)
        out = capsys.readouterr().out
        assert str(copy / "checkpoints" / "best.ckpt") in out
        assert str(uninterrupted) not in out.replace(str(copy), "")
        assert json.loads((copy / "result.json").read_text())["checkpoint"] == "checkpoints/best.ckpt"
        assert_same_run(copy, moved)
    finally:
        moved.rename(uninterrupted)


def test_moved_run_is_resumed_in_its_new_folder(uninterrupted, data, tmp_path):
    train_until_signal(MOMENTS["the middle of an epoch"], signal.SIGTERM, tmp_path / "run", *data)
    (tmp_path / "run").rename(tmp_path / "moved")
    train(tmp_path / "moved", *data, resume=True)
    assert not (tmp_path / "run").exists()
    assert_same_run(tmp_path / "moved", uninterrupted)


def test_damaged_checkpoint_falls_back_to_the_previous(uninterrupted, data, tmp_path, capsys):
    folder = tmp_path / "run"
    train_until_signal((Task, "training_step", 8), signal.SIGTERM, folder, *data)
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-1000])
    capsys.readouterr()
    train(folder, *data, resume=True)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "last.ckpt is damaged" in line]
    assert "previous.ckpt" in line
    assert_same_run(folder, uninterrupted)


def test_second_signal_has_its_default_action(data, tmp_path, monkeypatch):
    sent = []

    def raise_signal(signum):
        sent.append((signum, signal.getsignal(signum)))
        raise RuntimeError("gone")

    monkeypatch.setattr(signal, "raise_signal", raise_signal)
    signal_at_call(monkeypatch, Task, "training_step", 2, signal.SIGTERM, times=2)
    with pytest.raises(SystemExit):
        train(tmp_path / "run", *data)
    assert sent == [(signal.SIGTERM, signal.SIG_DFL)]


def test_full_disk_on_signal_is_reported(data, tmp_path, capfd):
    def write(*args):
        raise UserError("checkpoints/last.ckpt cannot be written: No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gt.train.checkpoint_io, "write", write)
        train_until_signal((Task, "training_step", 2), signal.SIGTERM, tmp_path / "run", *data)
    captured = capfd.readouterr()
    assert "error: checkpoints/last.ckpt cannot be written" in captured.err
    assert "resume=" not in captured.out


def test_data_worker_survives_the_signal_until_the_run_ends(data, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), *TINY, *data, "data.workers=1", f"hydra.run.dir={folder}"]
    process = subprocess.Popen(
        [*command, "trainer.max_epochs=100000", "callbacks.early_stopping=null"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    last = folder / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 100
    while not last.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"resume={folder}" in out


def test_signal_handlers_are_restored(uninterrupted):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_signals_at_random_moments(tmp_path):
    command = [sys.executable, "-m", "tests.random_signals", str(tmp_path), "30", "0"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

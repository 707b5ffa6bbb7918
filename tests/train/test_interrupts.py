"""A signal at any moment: the run ends, says how to go on, and goes on to the numbers of one that was never stopped."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import gt.train.checkpoint_io
import gt.train.interrupts
import gt.train.run
from gt.data.own.graph_files import GraphFiles
from gt.errors import UserError
from gt.train.interrupts import SAME_SIGNAL, SIGNALS, Interrupted, interrupts, resumable
from gt.train.report import history
from gt.train.task import Task
from tests.small_runs import TINY, train, weights, write_graphs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    return write_graphs(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(autouse=True, scope="module")
def short_report():
    """Pictures take longer than these runs."""

    def write(folder, *rest):
        (folder / "report.html").write_text("")
        return folder / "report.html"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gt.train.run, "write_report", write)
        yield


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that was never stopped: five batches and a validation in each of two epochs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, *data)
    return folder


def signals_at(patch, owner, name: str, call: int, signum: int, times: int = 1) -> None:
    """Send a signal to this process in the given call (from 1) of a function."""
    before, calls = getattr(owner, name), []

    def function(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            for number in range(times):
                time.sleep(number * 1.2 * SAME_SIGNAL)
                os.kill(os.getpid(), signum)
        return before(*args, **kwargs)

    patch.setattr(owner, name, function)


def stopped(moment, signum: int, folder: Path, *overrides: str) -> None:
    """Train until the signal comes."""
    with pytest.MonkeyPatch.context() as patch:
        signals_at(patch, *moment, signum)
        with pytest.raises(SystemExit) as stop:
            train(folder, *overrides)
    assert stop.value.code == 128 + signum


def same_run(folder: Path, whole: Path) -> None:
    """Weights, the choice of the best and every number are those of the other run, bit by bit."""
    for name in ("last", "best"):
        one, other = weights(folder, name), weights(whole, name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]), key
    results = [json.loads((each / "result.json").read_text()) for each in (folder, whole)]
    assert results[0]["scores"] == results[1]["scores"]
    assert results[0]["best_valid"] == results[1]["best_valid"]
    for loss in ("valid/loss", "train/loss"):
        curves = [history(each)[["step", loss]].dropna() for each in (folder, whole)]
        assert curves[0].to_numpy().tolist() == curves[1].to_numpy().tolist(), loss


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
def test_a_run_stopped_at_any_moment_goes_on_to_the_same_numbers(moment, whole, data, tmp_path, capfd):
    folder, signum = tmp_path / "run", SIGNALS[list(MOMENTS).index(moment) % len(SIGNALS)]
    stopped(MOMENTS[moment], signum, folder, *data)
    assert not (folder / "report.html").exists()
    assert f"python train.py resume={folder}" in capfd.readouterr().out
    train(folder, *data, resume=True)
    same_run(folder, whole)


SCONTROL = {"it says so": "#!/bin/sh\necho $@ > asked\n", "why not": "#!/bin/sh\necho no such job >&2\nexit 1\n"}


@pytest.mark.parametrize("case", SCONTROL)
def test_slurm_is_told_to_queue_a_job_again_whose_time_is_over(case, data, tmp_path, monkeypatch, capfd):
    (tmp_path / "scontrol").write_text(SCONTROL[case])
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    stopped((Task, "training_step", 3), signal.SIGTERM, tmp_path / "other", *data)
    assert not (tmp_path / "asked").exists()
    stopped((Task, "training_step", 3), signal.SIGUSR1, tmp_path / "run", *data)
    if case == "it says so":
        assert (tmp_path / "asked").read_text() == "requeue 1234\n"
        assert "SLURM job 1234 is requeued" in capfd.readouterr().out
    else:
        assert "SLURM job 1234 is not requeued: no such job" in capfd.readouterr().out


def test_before_there_is_any_state_a_signal_leaves_nothing_to_go_on_from(data, tmp_path, capfd):
    stopped((GraphFiles, "key", 1), signal.SIGTERM, tmp_path / "run", *data)
    assert "resume=" not in capfd.readouterr().out


OTHER = {
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


@pytest.mark.parametrize("case", OTHER)
def test_other_ways_to_validate_and_to_stop(case, data, tmp_path):
    options, moment = OTHER[case]
    train(tmp_path / "whole", *data, *options)
    stopped(moment, signal.SIGTERM, tmp_path / "run", *data, *options)
    train(tmp_path / "run", *data, *options, resume=True)
    same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_may_be_stopped_again_and_again(whole, data, tmp_path):
    folder, resume = tmp_path / "run", False
    for moment in ("the middle of an epoch", "a validation", "the first batch", "a validation", "the test"):
        with pytest.MonkeyPatch.context() as patch:
            owner, name, _ = MOMENTS[moment]
            signals_at(patch, owner, name, 1, signal.SIGINT)
            with pytest.raises(SystemExit):
                train(folder, *data, resume=resume)
        resume = True
    train(folder, *data, resume=True)
    same_run(folder, whole)


def test_a_crash_loses_what_came_after_the_last_epoch_whatever_its_score(data, tmp_path):
    options = (*data, "optim.lr=1e-12", "trainer.max_epochs=3")  # nothing improves after the first
    crashed(tmp_path / "run", 13, *options)
    assert step(tmp_path / "run", "best") == 5
    assert step(tmp_path / "run", "last") == 10


def test_a_crash_within_an_epoch_loses_what_came_after_the_last_save_by_time(data, tmp_path):
    crashed(tmp_path / "run", 4, *data, "callbacks.last.minutes=0")
    assert step(tmp_path / "run", "last") == 3
    assert step(tmp_path / "run", "previous") == 2
    crashed(tmp_path / "slow", 4, *data, "callbacks.last.minutes=1")
    assert not list((tmp_path / "slow").glob("checkpoints/*"))


def crashed(folder: Path, call: int, *overrides: str) -> None:
    """Train until an error in the given training step."""
    before, calls = Task.training_step, []

    def training_step(*args):
        calls.append(args)
        if len(calls) == call:
            raise RuntimeError("a crash")
        return before(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "training_step", training_step)
        with pytest.raises(RuntimeError, match="a crash"):
            train(folder, *overrides)


def step(folder: Path, name: str) -> int:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]


def test_a_finished_run_that_was_copied_is_the_copy(whole, data, tmp_path, capsys):
    copy = tmp_path / "elsewhere"
    shutil.copytree(whole, copy)
    kept = whole.rename(whole.with_name("moved"))
    try:
        train(copy, *data, resume=True)
        out = capsys.readouterr().out
        assert str(copy / "checkpoints" / "best.ckpt") in out
        assert str(whole) not in out.replace(str(copy), "")
        assert json.loads((copy / "result.json").read_text())["checkpoint"] == "checkpoints/best.ckpt"
        same_run(copy, kept)
    finally:
        kept.rename(whole)


def test_a_copy_trains_on_without_the_original(whole, data, tmp_path):
    stopped(MOMENTS["the middle of an epoch"], signal.SIGTERM, tmp_path / "run", *data)
    (tmp_path / "run").rename(tmp_path / "moved")
    train(tmp_path / "moved", *data, resume=True)
    assert not (tmp_path / "run").exists()
    same_run(tmp_path / "moved", whole)


def test_a_damaged_state_is_said_and_the_one_before_is_taken(whole, data, tmp_path, capsys):
    folder = tmp_path / "run"
    stopped((Task, "training_step", 8), signal.SIGTERM, folder, *data)
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-1000])
    capsys.readouterr()
    train(folder, *data, resume=True)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "last.ckpt is damaged" in line]
    assert "previous.ckpt" in line
    same_run(folder, whole)


def test_a_second_signal_is_the_systems_own(data, tmp_path, monkeypatch):
    sent = []

    def raise_signal(signum):
        sent.append((signum, signal.getsignal(signum)))
        raise RuntimeError("gone")

    monkeypatch.setattr(signal, "raise_signal", raise_signal)
    signals_at(monkeypatch, Task, "training_step", 2, signal.SIGTERM, times=2)
    with pytest.raises(SystemExit):
        train(tmp_path / "run", *data)
    assert sent == [(signal.SIGTERM, signal.SIG_DFL)]


def test_a_disk_that_is_full_when_a_signal_comes_is_said(data, tmp_path, capfd):
    def write(*args):
        raise UserError("checkpoints/last.ckpt cannot be written: No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gt.train.checkpoint_io, "write", write)
        stopped((Task, "training_step", 2), signal.SIGTERM, tmp_path / "run", *data)
    said = capfd.readouterr()
    assert "error: checkpoints/last.ckpt cannot be written" in said.err
    assert "resume=" not in said.out


def test_a_process_that_makes_batches_outlives_the_signal_and_ends_with_the_run(data, tmp_path):
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


WAITS = """
from contextlib import nullcontext
from datetime import timedelta
from torch.distributed import TCPStore
from gt.train import interrupts
interrupts.UNHEARD = 0.2
with interrupts.interrupts.watched(), {}:
    print("waits", flush=True)
    TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=60))  # lets no handler run
"""


def test_who_asks_one_process_twice_within_a_long_computation_hears_nothing_of_others():
    long = WAITS.replace('TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=60))', "long()").format("nullcontext()")
    code = "import numpy\n\n\ndef long():\n    numpy.linalg.eigvals(numpy.random.rand(3000, 3000))\n\n\n" + long
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        try:
            assert process.stdout.readline() == "waits\n"
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            time.sleep(1.5 * SAME_SIGNAL)
            process.send_signal(signal.SIGINT)
            assert process.wait(15) == 130
        finally:
            process.kill()
        assert process.stderr.read() == "stopped by SIGINT, asked twice\n"


@pytest.mark.parametrize(
    ("joining", "signum"),
    [
        pytest.param(joining, signum, marks=[] if joining == (place == 0) else pytest.mark.slow)
        for joining in (True, False)
        for place, signum in enumerate(SIGNALS)
    ],
)
def test_a_process_that_waits_for_others_ends_by_a_signal_or_a_second_one(joining, signum):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    where = "interrupts.interrupts.joining()" if joining else "nullcontext()"
    with subprocess.Popen([sys.executable, "-c", WAITS.format(where)], cwd=ROOT, **pipes) as process:
        try:
            assert process.stdout.readline() == "waits\n"
            time.sleep(0.5)
            process.send_signal(signum)
            if not joining:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(1)
                process.send_signal(signum)
            assert process.wait(15) == 128 + signum
        finally:
            process.kill()
        when = "while other processes of this run had yet to join" if joining else "asked twice"
        assert f"stopped by {signum.name}, {when}\n" in process.stderr.read()


BUSY = """
import hashlib
import time
from gt.train import interrupts
interrupts.UNHEARD = 0.2
with interrupts.interrupts.watched():
    interrupts.interrupts.hold()
    print("works", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", {})  # as a long step does, it lets no handler run
    while interrupts.interrupts.pending is None:
        pass
    time.sleep(0.3)
print("saved", flush=True)
"""


@pytest.mark.parametrize(
    ("rounds", "other"), [(1, signal.SIGINT), pytest.param(4_000_000, signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_signals_that_come_together_are_one(rounds, other):
    """As where a terminal sends one to torchrun and to what it has started, to which torchrun passes it on."""
    pipes = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", BUSY.format(rounds)], cwd=ROOT, **pipes) as process:
        try:
            assert process.stdout.readline() == "works\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
            process.send_signal(other)
            out, _ = process.communicate(timeout=15)
        finally:
            process.kill()
    assert (out, process.returncode) == ("saved\n", 0)


def lasting(begun: Any) -> None:
    begun.set()
    time.sleep(60)


def test_a_signal_that_a_forked_process_gets_is_not_heard_by_this_one(monkeypatch):
    monkeypatch.setattr(gt.train.interrupts, "UNHANDLED_AFTER", 0.1)
    context = multiprocessing.get_context("fork")
    with interrupts.watched(), interrupts.joining():
        begun = context.Event()
        forked = context.Process(target=lasting, args=(begun,))
        forked.start()
        assert begun.wait(30)
        for _ in range(3):
            os.kill(forked.pid, signal.SIGTERM)
        time.sleep(0.5)
        assert interrupts.pending is None
        forked.kill()
        forked.join()
    assert signal.set_wakeup_fd(-1) == -1


def test_a_process_that_was_not_asked_itself_stops_with_the_others(tmp_path):
    with pytest.raises(SystemExit) as stop, resumable(tmp_path):
        raise Interrupted(signal.SIGTERM)
    assert stop.value.code == 143


def test_handlers_are_given_back(whole):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_thirty_random_moments(tmp_path):
    command = [sys.executable, "-m", "tests.random_signals", str(tmp_path), "30", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

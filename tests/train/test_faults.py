"""Faults injected one by one into runs of the command: each ends soon and as documented, and loses no finished work."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gt.train.checkpoint_files import newest, read
from tests.random_signals import differences
from tests.small_runs import TINY, write_graphs
from tests.train.test_checkpoint_files import flip_bits

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="injects faults specific to Linux")]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
# five batches in each of three epochs, each saved; more state to keep: an average of the weights, a mask schedule
OPTIONS = (*TINY, "trainer.max_epochs=3", "callbacks=[default,ema]", "callbacks.last.minutes=0",
           "mask.schedule=[1,2,null]", "model.block.dropout=0.1")  # fmt: skip
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=4")
STEPS_BEFORE = 7  # steps before a fault of tests/faulty.py
TIME_LIMIT = 30.0  # seconds from a fault to the end


def truncate(*names: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for name in names:
            path = folder / "run" / "checkpoints" / f"{name}.ckpt"
            path.write_bytes(path.read_bytes()[:-1000])

    return apply


def flip_checkpoint(folder: Path) -> None:
    flip_bits(folder / "run" / "checkpoints" / "last.ckpt", 64)


def hide_data(folder: Path) -> None:
    (folder / "graphs.jsonl").rename(folder / "hidden")
    shutil.rmtree(folder / "stores")


def restore_data(folder: Path) -> None:
    (folder / "hidden").rename(folder / "graphs.jsonl")


def flip_store(folder: Path) -> None:
    flip_bits(next(folder.glob("stores/*/*.npy")), 64)


def make_writable(folder: Path) -> None:
    (folder / "run" / "checkpoints").chmod(0o755)


@dataclass
class Fault:
    """A fault and its expected outcome.

    Attributes:
        injected: a fault of tests/faulty.py in the eighth batch, with its options.
        code: the exit code, or minus the signal that killed the run.
        message: pattern of the one line about the error or the stop.
        options: overrides of the run.
        afterwards: changes files of the stopped run before it is resumed.
        warning: pattern in the output when resumed.
        refusal: pattern of the one-line error when resumed, until repaired.
        repair: makes resuming possible again.
    """

    injected: str = "Signal callbacks.fault.name=SIGTERM"
    code: int = 143
    message: str = "stopped by SIGTERM; resume with: python train.py resume="
    options: tuple[str, ...] = ()
    afterwards: Callable[[Path], None] | None = None
    warning: str = ""
    refusal: str = ""
    repair: Callable[[Path], None] | None = None


FAULTS = {
    "SIGTERM": Fault(),
    "SIGINT": Fault("Signal callbacks.fault.name=SIGINT", 130, "stopped by SIGINT; resume with"),
    "SIGUSR1": Fault("Signal callbacks.fault.name=SIGUSR1", 138, "stopped by SIGUSR1; resume with"),
    "SIGKILL": Fault("Signal callbacks.fault.name=SIGKILL", -signal.SIGKILL, ""),
    "SIGKILL amid a checkpoint": Fault("KilledWriting", -signal.SIGKILL, ""),
    "full disk": Fault("FullDisk", 1, "checkpoints/last.ckpt cannot be written: File too large"),
    "read-only folder": Fault("ReadOnly", 1, "last.ckpt cannot be written: Permission denied", repair=make_writable),
    "torn checkpoint": Fault(afterwards=truncate("last"), warning="last.ckpt is damaged or truncated"),
    "flipped bit": Fault(afterwards=flip_checkpoint, warning="resuming from previous.ckpt, the one before"),
    "two torn checkpoints": Fault(
        afterwards=truncate("last", "previous"), warning="resuming from best.ckpt, the one before"
    ),
    "no whole checkpoint": Fault(
        afterwards=truncate("last", "previous", "best"),
        refusal="last.ckpt is damaged or truncated: .* no other checkpoint",
    ),
    "killed worker": Fault("KilledWorker", 1, "a data loading worker", ("data.workers=2",)),
    "killed rank": Fault("KilledRank", 1, "process 1 of 2 was killed by SIGKILL", TWO),
    "raising rank": Fault("RaisingRank", 1, "a bug on one process", TWO),
    "loss that is no number": Fault("NotANumber", 1, r"first in blocks.0.attention.project_out \(Linear\)"),
    "exploding loss": Fault("Explodes", 1, r"of head.mlp.4 \(Linear\)", ("optim.loss_limit=1e6",)),
    "out of memory": Fault("Memory", 1, r"out of memory in training .* lower data.batch_size \(now 8\)"),
    "missing data": Fault(afterwards=hide_data, refusal="graphs.jsonl", repair=restore_data),
    "damaged store": Fault(afterwards=flip_store, warning="is damaged .* building it again"),
}


def train(folder: Path, *overrides: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *overrides], cwd=folder, env=ENVIRONMENT | (environment or {}),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def start_run(folder: Path, *options: str, **kwargs) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "faulty.py", folder)
    return train(folder, *OPTIONS, *write_graphs(folder), *options, "hydra.run.dir=run", **kwargs)


@pytest.fixture(scope="module")
def fault_free(tmp_path_factory):
    """Trains a run without a fault for some further options, once; returns its folder."""
    runs: dict[tuple[str, ...], Path] = {}

    def run(options: tuple[str, ...]) -> Path:
        if options not in runs:
            folder = tmp_path_factory.mktemp("whole")
            result = start_run(folder, *options)
            assert result.returncode == 0, result.stderr
            runs[options] = folder / "run"
        return runs[options]

    return run


def assert_ended(result: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    """Check the exit code and the message; an error is reported in one line and no other."""
    output = result.stdout + result.stderr
    assert result.returncode == code, output
    assert re.search(message, output), output
    errors = [line for line in result.stderr.splitlines() if line and not line.startswith("stopping after this batch")]
    assert [line[:7] for line in errors] == ["error: "] * (code == 1), output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", FAULTS)
def test_fault_loses_no_finished_work(name, fault_free, tmp_path):
    fault = FAULTS[name]
    target, *options = fault.injected.split()
    stopped = start_run(tmp_path, *fault.options, f"callbacks.fault._target_=faulty.{target}", *options)
    assert time.time() - float((tmp_path / "met").read_text()) < TIME_LIMIT
    assert_ended(stopped, fault.code, fault.message)
    if fault.code == 1:
        assert "resume with: python train.py resume=" in stopped.stdout + stopped.stderr
    if fault.repair is make_writable:
        make_writable(tmp_path)
    saved = read(newest(tmp_path / "run" / "checkpoints"))
    assert saved["global_step"] in (STEPS_BEFORE, STEPS_BEFORE + 1)
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    if fault.afterwards:
        fault.afterwards(tmp_path)
    if fault.refusal:
        assert_ended(train(tmp_path, "resume=run"), 1, fault.refusal)
        if fault.repair is None:
            return
        fault.repair(tmp_path)
    resumed = train(tmp_path, "resume=run")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert re.search(fault.warning, resumed.stdout), resumed.stdout
    assert differences(tmp_path / "run", fault_free(fault.options)) == []
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_run_is_logged_offline_without_wandb(tmp_path):
    unreachable = {"WANDB_MODE": "online", "WANDB_API_KEY": 40 * "0", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    result = start_run(tmp_path, "logger=default", environment=unreachable)
    assert result.returncode == 0, result.stderr
    assert "W&B cannot be reached, the run is logged offline" in result.stdout
    assert "upload with wandb sync" in result.stdout


def test_run_resumes_after_full_disk_is_enlarged(fault_free, tmp_path):
    """The run has its own filesystem, which holds its first checkpoints and no more, and is then enlarged."""
    disk = tmp_path / "run"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this test mounts a small filesystem, which takes root")
    try:
        assert_ended(start_run(tmp_path), 1, "No space left on device")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        resumed = train(tmp_path, "resume=run")
        assert resumed.returncode == 0, resumed.stdout + resumed.stderr
        assert differences(disk, fault_free(())) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_file_in_place_of_run_folder_is_reported(tmp_path):
    (tmp_path / "run").write_text("a file")
    assert_ended(start_run(tmp_path), 1, "run")

"""Faults injected one by one into runs of the command: each ends as promised, soon, and nothing finished is lost."""

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

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="injects faults as Linux has them")]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
# five batches in each of three epochs, each saved; what else is kept from step to step: an average, a mask that changes
OPTIONS = (*TINY, "trainer.max_epochs=3", "callbacks=[default,ema]", "callbacks.last.minutes=0",
           "mask.schedule=[1,2,null]", "model.block.dropout=0.1")  # fmt: skip
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=4")
DONE = 7  # steps before a fault of tests/faulty.py
SOON = 30.0  # seconds from a fault to the end


def tear(*names: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        for name in names:
            path = folder / "run" / "checkpoints" / f"{name}.ckpt"
            path.write_bytes(path.read_bytes()[:-1000])

    return act


def flip_checkpoint(folder: Path) -> None:
    flip_bits(folder / "run" / "checkpoints" / "last.ckpt", 64)


def hide(folder: Path) -> None:
    (folder / "graphs.jsonl").rename(folder / "hidden")
    shutil.rmtree(folder / "stores")


def unhide(folder: Path) -> None:
    (folder / "hidden").rename(folder / "graphs.jsonl")


def flip_store(folder: Path) -> None:
    flip_bits(next(folder.glob("stores/*/*.npy")), 64)


def writable(folder: Path) -> None:
    (folder / "run" / "checkpoints").chmod(0o755)


@dataclass
class Fault:
    """What happens to a run, and what it comes to.

    Attributes:
        happens: a fault of tests/faulty.py in its eighth batch, with its options.
        code: the exit code then, or minus the signal that killed it.
        says: in the one line of the error, or of the stop.
        options: of the run.
        later: what happens to the files of a run that was stopped, before it goes on.
        warns: what it says when it goes on.
        refuses: what it says instead of going on, in one line of an error, until it is mended.
        mends: what makes it go on.
    """

    happens: str = "Signal callbacks.fault.name=SIGTERM"
    code: int = 143
    says: str = "stopped by SIGTERM; resume with: python train.py resume="
    options: tuple[str, ...] = ()
    later: Callable[[Path], None] | None = None
    warns: str = ""
    refuses: str = ""
    mends: Callable[[Path], None] | None = None


FAULTS = {
    "SIGTERM": Fault(),
    "SIGINT": Fault("Signal callbacks.fault.name=SIGINT", 130, "stopped by SIGINT; resume with"),
    "SIGUSR1": Fault("Signal callbacks.fault.name=SIGUSR1", 138, "stopped by SIGUSR1; resume with"),
    "SIGKILL": Fault("Signal callbacks.fault.name=SIGKILL", -signal.SIGKILL, ""),
    "SIGKILL amid a checkpoint": Fault("KilledWriting", -signal.SIGKILL, ""),
    "full disk": Fault("FullDisk", 1, "checkpoints/last.ckpt cannot be written: File too large"),
    "read-only folder": Fault("ReadOnly", 1, "last.ckpt cannot be written: Permission denied", mends=writable),
    "torn checkpoint": Fault(later=tear("last"), warns="last.ckpt is damaged or truncated"),
    "flipped bit": Fault(later=flip_checkpoint, warns="resuming from previous.ckpt, the one before"),
    "two torn checkpoints": Fault(later=tear("last", "previous"), warns="resuming from best.ckpt, the one before"),
    "no whole checkpoint": Fault(
        later=tear("last", "previous", "best"), refuses="last.ckpt is damaged or truncated: .* no other checkpoint"
    ),
    "killed worker": Fault("KilledWorker", 1, "a data loading worker", ("data.workers=2",)),
    "killed rank": Fault("KilledRank", 1, "process 1 of 2 was killed by SIGKILL", TWO),
    "raising rank": Fault("RaisingRank", 1, "a bug on one process", TWO),
    "loss that is no number": Fault("NotANumber", 1, r"first in blocks.0.attention.project_out \(Linear\)"),
    "exploding loss": Fault("Explodes", 1, r"of head.mlp.4 \(Linear\)", ("optim.loss_limit=1e6",)),
    "out of memory": Fault("Memory", 1, r"out of memory in training .* lower data.batch_size \(now 8\)"),
    "missing data": Fault(later=hide, refuses="graphs.jsonl", mends=unhide),
    "damaged store": Fault(later=flip_store, warns="is damaged .* building it again"),
}


def train(folder: Path, *overrides: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *overrides], cwd=folder, env=ENVIRONMENT | (environment or {}),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def begin(folder: Path, *options: str, **more) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "faulty.py", folder)
    return train(folder, *OPTIONS, *write_graphs(folder), *options, "hydra.run.dir=run", **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that met no fault, by their further options."""
    runs: dict[tuple[str, ...], Path] = {}

    def run(options: tuple[str, ...]) -> Path:
        if options not in runs:
            folder = tmp_path_factory.mktemp("whole")
            done = begin(folder, *options)
            assert done.returncode == 0, done.stderr
            runs[options] = folder / "run"
        return runs[options]

    return run


def in_one_line(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    """The exit code, and what is said: of an error in one line, and in no other."""
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert re.search(says, said), said
    rest = [line for line in done.stderr.splitlines() if line and not line.startswith("stopping after this batch")]
    assert [line[:7] for line in rest] == ["error: "] * (code == 1), said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_loses_nothing_that_was_finished(name, whole, tmp_path):
    fault = FAULTS[name]
    happens, *more = fault.happens.split()
    done = begin(tmp_path, *fault.options, f"callbacks.fault._target_=faulty.{happens}", *more)
    assert time.time() - float((tmp_path / "met").read_text()) < SOON
    in_one_line(done, fault.code, fault.says)
    if fault.code == 1:
        assert "resume with: python train.py resume=" in done.stdout + done.stderr
    if fault.mends is writable:
        writable(tmp_path)
    saved = read(newest(tmp_path / "run" / "checkpoints"))
    assert saved["global_step"] in (DONE, DONE + 1)
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    if fault.later:
        fault.later(tmp_path)
    if fault.refuses:
        in_one_line(train(tmp_path, "resume=run"), 1, fault.refuses)
        if fault.mends is None:
            return
        fault.mends(tmp_path)
    again = train(tmp_path, "resume=run")
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(fault.warns, again.stdout), again.stdout
    assert differences(tmp_path / "run", whole(fault.options)) == []
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_without_w_and_b_a_run_is_kept_offline(tmp_path):
    nobody = {"WANDB_MODE": "online", "WANDB_API_KEY": 40 * "0", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = begin(tmp_path, "logger=default", environment=nobody)
    assert done.returncode == 0, done.stderr
    assert "W&B cannot be reached, the run is logged offline" in done.stdout
    assert "upload with wandb sync" in done.stdout


def test_a_disk_that_is_full_for_everything(whole, tmp_path):
    """A filesystem of its own for the run, which takes its first checkpoints and no more; then there is room."""
    disk = tmp_path / "run"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this test mounts a small filesystem, which takes root")
    try:
        in_one_line(begin(tmp_path), 1, "No space left on device")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = train(tmp_path, "resume=run")
        assert again.returncode == 0, again.stdout + again.stderr
        assert differences(disk, whole(())) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_where_none_can_be_is_said_at_once(tmp_path):
    (tmp_path / "run").write_text("a file")
    in_one_line(begin(tmp_path), 1, "run")

"""Checkpoint files: written atomically on any filesystem, and verified when read."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import gt
from gt.errors import UserError
from gt.train.checkpoint_files import clean, newest, older, present, read, write
from tests.small_runs import train, write_graphs

ROOT = Path(__file__).parents[2]


def make_checkpoint(value: float = 0.0, size: int = 1000) -> dict:
    return {
        "state_dict": {"net.w": torch.full((size,), value)},
        "hyper_parameters": {"config": {}, "schema": {}},
        "epoch": int(value),
    }


def flip_bits(path: Path, count: int, seed: int = 0) -> None:
    """Flip a bit in each of some random bytes of a file."""
    raw, draw = bytearray(path.read_bytes()), random.Random(seed)
    for index in draw.sample(range(len(raw)), count):
        raw[index] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)


@contextmanager
def file_size_limit(size: int):
    """Limit the size of files that this process writes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_write_keeps_the_previous_checkpoint(tmp_path):
    last, previous = tmp_path / "new" / "last.ckpt", tmp_path / "new" / "previous.ckpt"
    for value in (1, 2, 3):
        write(make_checkpoint(value), last, [previous])
    assert (read(last)["epoch"], read(previous)["epoch"]) == (3, 2)
    assert sorted(path.name for path in last.parent.iterdir()) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize("keep", [1, 3])
def test_most_recent_checkpoints_are_kept(keep, tmp_path):
    last, older_paths = tmp_path / "last.ckpt", older(tmp_path, keep)
    for value in range(1, 6):
        write(make_checkpoint(value), last, older_paths)
    assert [read(path)["epoch"] for path in present(tmp_path)] == [5, 4, 3][:keep]
    last.unlink()  # as after a kill between the two renames: older ones stay in place
    write(make_checkpoint(6), last, older_paths)
    assert [read(path)["epoch"] for path in present(tmp_path)] == [6, 4, 3][:keep]


@pytest.mark.parametrize("seed", range(5))
def test_flipped_bytes_are_detected(seed, tmp_path):
    path = tmp_path / "best.ckpt"
    write(make_checkpoint(size=100_000), path)
    flip_bits(path, 64, seed)
    for load in (read, gt.load):
        with pytest.raises(UserError, match=r"best\.ckpt") as caught:
            load(path)
        assert "damaged" in str(caught.value) or "not a checkpoint" in str(caught.value)


def test_single_flipped_bit_in_weights_is_detected(tmp_path):
    path = tmp_path / "best.ckpt"
    write(make_checkpoint(1.0, size=100_000), path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert not torch.equal(torch.load(path, weights_only=True)["state_dict"]["net.w"], torch.ones(100_000))
    with pytest.raises(UserError, match=r"best\.ckpt is damaged"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not a checkpoint", "is not a checkpoint of this program"),
        ("half", "damaged or truncated"),
        ("tensor", "is not a checkpoint of this program"),
        ("weights", "is not a checkpoint of this program"),
        ("code", "is not a checkpoint of this program"),
    ],
)
def test_invalid_file_is_reported_in_one_line(content, message, tmp_path):
    path = tmp_path / "best.ckpt"
    if content == "half":
        write(make_checkpoint(), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content == "tensor":
        torch.save(torch.ones(3), path)
    elif content == "weights":
        torch.save({"layer": torch.ones(3)}, path)
    elif content == "code":
        torch.save({"state_dict": {}, "hyper_parameters": {"config": textwrap.TextWrapper()}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        gt.load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in caught.value.args[0]


def test_failed_write_keeps_existing_checkpoints(tmp_path):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    write(make_checkpoint(1), last, [previous])
    write(make_checkpoint(2), last, [previous])
    with file_size_limit(50_000), pytest.raises(UserError) as caught:
        write(make_checkpoint(3, size=100_000), last, [previous])
    assert str(last) in str(caught.value)
    assert os.strerror(27) in str(caught.value)  # EFBIG: the error of this limit; that of a full disk is ENOSPC
    assert (read(last)["epoch"], read(previous)["epoch"]) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


@pytest.fixture
def small_disk(tmp_path):
    """A separate filesystem of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this test mounts a small filesystem, which takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_keeps_the_previous_checkpoint(small_disk):
    last = small_disk / "last.ckpt"
    write(make_checkpoint(1), last)
    with pytest.raises(UserError, match=r"disk/last\.ckpt cannot be written: No space left on device"):
        write(make_checkpoint(2, size=2_000_000), last)
    assert read(last)["epoch"] == 1
    assert [path.name for path in small_disk.iterdir()] == ["last.ckpt"]


def test_run_on_full_disk_keeps_previous_checkpoints(small_disk, tmp_path):
    """Two files of 1.4 MB fit, a third does not."""
    data = write_graphs(tmp_path)
    with pytest.raises(UserError, match=r"run/checkpoints/last\.ckpt cannot be written: No space left on device"):
        train(small_disk / "run", *data, "model.width=96", "callbacks.last.minutes=0")
    names = sorted(path.name for path in (small_disk / "run" / "checkpoints").iterdir())
    assert names == ["last.ckpt", "previous.ckpt"]
    assert read(newest(small_disk / "run" / "checkpoints"))["global_step"] == 2


def test_unwritable_folder_is_reported(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"checkpoints/last\.ckpt cannot be written"):
        write(make_checkpoint(), tmp_path / "checkpoints" / "last.ckpt")


WRITER = """
import sys
from pathlib import Path
import torch
from gt.train.checkpoint_files import write
value = 0
while True:
    value += 1
    contents = {"state_dict": {"w": torch.full((3_000_000,), float(value))}, "hyper_parameters": {}, "epoch": value}
    write(contents, Path(sys.argv[1]), [Path(sys.argv[2])])
    print(value, flush=True)
"""


def test_killed_writer_leaves_complete_files(tmp_path):
    """On another filesystem than that of the temporary folder, if there is one."""
    elsewhere = os.access("/dev/shm", os.W_OK)
    folder = Path("/dev/shm") / f"gt-test-{os.getpid()}" if elsewhere else tmp_path / "checkpoints"
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    draw = random.Random(0)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(last), str(previous)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
        time.sleep(draw.random() * 0.1)
        process.kill()
        written = [int(line) for line in process.stdout.read().split()]
        process.wait()
        saved = read(newest(folder))
        assert saved["epoch"] >= max(written, default=2)
        assert torch.equal(saved["state_dict"]["w"], torch.full((3_000_000,), float(saved["epoch"])))
        clean(folder)
        assert {path.name for path in folder.iterdir()} <= {"last.ckpt", "previous.ckpt"}
    finally:
        process.kill()
        shutil.rmtree(folder)


def test_newest_skips_damaged_checkpoints(tmp_path, capsys):
    for name, value in (("best", 1), ("previous", 2), ("last", 3)):
        write(make_checkpoint(value), tmp_path / f"{name}.ckpt")
    assert newest(tmp_path) == tmp_path / "last.ckpt"
    assert capsys.readouterr().out == ""
    flip_bits(tmp_path / "last.ckpt", 64)
    assert newest(tmp_path) == tmp_path / "previous.ckpt"
    (line,) = capsys.readouterr().out.splitlines()
    assert "last.ckpt" in line
    assert "previous.ckpt" in line
    assert (tmp_path / "last.ckpt.damaged").exists()
    (tmp_path / "previous.ckpt").write_bytes(b"")
    assert newest(tmp_path) == tmp_path / "best.ckpt"
    assert "previous.ckpt is empty" in capsys.readouterr().out
    (tmp_path / "best.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=r"best\.ckpt is empty"):
        newest(tmp_path)


def test_newest_of_empty_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        newest(tmp_path)

"""Checkpoint files: whole or not at all, checked when read, on any filesystem."""

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


def checkpoint(value: float = 0.0, size: int = 1000) -> dict:
    return {
        "state_dict": {"net.w": torch.full((size,), value)},
        "hyper_parameters": {"config": {}, "schema": {}},
        "epoch": int(value),
    }


def flip(path: Path, count: int, seed: int = 0) -> None:
    """Flip a bit of so many bytes of a file."""
    raw, draw = bytearray(path.read_bytes()), random.Random(seed)
    for place in draw.sample(range(len(raw)), count):
        raw[place] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)


@contextmanager
def files_of_at_most(size: int):
    """The system refuses to let a file grow further, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_what_is_written_is_read_and_the_one_before_is_kept(tmp_path):
    last, previous = tmp_path / "new" / "last.ckpt", tmp_path / "new" / "previous.ckpt"
    for value in (1, 2, 3):
        write(checkpoint(value), last, [previous])
    assert (read(last)["epoch"], read(previous)["epoch"]) == (3, 2)
    assert sorted(path.name for path in last.parent.iterdir()) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_few_are_kept_the_newest_first(keep, tmp_path):
    last, before = tmp_path / "last.ckpt", older(tmp_path, keep)
    for value in range(1, 6):
        write(checkpoint(value), last, before)
    assert [read(path)["epoch"] for path in present(tmp_path)] == [5, 4, 3][:keep]
    last.unlink()  # as after a kill between the two moves: those before stay where they are
    write(checkpoint(6), last, before)
    assert [read(path)["epoch"] for path in present(tmp_path)] == [6, 4, 3][:keep]


@pytest.mark.parametrize("seed", range(5))
def test_flipped_bytes_are_noticed(seed, tmp_path):
    path = tmp_path / "best.ckpt"
    write(checkpoint(size=100_000), path)
    flip(path, 64, seed)
    for reading in (read, gt.load):
        with pytest.raises(UserError, match=r"best\.ckpt") as caught:
            reading(path)
        assert "damaged" in str(caught.value) or "not a checkpoint" in str(caught.value)


def test_one_flipped_bit_of_the_weights_is_noticed(tmp_path):
    path = tmp_path / "best.ckpt"
    write(checkpoint(1.0, size=100_000), path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert not torch.equal(torch.load(path, weights_only=True)["state_dict"]["net.w"], torch.ones(100_000))
    with pytest.raises(UserError, match=r"best\.ckpt is damaged"):
        read(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"not a checkpoint", "is not a checkpoint of this program"),
        ("half", "damaged or truncated"),
        ("tensor", "is not a checkpoint of this program"),
        ("weights", "is not a checkpoint of this program"),
        ("code", "is not a checkpoint of this program"),
    ],
)
def test_what_is_no_checkpoint_is_one_line_that_names_the_file(content, said, tmp_path):
    path = tmp_path / "best.ckpt"
    if content == "half":
        write(checkpoint(), path)
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
    assert said in str(caught.value)
    assert "\n" not in caught.value.args[0]


def test_a_full_disk_is_one_line_with_the_files_own_name_and_leaves_what_was_there(tmp_path):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    write(checkpoint(1), last, [previous])
    write(checkpoint(2), last, [previous])
    with files_of_at_most(50_000), pytest.raises(UserError) as caught:
        write(checkpoint(3, size=100_000), last, [previous])
    assert str(last) in str(caught.value)
    assert os.strerror(27) in str(caught.value)  # EFBIG: what this limit says where a disk says ENOSPC
    assert (read(last)["epoch"], read(previous)["epoch"]) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of its own, of 4 MB."""
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


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(small_disk):
    last = small_disk / "last.ckpt"
    write(checkpoint(1), last)
    with pytest.raises(UserError, match=r"disk/last\.ckpt cannot be written: No space left on device"):
        write(checkpoint(2, size=2_000_000), last)
    assert read(last)["epoch"] == 1
    assert [path.name for path in small_disk.iterdir()] == ["last.ckpt"]


def test_a_run_whose_disk_fills_up_ends_with_the_checkpoint_before(small_disk, tmp_path):
    """Two files of 1.4 MB fit, a third does not."""
    data = write_graphs(tmp_path)
    with pytest.raises(UserError, match=r"run/checkpoints/last\.ckpt cannot be written: No space left on device"):
        train(small_disk / "run", *data, "model.width=96", "callbacks.last.minutes=0")
    names = sorted(path.name for path in (small_disk / "run" / "checkpoints").iterdir())
    assert names == ["last.ckpt", "previous.ckpt"]
    assert read(newest(small_disk / "run" / "checkpoints"))["global_step"] == 2


def test_a_folder_that_may_not_be_written_to_is_one_line(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"checkpoints/last\.ckpt cannot be written"):
        write(checkpoint(), tmp_path / "checkpoints" / "last.ckpt")


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


def test_a_process_killed_while_it_writes_leaves_whole_files(tmp_path):
    """In another filesystem than the temporary folder's, where there is one."""
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
        done = [int(line) for line in process.stdout.read().split()]
        process.wait()
        whole = read(newest(folder))
        assert whole["epoch"] >= max(done, default=2)
        assert torch.equal(whole["state_dict"]["w"], torch.full((3_000_000,), float(whole["epoch"])))
        clean(folder)
        assert {path.name for path in folder.iterdir()} <= {"last.ckpt", "previous.ckpt"}
    finally:
        process.kill()
        shutil.rmtree(folder)


def test_the_newest_whole_checkpoint_is_the_one_to_go_on_from(tmp_path, capsys):
    for name, value in (("best", 1), ("previous", 2), ("last", 3)):
        write(checkpoint(value), tmp_path / f"{name}.ckpt")
    assert newest(tmp_path) == tmp_path / "last.ckpt"
    assert capsys.readouterr().out == ""
    flip(tmp_path / "last.ckpt", 64)
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


def test_a_folder_without_checkpoints_has_none_to_go_on_from(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        newest(tmp_path)

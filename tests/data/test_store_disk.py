"""Stores on disks that are full, read-only or shared with other users and processes."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gt.data import arrays, files
from gt.data.encodings import attach
from gt.data.packed import Graphs
from gt.data.store import load, open_or_build, save
from gt.errors import UserError
from tests.data.chunked_store import FORK, NodeNumber, chunks, contents


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The contents that the store must have."""
    folder = tmp_path_factory.mktemp("right") / "store"
    save(chunks(), folder)
    return contents(load(folder))


class LimitedFile:
    """A file on a disk with a limited number of free bytes, shared by all files."""

    def __init__(self, room: list[int], *args: Any) -> None:
        self.room, self.file = room, open(*args)  # noqa: SIM115

    def __enter__(self) -> "LimitedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: Any) -> None:
        self.room[0] -= memoryview(data).nbytes
        if self.room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.file.write(data)

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return self.file.fileno()


def open_limited(room: list[int], path: Path, mode: str, *rest: Any) -> Any:
    return open(path, mode, *rest) if mode == "rb" else LimitedFile(room, path, mode, *rest)


@pytest.mark.parametrize("room", [0, 1000, 6000, 15000, 20000])
def test_full_disk_is_reported_and_leaves_no_partial_files(
    room: int, tmp_path: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    with monkeypatch.context() as patch:
        left = [room]
        for module in (arrays, files):
            patch.setattr(module, "open", lambda *args: open_limited(left, *args), raising=False)
        with pytest.raises(
            UserError, match=rf"^no space left in {tmp_path}, at least \d+\.\d MB are needed: .* data\.root .*$"
        ):
            open_or_build(folder, chunks)
    assert [path.name for path in tmp_path.iterdir()] == ["store.lock"]
    graphs = open_or_build(folder, chunks)
    assert contents(graphs) == expected
    before = sorted(folder.iterdir())
    with monkeypatch.context() as patch:
        left = [min(room, 800)]
        patch.setattr(files, "open", lambda *args: open_limited(left, *args), raising=False)
        with pytest.raises(UserError, match=f"^no space left in {folder}, at least"):
            attach(graphs, folder, [NodeNumber(3)])
    assert [path for path in sorted(folder.iterdir()) if path.suffix != ".lock"] == before
    assert "number" in attach(graphs, folder, [NodeNumber(3)]).encodings


def test_full_disk_closes_the_generator_of_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def build() -> Iterator[Graphs]:
        try:
            yield from chunks()
        finally:
            closed.append(True)

    monkeypatch.setattr(arrays, "open", lambda *args: open_limited([0], *args), raising=False)
    with pytest.raises(UserError, match="no space left") as raised:
        open_or_build(tmp_path / "store", build)
    assert closed
    assert raised.value  # a reference to the error, which would have kept the generator alive


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(chunks(), tmp_path / "store")

    def fail(*_: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", fail)
    open_or_build(tmp_path / "store", chunks)  # needs no lock
    with pytest.raises(UserError, match=rf"^cannot write to {tmp_path} \(Read-only file system\): .* data\.root .*$"):
        open_or_build(tmp_path / "other", chunks)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_file_modes_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        folder = tmp_path / "deep" / "store"
        attach(open_or_build(folder, chunks), folder, [NodeNumber(3)])
    finally:
        os.umask(before)
    for path in (folder.parent, *folder.parent.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_read_only_lock_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def open_file(path: Any, flags: int, *rest: Any) -> int:
        if str(path).endswith(".lock") and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path, flags, *rest)

    (tmp_path / "store.lock").touch()
    monkeypatch.setattr(os, "open", open_file)
    open_or_build(tmp_path / "store", chunks)


def test_concurrent_processes_wait_for_one_build(
    tmp_path: Path, expected: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "store"
    builds, barrier = FORK.Value("i", 0), FORK.Barrier(3)

    def build() -> Iterator[Graphs]:
        with builds.get_lock():
            builds.value += 1
        time.sleep(0.5)
        yield from chunks()

    def build_and_check() -> None:
        barrier.wait()
        assert contents(open_or_build(folder, build)) == expected

    workers = [FORK.Process(target=build_and_check) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert builds.value == 1
    assert capfd.readouterr().out == 2 * "waiting for another process that builds store\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]

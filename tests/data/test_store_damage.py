"""Whatever happens to a store, it ends whole: killed builds, full disks, and bytes that changed."""

import errno
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from gt.data import arrays, files
from gt.data.encodings import attach
from gt.data.packed import Graphs, pointers
from gt.data.store import load, open_or_build, save
from gt.encodings import Encoding, RandomWalk
from gt.errors import UserError
from gt.schema import Schema

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "fcntl.flock"}
FORK = multiprocessing.get_context("fork")  # starts at once; what it runs here needs no threads


@dataclass(frozen=True)
class Number(Encoding):
    """Each node's number, times a factor."""

    factor: int
    name: str = "number"

    arrays: ClassVar = ("number", "half")

    def key(self) -> dict[str, Any]:
        return {"name": self.name, "factor": self.factor}

    def compute(self, graphs: Graphs, progress: Any = iter) -> dict[str, np.ndarray]:
        rows = np.arange(graphs.node_ptr[-1], dtype=np.float32)[:, None] * self.factor
        return {"number": rows, "half": rows / 2}

    def module(self, width: int, schema: Schema) -> Any:
        raise NotImplementedError


def chunk(start: int, graphs: int) -> Graphs:
    """Paths of 1 to 5 nodes; numbers grow from chunk to chunk."""
    sizes = np.arange(start, start + graphs) % 5 + 1
    nodes, edges = int(sizes.sum()), sizes - 1
    target = np.concatenate([np.arange(1, n) for n in sizes])
    return Graphs(
        pointers(sizes),
        pointers(edges),
        np.stack([target - 1, target]),
        Schema(node_vocab=(2**20,), outputs=2, max_nodes=int(sizes.max())),
        nodes={"x": np.arange(nodes)[:, None] + start * start, "real": np.linspace(0, 1, nodes, dtype=np.float32)},
        edges={"edge_attr": np.arange(int(edges.sum()))[:, None] - 7},
        graphs={"y": np.arange(start, start + graphs)},
        splits={"train": np.arange(start + graphs - 3), "valid": np.array([start + graphs - 2])},
        notes={"skipped": start, "why": "naïve"},
    )


def chunks() -> Iterator[Graphs]:
    for start in range(0, 300, 100):
        yield chunk(start, 100)


def content(graphs: Graphs) -> dict[str, Any]:
    """All there is in a store, as plain values."""
    named = {name: getattr(graphs, name) for name in ("node_ptr", "edge_ptr", "edge_index")}
    for group in ("nodes", "edges", "graphs", "splits"):
        named |= {f"{group}.{name}": values for name, values in getattr(graphs, group).items()}
    plain = {name: (values.dtype.str, values.tolist()) for name, values in named.items()}
    return plain | {"schema": graphs.schema, "notes": graphs.notes}


def kept(graphs: Graphs) -> dict[str, Any]:
    """All that encodings have for the nodes, as plain values."""
    rows = np.arange(graphs.node_ptr[-1])
    return {name: values.take(rows).tolist() for name, values in graphs.encodings.items()}


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the store must hold."""
    folder = tmp_path_factory.mktemp("right") / "store"
    save(chunks(), folder)
    return content(load(folder))


def run(function: Callable[[], None], kill_after: float | None = None) -> int:
    """The exit code of a process that runs a function, killed after so many seconds."""
    process = FORK.Process(target=function)
    process.start()
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def damage(folder: Path) -> None:
    path = folder / "nodes.x.npy"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("before", ["absent", "damaged"])
def test_builds_killed_at_random_moments(before: str, tmp_path: Path, right: dict[str, Any]) -> None:
    folder = tmp_path / "store"
    began = time.monotonic()
    assert run(lambda: save(chunks(), tmp_path / "timed")) == 0
    length = time.monotonic() - began
    shutil.rmtree(tmp_path / "timed")
    draw, killed, wanted = random.Random(before), 0, 20 if before == "absent" else 8
    for _ in range(10 * wanted):
        if killed == wanted:
            break
        if before == "damaged":
            open_or_build(folder, chunks)
            damage(folder)
        hit = run(lambda: [open_or_build(folder, chunks)], draw.uniform(0, length)) == -signal.SIGKILL
        killed += hit
        length *= 1 if hit else 0.9  # the first build was the slowest
        assert not folder.exists() or state(folder) in (right, "nodes.x.npy" if before == "damaged" else right)
        if before == "absent":
            shutil.rmtree(folder, ignore_errors=True)
    assert killed == wanted
    assert content(open_or_build(folder, chunks)) == right
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]


def state(folder: Path) -> dict[str, Any] | str:
    """What a store holds, or the file that is damaged."""
    try:
        return content(load(folder))
    except files.Damaged as error:
        return str(error).split("(")[1].split(":")[0].split()[0]


def dies_at(number: int, function: Callable[[], Any]) -> Callable[[], None]:
    """The function in a process that kills itself just before its n-th change of the disk."""

    def run() -> None:
        count = iter(range(number))

        def hook(event: str, details: Any) -> None:
            changes = event in CHANGES or (event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR))
            if changes and next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        function()

    return run


@pytest.mark.parametrize("before", ["absent", "damaged"])
def test_builds_killed_before_each_change_of_the_disk(
    before: str, tmp_path: Path, right: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow, and nothing that a killed process could notice

    def work() -> None:
        attach(open_or_build(folder, chunks), folder, [Number(3)])

    for number in range(0, 1000, 2 if before == "absent" else 3):
        if before == "damaged":
            attach(open_or_build(folder, chunks), folder, [Number(3)])
            damage(folder)
        code = run(dies_at(number, work))
        assert not folder.exists() or state(folder) in (right, "nodes.x.npy" if before == "damaged" else right)
        found = attach(open_or_build(folder, chunks), folder, [Number(3)])
        numbers = 3 * np.arange(len(found.nodes["x"]))
        assert kept(found)["number"] == numbers[:, None].astype(np.float16).tolist()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]
        assert {path.suffix for path in folder.iterdir()} == {".npy", ".json", ".lock"}
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if before == "absent":
            shutil.rmtree(folder)
    assert 20 < number < 999


def flipped(path: Path, draw: random.Random) -> None:
    """Change one byte of a file."""
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(len(raw))] ^= draw.randrange(1, 256)
    path.write_bytes(raw)


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    folder, draw = tmp_path / "store", random.Random(0)
    save(chunks(), folder)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for _ in range(20):
            flipped(path, draw)
            with pytest.raises(files.Damaged, match=f"^the store at {folder} is (damaged|outdated) .*$") as raised:
                load(folder)
            assert path.name in str(raised.value)
            path.write_bytes(whole)
        for length in (0, 1, draw.randrange(len(whole)), len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(files.Damaged, match=f"is damaged .{path.name}[: ]"):
                load(folder)
        path.write_bytes(whole + b"\0")
        with pytest.raises(files.Damaged, match=f"is damaged .{path.name}[: ]"):
            load(folder)
        path.unlink()
        with pytest.raises(files.Damaged, match=f"is damaged .{path.name} is missing"):
            load(folder)
        path.write_bytes(whole)
    load(folder)


def test_a_large_store_is_checked_where_it_was_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    save(chunks(), folder)
    read = []
    whole = files.checksum
    monkeypatch.setattr(files, "FULL_CHECK_LIMIT", 0)
    monkeypatch.setattr(files, "checksum", lambda path: read.append(path.name) or whole(path))
    load(folder)
    assert read == []
    (folder / "nodes.x.npy").touch()
    load(folder)
    assert read == ["nodes.x.npy"]
    flipped(folder / "graphs.y.npy", random.Random(0))
    with pytest.raises(files.Damaged, match=r"graphs\.y\.npy: contents changed"):
        load(folder)
    damage(folder)
    with pytest.raises(files.Damaged, match=r"nodes\.x\.npy|graphs\.y\.npy"):
        load(folder)


def rewritten(folder: Path, **changes: Any) -> None:
    """Other facts, as a version that wrote them would have."""
    facts = files.read_metadata(folder / "facts.json") | changes
    raw = json.dumps({**facts, "checksum": files.zlib.crc32(json.dumps(facts, indent=1).encode())}, indent=1)
    (folder / "facts.json").write_text(raw)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (damage, r"damaged \(nodes\.x\.npy: [\d,]+ bytes instead of [\d,]+\)"),
        (lambda folder: (folder / "edge_ptr.npy").unlink(), r"damaged \(edge_ptr\.npy is missing\)"),
        (lambda folder: (folder / "facts.json").write_text("{"), r"damaged \(facts\.json is not JSON\)"),
        (lambda folder: (folder / "facts.json").write_text("[1]"), r"damaged \(facts\.json: contents changed\)"),
        (
            lambda folder: shutil.copy(folder / "node_ptr.npy", folder / "edge_ptr.npy"),
            r"damaged \(edge_ptr\.npy: .*\)",
        ),
        (
            lambda folder: (folder / "facts.json").write_text('{"schema": {}, "notes": {}}'),
            r"outdated \(format 1, not 2\)",
        ),
        (lambda folder: rewritten(folder, format=3), r"outdated \(format 3, not 2\)"),
        (lambda folder: rewritten(folder, schema={"colour": 1}), r"outdated \(.*'colour'\)"),
        (lambda folder: (shutil.rmtree(folder), folder.write_text("")), r"damaged \(facts\.json: Not a directory\)"),
        (lambda folder: (shutil.rmtree(folder), folder.mkdir()), r"damaged \(facts\.json is missing\)"),
    ],
    ids=["short", "gone", "json", "list", "swapped", "format 1", "format 3", "schema", "a file", "empty"],
)
def test_what_is_damaged_or_outdated_is_said_and_built_again(
    harm: Callable[[Path], Any], why: str, tmp_path: Path, right: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "store"
    save(chunks(), folder)
    harm(folder)
    assert content(open_or_build(folder, chunks)) == right
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert re.fullmatch(f"the store at {folder} is {why}: building it again\n", said)
    assert content(open_or_build(folder, lambda: pytest.fail("built again"))) == right
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]


def test_damaged_arrays_of_one_encoding_are_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, draw = tmp_path / "store", random.Random(1)
    encodings = [Number(3), RandomWalk(4)]
    graphs = open_or_build(folder, chunks)
    before = kept(attach(graphs, folder, encodings))
    for path in sorted([*folder.glob("*-*.npy"), *folder.glob("*-*.json")]):
        for harm in (flipped, flipped, lambda path, draw: path.write_bytes(path.read_bytes()[: draw.randrange(80)])):
            others = {other: other.stat().st_mtime_ns for other in folder.iterdir() if other.stem[:4] != path.stem[:4]}
            harm(path, draw)
            after = attach(load(folder), folder, encodings)
            assert kept(after) == before
            said = capsys.readouterr().out
            assert re.fullmatch(rf"{path.stem} in {folder} is .*{path.name}.*: computing it again\n", said), said
            computed = "half" if path.stem.startswith("number") else "number"  # the same encoding's other array
            assert {other for other, at in others.items() if other.stat().st_mtime_ns != at} <= set(
                folder.glob(f"{computed}*")
            )
    path.unlink()  # a .npy without its .json was never completed: nothing to be said
    attach(load(folder), folder, encodings)


class Handle:
    """A file on a disk that has room for so many more bytes."""

    def __init__(self, room: list[int], *args: Any) -> None:
        self.room, self.file = room, open(*args)  # noqa: SIM115

    def __enter__(self) -> "Handle":
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


def opened(room: list[int], path: Path, mode: str, *rest: Any) -> Any:
    return open(path, mode, *rest) if mode == "rb" else Handle(room, path, mode, *rest)


@pytest.mark.parametrize("room", [0, 1000, 6000, 15000, 20000])
def test_a_full_disk_is_said_and_nothing_half_written_remains(
    room: int, tmp_path: Path, right: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    with monkeypatch.context() as patch:
        left = [room]
        for module in (arrays, files):
            patch.setattr(module, "open", lambda *args: opened(left, *args), raising=False)
        with pytest.raises(
            UserError, match=rf"^no space left in {tmp_path}, at least \d+\.\d MB are needed: .* data\.root .*$"
        ):
            open_or_build(folder, chunks)
    assert [path.name for path in tmp_path.iterdir()] == ["store.lock"]
    graphs = open_or_build(folder, chunks)
    assert content(graphs) == right
    before = sorted(folder.iterdir())
    with monkeypatch.context() as patch:
        left = [min(room, 800)]
        patch.setattr(files, "open", lambda *args: opened(left, *args), raising=False)
        with pytest.raises(UserError, match=f"^no space left in {folder}, at least"):
            attach(graphs, folder, [Number(3)])
    assert [path for path in sorted(folder.iterdir()) if path.suffix != ".lock"] == before
    assert "number" in attach(graphs, folder, [Number(3)]).encodings


def test_a_build_on_a_full_disk_ends_what_makes_the_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def made() -> Iterator[Graphs]:
        try:
            yield from chunks()
        finally:
            ended.append(True)

    monkeypatch.setattr(arrays, "open", lambda *args: opened([0], *args), raising=False)
    with pytest.raises(UserError, match="no space left") as raised:
        open_or_build(tmp_path / "store", made)
    assert ended
    assert raised.value  # which would have kept it alive


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(chunks(), tmp_path / "store")

    def refused(*_: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refused)
    open_or_build(tmp_path / "store", chunks)  # needs no lock
    with pytest.raises(UserError, match=rf"^cannot write to {tmp_path} \(Read-only file system\): .* data\.root .*$"):
        open_or_build(tmp_path / "other", chunks)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_others_may_read_what_the_umask_lets_them(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        folder = tmp_path / "deep" / "store"
        attach(open_or_build(folder, chunks), folder, [Number(3)])
    finally:
        os.umask(before)
    for path in (folder.parent, *folder.parent.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_another_users_lock_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.open

    def owned(path: Any, flags: int, *rest: Any) -> int:
        if str(path).endswith(".lock") and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return whole(path, flags, *rest)

    (tmp_path / "store.lock").touch()
    monkeypatch.setattr(os, "open", owned)
    open_or_build(tmp_path / "store", chunks)


def test_of_two_builds_at_once_one_builds_and_the_other_waits(
    tmp_path: Path, right: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "store"
    builds, barrier = FORK.Value("i", 0), FORK.Barrier(3)

    def build() -> Iterator[Graphs]:
        with builds.get_lock():
            builds.value += 1
        time.sleep(0.5)
        yield from chunks()

    def work() -> None:
        barrier.wait()
        assert content(open_or_build(folder, build)) == right

    workers = [FORK.Process(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert builds.value == 1
    assert capfd.readouterr().out == 2 * "waiting for another process that builds store\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]

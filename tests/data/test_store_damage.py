"""Damage to stores: killed builds, changed bytes and outdated metadata are detected and repaired."""

import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gt.data import files
from gt.data.encodings import attach
from gt.data.store import load, open_or_build, save
from gt.encodings import RandomWalk
from tests.data.chunked_store import FORK, NodeNumber, chunks, contents, encoding_rows

DISK_EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "fcntl.flock"}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The contents that the store must have."""
    folder = tmp_path_factory.mktemp("right") / "store"
    save(chunks(), folder)
    return contents(load(folder))


def exit_code_of(function: Callable[[], None], kill_after: float | None = None) -> int:
    """The exit code of a process that runs a function and is killed after some seconds, if given."""
    process = FORK.Process(target=function)
    process.start()
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def truncate_x(folder: Path) -> None:
    path = folder / "nodes.x.npy"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("before", ["absent", "damaged"])
def test_builds_killed_at_random_times(before: str, tmp_path: Path, expected: dict[str, Any]) -> None:
    folder = tmp_path / "store"
    start = time.monotonic()
    assert exit_code_of(lambda: save(chunks(), tmp_path / "timed")) == 0
    duration = time.monotonic() - start
    shutil.rmtree(tmp_path / "timed")
    draw, killed, kills = random.Random(before), 0, 20 if before == "absent" else 8
    for _ in range(10 * kills):
        if killed == kills:
            break
        if before == "damaged":
            open_or_build(folder, chunks)
            truncate_x(folder)
        hit = exit_code_of(lambda: [open_or_build(folder, chunks)], draw.uniform(0, duration)) == -signal.SIGKILL
        killed += hit
        duration *= 1 if hit else 0.9  # the first build was the slowest
        assert not folder.exists() or state_of(folder) in (expected, "nodes.x.npy" if before == "damaged" else expected)
        if before == "absent":
            shutil.rmtree(folder, ignore_errors=True)
    assert killed == kills
    assert contents(open_or_build(folder, chunks)) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]


def state_of(folder: Path) -> dict[str, Any] | str:
    """The contents of a store, or the name of the damaged file."""
    try:
        return contents(load(folder))
    except files.Damaged as error:
        return str(error).split("(")[1].split(":")[0].split()[0]


def killed_before(number: int, function: Callable[[], Any]) -> Callable[[], None]:
    """A function that runs another and kills its process just before the n-th operation that changes the disk."""

    def run() -> None:
        count = iter(range(number))

        def hook(event: str, details: Any) -> None:
            writes = event in DISK_EVENTS or (event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR))
            if writes and next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        function()

    return run


@pytest.mark.parametrize("before", ["absent", "damaged"])
def test_builds_killed_before_each_disk_operation(
    before: str, tmp_path: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow, and without effect on a killed process

    def build() -> None:
        attach(open_or_build(folder, chunks), folder, [NodeNumber(3)])

    for number in range(0, 1000, 2 if before == "absent" else 3):
        if before == "damaged":
            attach(open_or_build(folder, chunks), folder, [NodeNumber(3)])
            truncate_x(folder)
        code = exit_code_of(killed_before(number, build))
        assert not folder.exists() or state_of(folder) in (expected, "nodes.x.npy" if before == "damaged" else expected)
        graphs = attach(open_or_build(folder, chunks), folder, [NodeNumber(3)])
        numbers = 3 * np.arange(len(graphs.nodes["x"]))
        assert encoding_rows(graphs)["number"] == numbers[:, None].astype(np.float16).tolist()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]
        assert {path.suffix for path in folder.iterdir()} == {".npy", ".json", ".lock"}
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if before == "absent":
            shutil.rmtree(folder)
    assert 20 < number < 999


def flip_byte(path: Path, draw: random.Random) -> None:
    """Change one byte of a file."""
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(len(raw))] ^= draw.randrange(1, 256)
    path.write_bytes(raw)


def test_any_changed_byte_is_detected(tmp_path: Path) -> None:
    folder, draw = tmp_path / "store", random.Random(0)
    save(chunks(), folder)
    for path in sorted(folder.iterdir()):
        original = path.read_bytes()
        for _ in range(20):
            flip_byte(path, draw)
            with pytest.raises(files.Damaged, match=f"^the store at {folder} is (damaged|outdated) .*$") as raised:
                load(folder)
            assert path.name in str(raised.value)
            path.write_bytes(original)
        for length in (0, 1, draw.randrange(len(original)), len(original) - 1):
            path.write_bytes(original[:length])
            with pytest.raises(files.Damaged, match=f"is damaged .{path.name}[: ]"):
                load(folder)
        path.write_bytes(original + b"\0")
        with pytest.raises(files.Damaged, match=f"is damaged .{path.name}[: ]"):
            load(folder)
        path.unlink()
        with pytest.raises(files.Damaged, match=f"is damaged .{path.name} is missing"):
            load(folder)
        path.write_bytes(original)
    load(folder)


def test_large_store_checks_only_modified_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    save(chunks(), folder)
    checked = []
    checksum = files.checksum
    monkeypatch.setattr(files, "FULL_CHECK_LIMIT", 0)
    monkeypatch.setattr(files, "checksum", lambda path: checked.append(path.name) or checksum(path))
    load(folder)
    assert checked == []
    (folder / "nodes.x.npy").touch()
    load(folder)
    assert checked == ["nodes.x.npy"]
    flip_byte(folder / "graphs.y.npy", random.Random(0))
    with pytest.raises(files.Damaged, match=r"graphs\.y\.npy: contents changed"):
        load(folder)
    truncate_x(folder)
    with pytest.raises(files.Damaged, match=r"nodes\.x\.npy|graphs\.y\.npy"):
        load(folder)


def rewrite_metadata(folder: Path, **changes: Any) -> None:
    """Change metadata with a valid checksum, as another version would have written them."""
    facts = files.read_metadata(folder / "facts.json") | changes
    raw = json.dumps({**facts, "checksum": files.zlib.crc32(json.dumps(facts, indent=1).encode())}, indent=1)
    (folder / "facts.json").write_text(raw)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_x, r"damaged \(nodes\.x\.npy: [\d,]+ bytes instead of [\d,]+\)"),
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
        (lambda folder: rewrite_metadata(folder, format=3), r"outdated \(format 3, not 2\)"),
        (lambda folder: rewrite_metadata(folder, schema={"colour": 1}), r"outdated \(.*'colour'\)"),
        (lambda folder: (shutil.rmtree(folder), folder.write_text("")), r"damaged \(facts\.json: Not a directory\)"),
        (lambda folder: (shutil.rmtree(folder), folder.mkdir()), r"damaged \(facts\.json is missing\)"),
    ],
    ids=["short", "gone", "json", "list", "swapped", "format 1", "format 3", "schema", "a file", "empty"],
)
def test_damaged_or_outdated_store_is_rebuilt_with_a_notice(
    damage: Callable[[Path], Any],
    message: str,
    tmp_path: Path,
    expected: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "store"
    save(chunks(), folder)
    damage(folder)
    assert contents(open_or_build(folder, chunks)) == expected
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert re.fullmatch(f"the store at {folder} is {message}: building it again\n", output)
    assert contents(open_or_build(folder, lambda: pytest.fail("built again"))) == expected
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]


def test_damaged_encoding_is_recomputed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, draw = tmp_path / "store", random.Random(1)
    encodings = [NodeNumber(3), RandomWalk(4)]
    graphs = open_or_build(folder, chunks)
    before = encoding_rows(attach(graphs, folder, encodings))
    for path in sorted([*folder.glob("*-*.npy"), *folder.glob("*-*.json")]):
        for damage in (
            flip_byte,
            flip_byte,
            lambda path, draw: path.write_bytes(path.read_bytes()[: draw.randrange(80)]),
        ):
            others = {other: other.stat().st_mtime_ns for other in folder.iterdir() if other.stem[:4] != path.stem[:4]}
            damage(path, draw)
            after = attach(load(folder), folder, encodings)
            assert encoding_rows(after) == before
            output = capsys.readouterr().out
            assert re.fullmatch(rf"{path.stem} in {folder} is .*{path.name}.*: computing it again\n", output), output
            recomputed = "half" if path.stem.startswith("number") else "number"  # the other array of the same encoding
            assert {other for other, modified in others.items() if other.stat().st_mtime_ns != modified} <= set(
                folder.glob(f"{recomputed}*")
            )
    path.unlink()  # a .npy without its .json was never completed: no notice
    attach(load(folder), folder, encodings)

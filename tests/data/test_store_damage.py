"""Whatever happens to a store, it ends whole: killed builds, full disks, and bytes that changed."""

import errno
import json
import multiprocessing
import os
import random
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

from gt.data import columns, files
from gt.data.store import Graphs, load, open_or_build, pointers, save
from gt.encodings import Encoding, attach
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
    draw, killed = random.Random(before), 0
    for _ in range(20):
        if before == "damaged":
            open_or_build(folder, chunks)
            damage(folder)
        killed += run(lambda: [open_or_build(folder, chunks)], draw.uniform(0, length)) == -signal.SIGKILL
        assert not folder.exists() or state(folder) in (right, "nodes.x.npy" if before == "damaged" else right)
        if before == "absent":
            shutil.rmtree(folder, ignore_errors=True)
    assert killed > 5
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
        assert found.nodes["number"][:, 0].tolist() == list(range(0, 3 * len(found.nodes["x"]), 3))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.lock"]
        assert {path.suffix for path in folder.iterdir()} == {".npy", ".json", ".lock"}
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if before == "absent":
            shutil.rmtree(folder)
    assert 20 < number < 999

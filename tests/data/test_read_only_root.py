"""Where a store is kept when the dataset's own folder cannot be written to."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_lightning.utilities import rank_zero_only

from gt.data.graphs import GraphData
from gt.data.large.sampling import Adjacency, Clusters
from gt.data.packed import Graphs
from gt.data.source import Source
from gt.data.store_folders import temporary_store
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.encodings import RandomWalk
from gt.schema import Schema


class Node(Source):
    """A graph of one node, from nowhere."""

    name = "one"

    def __init__(self, root: Path) -> None:
        self.root, self.built = root, 0

    def key(self) -> dict[str, Any]:
        return {}

    def build(self) -> Graphs:
        self.built += 1
        offsets = np.array([0, 1])
        return Graphs(offsets, np.array([0, 0]), np.empty((2, 0), np.int64), Schema(node_vocab=(1,), outputs=2))


def one_node(root: Path) -> GraphData:
    return GraphData(Node(root), batch_size=1)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may write to, not even root."""
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o555)
    yield folder
    folder.chmod(0o755)


def read_only(folder: Path) -> Path:
    """A folder and all in it, which nobody may write to."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[Path]:
    """A root with a store, which nobody may write to any more."""
    one_node(tmp_path / "finished").open([])
    yield read_only(tmp_path / "finished")
    for path in (tmp_path / "finished", *(tmp_path / "finished").rglob("*")):
        path.chmod(0o755)


def stored(root: Path) -> bool:
    return any(root.glob("stores/one-*/facts.json"))


@pytest.mark.parametrize("part", ["", "absent", "absent/deeper"])
def test_read_only_root(shared: Path, work: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    one_node(shared / part).open([])
    assert stored(work / "data")
    assert not any(shared.iterdir())
    said = capsys.readouterr().out
    assert said == f"{shared / part} is read-only: stores built from it are kept in data/stores\n"


def test_root_on_a_disk_that_is_read_only(
    tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "disk")
    one_node(tmp_path / "disk").open([])
    assert stored(work / "data")
    assert "disk is read-only" in capsys.readouterr().out


def test_stores_that_may_be_written_in_a_root_that_may_not(tmp_path: Path, work: Path) -> None:
    (tmp_path / "root" / "stores").mkdir(parents=True)
    (tmp_path / "root").chmod(0o555)
    one_node(tmp_path / "root").open([])
    (tmp_path / "root").chmod(0o755)
    assert stored(tmp_path / "root")
    assert not any(work.iterdir())


@pytest.mark.parametrize("part", ["", "absent/deeper"])
def test_root_that_may_be_written(tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    one_node(tmp_path / "root" / part).open([])
    assert stored(tmp_path / "root" / part)
    assert not any(work.iterdir())
    assert capsys.readouterr().out == ""


def test_no_other_process_says_it(
    shared: Path, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    one_node(shared).open([])
    assert stored(work / "data")
    assert capsys.readouterr().out == ""


def test_a_finished_store_is_read_and_what_it_lacks_is_kept_elsewhere(
    finished: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    before = sorted(finished.rglob("*"))
    data = one_node(finished)
    data.open([])
    assert (data.source.built, data.source.folder.parent.parent) == (0, finished)
    assert not any(work.iterdir())
    assert capsys.readouterr().out == ""
    data.open([RandomWalk(steps=2)])
    assert len(data.graphs.encodings["random_walk"]) == 1
    assert sorted(finished.rglob("*")) == before
    kept = {path: path.stat().st_mtime_ns for path in work.rglob("*.npy")}
    assert kept
    one_node(finished).open([RandomWalk(steps=2)])
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.npy")} == kept  # read, not computed again


def test_a_damaged_store_that_cannot_be_mended_is_built_elsewhere_once(finished: Path, work: Path) -> None:
    [facts] = finished.glob("stores/one-*/facts.json")
    facts.chmod(0o644)
    facts.write_text("{}")
    facts.chmod(0o444)
    first, again = one_node(finished), one_node(finished)
    first.open([])
    again.open([])
    assert (first.source.built, again.source.built) == (1, 0)
    assert stored(work / "data")


def test_clusters_of_a_store_that_cannot_be_written_to(finished: Path, work: Path) -> None:
    [folder] = (facts.parent for facts in finished.glob("stores/one-*/facts.json"))
    rows = Adjacency(np.arange(9), np.roll(np.arange(8), 1), np.ones(8, np.int64))
    for _ in range(2):
        sampler = Clusters(parts=2, together=1)
        sampler.open(rows, folder)
        assert sorted(sampler.order.tolist()) == list(range(8))
    assert [path.parent.name for path in work.rglob("clusters-*.npy")] == [f"{folder.name}.computed"]


def test_tokens_are_read_from_a_root_that_is_read_only(tmp_path: Path, work: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 40)
    root = tmp_path / "root"
    LanguageData(Text(str(tmp_path / "a.txt"), root=str(root)), context=8).open([])
    read_only(root)
    data = LanguageData(Text(str(tmp_path / "a.txt"), root=str(root)), context=8)
    data.open([])
    assert len(data.tokens["train"]) == 360
    assert not any(work.iterdir())
    for path in (root, *root.rglob("*")):
        path.chmod(0o755)


def test_temporary_stores_of_killed_processes_are_removed_and_those_of_others_left(tmp_path: Path) -> None:
    killed, fresh = tmp_path / "gt-new-data-killed", tmp_path / "gt-new-data-fresh"
    for folder in (killed, fresh):
        folder.mkdir()
        (folder / "array.npy").touch()
    held = temporary_store(tmp_path)
    for name in (killed, held.name):
        os.utime(name, (0, 0))
    own = temporary_store(tmp_path)
    assert {str(path) for path in tmp_path.glob("gt-*")} == {str(fresh), held.name, own.name}
    held.cleanup()
    assert not Path(held.name).exists()

"""Folders of stores: where they are kept if the root of a dataset is read-only; temporary stores."""

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


class SingleNode(Source):
    """A graph of a single node, generated in memory."""

    name = "one"

    def __init__(self, root: Path) -> None:
        self.root, self.built = root, 0

    def key(self) -> dict[str, Any]:
        return {}

    def build(self) -> Graphs:
        self.built += 1
        offsets = np.array([0, 1])
        return Graphs(offsets, np.array([0, 0]), np.empty((2, 0), np.int64), Schema(node_vocab=(1,), outputs=2))


def single_node(root: Path) -> GraphData:
    return GraphData(SingleNode(root), batch_size=1)


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder without write permission for anybody, root included."""
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o555)
    yield folder
    folder.chmod(0o755)


def make_read_only(folder: Path) -> Path:
    """Remove write permission from a folder and all of its contents."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


@pytest.fixture
def read_only_root(tmp_path: Path) -> Iterator[Path]:
    """A root with a complete store, made read-only."""
    single_node(tmp_path / "finished").open([])
    yield make_read_only(tmp_path / "finished")
    for path in (tmp_path / "finished", *(tmp_path / "finished").rglob("*")):
        path.chmod(0o755)


def has_store(root: Path) -> bool:
    return any(root.glob("stores/one-*/facts.json"))


@pytest.mark.parametrize("subfolder", ["", "absent", "absent/deeper"])
def test_store_of_read_only_root_is_in_working_folder(
    read_only_folder: Path, cwd: Path, capsys: pytest.CaptureFixture[str], subfolder: str
) -> None:
    single_node(read_only_folder / subfolder).open([])
    assert has_store(cwd / "data")
    assert not any(read_only_folder.iterdir())
    output = capsys.readouterr().out
    assert output == f"{read_only_folder / subfolder} is read-only: stores built from it are kept in data/stores\n"


def test_root_on_read_only_disk(
    tmp_path: Path, cwd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "disk")
    single_node(tmp_path / "disk").open([])
    assert has_store(cwd / "data")
    assert "disk is read-only" in capsys.readouterr().out


def test_writable_stores_folder_in_read_only_root(tmp_path: Path, cwd: Path) -> None:
    (tmp_path / "root" / "stores").mkdir(parents=True)
    (tmp_path / "root").chmod(0o555)
    single_node(tmp_path / "root").open([])
    (tmp_path / "root").chmod(0o755)
    assert has_store(tmp_path / "root")
    assert not any(cwd.iterdir())


@pytest.mark.parametrize("subfolder", ["", "absent/deeper"])
def test_writable_root(tmp_path: Path, cwd: Path, capsys: pytest.CaptureFixture[str], subfolder: str) -> None:
    single_node(tmp_path / "root" / subfolder).open([])
    assert has_store(tmp_path / "root" / subfolder)
    assert not any(cwd.iterdir())
    assert capsys.readouterr().out == ""


def test_only_rank_zero_prints_the_notice(
    read_only_folder: Path, cwd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    single_node(read_only_folder).open([])
    assert has_store(cwd / "data")
    assert capsys.readouterr().out == ""


def test_missing_encodings_of_read_only_store_are_kept_elsewhere(
    read_only_root: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    before = sorted(read_only_root.rglob("*"))
    data = single_node(read_only_root)
    data.open([])
    assert (data.source.built, data.source.folder.parent.parent) == (0, read_only_root)
    assert not any(cwd.iterdir())
    assert capsys.readouterr().out == ""
    data.open([RandomWalk(steps=2)])
    assert len(data.graphs.encodings["random_walk"]) == 1
    assert sorted(read_only_root.rglob("*")) == before
    computed = {path: path.stat().st_mtime_ns for path in cwd.rglob("*.npy")}
    assert computed
    single_node(read_only_root).open([RandomWalk(steps=2)])
    assert {path: path.stat().st_mtime_ns for path in cwd.rglob("*.npy")} == computed  # read, not recomputed


def test_damaged_read_only_store_is_rebuilt_elsewhere_once(read_only_root: Path, cwd: Path) -> None:
    [facts] = read_only_root.glob("stores/one-*/facts.json")
    facts.chmod(0o644)
    facts.write_text("{}")
    facts.chmod(0o444)
    first, second = single_node(read_only_root), single_node(read_only_root)
    first.open([])
    second.open([])
    assert (first.source.built, second.source.built) == (1, 0)
    assert has_store(cwd / "data")


def test_clusters_of_read_only_store_are_kept_elsewhere(read_only_root: Path, cwd: Path) -> None:
    [folder] = (facts.parent for facts in read_only_root.glob("stores/one-*/facts.json"))
    adjacency = Adjacency(np.arange(9), np.roll(np.arange(8), 1), np.ones(8, np.int64))
    for _ in range(2):
        sampler = Clusters(parts=2, together=1)
        sampler.open(adjacency, folder)
        assert sorted(sampler.order.tolist()) == list(range(8))
    assert [path.parent.name for path in cwd.rglob("clusters-*.npy")] == [f"{folder.name}.computed"]


def test_tokens_are_read_from_read_only_root(tmp_path: Path, cwd: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 40)
    root = tmp_path / "root"
    LanguageData(Text(str(tmp_path / "a.txt"), root=str(root)), context=8).open([])
    make_read_only(root)
    data = LanguageData(Text(str(tmp_path / "a.txt"), root=str(root)), context=8)
    data.open([])
    assert len(data.tokens["train"]) == 360
    assert not any(cwd.iterdir())
    for path in (root, *root.rglob("*")):
        path.chmod(0o755)


def test_only_stale_temporary_stores_are_removed(tmp_path: Path) -> None:
    stale, fresh = tmp_path / "gt-new-data-killed", tmp_path / "gt-new-data-fresh"
    for folder in (stale, fresh):
        folder.mkdir()
        (folder / "array.npy").touch()
    locked = temporary_store(tmp_path)
    for name in (stale, locked.name):
        os.utime(name, (0, 0))
    new = temporary_store(tmp_path)
    assert {str(path) for path in tmp_path.glob("gt-*")} == {str(fresh), locked.name, new.name}
    locked.cleanup()
    assert not Path(locked.name).exists()

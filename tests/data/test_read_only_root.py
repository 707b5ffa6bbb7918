"""Where a store is kept when the dataset's own folder cannot be written to."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_lightning.utilities import rank_zero_only

from gt.data.datamodule import GraphDataModule
from gt.data.store import Graphs
from gt.schema import Schema


class OneNode(GraphDataModule):
    """A graph of one node, from nowhere."""

    def __init__(self, root: Path) -> None:
        super().__init__("one", str(root), 1, None, 0, 0)

    def key(self) -> dict[str, Any]:
        return {}

    def build(self) -> Graphs:
        offsets = np.array([0, 1])
        return Graphs(offsets, np.array([0, 0]), np.empty((2, 0), np.int64), Schema(node_vocab=(1,), outputs=2))


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


def stored(root: Path) -> bool:
    return any(root.glob("stores/one-*/facts.json"))


@pytest.mark.parametrize("part", ["", "absent", "absent/deeper"])
def test_read_only_root(shared: Path, work: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    OneNode(shared / part).open([])
    assert stored(work / "data")
    assert not any(shared.iterdir())
    said = capsys.readouterr().out
    assert said == f"{shared / part} is read-only: what is built from it is kept in data/stores\n"


def test_root_on_a_disk_that_is_read_only(
    tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "disk")
    OneNode(tmp_path / "disk").open([])
    assert stored(work / "data")
    assert "disk is read-only" in capsys.readouterr().out


def test_stores_that_may_be_written_in_a_root_that_may_not(tmp_path: Path, work: Path) -> None:
    (tmp_path / "root" / "stores").mkdir(parents=True)
    (tmp_path / "root").chmod(0o555)
    OneNode(tmp_path / "root").open([])
    (tmp_path / "root").chmod(0o755)
    assert stored(tmp_path / "root")
    assert not any(work.iterdir())


@pytest.mark.parametrize("part", ["", "absent/deeper"])
def test_root_that_may_be_written(tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    OneNode(tmp_path / "root" / part).open([])
    assert stored(tmp_path / "root" / part)
    assert not any(work.iterdir())
    assert capsys.readouterr().out == ""


def test_no_other_process_says_it(
    shared: Path, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    OneNode(shared).open([])
    assert stored(work / "data")
    assert capsys.readouterr().out == ""

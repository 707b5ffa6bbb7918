"""PyG datasets in files: raw files, failed and completed downloads, and invalid arguments."""

from functools import partial
from pathlib import Path
from urllib.error import URLError

import pytest
from torch_geometric.datasets import TUDataset

from gt.data.graphs import GraphData
from gt.data.own.pyg import PyG
from gt.errors import UserError
from tests.data.own.pyg_datasets import assert_same_batches, write_tu_dataset


def test_tu_dataset(tmp_path, capsys):
    write_tu_dataset(tmp_path / "pyg")
    make = partial(TUDataset, root=str(tmp_path / "pyg"), name="TINY")
    data = GraphData(PyG(make, root=str(tmp_path)))
    data.open([])
    assert_same_batches(data.graphs, list(make()))
    assert (
        "TINY: 12 graphs, 30 nodes, 36 edges; a node has 3 real numbers, an edge 3 real numbers"
        in capsys.readouterr().out
    )


def test_tu_dataset_without_node_labels(tmp_path):
    write_tu_dataset(tmp_path / "pyg")
    for part in ("node_labels", "edge_labels"):
        (tmp_path / "pyg" / "TINY" / "raw" / f"TINY_{part}.txt").unlink()
    data = GraphData(PyG(partial(TUDataset, root=str(tmp_path / "pyg"), name="TINY"), root=str(tmp_path)))
    data.open([])
    assert data.graphs.sizes.tolist() == [2, 3] * 6
    assert data.graphs.nodes["x"][:5].ravel().tolist() == [1, 1, 1, 2, 1]
    assert data.graphs.notes["degree"]


def paths_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_failed_download_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def fail_halfway(self):
        Path(self.raw_dir, "half.txt").write_text("half")
        Path(self.root, "archive.zip").write_text("half")
        raise URLError("no network\nhere")

    monkeypatch.setattr(TUDataset, "download", fail_halfway)
    root = tmp_path / "new" / "pyg"
    data = GraphData(PyG(partial(TUDataset, root=str(root), name="MUTAG"), root=str(tmp_path)))
    with pytest.raises(UserError) as caught:
        data.open([])
    assert str(caught.value) == (
        f"MUTAG is not in {root} and could not be downloaded (URLError: no network here): put its raw files into "
        f"{root}/MUTAG/raw, or set data.dataset.root to the folder that contains it"
    )
    assert paths_below(tmp_path) == []
    root.mkdir(parents=True)
    (root / "other").write_text("kept")
    with pytest.raises(UserError):
        data.open([])
    assert paths_below(root) == ["other"]


def test_download_is_moved_into_place(tmp_path, monkeypatch):
    def download_files(self):
        write_tu_dataset(Path(self.root).parent / "elsewhere")
        for path in (Path(self.root).parent / "elsewhere" / "TINY" / "raw").iterdir():
            path.replace(Path(self.raw_dir) / path.name)

    monkeypatch.setattr(TUDataset, "download", download_files)
    root = tmp_path / "pyg"
    data = GraphData(PyG(partial(TUDataset, root=str(root), name="TINY"), root=str(tmp_path)))
    data.open([])
    assert len(data.graphs) == 12
    assert not [name for name in paths_below(root) if ".part" in name]
    monkeypatch.setattr(TUDataset, "download", lambda self: pytest.fail("downloaded twice"))
    again = GraphData(PyG(partial(TUDataset, root=str(root), name="TINY"), root=str(tmp_path)))
    again.open([])
    assert again.source.key() == data.source.key()


def test_unreadable_raw_files_are_reported_without_leftovers(tmp_path):
    write_tu_dataset(tmp_path / "pyg")
    (tmp_path / "pyg" / "TINY" / "raw" / "TINY_A.txt").write_text("1, x\n")
    data = GraphData(PyG(partial(TUDataset, root=str(tmp_path / "pyg"), name="TINY"), root=str(tmp_path)))
    with pytest.raises(UserError, match=r"^TINY cannot be read from .*pyg: ValueError: .*x") as caught:
        data.open([])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pyg" / "TINY" / "processed").exists()
    assert not list((tmp_path / "stores").glob("*/"))


def test_invalid_dataset_arguments_are_reported(tmp_path):
    with pytest.raises(UserError, match=r"TUDataset cannot be read from .*: TypeError: .*missing.*'name'"):
        GraphData(PyG(partial(TUDataset, root=str(tmp_path / "pyg")), root=str(tmp_path))).open([])
    with pytest.raises(UserError, match=r"^data.dataset makes a int, not a dataset of torch_geometric"):
        GraphData(PyG(partial(int, "3"), root=str(tmp_path))).open([])

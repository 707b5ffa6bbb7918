"""PCQM4Mv2, against OGB's own SMILES parser and its Evaluator."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gt.data.graphs import GraphData
from gt.data.ogb import pcqm4mv2 as ogb_pcqm4mv2
from gt.data.ogb.metric import PCQM4Mv2Metric
from gt.data.ogb.pcqm4mv2 import OFFICIAL, PCQM4Mv2
from gt.train.baseline import baseline
from tests.data.ogb_files import assert_fails, read_graphs, write_gzip

pytest.importorskip("rdkit")
from ogb.lsc.pcqm4mv2 import PCQM4Mv2Evaluator
from ogb.utils import smiles2graph

SMILES = ["CCO", "C", "c1ccccc1O", "this is none", "C/C=C/C", "[Na+].[Cl-]", "CC#N"]
GAPS = ["5.5", "4.25", "1.0", "2.0", "3.5", "", ""]
SPLITS = {"train": [0, 2, 3], "valid": [1, 4], "test-dev": [6], "test-challenge": [5]}


def write(
    root: Path, smiles: list[str] = SMILES, gaps: list[str] = GAPS, splits: dict[str, list[int]] = SPLITS
) -> Path:
    folder = root / "pcqm4m-v2"
    rows = [f"{n},{text},{gap}\n" for n, (text, gap) in enumerate(zip(smiles, gaps, strict=True))]
    write_gzip(folder / "raw" / "data.csv.gz", "idx,smiles,homolumogap\n" + "".join(rows))
    torch.save({name: np.array(ids, np.int64) for name, ids in splits.items()}, folder / "split_dict.pt")
    (folder / "RELEASE_v1.txt").write_text("v1\n")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path)


def assert_matches_ogb(source: PCQM4Mv2, smiles: list[str]) -> None:
    graphs = read_graphs(source)
    assert len(graphs) == len(smiles)
    for g, text in enumerate(smiles):
        nodes, edges = (slice(p[g], p[g + 1]) for p in (graphs.node_ptr, graphs.edge_ptr))
        reference = smiles2graph(text)
        np.testing.assert_array_equal(graphs.nodes["x"][nodes], reference["node_feat"])
        actual = np.c_[graphs.edge_index[:, edges].T, graphs.edges["edge_attr"][edges]]
        expected = np.c_[reference["edge_index"].T, reference["edge_feat"]]
        np.testing.assert_array_equal(actual, expected[np.lexsort((expected[:, 0], expected[:, 1]))])


@pytest.mark.parametrize("part_size", [1, 3, 100])
def test_rows_become_graphs(root: Path, monkeypatch: pytest.MonkeyPatch, part_size: int) -> None:
    monkeypatch.setattr(ogb_pcqm4mv2, "PART", part_size)
    data = GraphData(PCQM4Mv2(str(root), processes=1))
    # an invalid SMILES becomes one atom of unknown element
    assert_matches_ogb(data.source, [*SMILES[:3], "*", *SMILES[4:]])
    graphs = read_graphs(data.source)
    assert graphs.splits["train"].tolist() == [0, 2]
    assert graphs.splits["valid"].tolist() == [1, 4]
    assert graphs.notes["molecules that cannot be read"] == 1
    assert graphs.graphs["y"][:5, 0].tolist() == [5.5, 4.25, 1.0, 2.0, 3.5]
    assert np.isnan(graphs.graphs["y"][5:]).all()
    schema = graphs.schema
    assert (schema.kind, schema.squared, schema.outputs) == ("regression", False, 1)
    assert schema.mean == pytest.approx([np.mean([5.5, 1.0, 2.0])])
    assert schema.scale == pytest.approx([np.std([5.5, 1.0, 2.0])])


def test_real_molecules_match_ogb(real_data: Path) -> None:
    data = GraphData(PCQM4Mv2(str(real_data / "ogb_mini"), processes=2))
    assert_matches_ogb(data.source, pd.read_csv(data.source.files()["data"])["smiles"].tolist())
    splits = torch.load(data.source.files()["split"], weights_only=False)
    for split, ids in read_graphs(data.source).splits.items():
        np.testing.assert_array_equal(ids, splits[split])


def test_splits_saved_by_numpy_1_and_2_agree(real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(real_data / "ogb_mini" / "pcqm4m-v2", tmp_path / "pcqm4m-v2")
    before = read_graphs(PCQM4Mv2(str(tmp_path), processes=1)).splits
    shutil.copy(tmp_path / "pcqm4m-v2" / "split_dict_np2.pt", tmp_path / "pcqm4m-v2" / "split_dict.pt")
    after = read_graphs(PCQM4Mv2(str(tmp_path), processes=1)).splits
    for split, ids in before.items():
        np.testing.assert_array_equal(after[split], ids)


def test_data_module_metrics_splits_and_baseline(root: Path) -> None:
    data = GraphData(PCQM4Mv2(str(root), processes=1))
    data.open([])
    measures, criterion = data.measures()
    assert (list(measures), criterion.name, criterion.mode) == (["mae"], "mae", "min")
    assert not data.has("test")
    assert data.has("test-dev")
    assert baseline(data, data.targets("valid"))["mae"] == pytest.approx(np.abs(np.array([4.25, 3.5]) - 1.0).mean())


def test_metric_matches_evaluator() -> None:
    torch.manual_seed(0)
    preds, target = torch.randn(40, 1), torch.randn(40, 1)
    target[7] = torch.nan
    metric = PCQM4Mv2Metric()
    for rows in torch.arange(40).split([1, 20, 19]):
        metric.update(preds[rows], target[rows])
    known = ~target[:, 0].isnan()
    expected = PCQM4Mv2Evaluator().eval({"y_true": target[known, 0].numpy(), "y_pred": preds[known, 0].numpy()})["mae"]
    assert float(metric.compute()) == pytest.approx(expected)
    metric.reset()
    metric.update(preds[7:8], target[7:8])
    assert metric.compute().isnan()


@pytest.mark.parametrize("split", [*OFFICIAL])
def test_submission_matches_evaluator(tmp_path: Path, split: str) -> None:
    values = np.random.default_rng(0).normal(size=(OFFICIAL[split], 1))
    path = PCQM4Mv2(str(tmp_path)).submission(split, values, tmp_path / "new")
    PCQM4Mv2Evaluator().save_test_submission({"y_pred": values[:, 0]}, str(tmp_path / "theirs"), split)
    assert path is not None
    assert [p.name for p in (tmp_path / "new").iterdir()] == [path.name]
    expected = np.load(tmp_path / "theirs" / path.name)
    actual = np.load(path)
    assert actual.files == expected.files
    np.testing.assert_array_equal(actual["y_pred"], expected["y_pred"])


def test_submission_of_partial_and_other_splits(tmp_path: Path) -> None:
    data = GraphData(PCQM4Mv2(str(tmp_path)))
    path = data.source.submission("test-dev", np.ones((3, 1)), tmp_path)
    assert path == tmp_path / "y_pred_pcqm4m-v2_test-dev.npz"
    assert np.load(path)["y_pred"].dtype == np.float32
    assert data.source.submission("valid", np.ones((3, 1)), tmp_path) is None


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": [0], "valid": [1], "test": [2]}, "holds train, valid, test instead of"),
        (SPLITS | {"train": [0, 7]}, "out of range for data.csv.gz"),
        (SPLITS | {"train": [0, -1]}, "out of range for data.csv.gz"),
        (SPLITS | {"train": [0, 1]}, "more than once"),
        (SPLITS | {"train": [0, 2, 5], "test-challenge": [3]}, "molecule 5 is in train, but has no gap"),
    ],
)
def test_invalid_splits_are_reported(tmp_path: Path, splits: dict[str, list[int]], message: str) -> None:
    write(tmp_path, splits=splits)
    assert_fails(lambda: read_graphs(PCQM4Mv2(str(tmp_path), processes=1)), "split_dict.pt", message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("idx,smiles\n0,C\n", "has the columns idx, smiles instead of idx, smiles, homolumogap"),
        ("idx,smiles,homolumogap\n", "holds no molecules"),
        ("idx,smiles,homolumogap\n0,C,1.0\n2,C,1.0\n", "row 2: idx is not 1"),
    ],
)
def test_malformed_table_is_reported(root: Path, text: str, message: str) -> None:
    write_gzip(root / "pcqm4m-v2" / "raw" / "data.csv.gz", text)
    assert_fails(lambda: read_graphs(PCQM4Mv2(str(root), processes=1)), "data.csv.gz", message)

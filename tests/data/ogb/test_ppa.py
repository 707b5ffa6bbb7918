"""ogbg-ppa, against OGB's own class and Evaluator."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gt.data.graphs import GraphData
from gt.data.ogb import raw as ogb_raw
from gt.data.ogb.metric import OGBAccuracy
from gt.data.ogb.ppa import ProteinAssociations
from gt.schema import UNLABELLED
from gt.train.baseline import baseline
from tests.data.ogb_files import assert_fails, open_with_ogb, read_graphs, to_csv, write_gzip

SIZES, LINES = [3, 1, 2], [2, 0, 1]
STRENGTHS = [[0.1, 0.2, 0.333, 0, 0, 1, 0.999], [0.5] * 7, [0.001] * 7]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    raw = {"num-node-list": SIZES, "num-edge-list": LINES, "edge": [[2, 0], [1, 2], [0, 1]], "edge-feat": STRENGTHS}
    for part, rows in {**raw, "graph-label": [36, 0, 5]}.items():
        write_gzip(tmp_path / "ogbg_ppa" / "raw" / f"{part}.csv.gz", to_csv(rows))
    for part, ids in {"train": [2], "valid": [0], "test": [1]}.items():
        write_gzip(tmp_path / "ogbg_ppa" / "split" / "species" / f"{part}.csv.gz", to_csv(ids))
    (tmp_path / "ogbg_ppa" / "RELEASE_v1.txt").write_text("v1\n")
    return tmp_path


@pytest.mark.parametrize("piece_size", [1, 4, 10**6])
def test_graphs_for_any_piece_size(root: Path, monkeypatch: pytest.MonkeyPatch, piece_size: int) -> None:
    monkeypatch.setattr(ogb_raw, "PIECE_SIZE", piece_size)
    graphs = read_graphs(ProteinAssociations(str(root)))
    assert graphs.node_ptr.tolist() == [0, 3, 4, 6]
    assert graphs.edge_ptr.tolist() == [0, 4, 4, 6]
    assert graphs.edge_index.tolist() == [[2, 2, 0, 1, 1, 0], [0, 1, 2, 2, 0, 1]]
    assert graphs.nodes["x"].tolist() == [[0]] * 6
    expected = np.array(STRENGTHS, np.float32)[[0, 1, 0, 1, 2, 2]]
    np.testing.assert_array_equal(graphs.edges["edge_attr"], expected)
    assert graphs.edges["edge_attr"].dtype == np.float32
    schema = graphs.schema
    assert (schema.node_vocab, schema.edge_floats, schema.outputs, schema.max_nodes) == ((1,), 7, 37, 3)


def test_real_graphs_match_ogb(real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(real_data / "ogb_mini" / "ogbg_ppa", tmp_path / "ogbg_ppa")
    graphs, expected_graphs = read_graphs(ProteinAssociations(str(tmp_path))), open_with_ogb("ogbg-ppa", tmp_path)
    assert len(graphs) == len(expected_graphs)
    for g, expected_graph in enumerate(expected_graphs):
        edges = slice(graphs.edge_ptr[g], graphs.edge_ptr[g + 1])
        actual = np.c_[graphs.edge_index[:, edges].T, graphs.edges["edge_attr"][edges]]
        expected = np.c_[expected_graph.edge_index.T, expected_graph.edge_attr]
        # parallel edges may come in any order
        np.testing.assert_array_equal(actual[np.lexsort(actual.T)], expected[np.lexsort(expected.T)])
        assert graphs.graphs["y"][g] == expected_graph.y[0]
        assert graphs.sizes[g] == expected_graph.num_nodes
    for split, ids in expected_graphs.get_idx_split().items():
        np.testing.assert_array_equal(graphs.splits[split], ids.numpy())


@pytest.mark.parametrize(
    ("part", "text", "messages"),
    [
        ("graph-label", "36\n37\n0\n", ["row 2", "37 is not one of 37 classes"]),
        ("edge-feat", "0,0,0,0,0,0,0\n0,0,0,0,0,0,1.5\n0,0,0,0,0,0,0\n", ["row 2", "1.5 is not a strength"]),
        ("edge-feat", "0,0,0,0,0,0,0\n0,0,,0,0,0,0\n0,0,0,0,0,0,0\n", ["row 2", "nan is not a strength"]),
        ("edge-feat", "0,0,0,0,0,0,0\n" * 4, ["has 4 rows", "imply 3"]),
    ],
)
def test_malformed_file_is_reported(root: Path, part: str, text: str, messages: list[str]) -> None:
    write_gzip(root / "ogbg_ppa" / "raw" / f"{part}.csv.gz", text)
    assert_fails(lambda: read_graphs(ProteinAssociations(str(root))), *messages)


def test_data_module_metrics_and_baseline(root: Path) -> None:
    data = GraphData(ProteinAssociations(str(root)))
    data.open([])
    measures, criterion = data.measures()
    assert (list(measures), criterion.name, criterion.mode) == (["acc"], "acc", "max")
    (batch,) = data.loader("valid")
    assert batch.edge_attr.dtype == torch.float32
    assert baseline(data, data.targets("valid"))["acc"] == 0.0


def test_accuracy_matches_evaluator() -> None:
    torch.manual_seed(0)
    scores, target = torch.randn(50, 37), torch.randint(37, (50, 1))
    scores[:20].scatter_(1, target[:20], 9.0)
    target[45:] = UNLABELLED
    metric = OGBAccuracy("ogbg-ppa")
    for rows in torch.arange(50).split([1, 30, 19]):
        metric.update(scores[rows], target[rows])
    y_pred = scores[:45].argmax(1, keepdim=True).numpy()
    assert float(metric.compute()) == pytest.approx(
        metric.evaluator.eval({"y_true": target[:45].numpy(), "y_pred": y_pred})["acc"]
    )
    metric.reset()
    metric.update(scores[45:], target[45:])
    assert metric.compute().isnan()
    with pytest.raises(ValueError, match=r"expected \(B, 1\)"):
        metric.update(scores, target[:, 0])

"""ogbg-code2: trees, targets and F1 against OGB's own reader and Evaluator and names encoded by hand."""

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from gt.data.graphs import GraphData
from gt.data.ogb import raw as ogb_raw
from gt.data.ogb.code2 import POSITIONS, FunctionNames, frequent, targets
from gt.data.ogb.metric import OGBWords
from gt.data.packed import Graphs
from gt.losses import constant_prediction, loss
from gt.schema import UNLABELLED
from gt.train.baseline import baseline
from tests.data.ogb_files import assert_fails, open_with_ogb, read_graphs, write_code2, write_gzip

NAMES = ["get the name", "set name", "get a b c d e name", "name name", "zzz get"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_code2(tmp_path / "ogbg_code2", NAMES, [0, 1, 2])
    return tmp_path


def edges_of(graphs: Graphs, g: int) -> list[list[int]]:
    rows = slice(graphs.edge_ptr[g], graphs.edge_ptr[g + 1])
    return np.concatenate([graphs.edge_index[:, rows], graphs.edges["edge_attr"][rows].T]).T.tolist()


def test_trees_get_edges_between_tokens(root: Path) -> None:
    graphs = read_graphs(FunctionNames(str(root)))
    assert graphs.node_ptr.tolist() == [0, 5, 6, 11, 12, 17]
    tree = [[0, 1, 0, 0], [0, 2, 0, 0], [2, 3, 0, 0], [2, 4, 0, 0]]
    tokens = [[4, 3, 1, 0], [3, 1, 1, 0]]  # nodes 4, 3, 1 carry tokens, in depth-first order
    reverse = [[j, i, kind, 1] for i, j, kind, _ in tree + tokens]
    expected = sorted(tree + tokens + reverse, key=lambda edge: (edge[1], edge[0]))
    assert edges_of(graphs, 0) == expected
    assert edges_of(graphs, 1) == []
    assert edges_of(graphs, 4) == expected
    assert graphs.nodes["x"][:6].tolist() == [[0, 1, 0], [1, 2, 1], [2, 0, 1], [1, 1, 20], [0, 3, 2], [2, 2, 0]]
    schema = graphs.schema
    assert (schema.node_vocab, schema.edge_vocab) == ((3, 4, 21), (2, 2))
    assert (schema.positions, schema.kind, schema.max_nodes) == (5, "multiclass", 5)


def test_chunked_read_equals_whole_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_graphs(FunctionNames(str(root)))
    monkeypatch.setattr(ogb_raw, "PIECE_SIZE", 3)
    data = GraphData(FunctionNames(str(root)))
    assert len(list(data.source.read(data.source.files()))) == 4
    chunked = read_graphs(data.source)
    for name in ("node_ptr", "edge_ptr", "edge_index"):
        np.testing.assert_array_equal(getattr(chunked, name), getattr(whole, name))
    np.testing.assert_array_equal(chunked.edges["edge_attr"], whole.edges["edge_attr"])
    np.testing.assert_array_equal(chunked.graphs["y"], whole.graphs["y"])
    assert chunked.schema == whole.schema


def test_targets_are_first_words_then_all_references(root: Path) -> None:
    graphs = read_graphs(FunctionNames(str(root)))
    words = graphs.schema.names
    assert words[:3] == ("name", "get", "the")  # ties in order of appearance
    assert words[-2:] == ("__UNK__", "__EOS__")
    index = {word: n for n, word in enumerate(words)}
    y = graphs.graphs["y"]
    assert y.shape == (5, POSITIONS + 7)
    assert [words[n] for n in y[0, :5]] == ["get", "the", "name", "__EOS__", "__EOS__"]
    assert [words[n] for n in y[2, :5]] == ["get", "a", "b", "c", "d"]
    assert [words[n] for n in y[4, :5]] == ["__UNK__", "get", "__EOS__", "__EOS__", "__EOS__"]
    assert y[3, 5:].tolist() == [index["name"]] + [UNLABELLED] * 6
    assert y[4, 5:7].tolist() == [len(words), index["get"]]


def test_vocabulary_keeps_most_frequent_words() -> None:
    names = [["a", "b"], ["b", "c"], ["d", "c"], ["e"]]
    assert frequent(names, 3) == ["b", "c", "a", "__UNK__", "__EOS__"]
    y = targets([["a", "x", "y"], ["x"]], frequent(names, 3))
    assert y[0].tolist() == [2, 3, 3, 4, 4, 2, 6, 7]
    assert y[1].tolist() == [3, 4, 4, 4, 4, 5, UNLABELLED, UNLABELLED]


def test_f1_matches_evaluator() -> None:
    """Expected: the F1 from OGB's Evaluator, given names and predictions as words."""
    rng = np.random.default_rng(0)
    pool = [f"w{n}" for n in range(12)]
    names = [rng.choice(pool, rng.integers(1, 9)).tolist() for _ in range(60)]
    words = [*frequent(names[:30], 6)]
    y = torch.from_numpy(targets(names, words)).long()
    scores = torch.from_numpy(rng.normal(size=(60, POSITIONS * len(words)))).float()
    scores.view(60, POSITIONS, -1)[:30, :, :6] += y[:30, :POSITIONS, None].eq(torch.arange(6)) * 3.0
    predicted = [[words[n] for n in row] for row in scores.view(60, POSITIONS, -1).argmax(2).tolist()]
    predicted = [row[: row.index("__EOS__")] if "__EOS__" in row else row for row in predicted]
    assert any("__UNK__" in row for row in predicted)
    metric = OGBWords(words, POSITIONS, y.shape[1] - POSITIONS)
    expected = metric.evaluator.eval({"seq_ref": names, "seq_pred": predicted})["F1"]
    assert 0.1 < expected < 0.9
    whole, batched = (MetricCollection({"F1": metric}).clone(prefix=stage) for stage in ("a/", "b/"))
    whole.update(scores, y)
    for rows in torch.arange(60).split([1, 40, 19]):
        batched.update(scores[rows], y[rows])
    assert float(whole.compute()["a/F1"]) == pytest.approx(expected, rel=1e-6)
    assert float(batched.compute()["b/F1"]) == pytest.approx(expected, rel=1e-6)


def test_loss_and_baseline_use_positions_only(root: Path) -> None:
    graphs = read_graphs(FunctionNames(str(root)))
    y = torch.from_numpy(graphs.graphs["y"]).long()
    scores = torch.randn(5, POSITIONS * graphs.schema.outputs)
    expected = torch.nn.functional.cross_entropy(scores.view(5 * POSITIONS, -1), y[:, :POSITIONS].reshape(-1))
    torch.testing.assert_close(loss(graphs.schema, scores, y), expected)
    constant = constant_prediction(graphs.schema, y[:3]).view(POSITIONS, -1)
    most_common = Counter(y[:3, 0].tolist()).most_common(1)[0][0]
    assert int(constant[0].argmax()) == most_common


def test_data_module_loads_and_decodes_batches(root: Path) -> None:
    data = GraphData(FunctionNames(str(root)), batch_size=2)
    data.open([])
    measures, criterion = data.measures()
    assert (list(measures), criterion.name, criterion.mode) == (["F1"], "F1", "max")
    (batch,) = data.loader("valid")
    assert batch.y.shape == (1, POSITIONS + 7)
    assert data.source.spelled(data.graphs, np.array([0]), batch.y[:, :POSITIONS], batch) == ["name name"]
    assert 0 < baseline(data, data.targets("test"))["F1"] < 1


@pytest.mark.parametrize(
    ("part", "text", "messages"),
    [
        ("raw/node-feat", "0,4\n", ["node-feat.csv.gz, row 1", "4 is outside"]),
        ("raw/node_is_attributed", "2\n", ["node_is_attributed.csv.gz, row 1", "2 is outside"]),
        ("raw/node_depth", "-1\n", ["node_depth.csv.gz, row 1", "less than 0"]),
        ("raw/graph-label", "a\nb\n", ["graph-label.csv.gz has 2 rows of 1 columns", "implies 5 of 1"]),
        ("mapping/typeidx2type", "", ["cannot read", "typeidx2type.csv.gz"]),
    ],
)
def test_malformed_file_is_reported(root: Path, part: str, text: str, messages: list[str]) -> None:
    write_gzip(root / "ogbg_code2" / f"{part}.csv.gz", text)
    assert_fails(lambda: read_graphs(FunctionNames(str(root))), *messages)


def test_real_functions_match_ogb(real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(real_data / "ogb_mini" / "ogbg_code2", tmp_path / "ogbg_code2")
    graphs, expected_graphs = read_graphs(FunctionNames(str(tmp_path))), open_with_ogb("ogbg-code2", tmp_path)
    assert len(graphs) == len(expected_graphs)
    words = graphs.schema.names
    for split, ids in expected_graphs.get_idx_split().items():
        np.testing.assert_array_equal(graphs.splits[split], ids.numpy())
    for g, expected_graph in enumerate(expected_graphs):
        rows = slice(graphs.node_ptr[g], graphs.node_ptr[g + 1])
        np.testing.assert_array_equal(graphs.nodes["x"][rows, :2], expected_graph.x)
        np.testing.assert_array_equal(graphs.nodes["x"][rows, 2], expected_graph.node_depth[:, 0].clamp(max=20))
        tokens = torch.where(expected_graph.node_is_attributed[:, 0] == 1)[0].tolist()
        expected_edges = [(i, j, 0, 0) for i, j in expected_graph.edge_index.T.tolist()]
        expected_edges += [(i, j, 1, 0) for i, j in pairwise(tokens)]
        expected_edges += [(j, i, kind, 1) for i, j, kind, _ in expected_edges]
        assert sorted(map(tuple, edges_of(graphs, g))) == sorted(expected_edges)
        target = graphs.graphs["y"][g]
        encoded = (expected_graph.y[:POSITIONS] + ["__EOS__"] * POSITIONS)[:POSITIONS]
        assert [words[n] for n in target[:POSITIONS]] == [w if w in words else "__UNK__" for w in encoded]
        references = target[POSITIONS:][target[POSITIONS:] != UNLABELLED]
        assert len(references) == len(set(references)) == len(set(expected_graph.y))
        assert {words[n] for n in references if n < len(words)} == set(expected_graph.y) & set(words[:-2])

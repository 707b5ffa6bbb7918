"""Classical baselines: features against loops, what the models learn, and that test labels do not leak."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from gt.baselines.classical import Classical
from gt.baselines.features import Surroundings
from gt.baselines.fingerprints import fingerprints
from gt.baselines.models import boosted
from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.molecules.molecules import Molecules
from gt.data.molecules.parsing import chemistry
from gt.data.packed import Graphs, pointers
from gt.data.source import Source
from gt.data.text.classification import TextClassification
from gt.errors import UserError
from gt.schema import UNLABELLED, Schema
from gt.train.baseline import classical_verdict, score_predictions
from tests.data.modules import make_data
from tests.small_runs import train, write_graphs


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: several would wait for each other on a busy machine."""
    with threadpool_limits(1):
        yield


def random_graphs(sizes: list[int], schema: Schema, seed: int = 0, **arrays: dict[str, np.ndarray]) -> Graphs:
    """Random directed graphs with two categorical columns per node and two real ones per edge."""
    rng = np.random.default_rng(seed)
    ends = [np.unique(rng.integers(0, n, (2, 2 * n)), axis=1) if n > 1 else np.empty((2, 0), int) for n in sizes]
    edges = [pairs.shape[1] for pairs in ends]
    return Graphs(
        node_ptr=pointers(np.array(sizes)),
        edge_ptr=pointers(np.array(edges)),
        edge_index=np.concatenate(ends, axis=1),
        nodes={"x": rng.integers(0, 3, (sum(sizes), 2)), **arrays.pop("nodes", {})},
        edges={"edge_attr": rng.normal(size=(sum(edges), 2)).astype(np.float32)},
        schema=schema,
        **arrays,
    ).sort_edges()


class GeneratedSource(Source):
    """A source whose graphs come from a function."""

    name = "built"

    def __init__(self, root: Path, make: Any) -> None:
        self.root, self.make = root, make

    def key(self) -> dict[str, Any]:
        return {}

    def build(self) -> Graphs:
        random_graphs: Graphs = self.make()
        return random_graphs


def expected_features(store: Graphs) -> list[dict[str, np.ndarray]]:
    """Expected features of each graph, by loops: log degrees, one-hot x and edge means, averaged over 0 to 2 hops."""
    out = []
    for graph in range(len(store)):
        first, last = store.node_ptr[graph : graph + 2]
        pairs = store.edge_index[:, store.edge_ptr[graph] : store.edge_ptr[graph + 1]].T.tolist()
        numbers = store.edges["edge_attr"][store.edge_ptr[graph] : store.edge_ptr[graph + 1]]
        own = []
        for node in range(last - first):
            received = [numbers[place] for place, (_, target) in enumerate(pairs) if target == node]
            degrees = [len(received), sum(source == node for source, _ in pairs)]
            x = store.nodes["x"][first + node]
            channels = [float(x[column] == value) for column in (0, 1) for value in range(3)]
            own.append(np.concatenate([np.log1p(degrees), channels, np.mean(received, 0) if received else np.zeros(2)]))
        hops = [np.array(own)]
        for _ in range(2):
            means = []
            for node in range(last - first):
                others = [hops[-1][s] for s, t in pairs if t == node] + [hops[-1][t] for s, t in pairs if s == node]
                means.append(np.mean(others, 0) if others else np.zeros_like(hops[0][0]))
            hops.append(np.array(means))
        out.append({"hops": np.stack(hops), "edges": len(pairs)})
    return out


def test_features_match_loops() -> None:
    store = random_graphs([4, 1, 7, 2, 9], Schema(node_vocab=(3, 3), edge_floats=2, outputs=2))
    features, expected = Surroundings(store, np.arange(5)), expected_features(store)
    assert features.of_nodes is not None
    assert features.of_nodes.frequent is not None
    order = [0, 1, *(2 + 3 * column + value for column in (0, 1) for value in features.of_nodes.frequent[column]), 8, 9]
    nodes = np.array([21, 4, 5, 0, 11, 12])
    rows = features.nodes(nodes)
    for node, row in zip(nodes, rows, strict=True):
        graph = int(np.searchsorted(store.node_ptr, node, side="right")) - 1
        hops = expected[graph]["hops"][:, node - store.node_ptr[graph]][:, order]
        np.testing.assert_allclose(row, [*hops.flatten(), store.sizes[graph]], rtol=1e-5, atol=1e-6)
    ids = np.array([4, 0, 1])
    for graph, row in zip(ids, features.whole(ids), strict=True):
        hops = expected[graph]["hops"][:, :, order]
        pooled = [hops[0].sum(0), *(part for hop in hops for part in (hop.mean(0), hop.std(0)))]
        np.testing.assert_allclose(row, [store.sizes[graph], expected[graph]["edges"], *np.concatenate(pooled)],
                                   rtol=1e-4, atol=1e-3)  # fmt: skip


SPLITS = {"train": np.arange(240), "valid": np.arange(240, 270), "test": np.arange(270, 400)}


def many_graphs(shuffled: bool = False, flip_test: int = 0) -> Graphs:
    """Label: more nodes of category 0 than of 1. Labels may be shuffled, or those of the test split flipped."""
    store = random_graphs(np.random.default_rng(1).integers(1, 9, 400).tolist(),
                          Schema(node_vocab=(3, 3), edge_floats=2, outputs=2), splits=SPLITS)  # fmt: skip
    first = store.nodes["x"][:, 0]
    counts = [np.add.reduceat((first == value).astype(int), store.node_ptr[:-1]) for value in (0, 1)]
    y = (counts[0] > counts[1]).astype(np.int64)
    y = np.random.default_rng(2).permutation(y) if shuffled else y
    y[270:] = (y[270:] + flip_test) % 2
    store.graphs = {"y": y}
    return store


def open_data(module: Any, root: Path, make: Any) -> Any:
    data = make_data(module, GeneratedSource, root, make)
    data.open([])
    return data


def accuracy(data: Any, **options: Any) -> float:
    answers = Classical(**options).answers(data, "test")
    assert answers is not None
    return score_predictions(data, answers.prediction, data.targets("test"))["accuracy"]


def test_baseline_learns_signal_but_not_noise(tmp_path: Path) -> None:
    assert accuracy(open_data(GraphData, tmp_path / "whole", many_graphs)) > 0.9
    assert accuracy(open_data(GraphData, tmp_path / "noise", lambda: many_graphs(shuffled=True))) < 0.65


def test_test_labels_do_not_leak(tmp_path: Path) -> None:
    both = [open_data(GraphData, tmp_path / str(n), lambda n=n: many_graphs(flip_test=n)) for n in (0, 1)]
    original, flipped = (Classical().answers(data, "test") for data in both)
    assert original is not None
    assert flipped is not None
    assert not torch.equal(both[0].targets("test"), both[1].targets("test"))
    assert torch.equal(original.prediction, flipped.prediction)


def test_fits_are_cached_per_seed(tmp_path: Path) -> None:
    data = open_data(GraphData, tmp_path, many_graphs)
    first, again, other_seed = (Classical(samples=100, seed=seed).answers(data, "test") for seed in (0, 0, 1))
    assert first is again
    assert first is not None
    assert other_seed is not None
    assert (first.samples, first.total) == (100, 240)
    assert not torch.equal(first.prediction, other_seed.prediction)


def neighbour_labels(store: Graphs) -> np.ndarray:
    """Labels of nodes: whether most neighbours, ignoring edge directions, have category 0."""
    shift = np.repeat(store.node_ptr[:-1], np.diff(store.edge_ptr))
    source, target = store.edge_index + shift
    score, is_first = np.zeros(int(store.node_ptr[-1])), 2 * (store.nodes["x"][:, 0] == 0) - 1
    np.add.at(score, target, is_first[source])
    np.add.at(score, source, is_first[target])
    return (score > 0).astype(np.int64)


def one_graph() -> Graphs:
    order = np.random.default_rng(0).permutation(600)
    splits = {"train": order[:400], "valid": order[400:450], "test": order[450:]}
    store = random_graphs([600], Schema(node_vocab=(3, 3), edge_floats=2, level="node", outputs=2), splits=splits)
    store.nodes["y"] = neighbour_labels(store)
    store.nodes["y"][splits["train"][::5]] = UNLABELLED
    return store


def nodes_of_many_graphs() -> Graphs:
    order = np.random.default_rng(0).permutation(80)
    splits = {"train": order[:50], "valid": order[50:60], "test": order[60:]}
    store = random_graphs(
        [3, 12, 1, 9] * 20, Schema(node_vocab=(3, 3), edge_floats=2, level="node", outputs=2), splits=splits
    )
    store.nodes["y"] = neighbour_labels(store)
    return store


@pytest.mark.parametrize(("module", "make"), [(NodeData, one_graph), (GraphData, nodes_of_many_graphs)])
def test_nodes_are_classified_by_their_neighbours(module: Any, make: Any, tmp_path: Path) -> None:
    assert accuracy(open_data(module, tmp_path, make)) > 0.9


def test_each_task_trains_on_its_labelled_rows() -> None:
    rng = np.random.default_rng(0)
    train_x, test_x = rng.normal(size=(200, 3)), rng.normal(size=(50, 3))
    y = (train_x > 0).astype(np.float32)
    y[::2, 0], y[:, 1], y[:, 2] = np.nan, np.nan, 1.0
    answers = boosted(Schema(kind="binary", outputs=3), y, train_x, test_x, 0)
    model = HistGradientBoostingClassifier(max_iter=200, learning_rate=0.05, early_stopping=False,
                                           min_samples_leaf=4, l2_regularization=10.0, random_state=0)  # fmt: skip
    expected = model.fit(train_x[1::2], y[1::2, 0]).decision_function(test_x)
    np.testing.assert_allclose(answers[:, 0], expected, rtol=1e-5)
    assert (answers[:, 1] == 0).all()  # no labels: even odds
    assert (answers[:, 2] > 5).all()  # only positive labels


@pytest.mark.parametrize("options", [{"squared": True}, {"squared": False}, {"log": True}])
def test_regression_is_in_original_units(options: dict[str, bool]) -> None:
    rng = np.random.default_rng(0)
    train_x, test_x = rng.uniform(1, 5, (400, 2)), rng.uniform(1, 5, (50, 2))
    y = np.exp(train_x).astype(np.float32)
    y[::7] = np.nan
    schema = Schema(kind="regression", outputs=2, mean=(3.0, 3.0), scale=(2.0, 2.0), **options)
    answers = boosted(schema, y[~np.isnan(y).all(1)], train_x[~np.isnan(y).all(1)], test_x, 0).numpy()
    assert np.median(np.abs(answers - np.exp(test_x)) / np.exp(test_x)) < 0.1


def test_class_absent_from_training_is_unlikely() -> None:
    features = np.random.default_rng(0).normal(size=(100, 2))
    answers = boosted(Schema(outputs=3), np.where(features[:, 0] > 0, 2, 0), features, features, 0)
    torch.testing.assert_close(answers.exp().sum(1), torch.ones(100), atol=1e-4, rtol=0)
    assert answers[:, 1].max() < math.log(1e-5)
    assert (answers.argmax(1).numpy() == np.where(features[:, 0] > 0, 2, 0)).all()


def test_molecules_are_classified_by_fingerprints(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chains = ["".join(rng.choice(["C", "O", "N", "S"], 8, p=(0.6, 0.15, 0.1, 0.15))) for _ in range(300)]
    rows = [f"{chain},{int('N' in chain)}" for chain in dict.fromkeys(chains)]
    (tmp_path / "m.csv").write_text("\n".join(["smiles,amine", *rows]))
    path, root = str(tmp_path / "m.csv"), str(tmp_path)
    data = make_data(GraphData, Molecules, path, split="random", fractions=(0.6, 0.1, 0.3), root=root, processes=1)
    data.open([])
    answers = Classical().answers(data, "test")
    assert answers is not None
    assert "fingerprints" in answers.model
    assert score_predictions(data, answers.prediction, data.targets("test"))["auroc"] > 0.99
    assert list(data.source.smiles_of(data.graphs)) == [row.partition(",")[0] for row in rows]


def test_fingerprints_count_atom_environments() -> None:
    short, long, invalid = fingerprints(["CCO", "CCOCCO", "no molecule"])
    assert short.sum() == 6  # each of three atoms alone and with its neighbours; radius 2 adds no environment
    assert long.max() > short.max()
    assert not invalid.any()


def test_missing_rdkit_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    chemistry.cache_clear()
    monkeypatch.setitem(sys.modules, "rdkit", None)
    try:
        with pytest.raises(UserError, match=r"pip install .*molecules"):
            fingerprints(["C"])
    finally:
        chemistry.cache_clear()


def test_texts_are_classified_by_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(30)]
    labels = rng.integers(0, 2, 300)
    lines = [
        f"{' '.join(rng.choice(words, 6))} {('not good', 'good not')[y]},{y}" for y in labels
    ]  # classes differ only in word order
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    data = make_data(GraphData, TextClassification, str(tmp_path / "t.csv"), root=str(tmp_path))
    data.open([])
    assert accuracy(data) > 0.9


def test_texts_without_words_are_classified_by_symbols(tmp_path: Path) -> None:
    lines = [f"{'😀!' if n % 2 else '😡 ?'}{'…' * (n % 5)},{n % 2}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    data = make_data(GraphData, TextClassification, str(tmp_path / "t.csv"), root=str(tmp_path))
    data.open([])
    assert accuracy(data) == 1


def test_unsuitable_data_has_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = open_data(GraphData, tmp_path, many_graphs)
    for schema in (Schema(node_vocab=(3, 3), outputs=101), Schema(level="link", kind="binary"),
                   Schema(node_vocab=(3, 3), outputs=2, positions=2), Schema(node_vocab=(3, 3), pointer=True),
                   Schema(node_vocab=(7,), outputs=7, level="node", tokenizer="{}")):  # fmt: skip
        many.schema = schema
        assert Classical().answers(many, "test") is None
        assert capsys.readouterr().out.startswith("no classical baseline: ")


def test_run_losing_to_baseline_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [*write_graphs(tmp_path, 200, 20, 40), "baseline=classical"]
    train(tmp_path / "alone", *small, "stage=baseline")
    alone = capsys.readouterr().out.splitlines()
    train(tmp_path / "run", *small, "optim.lr=1e-9", "trainer.max_epochs=1")
    output = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    classical = result["classical"]["scores"]
    assert set(classical) == set(result["scores"])
    assert classical["accuracy"] > max(0.8, result["scores"]["accuracy"])
    (row,) = (line for line in output.splitlines() if line.startswith("accuracy"))
    assert row.split()[3] == f"{classical['accuracy']:.4f}"
    (expected,) = (line for line in alone if line.startswith("accuracy"))
    assert expected.split()[1:] == row.split()[2:]
    assert "loses to the classical baseline by accuracy" in output
    assert "loses to the classical baseline by accuracy" in (tmp_path / "run" / "report.html").read_text()
    assert not (tmp_path / "alone" / "result.json").exists()
    train(tmp_path / "part", *small, "optim.lr=1e-9", "trainer.max_epochs=1", "trainer.limit_test_batches=1")
    assert json.loads((tmp_path / "part" / "result.json").read_text())["classical"] is None


@pytest.mark.parametrize(("score", "name"), [(0.8, ""), (0.7, "accuracy"), (0.6, "accuracy"), (math.nan, "loss")])
def test_classical_verdict(score: float, name: str) -> None:
    result: dict[str, Any] = {"criterion": "accuracy", "mode": "max", "scores": {"loss": 2.0, "accuracy": score}}
    result["classical"] = {"model": "trees", "seconds": 3.2, "scores": {"loss": 1.0, "accuracy": 0.7}}
    assert classical_verdict(result) == (f"loses to the classical baseline by {name}: trees, 3 s" if name else "")
    assert classical_verdict(result | {"classical": None}) == ""

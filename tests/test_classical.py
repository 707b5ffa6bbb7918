"""Models without a network: what they are shown, against loops; what they learn, and what they must not know."""

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
from tests.data.modules import over
from tests.small_runs import train, write_graphs


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Of several, each waits for the others on a busy machine."""
    with threadpool_limits(1):
        yield


def graphs(sizes: list[int], schema: Schema, seed: int = 0, **arrays: dict[str, np.ndarray]) -> Graphs:
    """Random directed graphs with two columns of categories at each node and two numbers at each edge."""
    draw = np.random.default_rng(seed)
    ends = [np.unique(draw.integers(0, n, (2, 2 * n)), axis=1) if n > 1 else np.empty((2, 0), int) for n in sizes]
    edges = [pairs.shape[1] for pairs in ends]
    return Graphs(
        node_ptr=pointers(np.array(sizes)),
        edge_ptr=pointers(np.array(edges)),
        edge_index=np.concatenate(ends, axis=1),
        nodes={"x": draw.integers(0, 3, (sum(sizes), 2)), **arrays.pop("nodes", {})},
        edges={"edge_attr": draw.normal(size=(sum(edges), 2)).astype(np.float32)},
        schema=schema,
        **arrays,
    ).sort_edges()


class Built(Source):
    """A source of graphs that a function makes."""

    name = "built"

    def __init__(self, root: Path, make: Any) -> None:
        self.root, self.make = root, make

    def key(self) -> dict[str, Any]:
        return {}

    def build(self) -> Graphs:
        made: Graphs = self.make()
        return made


def around(store: Graphs) -> list[dict[str, np.ndarray]]:
    """By loops, of each graph: x as channels, in-degree, and the two means, of every node."""
    out = []
    for g in range(len(store)):
        first, last = store.node_ptr[g : g + 2]
        pairs = store.edge_index[:, store.edge_ptr[g] : store.edge_ptr[g + 1]].T.tolist()
        numbers = store.edges["edge_attr"][store.edge_ptr[g] : store.edge_ptr[g + 1]]
        own = []
        for node in range(last - first):
            reads = [numbers[place] for place, (_, target) in enumerate(pairs) if target == node]
            degrees = [len(reads), sum(source == node for source, _ in pairs)]
            x = store.nodes["x"][first + node]
            channels = [float(x[column] == value) for column in (0, 1) for value in range(3)]
            own.append(np.concatenate([np.log1p(degrees), channels, np.mean(reads, 0) if reads else np.zeros(2)]))
        hops = [np.array(own)]
        for _ in range(2):
            means = []
            for node in range(last - first):
                others = [hops[-1][s] for s, t in pairs if t == node] + [hops[-1][t] for s, t in pairs if s == node]
                means.append(np.mean(others, 0) if others else np.zeros_like(hops[0][0]))
            hops.append(np.array(means))
        out.append({"hops": np.stack(hops), "edges": len(pairs)})
    return out


def test_features_are_those_of_loops() -> None:
    store = graphs([4, 1, 7, 2, 9], Schema(node_vocab=(3, 3), edge_floats=2, outputs=2))
    shown, expected = Surroundings(store, np.arange(5)), around(store)
    assert shown.of_nodes is not None
    assert shown.of_nodes.frequent is not None
    order = [0, 1, *(2 + 3 * column + value for column in (0, 1) for value in shown.of_nodes.frequent[column]), 8, 9]
    nodes = np.array([21, 4, 5, 0, 11, 12])
    rows = shown.nodes(nodes)
    for node, row in zip(nodes, rows, strict=True):
        g = int(np.searchsorted(store.node_ptr, node, side="right")) - 1
        hops = expected[g]["hops"][:, node - store.node_ptr[g]][:, order]
        np.testing.assert_allclose(row, [*hops.flatten(), store.sizes[g]], rtol=1e-5, atol=1e-6)
    ids = np.array([4, 0, 1])
    for g, row in zip(ids, shown.whole(ids), strict=True):
        hops = expected[g]["hops"][:, :, order]
        pooled = [hops[0].sum(0), *(part for hop in hops for part in (hop.mean(0), hop.std(0)))]
        np.testing.assert_allclose(row, [store.sizes[g], expected[g]["edges"], *np.concatenate(pooled)],
                                   rtol=1e-4, atol=1e-3)  # fmt: skip


SPLITS = {"train": np.arange(240), "valid": np.arange(240, 270), "test": np.arange(270, 400)}


def many_graphs(shuffled: bool = False, test: int = 0) -> Graphs:
    """Does a graph have more nodes of category 0 than of 1? Labels shuffled, or those of the test split other ones."""
    store = graphs(np.random.default_rng(1).integers(1, 9, 400).tolist(), Schema(node_vocab=(3, 3), edge_floats=2,
                   outputs=2), splits=SPLITS)  # fmt: skip
    first = store.nodes["x"][:, 0]
    counts = [np.add.reduceat((first == value).astype(int), store.node_ptr[:-1]) for value in (0, 1)]
    y = (counts[0] > counts[1]).astype(np.int64)
    y = np.random.default_rng(2).permutation(y) if shuffled else y
    y[270:] = (y[270:] + test) % 2
    store.graphs = {"y": y}
    return store


def opened(module: Any, root: Path, make: Any) -> Any:
    data = over(module, Built, root, make)
    data.open([])
    return data


def accuracy(data: Any, **options: Any) -> float:
    answers = Classical(**options).answers(data, "test")
    assert answers is not None
    return score_predictions(data, answers.prediction, data.targets("test"))["accuracy"]


def test_it_learns_what_can_be_learned_and_nothing_else(tmp_path: Path) -> None:
    assert accuracy(opened(GraphData, tmp_path / "whole", many_graphs)) > 0.9
    assert accuracy(opened(GraphData, tmp_path / "noise", lambda: many_graphs(shuffled=True))) < 0.65


def test_it_never_knows_the_labels_that_it_is_scored_on(tmp_path: Path) -> None:
    both = [opened(GraphData, tmp_path / str(n), lambda n=n: many_graphs(test=n)) for n in (0, 1)]
    one, other = (Classical().answers(data, "test") for data in both)
    assert one is not None
    assert other is not None
    assert not torch.equal(both[0].targets("test"), both[1].targets("test"))
    assert torch.equal(one.prediction, other.prediction)


def test_jobs_of_a_sweep_fit_once_and_a_seed_draws_samples_anew(tmp_path: Path) -> None:
    data = opened(GraphData, tmp_path, many_graphs)
    first, again, other = (Classical(samples=100, seed=seed).answers(data, "test") for seed in (0, 0, 1))
    assert first is again
    assert first is not None
    assert other is not None
    assert (first.samples, first.total) == (100, 240)
    assert not torch.equal(first.prediction, other.prediction)


def around_nodes(store: Graphs) -> np.ndarray:
    """Has a node of any graph more neighbours of category 0, whichever way edges point, than others?"""
    shift = np.repeat(store.node_ptr[:-1], np.diff(store.edge_ptr))
    source, target = store.edge_index + shift
    score, is_first = np.zeros(int(store.node_ptr[-1])), 2 * (store.nodes["x"][:, 0] == 0) - 1
    np.add.at(score, target, is_first[source])
    np.add.at(score, source, is_first[target])
    return (score > 0).astype(np.int64)


def one_graph() -> Graphs:
    draw = np.random.default_rng(0).permutation(600)
    splits = {"train": draw[:400], "valid": draw[400:450], "test": draw[450:]}
    store = graphs([600], Schema(node_vocab=(3, 3), edge_floats=2, level="node", outputs=2), splits=splits)
    store.nodes["y"] = around_nodes(store)
    store.nodes["y"][splits["train"][::5]] = UNLABELLED
    return store


def nodes_of_many() -> Graphs:
    draw = np.random.default_rng(0).permutation(80)
    splits = {"train": draw[:50], "valid": draw[50:60], "test": draw[60:]}
    store = graphs([3, 12, 1, 9] * 20, Schema(node_vocab=(3, 3), edge_floats=2, level="node", outputs=2), splits=splits)
    store.nodes["y"] = around_nodes(store)
    return store


@pytest.mark.parametrize(("module", "make"), [(NodeData, one_graph), (GraphData, nodes_of_many)])
def test_nodes_are_told_by_their_neighbours(module: Any, make: Any, tmp_path: Path) -> None:
    assert accuracy(opened(module, tmp_path, make)) > 0.9


def test_each_task_learns_from_the_rows_that_have_its_label() -> None:
    draw = np.random.default_rng(0)
    known, others = draw.normal(size=(200, 3)), draw.normal(size=(50, 3))
    y = (known > 0).astype(np.float32)
    y[::2, 0], y[:, 1], y[:, 2] = np.nan, np.nan, 1.0
    answers = boosted(Schema(kind="binary", outputs=3), y, known, others, 0)
    alone = HistGradientBoostingClassifier(max_iter=200, learning_rate=0.05, early_stopping=False,
                                           min_samples_leaf=4, l2_regularization=10.0, random_state=0)  # fmt: skip
    expected = alone.fit(known[1::2], y[1::2, 0]).decision_function(others)
    np.testing.assert_allclose(answers[:, 0], expected, rtol=1e-5)
    assert (answers[:, 1] == 0).all()  # even odds: nothing is known
    assert (answers[:, 2] > 5).all()  # always yes


@pytest.mark.parametrize("options", [{"squared": True}, {"squared": False}, {"log": True}])
def test_numbers_are_answered_in_their_own_unit(options: dict[str, bool]) -> None:
    draw = np.random.default_rng(0)
    known, others = draw.uniform(1, 5, (400, 2)), draw.uniform(1, 5, (50, 2))
    y = np.exp(known).astype(np.float32)
    y[::7] = np.nan
    schema = Schema(kind="regression", outputs=2, mean=(3.0, 3.0), scale=(2.0, 2.0), **options)
    answers = boosted(schema, y[~np.isnan(y).all(1)], known[~np.isnan(y).all(1)], others, 0).numpy()
    assert np.median(np.abs(answers - np.exp(others)) / np.exp(others)) < 0.1


def test_a_class_that_training_lacks_is_not_expected() -> None:
    known = np.random.default_rng(0).normal(size=(100, 2))
    answers = boosted(Schema(outputs=3), np.where(known[:, 0] > 0, 2, 0), known, known, 0)
    torch.testing.assert_close(answers.exp().sum(1), torch.ones(100), atol=1e-4, rtol=0)
    assert answers[:, 1].max() < math.log(1e-5)
    assert (answers.argmax(1).numpy() == np.where(known[:, 0] > 0, 2, 0)).all()


def test_molecules_are_told_by_their_fingerprints(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    chains = ["".join(draw.choice(["C", "O", "N", "S"], 8, p=(0.6, 0.15, 0.1, 0.15))) for _ in range(300)]
    rows = [f"{chain},{int('N' in chain)}" for chain in dict.fromkeys(chains)]
    (tmp_path / "m.csv").write_text("\n".join(["smiles,amine", *rows]))
    path, root = str(tmp_path / "m.csv"), str(tmp_path)
    data = over(GraphData, Molecules, path, split="random", fractions=(0.6, 0.1, 0.3), root=root, processes=1)
    data.open([])
    answers = Classical().answers(data, "test")
    assert answers is not None
    assert "fingerprints" in answers.model
    assert score_predictions(data, answers.prediction, data.targets("test"))["auroc"] > 0.99
    assert list(data.source.smiles_of(data.graphs)) == [row.partition(",")[0] for row in rows]


def test_a_fingerprint_counts_environments_and_is_empty_for_no_molecule() -> None:
    one, two, none = fingerprints(["CCO", "CCOCCO", "no molecule"])
    assert one.sum() == 6  # three atoms, each alone and with its neighbours; the next radius adds nothing
    assert two.max() > one.max()
    assert not none.any()


def test_without_rdkit_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    chemistry.cache_clear()
    monkeypatch.setitem(sys.modules, "rdkit", None)
    try:
        with pytest.raises(UserError, match=r"pip install .*molecules"):
            fingerprints(["C"])
    finally:
        chemistry.cache_clear()


def test_texts_are_told_by_their_words(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    words = [f"word{n}" for n in range(30)]
    labels = draw.integers(0, 2, 300)
    lines = [f"{' '.join(draw.choice(words, 6))} {('not good', 'good not')[y]},{y}" for y in labels]  # by their order
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    data = over(GraphData, TextClassification, str(tmp_path / "t.csv"), root=str(tmp_path))
    data.open([])
    assert accuracy(data) > 0.9


def test_texts_without_words_are_told_by_their_marks(tmp_path: Path) -> None:
    lines = [f"{'😀!' if n % 2 else '😡 ?'}{'…' * (n % 5)},{n % 2}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    data = over(GraphData, TextClassification, str(tmp_path / "t.csv"), root=str(tmp_path))
    data.open([])
    assert accuracy(data) == 1


def test_data_that_no_model_suits_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = opened(GraphData, tmp_path, many_graphs)
    for schema in (Schema(node_vocab=(3, 3), outputs=101), Schema(level="link", kind="binary"),
                   Schema(node_vocab=(3, 3), outputs=2, positions=2), Schema(node_vocab=(3, 3), pointer=True),
                   Schema(node_vocab=(7,), outputs=7, level="node", tokenizer="{}")):  # fmt: skip
        many.schema = schema
        assert Classical().answers(many, "test") is None
        assert capsys.readouterr().out.startswith("no classical baseline: ")


def test_a_run_that_loses_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [*write_graphs(tmp_path, 200, 20, 40), "baseline=classical"]
    train(tmp_path / "alone", *small, "stage=baseline")
    alone = capsys.readouterr().out.splitlines()
    train(tmp_path / "run", *small, "optim.lr=1e-9", "trainer.max_epochs=1")
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    classical = result["classical"]["scores"]
    assert set(classical) == set(result["scores"])
    assert classical["accuracy"] > max(0.8, result["scores"]["accuracy"])
    (row,) = (line for line in said.splitlines() if line.startswith("accuracy"))
    assert row.split()[3] == f"{classical['accuracy']:.4f}"
    (before,) = (line for line in alone if line.startswith("accuracy"))
    assert before.split()[1:] == row.split()[2:]
    assert "loses to the classical baseline by accuracy" in said
    assert "loses to the classical baseline by accuracy" in (tmp_path / "run" / "report.html").read_text()
    assert not (tmp_path / "alone" / "result.json").exists()
    train(tmp_path / "part", *small, "optim.lr=1e-9", "trainer.max_epochs=1", "trainer.limit_test_batches=1")
    assert json.loads((tmp_path / "part" / "result.json").read_text())["classical"] is None


@pytest.mark.parametrize(("score", "name"), [(0.8, ""), (0.7, "accuracy"), (0.6, "accuracy"), (math.nan, "loss")])
def test_which_runs_lose(score: float, name: str) -> None:
    result: dict[str, Any] = {"criterion": "accuracy", "mode": "max", "scores": {"loss": 2.0, "accuracy": score}}
    result["classical"] = {"model": "trees", "seconds": 3.2, "scores": {"loss": 1.0, "accuracy": 0.7}}
    assert classical_verdict(result) == (f"loses to the classical baseline by {name}: trees, 3 s" if name else "")
    assert classical_verdict(result | {"classical": None}) == ""

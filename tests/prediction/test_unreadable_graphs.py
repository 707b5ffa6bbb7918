"""New graphs some of which a trained model cannot read: these are listed, the others are what they are alone."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import gt
import gt.data.own.known
from gt.data.own.graph_files import GraphFiles
from gt.errors import UserError
from tests.runs import numbers, predictions, run_of

Graph = dict[str, Any]


def graph(number: int, **about: Any) -> Graph:
    """A path of atoms, each with an element, a ring and a place of three numbers, joined by bonds."""
    nodes = [
        {"id": n, "element": "CNO"[(number + n) % 3], "ring": 3 + n % 3, "place": [n / 2, number / 3, -1]}
        for n in range(2 + number % 4)
    ]
    bonds = [{"source": n, "target": n + 1, "bond": "ab"[(n + number) % 2]} for n in range(len(nodes) - 1)]
    return {"directed": False, "graph": about, "nodes": nodes, "edges": bonds}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    (folder / "mine.json").write_text(json.dumps([graph(n, active=n % 2) for n in range(40)]))
    return run_of(folder, GraphFiles, path=str(folder / "mine.json"))


@pytest.fixture(scope="module")
def categories_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that has learned rings as categories: there are no real numbers beside them."""
    folder = tmp_path_factory.mktemp("categories")
    graphs = [graph(n, active=n % 2) for n in range(40)]
    for node in (node for each in graphs for node in each["nodes"]):
        del node["place"]
    (folder / "mine.json").write_text(json.dumps(graphs))
    return run_of(folder, GraphFiles, path=str(folder / "mine.json"))


def first(**changes: Any) -> Callable[[Graph], None]:
    """What changes the first node of a graph."""
    return lambda graph: graph["nodes"][0].update(changes)


def joined(end: str) -> Callable[[Graph], None]:
    """What lets the first edge of a graph lead to a node that is not there."""
    return lambda graph: graph["edges"][0].update(target=end)


def emptied(graph: Graph) -> None:
    graph["nodes"], graph["edges"] = [], []


STRANGE: dict[str, tuple[Callable[[Graph], None], str]] = {
    "no nodes": (emptied, "has no nodes"),
    "a number for a word": (first(element=7), "node '0': 'element' is '7', which the model has not learned"),
    "a list for a word": (first(element=["C"]), "node '0': 'element' is \"['C']\", which the model has not learned"),
    "nothing": (first(element=None), "node '0': 'element' is empty"),
    "a word for a number": (first(ring="five"), "node '0': 'ring' is 'five', not a finite number"),
    "too large": (first(ring=10**400), "node '0': 'ring' is '1000"),
    "a word in a list": (first(place=[0.5, "x", 1]), "node '0': 'place.1' is 'x', not a finite number"),
    "a short list": (first(place=[0.5, 1]), "node '0': 'place.2' is empty"),
    "a number for a list": (first(place=0.5), "node '0': 'place.0' is empty"),
    "an edge to nowhere": (joined("7"), "edge '0' -> '7': there is no node '7'"),
    "an edge without an end": (lambda graph: graph["edges"][0].pop("target"), "edge 0 has no 'target'"),
    "a node twice": (lambda graph: graph["nodes"].append(graph["nodes"][0]), "node '0' already exists"),
    "an edge with two values": (
        lambda graph: graph["edges"].append({"source": 1, "target": 0, "bond": "c"}),
        "already exists with other values",
    ),
    "no edges": (lambda graph: graph.pop("edges"), "has no 'edges'"),
    "nodes that are no list": (lambda graph: graph.update(nodes=7), "nodes are a int"),
    "a number at an edge": (lambda graph: graph["edges"][0].update(bond=1), "edge '0' -> '1': 'bond' is '1', which"),
}


@pytest.mark.parametrize("lines", ["", "l"], ids=["list", "lines"])
@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("fault", STRANGE)
def test_a_graph_that_cannot_be_read_is_listed_and_the_others_are_predicted(
    run: Path, tmp_path: Path, fault: str, place: int, lines: str
) -> None:
    change, said = STRANGE[fault]
    graphs = [graph(n) for n in range(5)]
    (tmp_path / "good.json").write_text(json.dumps(graphs))
    alone = predictions(run, f"data.path={tmp_path / 'good.json'}")
    change(graphs[place])
    file = tmp_path / f"new.json{lines}"
    file.write_text("\n".join(map(json.dumps, graphs)) if lines else json.dumps(graphs))
    found = predictions(run, f"data.path={file}")
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [place]
    assert listed["reason"][0].startswith(f"{file}, line {place + 1}" if lines else f"{file}, graph {place}")
    assert said in listed["reason"][0]
    others = np.arange(5) != place
    assert found["prediction"].tolist()[place] == ""
    np.testing.assert_allclose(numbers(found[others], "probability"), numbers(alone[others], "probability"), rtol=1e-5)


def test_whole_numbers_beside_a_word_are_the_categories_that_they_are_alone(
    categories_run: Path, tmp_path: Path
) -> None:
    graphs = [graph(n) for n in range(4)]
    (tmp_path / "good.json").write_text(json.dumps(graphs))
    alone = predictions(categories_run, f"data.path={tmp_path / 'good.json'}")
    graphs[1]["nodes"][0]["ring"] = "four"
    graphs[2]["nodes"][0]["ring"] = 99
    (tmp_path / "new.json").write_text(json.dumps(graphs))
    found = predictions(categories_run, f"data.path={tmp_path / 'new.json'}")
    reasons = pd.read_csv(categories_run.parent / "predicted.unreadable.csv")["reason"].tolist()
    assert reasons[0].endswith("'ring' is 'four', which the model has not learned")
    assert "'ring' is '99', which the model has not learned: each whole number is its own category" in reasons[1]
    good = [0, 3]
    np.testing.assert_allclose(
        numbers(found.loc[good], "probability"), numbers(alone.loc[good], "probability"), rtol=1e-5
    )


def test_what_the_model_does_not_read_may_be_anything(run: Path, tmp_path: Path) -> None:
    graphs = [graph(n, note=note) for n, note in enumerate([1, "a", [1, 2], {"b": 3}, None])]
    (tmp_path / "good.json").write_text(json.dumps([each | {"graph": {}} for each in graphs]))
    alone = predictions(run, f"data.path={tmp_path / 'good.json'}")
    for number, each in enumerate(graphs):
        each["nodes"][0]["weight"] = [1, "a", [1, 2], [3], {}][number]
        each["edges"][0]["colour"] = [1, "a", [1, 2], [3], {}][number]
    (tmp_path / "new.json").write_text(json.dumps(graphs))
    found = predictions(run, f"data.path={tmp_path / 'new.json'}")
    assert found["note"].tolist() == ["1", "a", "[1, 2]", "{'b': 3}", ""]
    np.testing.assert_allclose(numbers(found, "probability"), numbers(alone, "probability"), rtol=1e-5)


def test_graphs_of_networkx_are_read_alike(run: Path) -> None:
    graphs = [nx.node_link_graph(graph(n), edges="edges") for n in range(4)]
    alone = gt.load(run).predict(graphs)
    graphs[0] = nx.Graph()
    graphs[3].nodes[0]["weight"], graphs[1].nodes[0]["weight"] = "a", 1
    with pytest.warns(UserWarning, match="graph 0 has no nodes"):
        found = gt.load(run).predict(graphs)
    assert found["probability"].isna().tolist() == [True, False, False, False]
    np.testing.assert_allclose(found["probability"][1:], alone["probability"][1:], rtol=1e-5)
    with pytest.raises(UserError, match="graph 0 has no nodes"):
        gt.load(run).predict([nx.Graph()])


def test_a_line_that_is_no_json_is_listed_and_what_nothing_can_be_read_of_is_refused(run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.jsonl"
    new.write_text("\n".join([json.dumps(graph(0)), '{"nodes": [', json.dumps(graph(2)), "[]"]))
    found = predictions(run, f"data.path={new}")
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [1, 3]
    assert "line 2: " in listed["reason"][0]
    assert "line 4 is not a node-link graph" in listed["reason"][1]
    assert (found["prediction"] != "").tolist() == [True, False, True, False]
    new.write_text('{"nodes": [')
    with pytest.raises(UserError, match=r"new\.jsonl, line 1"):
        predictions(run, f"data.path={new}")
    stray = [graph(n) for n in range(2)]
    for each in stray:
        joined("9")(each)
    new.write_text("\n".join(map(json.dumps, stray)))
    with pytest.raises(UserError, match=r"new\.jsonl, line 1.*no node '9'"):
        predictions(run, f"data.path={new}")


def test_of_many_graphs_each_that_does_not_fit_together_is_listed(run: Path, tmp_path: Path) -> None:
    graphs = [graph(n) for n in range(40)]
    for place in (2, 3, 17, 39):
        joined("9")(graphs[place])
    emptied(graphs[20])
    (tmp_path / "new.json").write_text(json.dumps(graphs))
    found = predictions(run, f"data.path={tmp_path / 'new.json'}")
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [2, 3, 17, 20, 39]
    assert (found["prediction"] == "").to_numpy().nonzero()[0].tolist() == [2, 3, 17, 20, 39]


def test_rows_are_looked_through_a_few_times_however_many_graphs_do_not_fit_together(run: Path, tmp_path: Path) -> None:
    graphs = [graph(n) for n in range(128)]
    for each in graphs[::3]:
        joined("9")(each)
    (tmp_path / "new.json").write_text(json.dumps(graphs))
    in_graphs, looked = gt.data.own.known._in_graphs, Counter()

    def counted(table, ids):
        looked[table.name] += len(table)
        return in_graphs(table, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gt.data.own.known, "_in_graphs", counted)
        found = predictions(run, f"data.path={tmp_path / 'new.json'}")
    assert (found["prediction"] == "").sum() == len(graphs[::3])
    nodes = sum(len(each["nodes"]) for each in graphs)
    assert looked[f"the nodes of {tmp_path / 'new.json'}"] < 20 * nodes


def test_a_line_that_is_no_json_keeps_its_reason_beside_a_graph_that_does_not_fit_together(
    run: Path, tmp_path: Path
) -> None:
    graphs = [graph(n) for n in range(3)]
    joined("9")(graphs[2])
    lines = [json.dumps(each) for each in graphs]
    lines[1] = '{"nodes": ['
    (tmp_path / "new.jsonl").write_text("\n".join(lines))
    predictions(run, f"data.path={tmp_path / 'new.jsonl'}")
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [1, 2]
    assert "not JSON" in listed["reason"][0]
    assert "there is no node '9'" in listed["reason"][1]

"""New graphs, some of them unreadable for a trained model: these are listed, and the others predicted as if alone."""

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
from tests.runs import float_columns, predictions, write_run

Graph = dict[str, Any]


def make_graph(number: int, **attributes: Any) -> Graph:
    """A path of bonded atoms, each with an element, a ring and a position of three numbers."""
    nodes = [
        {"id": n, "element": "CNO"[(number + n) % 3], "ring": 3 + n % 3, "place": [n / 2, number / 3, -1]}
        for n in range(2 + number % 4)
    ]
    bonds = [{"source": n, "target": n + 1, "bond": "ab"[(n + number) % 2]} for n in range(len(nodes) - 1)]
    return {"directed": False, "graph": attributes, "nodes": nodes, "edges": bonds}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    (folder / "mine.json").write_text(json.dumps([make_graph(n, active=n % 2) for n in range(40)]))
    return write_run(folder, GraphFiles, path=str(folder / "mine.json"))


@pytest.fixture(scope="module")
def categories_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model has learned rings as categories, as there are no real numbers beside them."""
    folder = tmp_path_factory.mktemp("categories")
    graphs = [make_graph(n, active=n % 2) for n in range(40)]
    for node in (node for each in graphs for node in each["nodes"]):
        del node["place"]
    (folder / "mine.json").write_text(json.dumps(graphs))
    return write_run(folder, GraphFiles, path=str(folder / "mine.json"))


def set_first_node(**changes: Any) -> Callable[[Graph], None]:
    """A change of the attributes of the first node of a graph."""
    return lambda graph: graph["nodes"][0].update(changes)


def redirect_first_edge(end: str) -> Callable[[Graph], None]:
    """A change of the target of the first edge of a graph, to a missing node."""
    return lambda graph: graph["edges"][0].update(target=end)


def remove_nodes(graph: Graph) -> None:
    graph["nodes"], graph["edges"] = [], []


FAULTS: dict[str, tuple[Callable[[Graph], None], str]] = {
    "no nodes": (remove_nodes, "has no nodes"),
    "a number for a word": (set_first_node(element=7), "node '0': 'element' is '7', which the model has not learned"),
    "a list for a word": (
        set_first_node(element=["C"]),
        "node '0': 'element' is \"['C']\", which the model has not learned",
    ),
    "nothing": (set_first_node(element=None), "node '0': 'element' is empty"),
    "a word for a number": (set_first_node(ring="five"), "node '0': 'ring' is 'five', not a finite number"),
    "too large": (set_first_node(ring=10**400), "node '0': 'ring' is '1000"),
    "a word in a list": (set_first_node(place=[0.5, "x", 1]), "node '0': 'place.1' is 'x', not a finite number"),
    "a short list": (set_first_node(place=[0.5, 1]), "node '0': 'place.2' is empty"),
    "a number for a list": (set_first_node(place=0.5), "node '0': 'place.0' is empty"),
    "an edge to nowhere": (redirect_first_edge("7"), "edge '0' -> '7': there is no node '7'"),
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
@pytest.mark.parametrize("fault", FAULTS)
def test_unreadable_graph_is_listed_and_others_are_predicted(
    run: Path, tmp_path: Path, fault: str, place: int, lines: str
) -> None:
    change, message = FAULTS[fault]
    graphs = [make_graph(n) for n in range(5)]
    (tmp_path / "good.json").write_text(json.dumps(graphs))
    expected = predictions(run, f"data.path={tmp_path / 'good.json'}")
    change(graphs[place])
    file = tmp_path / f"new.json{lines}"
    file.write_text("\n".join(map(json.dumps, graphs)) if lines else json.dumps(graphs))
    table = predictions(run, f"data.path={file}")
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [place]
    assert listed["reason"][0].startswith(f"{file}, line {place + 1}" if lines else f"{file}, graph {place}")
    assert message in listed["reason"][0]
    others = np.arange(5) != place
    assert table["prediction"].tolist()[place] == ""
    np.testing.assert_allclose(
        float_columns(table[others], "probability"), float_columns(expected[others], "probability"), rtol=1e-5
    )


def test_words_among_integers_leave_categories_unchanged(categories_run: Path, tmp_path: Path) -> None:
    graphs = [make_graph(n) for n in range(4)]
    (tmp_path / "good.json").write_text(json.dumps(graphs))
    expected = predictions(categories_run, f"data.path={tmp_path / 'good.json'}")
    graphs[1]["nodes"][0]["ring"] = "four"
    graphs[2]["nodes"][0]["ring"] = 99
    (tmp_path / "new.json").write_text(json.dumps(graphs))
    table = predictions(categories_run, f"data.path={tmp_path / 'new.json'}")
    reasons = pd.read_csv(categories_run.parent / "predicted.unreadable.csv")["reason"].tolist()
    assert reasons[0].endswith("'ring' is 'four', which the model has not learned")
    assert "'ring' is '99', which the model has not learned: each whole number is its own category" in reasons[1]
    good = [0, 3]
    np.testing.assert_allclose(
        float_columns(table.loc[good], "probability"), float_columns(expected.loc[good], "probability"), rtol=1e-5
    )


def test_unused_attributes_may_be_anything(run: Path, tmp_path: Path) -> None:
    graphs = [make_graph(n, note=note) for n, note in enumerate([1, "a", [1, 2], {"b": 3}, None])]
    (tmp_path / "good.json").write_text(json.dumps([each | {"graph": {}} for each in graphs]))
    expected = predictions(run, f"data.path={tmp_path / 'good.json'}")
    for number, each in enumerate(graphs):
        each["nodes"][0]["weight"] = [1, "a", [1, 2], [3], {}][number]
        each["edges"][0]["colour"] = [1, "a", [1, 2], [3], {}][number]
    (tmp_path / "new.json").write_text(json.dumps(graphs))
    table = predictions(run, f"data.path={tmp_path / 'new.json'}")
    assert table["note"].tolist() == ["1", "a", "[1, 2]", "{'b': 3}", ""]
    np.testing.assert_allclose(float_columns(table, "probability"), float_columns(expected, "probability"), rtol=1e-5)


def test_unreadable_networkx_graphs_are_reported(run: Path) -> None:
    graphs = [nx.node_link_graph(make_graph(n), edges="edges") for n in range(4)]
    expected = gt.load(run).predict(graphs)
    graphs[0] = nx.Graph()
    graphs[3].nodes[0]["weight"], graphs[1].nodes[0]["weight"] = "a", 1
    with pytest.warns(UserWarning, match="graph 0 has no nodes"):
        table = gt.load(run).predict(graphs)
    assert table["probability"].isna().tolist() == [True, False, False, False]
    np.testing.assert_allclose(table["probability"][1:], expected["probability"][1:], rtol=1e-5)
    with pytest.raises(UserError, match="graph 0 has no nodes"):
        gt.load(run).predict([nx.Graph()])


def test_invalid_json_is_listed_unless_nothing_is_readable(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text("\n".join([json.dumps(make_graph(0)), '{"nodes": [', json.dumps(make_graph(2)), "[]"]))
    table = predictions(run, f"data.path={path}")
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [1, 3]
    assert "line 2: " in listed["reason"][0]
    assert "line 4 is not a node-link graph" in listed["reason"][1]
    assert (table["prediction"] != "").tolist() == [True, False, True, False]
    path.write_text('{"nodes": [')
    with pytest.raises(UserError, match=r"new\.jsonl, line 1"):
        predictions(run, f"data.path={path}")
    unreadable = [make_graph(n) for n in range(2)]
    for each in unreadable:
        redirect_first_edge("9")(each)
    path.write_text("\n".join(map(json.dumps, unreadable)))
    with pytest.raises(UserError, match=r"new\.jsonl, line 1.*no node '9'"):
        predictions(run, f"data.path={path}")


def test_every_inconsistent_graph_is_listed(run: Path, tmp_path: Path) -> None:
    graphs = [make_graph(n) for n in range(40)]
    for place in (2, 3, 17, 39):
        redirect_first_edge("9")(graphs[place])
    remove_nodes(graphs[20])
    (tmp_path / "new.json").write_text(json.dumps(graphs))
    table = predictions(run, f"data.path={tmp_path / 'new.json'}")
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [2, 3, 17, 20, 39]
    assert (table["prediction"] == "").to_numpy().nonzero()[0].tolist() == [2, 3, 17, 20, 39]


def test_rows_are_scanned_only_a_few_times(run: Path, tmp_path: Path) -> None:
    graphs = [make_graph(n) for n in range(128)]
    for each in graphs[::3]:
        redirect_first_edge("9")(each)
    (tmp_path / "new.json").write_text(json.dumps(graphs))
    original, scanned = gt.data.own.known._in_graphs, Counter()

    def count_rows(table, ids):
        scanned[table.name] += len(table)
        return original(table, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gt.data.own.known, "_in_graphs", count_rows)
        table = predictions(run, f"data.path={tmp_path / 'new.json'}")
    assert (table["prediction"] == "").sum() == len(graphs[::3])
    nodes = sum(len(each["nodes"]) for each in graphs)
    assert scanned[f"the nodes of {tmp_path / 'new.json'}"] < 20 * nodes


def test_each_line_keeps_its_own_reason(run: Path, tmp_path: Path) -> None:
    graphs = [make_graph(n) for n in range(3)]
    redirect_first_edge("9")(graphs[2])
    lines = [json.dumps(each) for each in graphs]
    lines[1] = '{"nodes": ['
    (tmp_path / "new.jsonl").write_text("\n".join(lines))
    predictions(run, f"data.path={tmp_path / 'new.jsonl'}")
    listed = pd.read_csv(run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [1, 2]
    assert "not JSON" in listed["reason"][0]
    assert "there is no node '9'" in listed["reason"][1]

"""A served model of graphs: what cannot be read has an error in its place, whatever stands beside it and from whom."""

import json
from typing import Any

import pytest

import gt
from gt.data.own.graph_files import GraphFiles
from gt.prediction.trained import Trained
from gt.serving.app import Limits, service
from tests.prediction.test_unreadable_graphs import Graph, remove_nodes, set_first_node
from tests.prediction.test_unreadable_graphs import make_graph as made
from tests.runs import run_of
from tests.serving.test_serving import asked, predict


def graph(number: int, **changes: Any) -> Graph:
    return made(number) | {"multigraph": False} | changes


def changed(change: Any) -> Graph:
    one = graph(3)
    change(one)
    return one


def of_all_nodes(**changes: Any) -> Graph:
    return changed(lambda one: [node.update(changes) for node in one["nodes"]])


def without(name: str) -> Graph:
    return changed(lambda one: [node.pop(name) for node in one["nodes"]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("served")
    (folder / "mine.json").write_text(json.dumps([made(n, active=n % 2) for n in range(40)]))
    return gt.load(run_of(folder, GraphFiles, path=str(folder / "mine.json")))


TWICE = [{"source": 0, "target": 1, "key": key, "bond": bond} for key, bond in enumerate("ab")]
UNREAD: dict[str, tuple[Graph, str]] = {
    "no nodes": (changed(remove_nodes), "has no nodes"),
    "directed": (graph(3, directed=True), "must be an undirected graph"),
    "an edge twice": (
        graph(3, multigraph=True, edges=TWICE),
        "edge '0' -> '1': edge '0' -> '1' already exists with other values, see ",
    ),
    "a number for a word": (
        changed(set_first_node(element=7)),
        "node '0': 'element' is '7', which the model has not learned",
    ),
    "a list for a word": (
        changed(set_first_node(element=[1])),
        "node '0': 'element' is '[1]', which the model has not",
    ),
    "an unknown word": (
        changed(set_first_node(element="Xe")),
        "node '0': 'element' is 'Xe', which the model has not learned",
    ),
    "a reserved name": (changed(set_first_node(graph="a")), "node '0': the attribute name 'graph' is reserved"),
    "an id of no kind": (graph(3, nodes=[{"id": True}], edges=[]), "node 'True': node is True, but an id"),
    "no attribute": (without("element"), ""),  # there is no such column where it is alone
    "attributes in a list": (
        graph(3, graph=[1, 2]),
        "'graph' must hold the attributes of the graph by name, not a list",
    ),
    "no edges": ({"nodes": [{"id": 0}]}, "not a graph in node-link form: KeyError"),
    "too large": (graph(3, nodes=[{"id": n} for n in range(21)]), "more than 20 nodes"),
}


@pytest.mark.parametrize("fault", UNREAD)
def test_a_graph_that_cannot_be_read_has_an_error_alone_and_among_others(model: Trained, fault: str) -> None:
    bad, said = UNREAD[fault]
    good = [graph(n) for n in range(3)]
    (right,) = asked(service(model, "model"), predict(*good))
    right = [each["probability"] for each in right.json()["predictions"]]
    together = service(model, "model", Limits(wait=0.1, longest=20))
    among, other = asked(together, predict(good[0], bad, good[1]), predict(good[2]))
    (alone,) = asked(service(model, "model", Limits(longest=20)), predict(bad))
    assert [answer.status_code for answer in (among, other, alone)] == [200] * 3
    before, error, after = among.json()["predictions"]
    found = [before["probability"], after["probability"], other.json()["predictions"][0]["probability"]]
    assert found == pytest.approx(right, rel=1e-5)
    (same,) = alone.json()["predictions"]
    assert set(error) == set(same) == {"error"}
    assert error["error"].startswith(said)
    assert same["error"].startswith(said)


def test_edges_may_be_called_links_as_in_files_of_networkx_and_d3(model: Trained) -> None:
    edges, links = graph(3), graph(3)
    links["links"] = links.pop("edges")
    (answer,) = asked(service(model, "model"), predict(edges, links))
    first, second = answer.json()["predictions"]
    assert "probability" in first
    assert first == second


def test_what_the_model_does_not_read_may_differ_between_those_who_ask(model: Trained) -> None:
    app = service(model, "model", Limits(wait=0.1))
    answers = asked(app, *(predict(of_all_nodes(weight=weight)) for weight in (1, "a", [2], None)))
    assert [answer.status_code for answer in answers] == [200] * 4
    found = [answer.json()["predictions"][0]["probability"] for answer in answers]
    assert found == pytest.approx(found[:1] * 4, rel=1e-5)


def test_nobody_sees_what_another_sends(model: Trained) -> None:
    app = service(model, "model", Limits(wait=0.1))
    mine = graph(
        0, graph={"prediction of mine": "secret", "probability": 0.5, "prediction": 1, "active": 1, "error": 2}
    )
    answers = asked(app, predict(mine), predict(graph(1)))
    assert [[*answer.json()["predictions"][0]] for answer in answers] == [["prediction", "probability"]] * 2


def test_an_error_names_no_place_in_a_batch(model: Trained) -> None:
    app = service(model, "model", Limits(wait=0.1, longest=20))
    bad = changed(set_first_node(element="Xe"))
    large = graph(3, nodes=[{"id": n} for n in range(21)])
    answers = asked(app, predict(graph(0)), predict(bad), predict(large, bad))
    errors = [each.get("error") for answer in answers for each in answer.json()["predictions"]]
    assert errors[1] == errors[3]
    assert errors[1].startswith("node '0': 'element' is 'Xe'")

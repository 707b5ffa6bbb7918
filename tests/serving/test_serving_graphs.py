"""Graphs in node-link form over HTTP: an unreadable one gets an error entry, whatever requests share its batch."""

import json
from typing import Any

import pytest

import gt
from gt.data.own.graph_files import GraphFiles
from gt.prediction.trained import Trained
from gt.serving.app import Limits, service
from tests.prediction.test_unreadable_graphs import Graph, remove_nodes, set_first_node
from tests.prediction.test_unreadable_graphs import make_graph as made
from tests.runs import write_run
from tests.serving.test_serving import predict_request, send


def graph(number: int, **changes: Any) -> Graph:
    return made(number) | {"multigraph": False} | changes


def changed(change: Any) -> Graph:
    example = graph(3)
    change(example)
    return example


def with_node_attributes(**changes: Any) -> Graph:
    return changed(lambda example: [node.update(changes) for node in example["nodes"]])


def without_node_attribute(name: str) -> Graph:
    return changed(lambda example: [node.pop(name) for node in example["nodes"]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("served")
    (folder / "mine.json").write_text(json.dumps([made(n, active=n % 2) for n in range(40)]))
    return gt.load(write_run(folder, GraphFiles, path=str(folder / "mine.json")))


TWICE = [{"source": 0, "target": 1, "key": key, "bond": bond} for key, bond in enumerate("ab")]
UNREADABLE: dict[str, tuple[Graph, str]] = {
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
    "no attribute": (without_node_attribute("element"), ""),  # alone, the message differs: there is no such column
    "attributes in a list": (
        graph(3, graph=[1, 2]),
        "'graph' must hold the attributes of the graph by name, not a list",
    ),
    "no edges": ({"nodes": [{"id": 0}]}, "not a graph in node-link form: KeyError"),
    "too large": (graph(3, nodes=[{"id": n} for n in range(21)]), "more than 20 nodes"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_unreadable_graph_gets_an_error_entry(model: Trained, fault: str) -> None:
    bad, message = UNREADABLE[fault]
    good = [graph(n) for n in range(3)]
    (expected,) = send(service(model, "model"), predict_request(*good))
    expected = [prediction["probability"] for prediction in expected.json()["predictions"]]
    batched = service(model, "model", Limits(wait=0.1, longest=20))
    mixed, valid = send(batched, predict_request(good[0], bad, good[1]), predict_request(good[2]))
    (alone,) = send(service(model, "model", Limits(longest=20)), predict_request(bad))
    assert [response.status_code for response in (mixed, valid, alone)] == [200] * 3
    preceding, error, following = mixed.json()["predictions"]
    probabilities = [preceding["probability"], following["probability"], valid.json()["predictions"][0]["probability"]]
    assert probabilities == pytest.approx(expected, rel=1e-5)
    (alone_error,) = alone.json()["predictions"]
    assert set(error) == set(alone_error) == {"error"}
    assert error["error"].startswith(message)
    assert alone_error["error"].startswith(message)


def test_edges_may_be_named_links(model: Trained) -> None:
    """As in files of NetworkX and D3."""
    edges, links = graph(3), graph(3)
    links["links"] = links.pop("edges")
    (response,) = send(service(model, "model"), predict_request(edges, links))
    first, second = response.json()["predictions"]
    assert "probability" in first
    assert first == second


def test_unused_attributes_may_differ_between_requests(model: Trained) -> None:
    app = service(model, "model", Limits(wait=0.1))
    responses = send(app, *(predict_request(with_node_attributes(weight=weight)) for weight in (1, "a", [2], None)))
    assert [response.status_code for response in responses] == [200] * 4
    probabilities = [response.json()["predictions"][0]["probability"] for response in responses]
    assert probabilities == pytest.approx(probabilities[:1] * 4, rel=1e-5)


def test_attributes_do_not_leak_between_requests(model: Trained) -> None:
    app = service(model, "model", Limits(wait=0.1))
    with_attributes = graph(
        0, graph={"prediction of mine": "secret", "probability": 0.5, "prediction": 1, "active": 1, "error": 2}
    )
    responses = send(app, predict_request(with_attributes), predict_request(graph(1)))
    assert [[*response.json()["predictions"][0]] for response in responses] == [["prediction", "probability"]] * 2


def test_error_does_not_mention_the_batch(model: Trained) -> None:
    app = service(model, "model", Limits(wait=0.1, longest=20))
    bad = changed(set_first_node(element="Xe"))
    large = graph(3, nodes=[{"id": n} for n in range(21)])
    responses = send(app, predict_request(graph(0)), predict_request(bad), predict_request(large, bad))
    errors = [each.get("error") for response in responses for each in response.json()["predictions"]]
    assert errors[1] == errors[3]
    assert errors[1].startswith("node '0': 'element' is 'Xe'")

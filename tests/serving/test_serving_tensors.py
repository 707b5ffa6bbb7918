"""Graphs with unnamed features, such as PyG's, over HTTP: lists of numbers."""

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Data

import gt
from gt.errors import UserError
from gt.serving.app import Limits, service
from tests.serving.test_serving import predict_request, send
from tests.small_runs import train


def random_graph(nodes: int, edges: int, seed: int) -> Data:
    generator = torch.Generator().manual_seed(seed)
    return Data(
        x=torch.randint(5, (nodes, 2), generator=generator),
        edge_index=torch.randint(nodes, (2, edges), generator=generator),
        edge_attr=torch.rand(edges, 3, generator=generator),
        y=torch.rand(1, generator=generator),
    )


def as_json(graph: Data) -> dict:
    return {key: graph[key].tolist() for key in ("x", "edge_index", "edge_attr")}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    torch.save([random_graph(2 + n % 5, n % 9, n) for n in range(40)], folder / "graphs.pt")
    train(folder / "run", "data=pyg", f"+data.source.path={folder / 'graphs.pt'}", f"data.source.root={folder}",
          "trainer.max_epochs=1")  # fmt: skip
    return gt.load(folder / "run")


def test_predictions_match_python(model):
    graphs = [random_graph(nodes, edges, 100 + nodes) for nodes, edges in ((1, 0), (4, 7), (1, 2), (9, 0), (6, 30))]
    expected = [model.predict([graph])["prediction"][0] for graph in graphs]
    assert max(expected) - min(expected) > 1e-4
    health, together, *single = send(
        service(model, "model", Limits(wait=0.05)),
        ("GET", "/health", {}),
        predict_request(*map(as_json, graphs)),
        *(predict_request(as_json(graph)) for graph in graphs),
    )
    assert health.json()["input"] == "tensors"
    answers = [answer["prediction"] for answer in together.json()["predictions"]]
    assert answers == pytest.approx(expected, abs=1e-5)
    assert [response.json()["predictions"][0]["prediction"] for response in single] == pytest.approx(expected, abs=1e-5)


def test_graph_without_edges_may_omit_edge_features(model):
    complete = {"x": [[1, 2]], "edge_index": [[], []], "edge_attr": []}
    abbreviated = [{"x": [[1, 2]], "edge_index": []}, {"x": [[1, 2.0]], "edge_index": [[], []], "edge_attr": None}]
    (response,) = send(service(model, "model"), predict_request(complete, *abbreviated))
    first, *others = response.json()["predictions"]
    assert [first, first] == others
    assert "prediction" in first


def test_invalid_graph_gets_an_error_entry(model):
    good = as_json(random_graph(3, 4, 0))
    invalid = {
        "did you mean 'edge_attr'": good | {"edge_atr": [[1, 2, 3]]},
        "no edge_index": {"x": [[1, 2]]},
        "no x": good | {"x": None},
        "no edge_index:": good | {"edge_index": None},
        "of equal length": good | {"x": [[1, 2], [3], [4, 4]]},
        "rows of numbers": good | {"x": "many"},
        "two lists of nodes": good | {"edge_index": [[0, 1, 2, 0]]},
        "counted from 0": good | {"edge_index": [[0, 1, 2, 0.5], [0, 1, 2, 0]]},
        "an edge joins [0, 3], but nodes are 0..2": good | {"edge_index": [[0, 0, 0, 0], [0, 1, 2, 3]]},
        "x is 3 x 1, but should have a row of 2 columns": good | {"x": [[1], [2], [3]]},
        "9.0 in x is not a category": good | {"x": [[1, 2], [3, 9], [0, 0]]},
        "edge_attr has 1 rows for 4 edges": good | {"edge_attr": [[1, 2, 3]]},
        "more than 5 nodes": as_json(random_graph(6, 4, 0)),
    }
    (response,) = send(service(model, "model", Limits(longest=5)), predict_request(good, *invalid.values(), good))
    first, *others, last = response.json()["predictions"]
    assert first == last
    assert "prediction" in first
    for message, prediction in zip(invalid, others, strict=True):
        assert set(prediction) == {"error"}
        assert message in prediction["error"]
        assert "graph 0" not in prediction["error"]  # requests must not reveal one another


def test_pointer_model_is_rejected(model, monkeypatch):
    monkeypatch.setattr(model, "schema", replace(model.schema, kind="multiclass", pointer=True))
    with pytest.raises(UserError, match="chooses among nodes"):
        service(model, "model")

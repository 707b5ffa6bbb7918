"""Graphs whose features have no names, such as PyG's, behind HTTP: lists of numbers."""

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Data

import gt
from gt.errors import UserError
from gt.serving.app import Limits, service
from tests.serving.test_serving import asked, predict
from tests.small_runs import train


def random_graph(nodes: int, edges: int, seed: int) -> Data:
    draw = torch.Generator().manual_seed(seed)
    return Data(
        x=torch.randint(5, (nodes, 2), generator=draw),
        edge_index=torch.randint(nodes, (2, edges), generator=draw),
        edge_attr=torch.rand(edges, 3, generator=draw),
        y=torch.rand(1, generator=draw),
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


def test_answers_are_those_of_python(model):
    graphs = [random_graph(nodes, edges, 100 + nodes) for nodes, edges in ((1, 0), (4, 7), (1, 2), (9, 0), (6, 30))]
    alone = [model.predict([graph])["prediction"][0] for graph in graphs]
    assert max(alone) - min(alone) > 1e-4
    health, together, *each = asked(
        service(model, "model", Limits(wait=0.05)),
        ("GET", "/health", {}),
        predict(*map(as_json, graphs)),
        *(predict(as_json(graph)) for graph in graphs),
    )
    assert health.json()["input"] == "tensors"
    answers = [answer["prediction"] for answer in together.json()["predictions"]]
    assert answers == pytest.approx(alone, abs=1e-5)
    assert [one.json()["predictions"][0]["prediction"] for one in each] == pytest.approx(alone, abs=1e-5)


def test_one_without_edges_need_not_say_what_these_would_carry(model):
    whole = {"x": [[1, 2]], "edge_index": [[], []], "edge_attr": []}
    short = [{"x": [[1, 2]], "edge_index": []}, {"x": [[1, 2.0]], "edge_index": [[], []], "edge_attr": None}]
    (answer,) = asked(service(model, "model"), predict(whole, *short))
    first, *others = answer.json()["predictions"]
    assert [first, first] == others
    assert "prediction" in first


def test_what_is_wrong_has_an_error_in_its_place(model):
    good = as_json(random_graph(3, 4, 0))
    wrong = {
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
    (answer,) = asked(service(model, "model", Limits(longest=5)), predict(good, *wrong.values(), good))
    first, *others, last = answer.json()["predictions"]
    assert first == last
    assert "prediction" in first
    for words, other in zip(wrong, others, strict=True):
        assert set(other) == {"error"}
        assert words in other["error"]
        assert "graph 0" not in other["error"]  # nobody knows of others who ask at the same time


def test_a_model_that_points_at_nodes_is_refused(model, monkeypatch):
    monkeypatch.setattr(model, "schema", replace(model.schema, kind="multiclass", pointer=True))
    with pytest.raises(UserError, match="chooses among nodes"):
        service(model, "model")

"""Graphs in a file of ``torch.save``: every form of them is the same dataset, and none that could run is opened."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, HeteroData, InMemoryDataset

from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.own.graph_files import files
from gt.data.own.pyg import PyG
from gt.data.own.pyg_saved import saved_graphs
from gt.errors import UserError
from tests.data.own.test_pyg import SIZES, Kept
from tests.graphs import random_graph


class Mine(Data):
    """A class of somebody's own, which a file of tensors does not hold."""


class Trap:
    def __reduce__(self):
        return shutil.copyfile, (__file__, "sprung")


def graphs(**changes):
    """Random graphs with a class each, one of them, number 2, changed."""
    found = [random_graph(size, i) for i, size in enumerate(SIZES)]
    for number, graph in enumerate(found):
        graph.y, graph.name = torch.tensor([number % 2]), f"graph {number}"
    for name, value in changes.items():
        found[2][name] = value(found[2]) if callable(value) else value
    return found


def large():
    graph = random_graph(30, 0)
    graph.y = torch.arange(30) % 3
    of = torch.arange(30) % 5
    graph.train_mask, graph.val_mask, graph.test_mask = of < 3, of == 3, of == 4
    return graph


def opened(kind, value, folder, **options):
    path = folder / "graphs.pt"
    if value is not None:
        torch.save(value, path)
    data = kind(PyG(path=str(path), root=str(folder), **options))
    data.source.check_files()
    data.open([])
    return data


def arrays(data):
    store = data.graphs
    return [*store.nodes.values(), *store.edges.values(), *store.graphs.values(), store.edge_index, store.node_ptr]


@pytest.mark.parametrize(
    "form",
    [
        lambda some: some,
        lambda some: [graph.to_dict() for graph in some],
        InMemoryDataset.collate,
        lambda some: [graph.to_dict() | {"x": graph.x.to_sparse()} for graph in some],
    ],
    ids=["Data", "dictionaries", "collated", "sparse"],
)
def test_many_graphs_are_those_of_a_dataset(form, tmp_path):
    some = graphs()
    expected = GraphData(PyG(partial(Kept, some), root=str(tmp_path / "other")))
    expected.open([])
    data = opened(GraphData, form(some), tmp_path)
    for found, wanted in zip(arrays(data), arrays(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert "graphs.pt" in data.source.summary(data.graphs)


def test_as_pyg_saves_a_dataset_itself(tmp_path):
    some = graphs()
    InMemoryDataset.save(some, str(tmp_path / "graphs.pt"))
    data = opened(GraphData, None, tmp_path)
    assert np.diff(data.graphs.node_ptr).tolist() == list(SIZES)


@pytest.mark.parametrize("form", [lambda graph: graph, Data.to_dict, lambda graph: [graph]])
def test_one_graph_is_split_by_its_masks(form, tmp_path):
    graph = large()
    data = opened(NodeData, form(graph), tmp_path)
    for split, mask in (("train", graph.train_mask), ("valid", graph.val_mask), ("test", graph.test_mask)):
        assert data.graphs.splits[split].tolist() == mask.nonzero().flatten().tolist()
    np.testing.assert_allclose(data.graphs.nodes["x"], graph.x)


def test_without_features_the_number_of_nodes_is_kept_and_what_differs_unread_is_left_out(tmp_path):
    some = [Data(edge_index=torch.tensor([[0], [1]]), num_nodes=n, y=n % 2, own=torch.ones(n, n)) for n in range(2, 30)]
    for value in (some, InMemoryDataset.collate([graph.clone() for graph in some if graph.pop("own") is not None])):
        data = opened(GraphData, value, tmp_path)
        assert np.diff(data.graphs.node_ptr).tolist() == list(range(2, 30))
        assert data.schema.degree


def test_a_trained_model_reads_another_file(tmp_path):
    data = opened(GraphData, graphs(), tmp_path)
    torch.save([graph for graph in graphs() if graph.pop("y") is not None], tmp_path / "new.pt")
    new = GraphData(PyG(path=str(tmp_path / "new.pt"), root=str(tmp_path)))
    new.open([], data.schema)
    assert len(new.graphs) == len(SIZES)


REFUSED = {
    "no edges": (lambda: [Data(x=torch.ones(2, 1), y=1)] * 9, "graph 0.*edge_index"),
    "edges turned": (lambda: graphs(edge_index=lambda g: g.edge_index.T), r"graph 2.*edge_index.*\(2, E\)"),
    "edges of reals": (lambda: graphs(edge_index=lambda g: g.edge_index.float()), "graph 2.*edge_index.*float32"),
    "no target": (lambda: graphs(y=None), "graph 2.*y .*missing"),
    "no targets": (lambda: [Data(x=torch.ones(2, 1), edge_index=torch.zeros(2, 1, dtype=torch.long))] * 9, "no y"),
    "no features": (lambda: graphs(x=None), "graph 2.*x .*missing"),
    "wide features": (lambda: graphs(x=lambda g: torch.ones(len(g.x), 9)), "graph 2.*x .*9"),
    "another type": (lambda: graphs(x=lambda g: g.x.double()), "graph 2.*x .*float64"),
    "beyond": (lambda: graphs(edge_index=lambda g: g.edge_index + 100), "graph 2.*edge"),
    "nothing": (list, "graphs.pt"),
    "no graph": (lambda: [torch.ones(3)], "graph 0.*Tensor.*to_dict"),
    "a number": (lambda: 3, "int.*to_dict"),
    "own class": (lambda: [Mine(x=torch.ones(1, 1))], "to_dict"),
    "a number of NumPy": (
        lambda: graphs(size=lambda g: np.float64(1)),
        r"tensors \(numpy.*scalar\).*torch.as_tensor\(value\)",
    ),
    "splits": (lambda: {"train": graphs(), "test": graphs()[:2]}, "dictionary of graphs by train, test: save a single"),
    "graphs by name": (lambda: {"a": graphs()[0].to_dict(), "b": graphs()[1].to_dict()}, "dictionary of graphs by a"),
    "no types": (HeteroData, "graph 0 has no node types"),
    "types beside none": (lambda: [HeteroData(), *graphs()], "graph 0.*HeteroData"),
    "trap": (Trap, "to_dict"),
    "slices": (lambda: (graphs()[0], {"x": torch.tensor([0, 2, 1])}), "slices"),
    "slices of text": (lambda: (graphs()[0], {"edge_index": "text"}), "graphs.pt"),
    "odd attribute": (lambda: {**large().to_dict(), "num_edges": 3}, "graphs.pt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_line_that_names_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, said = REFUSED[name]
    with pytest.raises(UserError, match=said) as caught:
        opened(GraphData, make(), tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_not_there_is_said_before_anything_slow(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt"):
        PyG(path=str(tmp_path / "none.pt")).check_files()
    with pytest.raises(UserError, match=r"data\.path"):
        PyG()


def test_the_reader_of_graph_files_names_the_right_one(tmp_path):
    torch.save(large(), tmp_path / "graph.pt")
    with pytest.raises(UserError, match=r"graph\.pt.*data=pyg_nodes"):
        files(str(tmp_path / "graph.pt"))


def test_a_number_of_nodes_that_features_tell_too_is_no_difference(tmp_path):
    edges = torch.tensor([[0, 1], [1, 0]])
    graphs = [Data(x=torch.ones(2, 1), edge_index=edges, y=torch.zeros(1)) for _ in range(2)]
    graphs[1].num_nodes = 2
    torch.save(graphs, tmp_path / "graphs.pt")
    assert [graph.num_nodes for graph in saved_graphs(str(tmp_path / "graphs.pt"))] == [2, 2]


def test_a_graph_of_which_nothing_was_saved_is_named(tmp_path):
    torch.save([graph := Data.__new__(Data)], tmp_path / "graphs.pt")
    assert not vars(graph)
    with pytest.raises(UserError, match="graph 0"):
        saved_graphs(str(tmp_path / "graphs.pt"))

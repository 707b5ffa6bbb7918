"""PyG graphs saved by ``torch.save``: every form is read as the same dataset, and no code in a file is run."""

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
from tests.data.own.pyg_datasets import SIZES, CollatedDataset
from tests.graphs import random_graph


class CustomData(Data):
    """A user-defined class, which a file that holds only tensors cannot contain."""


class Trap:
    """Creates the file ``sprung`` when it is unpickled."""

    def __reduce__(self):
        return shutil.copyfile, (__file__, "sprung")


def labelled_graphs(**changes):
    """Random graphs with a class each; some attributes of graph 2 are replaced."""
    graphs = [random_graph(size, i) for i, size in enumerate(SIZES)]
    for number, graph in enumerate(graphs):
        graph.y, graph.name = torch.tensor([number % 2]), f"graph {number}"
    for name, value in changes.items():
        graphs[2][name] = value(graphs[2]) if callable(value) else value
    return graphs


def masked_graph():
    graph = random_graph(30, 0)
    graph.y = torch.arange(30) % 3
    fold = torch.arange(30) % 5
    graph.train_mask, graph.val_mask, graph.test_mask = fold < 3, fold == 3, fold == 4
    return graph


def open_saved(module, value, folder, **options):
    path = folder / "graphs.pt"
    if value is not None:
        torch.save(value, path)
    data = module(PyG(path=str(path), root=str(folder), **options))
    data.source.check_files()
    data.open([])
    return data


def arrays(data):
    store = data.graphs
    return [*store.nodes.values(), *store.edges.values(), *store.graphs.values(), store.edge_index, store.node_ptr]


@pytest.mark.parametrize(
    "form",
    [
        lambda graphs: graphs,
        lambda graphs: [graph.to_dict() for graph in graphs],
        InMemoryDataset.collate,
        lambda graphs: [graph.to_dict() | {"x": graph.x.to_sparse()} for graph in graphs],
    ],
    ids=["Data", "dictionaries", "collated", "sparse"],
)
def test_saved_graphs_equal_the_dataset(form, tmp_path):
    graphs = labelled_graphs()
    expected = GraphData(PyG(partial(CollatedDataset, graphs), root=str(tmp_path / "other")))
    expected.open([])
    data = open_saved(GraphData, form(graphs), tmp_path)
    for actual, reference in zip(arrays(data), arrays(expected), strict=True):
        np.testing.assert_array_equal(actual, reference)
    assert "graphs.pt" in data.source.summary(data.graphs)


def test_file_saved_by_pyg(tmp_path):
    graphs = labelled_graphs()
    InMemoryDataset.save(graphs, str(tmp_path / "graphs.pt"))
    data = open_saved(GraphData, None, tmp_path)
    assert np.diff(data.graphs.node_ptr).tolist() == list(SIZES)


@pytest.mark.parametrize("form", [lambda graph: graph, Data.to_dict, lambda graph: [graph]])
def test_masks_of_one_graph_become_splits(form, tmp_path):
    graph = masked_graph()
    data = open_saved(NodeData, form(graph), tmp_path)
    for split, mask in (("train", graph.train_mask), ("valid", graph.val_mask), ("test", graph.test_mask)):
        assert data.graphs.splits[split].tolist() == mask.nonzero().flatten().tolist()
    np.testing.assert_allclose(data.graphs.nodes["x"], graph.x)


def test_featureless_graphs_keep_sizes_and_drop_unread_attributes(tmp_path):
    graphs = [
        Data(edge_index=torch.tensor([[0], [1]]), num_nodes=n, y=n % 2, own=torch.ones(n, n)) for n in range(2, 30)
    ]
    for value in (graphs, InMemoryDataset.collate([graph.clone() for graph in graphs if graph.pop("own") is not None])):
        data = open_saved(GraphData, value, tmp_path)
        assert np.diff(data.graphs.node_ptr).tolist() == list(range(2, 30))
        assert data.schema.degree


def test_trained_schema_reads_another_file(tmp_path):
    data = open_saved(GraphData, labelled_graphs(), tmp_path)
    torch.save([graph for graph in labelled_graphs() if graph.pop("y") is not None], tmp_path / "new.pt")
    new = GraphData(PyG(path=str(tmp_path / "new.pt"), root=str(tmp_path)))
    new.open([], data.schema)
    assert len(new.graphs) == len(SIZES)


INVALID = {
    "no edges": (lambda: [Data(x=torch.ones(2, 1), y=1)] * 9, "graph 0.*edge_index"),
    "edges turned": (lambda: labelled_graphs(edge_index=lambda g: g.edge_index.T), r"graph 2.*edge_index.*\(2, E\)"),
    "edges of reals": (
        lambda: labelled_graphs(edge_index=lambda g: g.edge_index.float()),
        "graph 2.*edge_index.*float32",
    ),
    "no target": (lambda: labelled_graphs(y=None), "graph 2.*y .*missing"),
    "no targets": (lambda: [Data(x=torch.ones(2, 1), edge_index=torch.zeros(2, 1, dtype=torch.long))] * 9, "no y"),
    "no features": (lambda: labelled_graphs(x=None), "graph 2.*x .*missing"),
    "wide features": (lambda: labelled_graphs(x=lambda g: torch.ones(len(g.x), 9)), "graph 2.*x .*9"),
    "another type": (lambda: labelled_graphs(x=lambda g: g.x.double()), "graph 2.*x .*float64"),
    "beyond": (lambda: labelled_graphs(edge_index=lambda g: g.edge_index + 100), "graph 2.*edge"),
    "nothing": (list, "graphs.pt"),
    "no graph": (lambda: [torch.ones(3)], "graph 0.*Tensor.*to_dict"),
    "a number": (lambda: 3, "int.*to_dict"),
    "own class": (lambda: [CustomData(x=torch.ones(1, 1))], "to_dict"),
    "a number of NumPy": (
        lambda: labelled_graphs(size=lambda g: np.float64(1)),
        r"tensors \(numpy.*scalar\).*torch.as_tensor\(value\)",
    ),
    "splits": (
        lambda: {"train": labelled_graphs(), "test": labelled_graphs()[:2]},
        "dictionary of graphs by train, test: save a single",
    ),
    "graphs by name": (
        lambda: {"a": labelled_graphs()[0].to_dict(), "b": labelled_graphs()[1].to_dict()},
        "dictionary of graphs by a",
    ),
    "no types": (HeteroData, "graph 0 has no node types"),
    "types beside none": (lambda: [HeteroData(), *labelled_graphs()], "graph 0.*HeteroData"),
    "trap": (Trap, "to_dict"),
    "slices": (lambda: (labelled_graphs()[0], {"x": torch.tensor([0, 2, 1])}), "slices"),
    "slices of text": (lambda: (labelled_graphs()[0], {"edge_index": "text"}), "graphs.pt"),
    "odd attribute": (lambda: {**masked_graph().to_dict(), "num_edges": 3}, "graphs.pt"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_content_is_reported_in_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, message = INVALID[case]
    with pytest.raises(UserError, match=message) as caught:
        open_saved(GraphData, make(), tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "sprung").exists()


def test_missing_file_is_reported_early(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt"):
        PyG(path=str(tmp_path / "none.pt")).check_files()
    with pytest.raises(UserError, match=r"data\.path"):
        PyG()


def test_graph_files_suggest_the_source_for_saved_graphs(tmp_path):
    torch.save(masked_graph(), tmp_path / "graph.pt")
    with pytest.raises(UserError, match=r"graph\.pt.*data=pyg_nodes"):
        files(str(tmp_path / "graph.pt"))


def test_redundant_num_nodes_is_accepted(tmp_path):
    edges = torch.tensor([[0, 1], [1, 0]])
    graphs = [Data(x=torch.ones(2, 1), edge_index=edges, y=torch.zeros(1)) for _ in range(2)]
    graphs[1].num_nodes = 2
    torch.save(graphs, tmp_path / "graphs.pt")
    assert [graph.num_nodes for graph in saved_graphs(str(tmp_path / "graphs.pt"))] == [2, 2]


def test_graph_without_any_attribute_is_reported(tmp_path):
    torch.save([graph := Data.__new__(Data)], tmp_path / "graphs.pt")
    assert not vars(graph)
    with pytest.raises(UserError, match="graph 0"):
        saved_graphs(str(tmp_path / "graphs.pt"))

"""Heterogeneous graphs as homogeneous ones: against PyG's own `to_homogeneous`, and against a linear map per type."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToUndirected

from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.own.pyg import PyG, build, one_graph
from gt.data.own.pyg_saved import saved_graphs
from gt.data.own.pyg_types import MASKS, of_one_type
from gt.errors import UserError
from gt.layers import GINE, ParallelBlock
from gt.model import GraphTransformer
from gt.schema import UNLABELLED
from tests.data.own.pyg_datasets import CollatedDataset, Uncollated

COUNTS = {"paper": 30, "author": 12, "venue": 3}
RELATIONS = {
    ("author", "writes", "paper"): 40,
    ("paper", "cites", "paper"): 25,
    ("venue", "invites", "author"): 0,
    ("paper", "in", "venue"): 30,
}


def library(seed: int = 0, widths: dict[str, int] | None = None, attributes: int = 0) -> HeteroData:
    """Papers with one of three classes; ``widths`` gives the number of real features of a node type."""
    generator, graph = torch.Generator().manual_seed(seed), HeteroData()
    for kind, count in COUNTS.items():
        graph[kind].num_nodes = count
        if width := (widths or {}).get(kind):
            graph[kind].x = torch.randn(count, width, generator=generator)
    for (source, relation, target), count in RELATIONS.items():
        ends = [torch.randint(COUNTS[kind], (count,), generator=generator) for kind in (source, target)]
        graph[source, relation, target].edge_index = torch.stack(ends)
        if attributes:
            graph[source, relation, target].edge_attr = torch.randn(count, attributes, generator=generator)
    graph["paper"].y = torch.randint(3, (COUNTS["paper"],), generator=generator)
    for number, mask in enumerate(("train_mask", "val_mask", "test_mask")):
        graph["paper"][mask] = torch.arange(COUNTS["paper"]) % 3 == number
    return graph


@pytest.mark.parametrize("attributes", [0, 2])
def test_nodes_and_edges_match_pyg(attributes):
    graph = library(attributes=attributes)
    [ours] = of_one_type([graph], "own")
    expected = graph.to_homogeneous()
    assert ours.edge_index.equal(expected.edge_index)
    assert ours.x[:, 0].equal(expected.node_type)
    assert ours.num_nodes == expected.num_nodes == 45
    if not attributes:
        assert ours.edge_attr[:, 0].equal(expected.edge_type)
    else:
        assert ours.edge_attr[:, :4].argmax(1).equal(expected.edge_type)
        assert ours.edge_attr[:, 4:].equal(torch.cat([store.edge_attr for store in graph.edge_stores]))


@pytest.mark.parametrize("widths", [{"paper": 5, "author": 2}, {"paper": 4, "author": 4}, {"venue": 3}], ids=str)
def test_shared_linear_map_equals_one_per_type(widths):
    graph = library(widths=widths)
    [ours] = of_one_type([graph], "own")
    shared = len(set(widths.values())) == 1
    assert ours.x.shape == (45, 3 + (max(widths.values()) if shared else sum(widths.values())))
    torch.manual_seed(0)
    linear = nn.Linear(ours.x.shape[1], 7, bias=False)
    weight, start = linear.weight.detach(), 3
    parts = []
    for number, (kind, count) in enumerate(COUNTS.items()):
        part = weight[:, number].expand(count, 7)
        if width := widths.get(kind):
            part = part + graph[kind].x @ weight[:, start : start + width].T
            start += 0 if shared else width
        parts.append(part)
    torch.testing.assert_close(linear(ours.x).detach(), torch.cat(parts))


def test_targets_and_masks_come_from_their_node_type():
    graph = library(widths={"author": 2})
    store = one_graph(CollatedDataset([graph]), "library")
    papers = np.arange(30)
    assert {split: rows.tolist() for split, rows in store.splits.items()} == {
        split: papers[papers % 3 == number].tolist() for number, split in enumerate(("train", "valid", "test"))
    }
    y = np.asarray(store.nodes["y"])
    assert y[:30].tolist() == graph["paper"].y.tolist()
    assert (y[30:] == UNLABELLED).all()
    assert (store.schema.kind, store.schema.outputs, store.schema.edge_vocab) == ("multiclass", 3, (4,))
    real = library()
    real["paper"].y = real["paper"].y.double() / 7
    [ours] = of_one_type([real], "own")
    assert ours.y[:30].equal(real["paper"].y)
    assert ours.y[30:].isnan().all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool], ids=str)
@pytest.mark.parametrize("columns", [0, 1, 2])
def test_other_node_types_are_unlabelled(dtype, columns):
    graph, classes = library(), torch.arange(30) % 2
    for mask in MASKS:
        del graph["paper"][mask]
    y = classes if not columns else torch.stack([classes, 1 - classes][:columns], dim=1)
    graph["paper"].y = y.to(dtype)
    store = one_graph(CollatedDataset([graph]), "library")
    assert sorted(np.concatenate(list(store.splits.values())).tolist()) == list(range(30))
    expected = ("multiclass", 2) if columns < 2 else ("binary", 2)
    assert (store.schema.kind, store.schema.outputs) == expected
    targets = np.asarray(store.nodes["y"])
    assert np.array_equal(targets[:30].reshape(30, -1), y.reshape(30, -1))
    assert (np.isnan(targets[30:]) if columns == 2 else targets[30:] == UNLABELLED).all()


@pytest.mark.parametrize("dataset", [CollatedDataset, Uncollated])
def test_targets_of_whole_graphs(dataset):
    graphs = [library(seed, widths=dict.fromkeys(COUNTS, 2)) for seed in range(9)]
    for number, graph in enumerate(graphs):
        del graph["paper"].y
        graph.y = torch.tensor([number % 2])
    store = build({"": dataset(graphs)}, "libraries")
    assert (len(store), store.schema.level, store.schema.kind) == (9, "graph", "multiclass")
    assert np.asarray(store.graphs["y"]).ravel().tolist() == [n % 2 for n in range(9)]
    for number, joined in enumerate(of_one_type(graphs, "libraries")):
        nodes = slice(store.node_ptr[number], store.node_ptr[number + 1])
        assert np.array_equal(store.nodes["x"][nodes], joined.x.numpy())


def library_without(*keys):
    graph = library()
    for key in keys:
        del graph[key]
    return graph


def library_with(kind, **values):
    graph = library()
    for name, value in values.items():
        graph[kind][name] = value
    return graph


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        (
            lambda: [library(), library_without("venue")],
            "own, graph 1: its node or edge types are not those of the first",
        ),
        (lambda: [HeteroData()], "own, graph 0 has no node types"),
        (lambda: [library_with("author", y=torch.zeros(12))], "own, graph 0: nodes of paper, author have targets y"),
        (lambda: [library_with("venue", x=torch.zeros(3, 2, 2))], "own, graph 0: x of paper, author, venue: (3, 2, 2)"),
        (lambda: [library_with("venue", num_nodes=None)], "own, graph 0: the number of nodes of type venue is unknown"),
        (
            lambda: [library_with(("paper", "in", "venue"), edge_index=None)],
            "own, graph 0: edges paper - in - venue have no edge_index",
        ),
        (
            lambda: [library_with(("paper", "in", "venue"), edge_index=torch.tensor([[0, 1], [2, 3]]))],
            "own, graph 0: an edge paper - in - venue joins [1, 3], but nodes are 0..29 and 0..2",
        ),
        (
            lambda: [library_with(("paper", "in", "venue"), edge_index=torch.tensor([[-1], [0]]))],
            "own, graph 0: an edge paper - in - venue joins [-1, 0]",
        ),
        (
            lambda: [library_with(("paper", "in", "venue"), edge_index=torch.zeros(5, 2, dtype=torch.long))],
            "own, graph 0: edge_index of paper - in - venue is (5, 2), but must be (2, E)",
        ),
        (lambda: [library_with("paper", y=torch.zeros(1))], "own, graph 0: y of paper is (1,) for 30 nodes"),
        (lambda: [library_with("paper", y=[0] * 30)], "own, graph 0: y of paper is a list, not a tensor"),
        (lambda: [library_with("author", x=[[0.0]] * 12, num_nodes=12)], "own, graph 0: x of author is a list, not"),
        (
            lambda: [library_with("paper", val_mask=torch.ones(29, dtype=torch.bool))],
            "own, graph 0: val_mask of paper is (29,) for 30 nodes",
        ),
        (
            lambda: [library(), *of_one_type([library()], "own")],
            "own holds HeteroData objects: only Data or",
        ),
    ],
)
def test_invalid_graphs_are_reported_in_one_line(graphs, message):
    with pytest.raises(UserError) as caught:
        build({"": Uncollated(graphs())}, "own")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def learnable() -> HeteroData:
    """Papers whose class follows from the features of their one author: without authors, a model can only guess."""
    graph = library(widths={"author": 3})
    author = torch.arange(30) % 12
    graph["author", "writes", "paper"].edge_index = torch.stack([author, torch.arange(30)])
    graph["author"].x = torch.eye(3)[torch.arange(12) // 4] * 2
    graph["paper"].y = author // 4
    return ToUndirected()(graph)


def test_model_learns_from_a_saved_graph(tmp_path):
    torch.save(learnable(), tmp_path / "library.pt")
    data = NodeData(PyG(path=str(tmp_path / "library.pt"), root=str(tmp_path)))
    data.open([])
    assert data.schema.edge_vocab == (len(learnable().edge_types),)
    torch.manual_seed(0)
    net = GraphTransformer(data.schema, 32, 1, partial(ParallelBlock, local=GINE, norm=nn.LayerNorm))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    batch = data.whole.batch(None)
    splits = {split: torch.from_numpy(rows.astype(np.int64)) for split, rows in data.graphs.splits.items()}
    y = torch.from_numpy(np.asarray(data.graphs.nodes["y"], np.int64))
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(batch)[splits["train"]], y[splits["train"]]).backward()
        optimizer.step()
    assert net(batch)[splits["test"]].argmax(1).equal(y[splits["test"]])


def test_saved_list_of_graphs(tmp_path):
    graphs = [library(seed) for seed in range(6)]
    for number, graph in enumerate(graphs):
        del graph["paper"].y
        graph.y = torch.tensor([float(number)])
    torch.save(graphs, tmp_path / "libraries.pt")
    data = GraphData(PyG(path=str(tmp_path / "libraries.pt"), root=str(tmp_path), fractions=(0.5, 0.25, 0.25)))
    data.open([])
    assert (len(data.graphs), data.schema.kind, data.schema.node_vocab) == (6, "regression", (3,))


@pytest.mark.parametrize("listed", [False, True])
def test_dictionaries_equal_the_saved_graphs(listed, tmp_path):
    graph = learnable()
    for name, content in {"graph": graph, "dictionary": graph.to_dict()}.items():
        torch.save([content] if listed else content, tmp_path / f"{name}.pt")
    graphs, dictionaries = (
        saved_graphs(str(tmp_path / f"{name}.pt"))._data.to_dict() for name in ("graph", "dictionary")
    )
    assert graphs.keys() == dictionaries.keys() >= {"x", "edge_index", "edge_attr", "y"}
    assert all(
        torch.equal(value, dictionaries[key]) for key, value in graphs.items() if isinstance(value, torch.Tensor)
    )


@pytest.mark.parametrize("content", [{("a", "b"): {}}, {("a", "b", "c"): 1}, {("a", "b", "c"): {1: 2}}, {(): {}}])
def test_other_dictionaries_are_rejected(content, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no edge_index"):
        saved_graphs(str(tmp_path / "other.pt"))

"""What can and cannot be read from PyG datasets: attributes that graphs lack, that differ or that nothing reads."""

import pytest
import torch
from torch_geometric.data import Data, HeteroData

from gt.data.own.pyg import build
from gt.errors import UserError
from tests.data.own.pyg_datasets import CollatedDataset, Uncollated, random_graphs


def nine_graphs(**changes):
    """Nine copies of a small graph, some of its attributes replaced."""
    return CollatedDataset(
        [Data(**{"x": torch.zeros(3, 1), "edge_index": torch.empty(2, 0).long(), "y": 1.5, **changes})] * 9
    )


WITHOUT_NODES = Data(
    x=torch.zeros(0, 2).long(),
    edge_index=torch.empty(2, 0).long(),
    edge_attr=torch.zeros(0, 1).long(),
    y=torch.tensor([0]),
    num_nodes=0,
)
WITHOUT_TARGET = Data(
    x=torch.zeros(1, 2).long(), edge_index=torch.empty(2, 0).long(), edge_attr=torch.zeros(0, 1).long()
)
WIDER_FEATURES = Data(
    x=torch.zeros(1, 3).long(),
    edge_index=torch.empty(2, 0).long(),
    edge_attr=torch.zeros(0, 1).long(),
    y=torch.tensor([0]),
)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            lambda: nine_graphs(edge_index=torch.tensor([[-1], [0]])),
            "own, graph 0: an edge joins [-1, 0], but nodes are 0..2",
        ),
        (lambda: nine_graphs(x=torch.tensor([[0], [-2], [1]])), "own, graph 0: -2 in x is not a category"),
        (lambda: nine_graphs(x=torch.zeros(3, 1, 2)), "own, graph 0: x is 27 x 1 x 2"),
        (lambda: nine_graphs(y=None), "own has no targets: its graphs hold edge_index, x but no y"),
        (lambda: nine_graphs(y=float("inf")), "own, graph 0: inf as a target is not finite"),
        (lambda: nine_graphs(y=float("nan")), "own, graph 0: no targets at all, nothing to learn"),
        (lambda: nine_graphs(y=torch.zeros(2, 1)), "own, graph 0: y has 2 rows, neither one for the graph nor one"),
        (lambda: CollatedDataset(random_graphs()[:1]), "own is a single graph"),
        (
            lambda: CollatedDataset(random_graphs()[:2]),
            "own: 2 graphs: too few labelled samples (2) for splits of [0.8, 0.1, 0.1]",
        ),
        (lambda: Uncollated([]), "own holds no graphs"),
        (lambda: Uncollated([HeteroData(), *random_graphs()]), "own holds HeteroData objects: only Data or HeteroData"),
        (lambda: Uncollated([*random_graphs(), WITHOUT_TARGET]), "own, graph 12: y is missing, but in graph 0 "),
        (
            lambda: Uncollated([*random_graphs(), WIDER_FEATURES]),
            "own, graph 12: x is int64 (1, 3), but in graph 0 int64 ",
        ),
        (lambda: CollatedDataset([*random_graphs(), WITHOUT_NODES]), "own, graph 12 has no nodes"),
        (
            lambda: nine_graphs(x=torch.zeros(3, 1) + 1j),
            "own: x holds complex numbers: store their real and imaginary parts",
        ),
        (lambda: nine_graphs(edge_attr=torch.empty(0, 1) + 1j), "own: edge_attr holds complex numbers"),
        (lambda: nine_graphs(y=torch.tensor([1 + 2j])), "own: y holds complex numbers"),
    ],
)
def test_unreadable_dataset_is_reported_in_one_line(dataset, message):
    with pytest.raises(UserError) as caught:
        build({"": dataset()}, "own")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_unread_attributes_may_differ_between_graphs():
    graphs = random_graphs()
    graphs[0].origin = "first"
    store = build({"": Uncollated(graphs)}, "own")
    assert store.schema == build({"": Uncollated(random_graphs())}, "own").schema


def test_unread_complex_attributes_are_ignored():
    assert build(
        {"": CollatedDataset(random_graphs(signal=lambda graph, _: torch.zeros(graph.num_nodes, 1) + 1j))}, "own"
    )


def test_splits_with_different_columns_are_rejected():
    wide = random_graphs(x=lambda g, i: torch.zeros(g.num_nodes, 5))
    with pytest.raises(UserError, match="own: x differs between the splits"):
        build({"train": CollatedDataset(random_graphs()), "valid": CollatedDataset(wide)}, "own")

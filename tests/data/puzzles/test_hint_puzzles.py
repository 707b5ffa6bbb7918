"""The graphs that demonstrations are made on, against loops over them."""

import networkx as nx
import numpy as np
import pytest

from gt.data.puzzles.core_periphery import CorePeriphery
from gt.data.puzzles.hidden_grid import HiddenGrid
from tests.data.puzzles.test_puzzles import samples

SMALL = {"train": 40, "valid": 16, "test": 24}


def test_cells_of_the_hidden_grid_count_the_mines_beside_them():
    orders = set()
    for graph, x, answer in samples(HiddenGrid(side=3, **SMALL)):
        names = [name for name, _ in x]
        assert sorted(names) == list(range(9))
        orders.add(tuple(names))
        for one in graph:
            for other in graph:
                rows, columns = np.abs(np.subtract(*(divmod(names[n], 3) for n in (one, other))))
                assert graph.has_edge(one, other) == (rows + columns == 1)
        assert answer == {node: sum(x[other][1] for other in graph[node]) for node in graph}
    assert len(orders) > 70  # the order of nodes says nothing


def test_the_core_is_dense_and_features_mostly_tell():
    told, degrees = [], {0: [], 1: []}
    for graph, x, answer in samples(CorePeriphery(size=20, degree=6, honest=0.8, train=300, valid=50, test=50)):
        assert graph.number_of_edges() == 60
        assert not nx.number_of_selfloops(graph)
        assert len(answer) == 20
        for node, label in answer.items():
            told.append(x[node] == [label])
            degrees[label].append(graph.degree[node])
    assert abs(np.mean(told) - 0.8) < 0.02
    assert np.mean(degrees[1]) > 1.8 * np.mean(degrees[0])
    assert abs(len(degrees[1]) / len(told) - 0.5) < 0.02


def test_a_graph_may_be_complete():
    for graph, _, _ in samples(CorePeriphery(size=4, degree=3, **SMALL)):
        assert graph.number_of_edges() == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 4}, "size must be 7 or more, not 4"),
        ({"degree": 24}, "size must be 25 or more, not 24"),
        ({"honest": 70}, "honest must be from 0 to 1, not 70"),
    ],
)
def test_options_that_no_graph_can_have_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        CorePeriphery(**options)

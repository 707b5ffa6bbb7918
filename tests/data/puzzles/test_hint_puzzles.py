"""The puzzles with hints at every node, hidden grid and core-periphery, against loops over their graphs."""

import networkx as nx
import numpy as np
import pytest

from gt.data.puzzles.core_periphery import CorePeriphery
from gt.data.puzzles.hidden_grid import HiddenGrid
from tests.data.puzzles.test_puzzles import labelled_graphs

SMALL = {"train": 40, "valid": 16, "test": 24}


def test_hidden_grid_targets_count_adjacent_mines():
    orders = set()
    for graph, x, targets in labelled_graphs(HiddenGrid(side=3, **SMALL)):
        names = [name for name, _ in x]
        assert sorted(names) == list(range(9))
        orders.add(tuple(names))
        for first in graph:
            for second in graph:
                rows, columns = np.abs(np.subtract(*(divmod(names[n], 3) for n in (first, second))))
                assert graph.has_edge(first, second) == (rows + columns == 1)
        assert targets == {node: sum(x[second][1] for second in graph[node]) for node in graph}
    assert len(orders) > 70  # the order of nodes is random


def test_core_is_dense_and_features_are_mostly_correct():
    correct, degrees = [], {0: [], 1: []}
    for graph, x, targets in labelled_graphs(
        CorePeriphery(size=20, degree=6, honest=0.8, train=300, valid=50, test=50)
    ):
        assert graph.number_of_edges() == 60
        assert not nx.number_of_selfloops(graph)
        assert len(targets) == 20
        for node, label in targets.items():
            correct.append(x[node] == [label])
            degrees[label].append(graph.degree[node])
    assert abs(np.mean(correct) - 0.8) < 0.02
    assert np.mean(degrees[1]) > 1.8 * np.mean(degrees[0])
    assert abs(len(degrees[1]) / len(correct) - 0.5) < 0.02


def test_core_periphery_graph_may_be_complete():
    for graph, _, _ in labelled_graphs(CorePeriphery(size=4, degree=3, **SMALL)):
        assert graph.number_of_edges() == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "size must be 7 or more, not 4"),
        ({"degree": 24}, "size must be 25 or more, not 24"),
        ({"honest": 70}, "honest must be from 0 to 1, not 70"),
    ],
)
def test_impossible_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        CorePeriphery(**options)

"""Every puzzle against a loop over its graphs, with balanced targets that node order does not reveal."""

from collections import Counter
from dataclasses import fields

import networkx as nx
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from gt.cli.config_files import CONFIGS
from gt.data.puzzles.base import Puzzle
from gt.data.puzzles.rings import RingTransfer
from gt.data.puzzles.sequences import AssociativeRecall, Copying, Needle
from gt.data.puzzles.structure import Connectivity, Distance
from gt.data.puzzles.trees import TreeMatch
from gt.schema import UNLABELLED

SMALL = {"train": 40, "valid": 16, "test": 24}
PUZZLES = [RingTransfer, TreeMatch, Distance, Connectivity, Copying, AssociativeRecall, Needle]


def labelled_graphs(puzzle: Puzzle):
    """(undirected graph, x by node, target by labelled node) of each graph."""
    graphs = puzzle.build()
    for g in range(len(graphs)):
        nodes = slice(graphs.node_ptr[g], graphs.node_ptr[g + 1])
        edges = graphs.edge_index[:, graphs.edge_ptr[g] : graphs.edge_ptr[g + 1]].T.tolist()
        assert {(b, a) for a, b in edges} == {(a, b) for a, b in edges}
        assert len({tuple(edge) for edge in edges}) == len(edges)
        graph = nx.Graph(edges)
        graph.add_nodes_from(range(graphs.sizes[g]))
        y = graphs.nodes["y"][nodes]
        yield graph, graphs.nodes["x"][nodes].tolist(), {n: int(y[n]) for n in np.flatnonzero(y != UNLABELLED)}


def node_with(x, value):
    """The only node with this feature value."""
    (node,) = [node for node, row in enumerate(x) if row == [value]]
    return node


@pytest.mark.parametrize("length", [12, 7, 3])
def test_ring_transfer(length):
    for graph, x, targets in labelled_graphs(RingTransfer(length=length, **SMALL)):
        assert nx.is_isomorphic(graph, nx.cycle_graph(length))
        ((target, label),) = targets.items()
        source = node_with(x, 2 + label)
        assert x[target] == [1]
        assert nx.shortest_path_length(graph, source, target) == length // 2
        assert Counter(map(tuple, x))[(0,)] == length - 2


@pytest.mark.parametrize("depth", [1, 3])
def test_tree_match(depth):
    for graph, x, targets in labelled_graphs(TreeMatch(depth=depth, values=5, **SMALL)):
        assert nx.is_isomorphic(graph, nx.balanced_tree(2, depth))
        ((root, label),) = targets.items()
        hops = nx.shortest_path_length(graph, root)
        leaves = [node for node in graph if hops[node] == depth]
        assert len(leaves) == 2**depth
        values = {x[leaf][0]: x[leaf][1] for leaf in leaves}
        assert set(values) == set(range(1, 2**depth + 1))
        assert set(values.values()) <= set(range(1, 6))
        assert label == values[x[root][0]] - 1
        assert all(x[node] == [0, 0] for node in graph if 0 < hops[node] < depth)
        assert x[root][1] == 0


def test_distance():
    hubs = set()
    for graph, x, targets in labelled_graphs(Distance(size=11, longest=4, **SMALL)):
        assert nx.is_tree(graph)
        assert len(graph) == 11
        ((target, label),) = targets.items()
        assert nx.shortest_path_length(graph, node_with(x, 1), target) == label + 1
        assert node_with(x, 2) == target
        hubs.add(max(graph, key=graph.degree))
    assert len(hubs) == 11  # node indices are not informative


def test_distance_as_regression():
    classes, numbers = (Distance(size=11, longest=4, regression=number, **SMALL).build() for number in (False, True))
    label, hops = classes.nodes["y"], numbers.nodes["y"]
    assert np.array_equal(numbers.edge_index, classes.edge_index)
    assert np.array_equal(np.isnan(hops[:, 0]), label == UNLABELLED)
    assert np.array_equal(hops[label != UNLABELLED, 0], label[label != UNLABELLED] + 1)
    schema = numbers.schema
    assert (schema.kind, schema.level, schema.outputs) == ("regression", "node", 1)
    assert schema.mean == pytest.approx([2.5])  # 1 to 4, equally frequent
    assert schema.scale == pytest.approx([np.sqrt(1.25)])


def test_connectivity():
    for graph, x, targets in labelled_graphs(Connectivity(size=6, **SMALL)):
        parts = list(nx.connected_components(graph))
        assert [len(part) for part in parts] == [6, 6]
        assert graph.number_of_edges() == 10
        ((target, label),) = targets.items()
        assert node_with(x, 2) == target
        assert label == any({node_with(x, 1), target} <= part for part in parts)


def is_path(graph):
    return sorted(map(sorted, graph.edges)) == [[n, n + 1] for n in range(len(graph) - 1)]


def test_copying():
    for graph, x, targets in labelled_graphs(Copying(length=3, pause=5, symbols=4, **SMALL)):
        tokens = [token for (token,) in x]
        assert is_path(graph)
        assert tokens[3:] == [4] * 5 + [5] * 3
        assert targets == {8 + n: tokens[n] for n in range(3)}


def test_associative_recall():
    queried = set()
    for graph, x, targets in labelled_graphs(AssociativeRecall(pairs=3, keys=5, values=4, **SMALL)):
        tokens = [token for (token,) in x]
        assert is_path(graph)
        assert len(set(tokens[:6:2])) == 3
        assert set(tokens[:7:2]) <= set(range(5))
        assert set(tokens[1:6:2]) <= set(range(5, 9))
        value = {tokens[n]: tokens[n + 1] - 5 for n in range(0, 6, 2)}
        assert targets == {6: value[tokens[6]]}
        queried.add(tokens.index(tokens[6]))
    assert queried == {0, 2, 4}


def test_needle():
    positions = set()
    for graph, x, targets in labelled_graphs(Needle(length=9, noise=3, **SMALL)):
        assert is_path(graph)
        ((last, label),) = targets.items()
        assert (last, x[last]) == (8, [13])
        positions.add(node_with(x, 3 + label))
        assert sum(token < 3 for (token,) in x) == 7
    assert positions == set(range(8))


def test_sequence_edges_encode_direction():
    graphs = Needle(length=4, **SMALL).build()
    source, target = graphs.edge_index
    assert np.array_equal(graphs.edges["edge_attr"][:, 0], source > target)


@pytest.mark.parametrize("kind", PUZZLES)
def test_classes_are_balanced(kind):
    graphs = kind(**SMALL).build()
    size = graphs.schema.max_nodes
    for ids, count in zip(graphs.splits.values(), SMALL.values(), strict=True):
        assert len(ids) == count
        y = graphs.nodes["y"].reshape(-1, size)[ids]
        counts = np.bincount(y[y != UNLABELLED], minlength=graphs.schema.outputs)
        assert len(counts) == graphs.schema.outputs
        assert counts.max() - counts.min() <= 1
    values = graphs.nodes["x"].reshape(-1, len(graphs.schema.node_vocab)).max(0)
    assert (values < graphs.schema.node_vocab).all()


@pytest.mark.parametrize("kind", PUZZLES)
def test_graphs_and_key_depend_on_seed_and_options(kind):
    original, repeated, reseeded = (kind(sample_seed=seed, **SMALL) for seed in (0, 0, 1))
    first, second, third = (puzzle.build() for puzzle in (original, repeated, reseeded))
    assert np.array_equal(first.nodes["x"], second.nodes["x"])
    assert np.array_equal(first.edge_index, second.edge_index)
    assert not np.array_equal(first.nodes["x"], third.nodes["x"])
    x = first.nodes["x"].reshape(len(first), -1)
    train, test = (x[first.splits[split][:20]] for split in ("train", "test"))
    assert not np.array_equal(train, test)
    for field in fields(kind):
        changed = kind(**SMALL)
        setattr(changed, field.name, 99)
        assert (changed.key() == original.key()) == (field.name == "root")


@pytest.mark.parametrize("kind", PUZZLES)
def test_config_makes_batches(kind, tmp_path):
    with initialize_config_dir(str(CONFIGS.resolve()), version_base="1.3"):
        cfg = compose("train", [f"data={kind.name}"])
    assert type(instantiate(cfg.data.source)) is kind
    assert instantiate(cfg.data.source).key() == kind().key()  # the config file repeats the defaults of the class
    cfg.data.source.merge_with({"root": str(tmp_path), "train": 40, "valid": 4, "test": 4})
    data = instantiate(cfg.data)
    data.open([])
    batch = next(iter(data.loader("train")))
    assert batch.num_graphs == 32
    assert batch.y.shape == (batch.num_nodes,)
    assert (cfg.mask["_target_"] == "gt.masks.Causal") == (kind in (Copying, AssociativeRecall, Needle))

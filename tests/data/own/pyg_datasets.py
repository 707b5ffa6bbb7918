"""Small PyG datasets for tests, and the comparison of a store with the graphs it was made of."""

from pathlib import Path

import torch
from torch_geometric.data import Dataset, InMemoryDataset

from gt.data.batching import gather
from gt.graph import GraphBatch
from tests.graphs import random_graph

SIZES = (3, 1, 6, 2, 5, 4, 1, 7, 3, 2, 4, 6)


class CollatedDataset(InMemoryDataset):
    """Graphs in memory, collated as in PyG's own datasets."""

    def __init__(self, graphs, transform=None):
        super().__init__(None, transform)
        self.data, self.slices = self.collate(graphs)


class Uncollated(Dataset):
    """A dataset that returns its graphs one by one, which PyG does not collate."""

    def __init__(self, graphs):
        super().__init__(None)
        self.graphs = graphs

    def len(self):
        return len(self.graphs)

    def get(self, idx):
        return self.graphs[idx]


def random_graphs(**changes):
    """Random graphs; each of the given attributes is set by a function of the graph and its number."""
    graphs = [random_graph(size, i) for i, size in enumerate(SIZES)]
    for number, graph in enumerate(graphs):
        for name, change in changes.items():
            graph[name] = change(graph, number)
    return graphs


def assert_same_batches(store, expected):
    """Every batch of the store equals the one made of the PyG graphs."""
    for ids in (range(len(expected)), [4, 0, 2, 2], [1]):
        actual, reference = gather(store, list(ids)), GraphBatch.from_data_list([expected[i] for i in ids])
        assert torch.equal(actual.ptr, reference.ptr)
        assert torch.equal(actual.edge_index, reference.edge_index)
        for name in ("x", "edge_attr", "y"):
            value, wanted = getattr(actual, name), getattr(reference, name)
            assert (value is None) == (wanted is None), name
            if value is not None:
                assert torch.equal(value, wanted.view_as(value).to(value.dtype)), name
    return store


def write_tu_dataset(folder: Path, name: str = "TINY") -> None:
    """Write twelve graphs as raw files of the TU collection: paths of 2 or 3 nodes, labels -1 and 1."""
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    edges, indicator, labels, bonds = [], [], [], []
    for graph in range(12):
        for position in range(2 + graph % 2):
            indicator.append(graph + 1)
            labels.append(position)
            if position:
                edges += [f"{len(indicator)}, {len(indicator) - 1}", f"{len(indicator) - 1}, {len(indicator)}"]
                bonds += [graph % 3, graph % 3]
    columns = {"A": edges, "graph_indicator": indicator, "node_labels": labels, "edge_labels": bonds}
    columns["graph_labels"] = [[-1, 1][graph % 2] for graph in range(12)]
    for part, rows in columns.items():
        (raw / f"{name}_{part}.txt").write_text("".join(f"{row}\n" for row in rows))

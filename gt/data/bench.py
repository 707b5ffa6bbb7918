"""Benchmarks batch loading against PyG's DataLoader, on the same graphs in the same process."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.loader import DataLoader

from gt.data.batch_sampler import Batches
from gt.data.batching import GraphDataset
from gt.data.datamodule import Loader
from gt.data.graphs import Stored
from gt.data.packed import Graphs

SIZES = (32, 256)
RUN = 25  # consecutive batches from one loader before the next
GRAPHS = 8192  # only the first ones, so that PyG's copies fit in memory


class InMemory(InMemoryDataset):
    """PyG's own packed dataset, which slices a graph from its tensors at first access and then caches it."""

    def __init__(self, graphs: Sequence[Data]) -> None:
        super().__init__()
        self.data, self.slices = self.collate(list(graphs))


def pyg_graphs(graphs: Graphs, count: int) -> list[Data]:
    """The first graphs as PyG data, each with its own tensors."""
    tensors = {
        name: torch.from_numpy(np.array(values, np.float32 if values.dtype.kind == "f" else np.int64))
        for name, values in (
            ("edge_index", graphs.edge_index[:, : graphs.edge_ptr[count]]),
            *((n, v[: graphs.node_ptr[count]]) for n, v in graphs.nodes.items()),
            *((n, v[: graphs.edge_ptr[count]]) for n, v in graphs.edges.items()),
            *((n, v[:count]) for n, v in graphs.graphs.items()),
        )
    }
    nodes, edges = graphs.node_ptr.tolist(), graphs.edge_ptr.tolist()
    samples = []
    for g in range(count):
        node_slice = slice(nodes[g], nodes[g + 1])
        data = Data(edge_index=tensors["edge_index"][:, edges[g] : edges[g + 1]], num_nodes=nodes[g + 1] - nodes[g])
        for name in graphs.nodes:
            data[name] = tensors[name][node_slice]
        for name in graphs.edges:
            data[name] = tensors[name][edges[g] : edges[g + 1]]
        for name in graphs.graphs:
            data[name] = tensors[name][g : g + 1]
        samples.append(data)
    return samples


@dataclass(frozen=True)
class Row:
    """Seconds per batch, by loader."""

    batch_size: int
    nodes: float  # in a batch, on average
    times: dict[str, list[float]]

    def median(self, name: str) -> float:
        return float(np.median(self.times[name]))


OURS, CACHED, PACKED = "this loader", "PyG, list", "PyG, InMemory"


def _forever(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def compare(data: Stored, seconds: float) -> list[Row]:
    """Time training batches from each loader in turn, for every batch size in `SIZES`."""
    graphs = data.graphs
    count = min(GRAPHS, len(graphs))
    listed = pyg_graphs(graphs, count)
    packed: Any = InMemory(listed)
    for graph in range(count):  # fills its cache
        packed[graph]
    dataset = GraphDataset(graphs, np.arange(count))
    rows = []
    for size in SIZES:
        ours = Loader(dataset, sampler=Batches(dataset.sizes, size, shuffle=True), batch_size=None)
        loaders = {
            OURS: _forever(ours),
            CACHED: _forever(DataLoader(listed, size, shuffle=True)),
            PACKED: _forever(DataLoader(packed, size, shuffle=True)),
        }
        times: dict[str, list[float]] = {name: [] for name in loaders}
        nodes: list[int] = []
        for loader in loaders.values():
            next(loader)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(nodes) < 5:
            for name, loader in loaders.items():
                for _ in range(RUN):
                    start = time.perf_counter()
                    batch = next(loader)
                    times[name].append(time.perf_counter() - start)
            nodes.append(int(batch.num_nodes))
        rows.append(Row(size, float(np.mean(nodes)), times))
    return rows


def table(rows: Sequence[Row]) -> Table:
    """Medians and quartiles in milliseconds, and the speed-up of this loader over the faster one of PyG."""
    shown = Table(title="one batch, ms: median (quartiles)", title_justify="left")
    for name in ("graphs", "nodes", OURS, CACHED, PACKED, "speed-up"):
        shown.add_column(name, justify="right")
    for row in rows:
        cells = [f"{row.batch_size}", f"{row.nodes:,.0f}"]
        for name in (OURS, CACHED, PACKED):
            low, middle, high = np.quantile(row.times[name], [0.25, 0.5, 0.75]) * 1e3
            cells.append(f"{middle:.3f} ({low:.2f}-{high:.2f})")
        best = min(row.median(CACHED), row.median(PACKED))
        shown.add_row(*cells, f"{best / row.median(OURS):.1f}")
    return shown

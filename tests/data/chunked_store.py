"""A small store in chunks and an encoding for it, for tests of damaged stores and of difficult disks."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gt.data.packed import Graphs, pointers
from gt.encodings import Encoding
from gt.schema import Schema

FORK = multiprocessing.get_context("fork")  # starts fast; safe as the tests use no threads


@dataclass(frozen=True)
class NodeNumber(Encoding):
    """The number of each node, times a factor."""

    factor: int
    name: str = "number"

    arrays: ClassVar = ("number", "half")

    def key(self) -> dict[str, Any]:
        return {"name": self.name, "factor": self.factor}

    def compute(self, graphs: Graphs, progress: Any = iter) -> dict[str, np.ndarray]:
        rows = np.arange(graphs.node_ptr[-1], dtype=np.float32)[:, None] * self.factor
        return {"number": rows, "half": rows / 2}

    def module(self, width: int, schema: Schema) -> Any:
        raise NotImplementedError


def chunk(start: int, graphs: int) -> Graphs:
    """Paths of 1 to 5 nodes; numbers grow from chunk to chunk."""
    sizes = np.arange(start, start + graphs) % 5 + 1
    nodes, edges = int(sizes.sum()), sizes - 1
    target = np.concatenate([np.arange(1, n) for n in sizes])
    return Graphs(
        pointers(sizes),
        pointers(edges),
        np.stack([target - 1, target]),
        Schema(node_vocab=(2**20,), outputs=2, max_nodes=int(sizes.max())),
        nodes={"x": np.arange(nodes)[:, None] + start * start, "real": np.linspace(0, 1, nodes, dtype=np.float32)},
        edges={"edge_attr": np.arange(int(edges.sum()))[:, None] - 7},
        graphs={"y": np.arange(start, start + graphs)},
        splits={"train": np.arange(start + graphs - 3), "valid": np.array([start + graphs - 2])},
        notes={"skipped": start, "why": "naïve"},
    )


def chunks() -> Iterator[Graphs]:
    for start in range(0, 300, 100):
        yield chunk(start, 100)


def contents(graphs: Graphs) -> dict[str, Any]:
    """The contents of a store, as plain values."""
    named = {name: getattr(graphs, name) for name in ("node_ptr", "edge_ptr", "edge_index")}
    for group in ("nodes", "edges", "graphs", "splits"):
        named |= {f"{group}.{name}": values for name, values in getattr(graphs, group).items()}
    plain = {name: (values.dtype.str, values.tolist()) for name, values in named.items()}
    return plain | {"schema": graphs.schema, "notes": graphs.notes}


def encoding_rows(graphs: Graphs) -> dict[str, Any]:
    """The rows of all encodings for all nodes, as plain values."""
    rows = np.arange(graphs.node_ptr[-1])
    return {name: values.take(rows).tolist() for name, values in graphs.encodings.items()}

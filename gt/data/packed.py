"""Packed graphs: flat arrays of all graphs of a dataset, in memory or memory-mapped from a store."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gt.data.arrays import Rows, smallest_integer_dtype
from gt.schema import Schema

Arrays = dict[str, np.ndarray]
GROUPS = ("nodes", "edges", "pairs", "graphs", "links", "splits")
POINTERS = ("node_ptr", "edge_ptr")


@dataclass
class Graphs:
    """G graphs, N nodes and E edges in flat arrays; graph g owns nodes ``node_ptr[g]:node_ptr[g + 1]``.

    Attributes:
        node_ptr, edge_ptr: (G + 1,) int64 offsets.
        edge_index: (2, E) integers, row 0 the source and row 1 the target, numbered from 0 within each graph and
            sorted by (graph, target, source); ``sort_edges`` establishes this order.
        nodes, edges, graphs: arrays with a row per node (``x``), edge (``edge_attr``) or graph (``y``).
        pairs: arrays with a row per ordered node pair, n * n for a graph of n nodes, sorted by first and second node.
        links: arrays with a row per node pair that has a target, of which a graph has ``graphs["links"]`` (G,):
            ``ends`` (two columns, numbered from 0 within each graph) and ``y``; empty if links have no targets.
        splits: graph numbers under ``train``, ``valid`` and ``test``.
        encodings: positional and structural encodings, see `gt.encodings`; stored in separate files.
        schema: what a model needs to know about these arrays.
        notes: information worth showing (JSON values), such as the number of skipped rows.
    """

    node_ptr: np.ndarray
    edge_ptr: np.ndarray
    edge_index: np.ndarray
    schema: Schema
    nodes: Arrays = field(default_factory=dict)
    edges: Arrays = field(default_factory=dict)
    pairs: Arrays = field(default_factory=dict)
    graphs: Arrays = field(default_factory=dict)
    links: Arrays = field(default_factory=dict)
    splits: Arrays = field(default_factory=dict)
    encodings: dict[str, Rows] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    @property
    def sizes(self) -> np.ndarray:
        """(G,) the number of nodes of each graph."""
        return np.diff(self.node_ptr)

    @property
    def pair_ptr(self) -> np.ndarray:
        """(G + 1,) int64 offsets of the pairs of each graph."""
        return pointers(self.sizes**2)

    @cached_property
    def link_ptr(self) -> np.ndarray:
        """(G + 1,) int64 offsets of the links of each graph."""
        return pointers(np.asarray(self.graphs.get("links", np.zeros(len(self), np.int64))))

    def between(self, low: int, high: int) -> "Graphs":
        """A copy of the graphs ``low <= g < high``, without splits and notes."""
        parts: dict[str, Any] = {}
        pointer = (self.node_ptr, self.edge_ptr, self.pair_ptr, np.arange(len(self) + 1), self.link_ptr)
        for group, rows in zip(GROUPS, pointer, strict=False):  # all but the splits
            arrays = getattr(self, group)
            parts[group] = {name: np.array(values[rows[low] : rows[high]]) for name, values in arrays.items()}
        return Graphs(
            node_ptr=self.node_ptr[low : high + 1] - self.node_ptr[low],
            edge_ptr=self.edge_ptr[low : high + 1] - self.edge_ptr[low],
            edge_index=np.array(self.edge_index[:, self.edge_ptr[low] : self.edge_ptr[high]]),
            schema=self.schema,
            **parts,
        )

    def sort_edges(self) -> "Graphs":
        """Sort edges and their attributes by (graph, target, source), in place; returns self."""
        graph = np.repeat(np.arange(len(self)), np.diff(self.edge_ptr))
        source, target = self.edge_index
        order = np.lexsort((source, target, graph))
        self.edge_index = self.edge_index[:, order]
        self.edges = {name: values[order] for name, values in self.edges.items()}
        return self


def pointers(sizes: np.ndarray) -> np.ndarray:
    """(G + 1,) int64 offsets of runs of the given lengths (G,)."""
    ends = np.empty(len(sizes) + 1, np.int64)
    ends[0] = 0
    np.add.accumulate(sizes, out=ends[1:])
    return ends


def count_in_runs(flags: np.ndarray, pointer: np.ndarray) -> np.ndarray:
    """(G,) the number of set flags (R,) in each of the runs given by offsets (G + 1,)."""
    return np.diff(pointers(flags)[pointer])


def smallest(values: np.ndarray) -> np.ndarray:
    """Integers in the smallest dtype that holds them; booleans and floats unchanged."""
    if values.dtype.kind not in "iu" or values.size == 0:
        return values
    return values.astype(smallest_integer_dtype(int(values.min()), int(values.max())), copy=False)

"""Joins tables of nodes, edges and graphs by their ids."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gt.data.own.node_tables import encode, required_column
from gt.data.packed import Arrays, Graphs, pointers
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Level, Schema


@dataclass
class Joined:
    """G graphs of N nodes and E edges; rows of ``nodes`` are sorted by graph, those of ``edges`` are not.

    Attributes:
        owner: (N,) the index of each node's graph.
        keys: (G,) graph ids.
        ends: (2, E) the node rows of each edge, source and target.
        row: (N,) the row of each node in its file.
        duplicates: the number of duplicate edges left out.
    """

    nodes: Table
    edges: Table
    graphs: Table | None
    owner: np.ndarray
    keys: pd.Index
    ends: np.ndarray
    row: np.ndarray
    duplicates: int = 0

    def both_ways(self) -> "Joined":
        """Add the reverse of each edge."""
        reversible = np.flatnonzero(self.ends[0] != self.ends[1])
        edges = self.edges.take(np.concatenate([np.arange(len(self.edges)), reversible]))
        return replace(self, edges=edges, ends=np.concatenate([self.ends, self.ends[::-1, reversible]], axis=1))

    def without(self, left_out: np.ndarray) -> "Joined":
        """The graphs not in the mask (G,) ``left_out``, renumbered."""
        keep = ~left_out
        nodes, edges = keep[self.owner], keep[self.owner[self.ends[0]]]
        return Joined(
            nodes=self.nodes.take(np.flatnonzero(nodes)),
            edges=self.edges.take(np.flatnonzero(edges)),
            graphs=None if self.graphs is None else self.graphs.take(np.flatnonzero(keep)),
            owner=(np.cumsum(keep) - 1)[self.owner[nodes]],
            keys=self.keys[keep],
            ends=(np.cumsum(nodes) - 1)[self.ends[:, edges]],
            row=self.row[nodes],
        )

    def to_graphs(self, y: Arrays, schema: Schema) -> Graphs:
        """The packed graphs, without splits and notes, with the features that the schema names.

        Args:
            y: the targets, of nodes if that is the level of the schema.
        """
        if schema.degree:
            x = np.bincount(self.ends[1], minlength=len(self.nodes)).clip(max=schema.node_vocab[0] - 1)[:, None]
        else:
            x = encode(self.nodes, schema.node_names, schema.node_categories)
        sizes = np.bincount(self.owner, minlength=len(self.keys))
        edge_owner = self.owner[self.ends[0]]
        by_graph, starts = np.argsort(edge_owner, kind="stable"), pointers(sizes)
        edges = {}
        if schema.edge_names:
            edges["edge_attr"] = encode(self.edges, schema.edge_names, schema.edge_categories)[by_graph]
        return Graphs(
            node_ptr=starts,
            edge_ptr=pointers(np.bincount(edge_owner, minlength=len(self.keys))),
            edge_index=(self.ends - starts[edge_owner])[:, by_graph],
            nodes={"x": x} | (y if schema.level == "node" else {}),
            edges=edges,
            graphs={} if schema.level == "node" else y,
            schema=replace(schema, max_nodes=int(sizes.max(initial=0))),
        ).sort_edges()


def join(nodes: Table, edges: Table, graphs: Table | None, undirected: bool | None) -> Joined:
    """Join the tables, without duplicate edges; if ``undirected``, edges are kept in one direction only.

    Raises:
        UserError: gives file and line: no nodes, a missing column, an unknown or duplicate id, an edge between graphs,
            or a duplicate edge with other values.
    """
    if not len(nodes):
        raise UserError(f"{nodes.name} has no rows: there are no nodes")
    owner, keys = _owners(nodes, graphs)
    row = np.argsort(owner, kind="stable")
    nodes, owner = nodes.take(row), owner[row]
    ends = _ends(nodes, edges, owner, keys)
    first = _first_occurrences(edges, ends, undirected)
    duplicates = int((~first).sum())
    return Joined(nodes, edges.take(np.flatnonzero(first)), graphs, owner, keys, ends[:, first], row, duplicates)


def unique_index(ids: np.ndarray, table: Table, kind: str, groups: np.ndarray | None = None) -> pd.Index:
    """An index of the ids of a table; with ``groups`` an id may occur once in each group.

    Raises:
        UserError: an id occurs twice.
    """
    index = pd.Index(ids) if groups is None else pd.MultiIndex.from_arrays([groups, ids])
    duplicate = index.duplicated()
    if duplicate.any():
        row = int(np.argmax(duplicate))
        first = int(np.argmax((ids == ids[row]) & (True if groups is None else groups == groups[row])))
        raise UserError(f"{table.location(row)}: {kind} {ids[row]!r} already exists, see {table.location(first)}")
    return index


def refuse_unknown(ids: np.ndarray, codes: np.ndarray, table: Table, message: Callable[[Hashable], str]) -> None:
    """Raise an error for the first id that was not found, if there is one."""
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        raise UserError(f"{table.location(row)}: {message(ids[row])}")


def _owners(nodes: Table, graphs: Table | None) -> tuple[np.ndarray, pd.Index]:
    """The index of each node's graph, and the graph ids by index."""
    if graphs is None and "graph" not in nodes.columns:
        return np.zeros(len(nodes), dtype=np.int64), pd.Index([""])
    ids = required_column(nodes, "graph")
    if graphs is None:
        codes, names = pd.factorize(ids)
        return codes, pd.Index(names)
    keys, name = unique_index(required_column(graphs, "graph"), graphs, "graph"), graphs.name
    codes = keys.get_indexer(pd.Index(ids))
    refuse_unknown(ids, codes, nodes, lambda graph: f"there is no graph {graph!r} in {name}")
    return codes, keys


def names_of(nodes: Table, graphs: Table | None, level: Level) -> dict[str, np.ndarray]:
    """The ids of graphs, or of nodes and their graphs, in the order of `join`, by the column names of the files."""
    owner, keys = _owners(nodes, graphs)
    graph = (nodes if graphs is None else graphs).written("graph")
    if level == "graph":
        return {graph: keys.to_numpy()}
    order = np.argsort(owner, kind="stable")
    node_names = {nodes.written("node"): required_column(nodes, "node")[order]}
    return {graph: keys.to_numpy()[owner[order]], **node_names} if "graph" in nodes.columns else node_names


def _ends(nodes: Table, edges: Table, owner: np.ndarray, keys: pd.Index) -> np.ndarray:
    """(2, E) the node rows of each edge, source and target."""
    node_ids = required_column(nodes, "node")
    several = "graph" in nodes.columns
    index = unique_index(node_ids, nodes, "node", owner if several else None)
    by_graph = several and "graph" in edges.columns
    graph = np.empty(0, dtype=np.int64)
    if by_graph:
        graph = keys.get_indexer(pd.Index(edges.columns["graph"]))
        refuse_unknown(edges.columns["graph"], graph, edges, lambda name: f"there is no graph {name!r}")
    elif several:
        duplicate = pd.Index(node_ids).duplicated()
        if duplicate.any():
            row = int(np.argmax(duplicate))
            raise UserError(f"{edges.name} has no column 'graph', but node {node_ids[row]!r} is in two graphs")
        index = pd.Index(node_ids)
    ends = []
    for end in ("source", "target"):
        ids = required_column(edges, end)
        rows = index.get_indexer(pd.MultiIndex.from_arrays([graph, ids]) if by_graph else pd.Index(ids))
        refuse_unknown(ids, rows, edges, lambda name: _unknown_node(name, node_ids, nodes, by_graph))
        ends.append(rows)
    across = owner[ends[0]] != owner[ends[1]]
    if across.any():
        row = int(np.argmax(across))
        a, b = (keys[owner[rows[row]]] for rows in ends)
        raise UserError(f"{edges.location(row)}: an edge from graph {a!r} to graph {b!r}: edges cannot cross graphs")
    return np.stack(ends)


def _unknown_node(name: Hashable, node_ids: np.ndarray, nodes: Table, by_graph: bool) -> str:
    if by_graph and (node_ids == name).any():
        return f"node {name!r} is in another graph, see {nodes.location(int(np.argmax(node_ids == name)))}"
    return f"there is no node {name!r} in {nodes.name}"


def _first_occurrences(edges: Table, ends: np.ndarray, undirected: bool | None) -> np.ndarray:
    """(E,) mask of the first occurrence of each edge, in either direction if ``undirected``.

    Raises:
        UserError: an edge is listed again with other values.
    """
    pair = np.sort(ends, axis=0) if undirected else ends
    duplicate = _duplicated([*pair])
    if not duplicate.any():
        return ~duplicate
    values = [pd.factorize(edges.columns[name])[0] for name in edges.others("graph", "source", "target")]
    conflict = duplicate & ~_duplicated([*pair, *values])
    if conflict.any():
        row = int(np.argmax(conflict))
        first = int(np.argmax((pair == pair[:, row : row + 1]).all(0)))
        shown = " -> ".join(repr(edges.columns[end][row]) for end in ("source", "target"))
        hint = " (undirected edges are the same in both directions)" if undirected else ""
        raise UserError(
            f"{edges.location(row)}: edge {shown} already exists with other values, see {edges.location(first)}{hint}: "
            "keep one of them"
        )
    return ~duplicate


def _duplicated(columns: Sequence[np.ndarray]) -> np.ndarray:
    """(rows,) which rows of some columns (rows,) equal an earlier one."""
    return pd.DataFrame(dict(enumerate(columns))).duplicated().to_numpy()

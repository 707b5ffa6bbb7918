"""Tables of nodes, edges and graphs joined by the ids in them."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gt.data.own.node_tables import column, encode
from gt.data.packed import Arrays, Graphs, pointers
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Level, Schema


@dataclass
class Joined:
    """G graphs of N nodes and E edges; rows of ``nodes`` are sorted by graph, those of ``edges`` are not.

    Attributes:
        owner: (N,) the number of each node's graph.
        keys: (G,) the ids of graphs.
        ends: (2, E) the rows of the nodes that each edge joins, source and target.
        row: (N,) where each node stands among the rows of its file.
        again: how many edges were left out because they are listed before.
    """

    nodes: Table
    edges: Table
    graphs: Table | None
    owner: np.ndarray
    keys: pd.Index
    ends: np.ndarray
    row: np.ndarray
    again: int = 0

    def both_ways(self) -> "Joined":
        """Each edge is also one in the other direction."""
        turned = np.flatnonzero(self.ends[0] != self.ends[1])
        edges = self.edges.take(np.concatenate([np.arange(len(self.edges)), turned]))
        return replace(self, edges=edges, ends=np.concatenate([self.ends, self.ends[::-1, turned]], axis=1))

    def without(self, left_out: np.ndarray) -> "Joined":
        """The graphs that are not (G,) left out, numbered anew."""
        kept = ~left_out
        nodes, edges = kept[self.owner], kept[self.owner[self.ends[0]]]
        return Joined(
            nodes=self.nodes.take(np.flatnonzero(nodes)),
            edges=self.edges.take(np.flatnonzero(edges)),
            graphs=None if self.graphs is None else self.graphs.take(np.flatnonzero(kept)),
            owner=(np.cumsum(kept) - 1)[self.owner[nodes]],
            keys=self.keys[kept],
            ends=(np.cumsum(nodes) - 1)[self.ends[:, edges]],
            row=self.row[nodes],
        )

    def graphs_with(self, y: Arrays, schema: Schema) -> Graphs:
        """A store of them, without splits and notes, with the features that the schema names.

        Args:
            y: the targets, of nodes where that is the level of the schema.
        """
        if schema.degree:
            x = np.bincount(self.ends[1], minlength=len(self.nodes)).clip(max=schema.node_vocab[0] - 1)[:, None]
        else:
            x = encode(self.nodes, schema.node_names, schema.node_categories)
        sizes = np.bincount(self.owner, minlength=len(self.keys))
        of_edge = self.owner[self.ends[0]]
        by_graph, starts = np.argsort(of_edge, kind="stable"), pointers(sizes)
        edges = {}
        if schema.edge_names:
            edges["edge_attr"] = encode(self.edges, schema.edge_names, schema.edge_categories)[by_graph]
        return Graphs(
            node_ptr=starts,
            edge_ptr=pointers(np.bincount(of_edge, minlength=len(self.keys))),
            edge_index=(self.ends - starts[of_edge])[:, by_graph],
            nodes={"x": x} | (y if schema.level == "node" else {}),
            edges=edges,
            graphs={} if schema.level == "node" else y,
            schema=replace(schema, max_nodes=int(sizes.max(initial=0))),
        ).sort_edges()


def join(nodes: Table, edges: Table, graphs: Table | None, undirected: bool | None) -> Joined:
    """The tables joined, each edge once; undirected, in one direction only.

    Raises:
        UserError: one line with file and line for what is wrong: no nodes, a column that is missing, an id that is
            unknown or occurs twice, an edge between graphs or one that is there again with other values.
    """
    if not len(nodes):
        raise UserError(f"{nodes.name} has no rows: there are no nodes")
    owner, keys = _owners(nodes, graphs)
    row = np.argsort(owner, kind="stable")
    nodes, owner = nodes.take(row), owner[row]
    ends = _ends(nodes, edges, owner, keys)
    first = _once(edges, ends, undirected)
    again = int((~first).sum())
    return Joined(nodes, edges.take(np.flatnonzero(first)), graphs, owner, keys, ends[:, first], row, again)


def index(ids: np.ndarray, table: Table, what: str, groups: np.ndarray | None = None) -> pd.Index:
    """The ids of a table as something to look up; with ``groups`` an id may occur once in each.

    Raises:
        UserError: an id occurs twice.
    """
    known = pd.Index(ids) if groups is None else pd.MultiIndex.from_arrays([groups, ids])
    twice = known.duplicated()
    if twice.any():
        row = int(np.argmax(twice))
        first = int(np.argmax((ids == ids[row]) & (True if groups is None else groups == groups[row])))
        raise UserError(f"{table.where(row)}: {what} {ids[row]!r} is there already, see {table.where(first)}")
    return known


def unknown(ids: np.ndarray, codes: np.ndarray, table: Table, said: Callable[[Hashable], str]) -> None:
    """Name the first id that was not found."""
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        raise UserError(f"{table.where(row)}: {said(ids[row])}")


def _owners(nodes: Table, graphs: Table | None) -> tuple[np.ndarray, pd.Index]:
    """The number of each node's graph, and the ids of graphs by number."""
    if graphs is None and "graph" not in nodes.columns:
        return np.zeros(len(nodes), dtype=np.int64), pd.Index([""])
    ids = column(nodes, "graph")
    if graphs is None:
        codes, names = pd.factorize(ids)
        return codes, pd.Index(names)
    keys, name = index(column(graphs, "graph"), graphs, "graph"), graphs.name
    codes = keys.get_indexer(pd.Index(ids))
    unknown(ids, codes, nodes, lambda graph: f"there is no graph {graph!r} in {name}")
    return codes, keys


def names_of(nodes: Table, graphs: Table | None, level: Level) -> dict[str, np.ndarray]:
    """What the tables call each graph, or each node and its graph, in the order in which `join` puts them.

    By the names that the files have for these columns.
    """
    owner, keys = _owners(nodes, graphs)
    graph = (nodes if graphs is None else graphs).written("graph")
    if level == "graph":
        return {graph: keys.to_numpy()}
    order = np.argsort(owner, kind="stable")
    of_node = {nodes.written("node"): column(nodes, "node")[order]}
    return {graph: keys.to_numpy()[owner[order]], **of_node} if "graph" in nodes.columns else of_node


def _ends(nodes: Table, edges: Table, owner: np.ndarray, keys: pd.Index) -> np.ndarray:
    """(2, E) the rows of the nodes that each edge joins, source and target."""
    node_ids = column(nodes, "node")
    many = "graph" in nodes.columns
    known = index(node_ids, nodes, "node", owner if many else None)
    named = many and "graph" in edges.columns
    graph = np.empty(0, dtype=np.int64)
    if named:
        graph = keys.get_indexer(pd.Index(edges.columns["graph"]))
        unknown(edges.columns["graph"], graph, edges, lambda name: f"there is no graph {name!r}")
    elif many:
        again = pd.Index(node_ids).duplicated()
        if again.any():
            row = int(np.argmax(again))
            raise UserError(f"{edges.name} has no column 'graph', and node {node_ids[row]!r} is in two graphs")
        known = pd.Index(node_ids)
    ends = []
    for end in ("source", "target"):
        ids = column(edges, end)
        rows = known.get_indexer(pd.MultiIndex.from_arrays([graph, ids]) if named else pd.Index(ids))
        unknown(ids, rows, edges, lambda name: _stray(name, node_ids, nodes, named))
        ends.append(rows)
    across = owner[ends[0]] != owner[ends[1]]
    if across.any():
        row = int(np.argmax(across))
        a, b = (keys[owner[rows[row]]] for rows in ends)
        raise UserError(f"{edges.where(row)}: an edge from graph {a!r} to graph {b!r}: edges cannot cross graphs")
    return np.stack(ends)


def _stray(name: Hashable, node_ids: np.ndarray, nodes: Table, named: bool) -> str:
    if named and (node_ids == name).any():
        return f"node {name!r} is in another graph, see {nodes.where(int(np.argmax(node_ids == name)))}"
    return f"there is no node {name!r} in {nodes.name}"


def _once(edges: Table, ends: np.ndarray, undirected: bool | None) -> np.ndarray:
    """(E,) which edges are listed for the first time; undirected, in either direction.

    Raises:
        UserError: an edge is listed again with other values.
    """
    pair = np.sort(ends, axis=0) if undirected else ends
    twice = _repeated([*pair])
    if not twice.any():
        return ~twice
    said = [pd.factorize(edges.columns[name])[0] for name in edges.others("graph", "source", "target")]
    unlike = twice & ~_repeated([*pair, *said])
    if unlike.any():
        row = int(np.argmax(unlike))
        first = int(np.argmax((pair == pair[:, row : row + 1]).all(0)))
        shown = " -> ".join(repr(edges.columns[end][row]) for end in ("source", "target"))
        hint = " (undirected, it is the same either way round)" if undirected else ""
        raise UserError(
            f"{edges.where(row)}: edge {shown} is there already with other values, see {edges.where(first)}{hint}: "
            "keep one of them"
        )
    return ~twice


def _repeated(columns: Sequence[np.ndarray]) -> np.ndarray:
    """(rows,) which rows of columns (rows,) are like one before them."""
    return pd.DataFrame(dict(enumerate(columns))).duplicated().to_numpy()

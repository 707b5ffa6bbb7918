"""Graphs as records of their nodes and edges, from JSON or GraphML, turned into tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gt.data.own.node_tables import rows
from gt.data.packed import pointers
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Schema

Record = dict[str, Any]


@dataclass
class GraphRecord:
    """One graph as it stands in a file.

    Attributes:
        place: where it stands, such as ``a.json, graph 3``.
        file: the file's name, for places given by ``lines``.
        directed: whether an edge is read one way only.
        attributes: those of the graph.
        nodes: attributes of each node, its id under ``node``.
        edges: attributes of each edge, the ids of its ends under ``source`` and ``target``.
        node_lines, edge_lines: the line of each, where the file has lines that say something.
        fault: why it could not be read, and is empty; else nothing.
    """

    place: str
    file: str = ""
    directed: bool = False
    attributes: Record = field(default_factory=dict)
    nodes: list[Record] = field(default_factory=list)
    edges: list[Record] = field(default_factory=list)
    node_lines: list[int] = field(default_factory=list)
    edge_lines: list[int] = field(default_factory=list)
    fault: str = ""

    def node(self, row: int) -> str:
        if self.node_lines:
            return f"{self.file}, line {self.node_lines[row]}"
        return f"{self.place}, node {str(self.nodes[row].get('node'))!r}"

    def edge(self, row: int) -> str:
        if self.edge_lines:
            return f"{self.file}, line {self.edge_lines[row]}"
        edge = self.edges[row]
        return f"{self.place}, edge {str(edge.get('source'))!r} -> {str(edge.get('target'))!r}"


def as_id(value: Any) -> Any:
    """A whole number as an integer: 1.0, as pandas writes a column with gaps, is the node that 1 is, as in NetworkX."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def put(record: Record, ids: Mapping[str, Any], where: str) -> Record:
    """A record of attributes with the ids beside them, see `as_id`.

    Raises:
        UserError: an attribute has the name of a column that has a meaning of its own, or an id is no text or number.
    """
    for name, value in ids.items():
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise UserError(f"{where}: {name} is {value!r}, where an id, text or a number, is needed")
    reserved = [name for name in ("graph", *ids) if name in record]  # columns with a meaning of their own
    if reserved:
        raise UserError(f"{where}: no attribute may be called '{reserved[0]}': rename it")
    return {name: as_id(value) for name, value in ids.items()} | record


def tables(
    graphs: Sequence[GraphRecord], source: str, known: Schema | None = None
) -> tuple[Table, Table, Table | None, bool]:
    """Tables of all nodes, edges and graphs (None where there is one graph, with nodes to predict); whether undirected.

    Args:
        known: of a trained model: what it cannot read, and graphs with a fault, are left to
            `gt.data.own.known.assemble_known`, which leaves out the graphs concerned.

    Raises:
        UserError: no graphs, directed ones beside undirected ones; without ``known`` a graph without nodes, lists of
            different lengths, values that have no type.
    """
    if not graphs:
        raise UserError(f"{source} holds no graphs")
    sound = [graph for graph in graphs if not graph.fault]
    if not sound:
        raise UserError(graphs[0].fault)
    needed = known is None or not any(graph.nodes for graph in graphs)
    for graph in sound:
        if graph.directed != sound[0].directed:
            said = "directed" if graph.directed else "undirected"
            raise UserError(f"{graph.place} is {said}, unlike {sound[0].place}: save all alike")
        if needed and not graph.nodes:
            raise UserError(f"{graph.place} has no nodes")
    many = len(graphs) > 1 or (known is not None and known.level == "graph")
    node_ptr = pointers(np.array([len(graph.nodes) for graph in graphs]))
    edge_ptr = pointers(np.array([len(graph.edges) for graph in graphs]))

    def node_place(row: int) -> str:
        graph = int(np.searchsorted(node_ptr, row, side="right")) - 1
        return graphs[graph].node(row - int(node_ptr[graph]))

    def edge_place(row: int) -> str:
        graph = int(np.searchsorted(edge_ptr, row, side="right")) - 1
        return graphs[graph].edge(row - int(edge_ptr[graph]))

    learned = None if known is None else (*known.node_names, *known.edge_names, *known.target)
    of_nodes = [node for graph in graphs for node in graph.nodes]
    of_edges = [edge for graph in graphs for edge in graph.edges]
    nodes = rows(of_nodes, node_place, f"the nodes of {source}", ("node",), learned)
    edges = rows(of_edges, edge_place, f"the edges of {source}", ("source", "target"), learned)
    about = None
    if many:
        ids = np.array(list(map(str, range(len(graphs)))), dtype=object)
        nodes.columns["graph"] = np.repeat(ids, np.diff(node_ptr))
        edges.columns["graph"] = np.repeat(ids, np.diff(edge_ptr))
        about = rows([graph.attributes for graph in graphs], lambda row: graphs[row].place, source, (), learned)
        about.columns["graph"] = ids
        about.faults = {row: ("", graph.fault) for row, graph in enumerate(graphs) if graph.fault}
    for table in (nodes, about):
        if table is not None and "split" not in table.columns:
            table.columns = {"split" if name.lower() == "split" else name: c for name, c in table.columns.items()}
    return nodes, edges, about, not sound[0].directed

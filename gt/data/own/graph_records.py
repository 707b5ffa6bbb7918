"""Graphs as records of nodes and edges, as read from JSON or GraphML, and their conversion to tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gt.data.own.node_tables import record_table
from gt.data.packed import pointers
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Schema

Record = dict[str, Any]


@dataclass
class GraphRecord:
    """One graph as read from a file.

    Attributes:
        location: its location, such as ``a.json, graph 3``.
        file: the file name, for locations given by line.
        directed: whether edges are directed.
        attributes: attributes of the graph.
        nodes: attributes of each node, with its id under ``node``.
        edges: attributes of each edge, with the ids of its ends under ``source`` and ``target``.
        node_lines, edge_lines: the line of each node and edge, if the format has meaningful lines.
        fault: why the graph could not be read and is empty; "" if it could.
    """

    location: str
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
        return f"{self.location}, node {str(self.nodes[row].get('node'))!r}"

    def edge(self, row: int) -> str:
        if self.edge_lines:
            return f"{self.file}, line {self.edge_lines[row]}"
        edge = self.edges[row]
        return f"{self.location}, edge {str(edge.get('source'))!r} -> {str(edge.get('target'))!r}"


def as_id(value: Any) -> Any:
    """Convert integral floats: 1.0, as pandas writes in columns with gaps, is the same node as 1, as in NetworkX."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def with_ids(record: Record, ids: Mapping[str, Any], location: str) -> Record:
    """A record of attributes with ids added, see `as_id`.

    Raises:
        UserError: an attribute has a reserved name, or an id is neither text nor a number.
    """
    for name, value in ids.items():
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise UserError(f"{location}: {name} is {value!r}, but an id must be text or a number")
    reserved = [name for name in ("graph", *ids) if name in record]
    if reserved:
        raise UserError(f"{location}: the attribute name '{reserved[0]}' is reserved: rename it")
    return {name: as_id(value) for name, value in ids.items()} | record


def tables(
    graphs: Sequence[GraphRecord], source: str, model_schema: Schema | None = None
) -> tuple[Table, Table, Table | None, bool]:
    """Tables of all nodes, edges and graphs (None for a single graph with node targets); whether edges are undirected.

    Args:
        model_schema: schema of a trained model: values that it cannot read, and graphs with a fault, are kept for
            `gt.data.own.known.assemble_known`, which leaves these graphs out.

    Raises:
        UserError: no graphs, or directed and undirected ones; without ``model_schema`` also a graph without nodes,
            lists of different lengths, or values of unsupported types.
    """
    if not graphs:
        raise UserError(f"{source} holds no graphs")
    valid = [graph for graph in graphs if not graph.fault]
    if not valid:
        raise UserError(graphs[0].fault)
    nodes_required = model_schema is None or not any(graph.nodes for graph in graphs)
    for graph in valid:
        if graph.directed != valid[0].directed:
            kind = "directed" if graph.directed else "undirected"
            raise UserError(f"{graph.location} is {kind}, unlike {valid[0].location}: save all graphs as one type")
        if nodes_required and not graph.nodes:
            raise UserError(f"{graph.location} has no nodes")
    many_graphs = len(graphs) > 1 or (model_schema is not None and model_schema.level == "graph")
    node_ptr = pointers(np.array([len(graph.nodes) for graph in graphs]))
    edge_ptr = pointers(np.array([len(graph.edges) for graph in graphs]))

    def node_location(row: int) -> str:
        graph = int(np.searchsorted(node_ptr, row, side="right")) - 1
        return graphs[graph].node(row - int(node_ptr[graph]))

    def edge_location(row: int) -> str:
        graph = int(np.searchsorted(edge_ptr, row, side="right")) - 1
        return graphs[graph].edge(row - int(edge_ptr[graph]))

    model_columns = (
        None if model_schema is None else (*model_schema.node_names, *model_schema.edge_names, *model_schema.target)
    )
    node_records = [node for graph in graphs for node in graph.nodes]
    edge_records = [edge for graph in graphs for edge in graph.edges]
    nodes = record_table(node_records, node_location, f"the nodes of {source}", ("node",), model_columns)
    edges = record_table(edge_records, edge_location, f"the edges of {source}", ("source", "target"), model_columns)
    graph_table = None
    if many_graphs:
        ids = np.array(list(map(str, range(len(graphs)))), dtype=object)
        nodes.columns["graph"] = np.repeat(ids, np.diff(node_ptr))
        edges.columns["graph"] = np.repeat(ids, np.diff(edge_ptr))
        graph_table = record_table(
            [graph.attributes for graph in graphs], lambda row: graphs[row].location, source, (), model_columns
        )
        graph_table.columns["graph"] = ids
        graph_table.faults = {row: ("", graph.fault) for row, graph in enumerate(graphs) if graph.fault}
    for table in (nodes, graph_table):
        if table is not None and "split" not in table.columns:
            table.columns = {"split" if name.lower() == "split" else name: c for name, c in table.columns.items()}
    return nodes, edges, graph_table, not valid[0].directed

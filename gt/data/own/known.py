"""Reads tables with the columns and categories of a trained model, and reports what the model cannot read."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from gt.data.own.assemble import Choices
from gt.data.own.joined import Joined, join
from gt.data.own.node_tables import unreadable_rows
from gt.data.packed import Graphs
from gt.data.source import Records
from gt.data.table import Table
from gt.data.targets import known_targets
from gt.errors import UserError, nearest
from gt.schema import Schema


def assemble_known(
    nodes: Table, edges: Table, graphs: Table | None, choices: Choices, model_schema: Schema
) -> tuple[Graphs, Records]:
    """Assemble graphs as `gt.data.own.assemble.assemble` does, but by a trained model's schema, and without splits.

    Of several graphs, those that the model cannot read are left out, and the records say why; with graph-level targets
    this includes graphs whose nodes and edges do not match. Targets may be missing.

    Raises:
        UserError: gives file and line: as `join`, a column of the model is missing, or a single graph has a value that
            the model has not learned.
    """
    if not (model_schema.node_names or model_schema.degree):
        raise UserError(
            "the checkpoint of an older version does not say which columns and categories its model has learned: train "
            "again to predict other files"
        )
    undirected = model_schema.undirected if choices.undirected is None else choices.undirected
    if undirected != model_schema.undirected:
        requested, learned = ("undirected", "directed") if undirected else ("directed", "undirected")
        raise UserError(
            f"{nodes.name}: edges are read as {requested}, but the model has learned from {learned} ones: "
            f"set data.undirected={str(model_schema.undirected).lower()}"
        )
    _check_columns(nodes, edges, model_schema)
    faults = (
        {} if graphs is None else {graphs.columns["graph"][row]: reason for row, (_, reason) in graphs.faults.items()}
    )
    try:
        everything = join(nodes, edges, graphs, undirected)
    except UserError:
        if graphs is None or model_schema.level != "graph" or "graph" not in edges.columns:
            raise
        if not (invalid := _faults(nodes, edges, graphs, undirected)):
            raise
        faults |= invalid
        nodes, edges = (table.take(np.flatnonzero(~_in_graphs(table, list(faults)))) for table in (nodes, edges))
        everything = join(nodes, edges, graphs, undirected)
    unreadable = _unreadable_graphs(everything, model_schema, faults)
    if unreadable and "graph" not in nodes.columns:
        raise UserError(next(iter(unreadable.values())))
    joined = everything.without(np.isin(np.arange(len(everything.keys)), list(unreadable)))
    if undirected:
        joined = joined.both_ways()
    if model_schema.level == "node":
        table, records = joined.nodes, _node_records(nodes, everything, joined, unreadable)
    else:
        graph_table = everything.graphs or Table(nodes.name, {"graph": everything.keys.to_numpy()}, nodes.location)
        records = _graph_records(graph_table, unreadable)
        table = graph_table.take(records.row)
    y = known_targets(table.select(model_schema.target), len(table), model_schema, table.location)
    return joined.to_graphs({"y": y}, model_schema), records


def links_known(nodes: Table, edges: Table, model_schema: Schema) -> Graphs:
    """A single graph for link prediction, with all ``edges`` in both directions, by a trained model's schema.

    Raises:
        UserError: gives file and line: as `join`, a column of the model is missing, or a value that it has not learned.
    """
    if not model_schema.node_names:
        raise UserError(
            "this model has an embedding for each node of its training graph and knows no others: predict pairs of "
            "that graph, by --pairs FILE without other data"
        )
    _check_columns(nodes, edges, model_schema)
    joined = join(nodes, edges, None, undirected=True)
    if unreadable := _unreadable_graphs(joined, model_schema, {}):
        raise UserError(next(iter(unreadable.values())))
    return joined.both_ways().to_graphs({}, model_schema)


def _check_columns(nodes: Table, edges: Table, model_schema: Schema) -> None:
    """Check that the tables have the columns that a model reads.

    Raises:
        UserError: a column is missing.
    """
    for table, names in ((nodes, model_schema.node_names), (edges, model_schema.edge_names)):
        for name in names if len(table) else ():
            if name not in table.columns:
                others = table.others("graph", "node", "source", "target")
                hint = nearest(name, others) if others else "it has only ids"
                raise UserError(f"{table.name}: no column '{name}', which the model reads: {hint}")


def _in_graphs(table: Table, graphs: Sequence[Hashable]) -> np.ndarray:
    """(rows,) which rows belong to the given graphs."""
    return pd.Index(table.columns["graph"]).isin(graphs)


def _faults(nodes: Table, edges: Table, graphs: Table, undirected: bool) -> dict[Hashable, str]:
    """By graph id, why its nodes and edges cannot be joined; empty if that is true of all.

    Finds these graphs by bisection.
    """

    def bisect(tables: Sequence[Table], ids: list[Hashable]) -> dict[Hashable, str]:
        if not len(tables[0]):
            return {}
        try:
            join(tables[0], tables[1], tables[2], undirected)
        except UserError as error:
            if len(ids) == 1:
                return {ids[0]: str(error)}
            faults: dict[Hashable, str] = {}
            for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                faults |= bisect([table.take(np.flatnonzero(_in_graphs(table, half))) for table in tables], half)
            return faults
        return {}

    ids = pd.unique(graphs.columns["graph"]).tolist()
    tables = [table.take(np.flatnonzero(_in_graphs(table, ids))) for table in (nodes, edges, graphs)]
    faults = bisect(tables, ids)
    return {} if _in_graphs(nodes, list(faults)).all() else faults


def _unreadable_graphs(joined: Joined, model_schema: Schema, faults: Mapping[Hashable, str]) -> dict[int, str]:
    """By graph index, why the model cannot read it; for graphs without nodes, the reason in ``faults``, by graph id."""
    reasons: dict[int, str] = {}
    for row, reason in unreadable_rows(joined.nodes, model_schema.node_names, model_schema.node_categories).items():
        reasons.setdefault(int(joined.owner[row]), reason)
    for row, reason in unreadable_rows(joined.edges, model_schema.edge_names, model_schema.edge_categories).items():
        reasons.setdefault(int(joined.owner[joined.ends[0, row]]), reason)
    for graph in np.flatnonzero(np.bincount(joined.owner, minlength=len(joined.keys)) == 0).tolist():
        location = joined.nodes.name if joined.graphs is None else joined.graphs.location(graph)
        reasons[graph] = faults.get(joined.keys[graph], f"{location} has no nodes")
    return dict(sorted(reasons.items()))


def _graph_records(table: Table, unreadable: dict[int, str]) -> Records:
    readable = np.array([row for row in range(len(table)) if row not in unreadable], np.int64)
    return Records(table.as_written(), readable, unreadable)


def _node_records(nodes: Table, everything: Joined, joined: Joined, unreadable: dict[int, str]) -> Records:
    """The nodes in the order of their file, including those of unreadable graphs."""
    reasons = {
        int(row): unreadable[int(graph)]
        for row, graph in zip(everything.row, everything.owner, strict=True)
        if graph in unreadable
    }
    return Records(nodes.as_written(), joined.row, dict(sorted(reasons.items())))

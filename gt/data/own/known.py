"""Tables read as a trained model reads such: by its columns and categories; what it cannot read is named."""

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
    nodes: Table, edges: Table, graphs: Table | None, choices: Choices, known: Schema
) -> tuple[Graphs, Records]:
    """Graphs of tables as `gt.data.own.assemble.assemble` makes them, read as a trained model does; without splits.

    One of several graphs that the model cannot read is left out, and the records say why; where graphs have the answers
    so is one whose nodes and edges do not fit together. Targets may be missing.

    Raises:
        UserError: one line with file and line for what is wrong: as `join`, a column that the model reads and the
            tables lack, a value that it has not learned where there is but one graph.
    """
    if not (known.node_names or known.degree):
        raise UserError(
            "the checkpoint does not say which columns and categories its model has learned, for an older version made "
            "it: train again to predict other files"
        )
    undirected = known.undirected if choices.undirected is None else choices.undirected
    if undirected != known.undirected:
        said, learned = ("undirected", "directed") if undirected else ("directed", "undirected")
        raise UserError(
            f"{nodes.name}: edges are read as {said} and the model has learned from {learned} ones: "
            f"set data.undirected={str(known.undirected).lower()} to read them so"
        )
    _check_columns(nodes, edges, known)
    faults = {} if graphs is None else {graphs.columns["graph"][row]: why for row, (_, why) in graphs.faults.items()}
    try:
        every = join(nodes, edges, graphs, undirected)
    except UserError:
        if graphs is None or known.level != "graph" or "graph" not in edges.columns:
            raise
        if not (stray := _faults(nodes, edges, graphs, undirected)):
            raise
        faults |= stray
        nodes, edges = (table.take(np.flatnonzero(~_among(table, list(faults)))) for table in (nodes, edges))
        every = join(nodes, edges, graphs, undirected)
    unreadable = _unreadable_graphs(every, known, faults)
    if unreadable and "graph" not in nodes.columns:
        raise UserError(next(iter(unreadable.values())))
    joined = every.without(np.isin(np.arange(len(every.keys)), list(unreadable)))
    if undirected:
        joined = joined.both_ways()
    if known.level == "node":
        table, records = joined.nodes, _of_nodes(nodes, every, joined, unreadable)
    else:
        about = every.graphs or Table(nodes.name, {"graph": every.keys.to_numpy()}, nodes.where)
        records = _of_graphs(about, unreadable)
        table = about.take(records.row)
    y = known_targets(table.select(known.target), len(table), known, table.where)
    return joined.graphs_with({"y": y}, known), records


def shown_known(nodes: Table, edges: Table, known: Schema) -> Graphs:
    """One graph of which links are asked, all of ``edges`` read both ways, as a trained model reads such.

    Raises:
        UserError: one line with file and line for what is wrong: as `join`, a column that the model reads and the
            tables lack, a value that it has not learned.
    """
    if not known.node_names:
        raise UserError(
            "this model knows the nodes of its training alone, each by an embedding of its own: ask pairs of that "
            "graph, by --pairs FILE without other data"
        )
    _check_columns(nodes, edges, known)
    joined = join(nodes, edges, None, undirected=True)
    if unreadable := _unreadable_graphs(joined, known, {}):
        raise UserError(next(iter(unreadable.values())))
    return joined.both_ways().graphs_with({}, known)


def _check_columns(nodes: Table, edges: Table, known: Schema) -> None:
    """Whether tables have the columns that a model reads.

    Raises:
        UserError: one lacks some.
    """
    for table, names in ((nodes, known.node_names), (edges, known.edge_names)):
        for name in names if len(table) else ():
            if name not in table.columns:
                others = table.others("graph", "node", "source", "target")
                hint = nearest(name, others) if others else "it has none but of ids"
                raise UserError(f"{table.name}: no column '{name}', which the model reads: {hint}")


def _among(table: Table, graphs: Sequence[Hashable]) -> np.ndarray:
    """(rows,) which are of the given graphs."""
    return pd.Index(table.columns["graph"]).isin(graphs)


def _faults(nodes: Table, edges: Table, graphs: Table, undirected: bool) -> dict[Hashable, str]:
    """By id of a graph, why its nodes and edges cannot be joined; none where others cannot be joined either.

    As long as some cannot, they are parted into halves.
    """

    def look(tables: Sequence[Table], ids: list[Hashable]) -> dict[Hashable, str]:
        if not len(tables[0]):
            return {}
        try:
            join(tables[0], tables[1], tables[2], undirected)
        except UserError as error:
            if len(ids) == 1:
                return {ids[0]: str(error)}
            found: dict[Hashable, str] = {}
            for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                found |= look([table.take(np.flatnonzero(_among(table, half))) for table in tables], half)
            return found
        return {}

    ids = pd.unique(graphs.columns["graph"]).tolist()
    known = [table.take(np.flatnonzero(_among(table, ids))) for table in (nodes, edges, graphs)]
    faults = look(known, ids)
    return {} if _among(nodes, list(faults)).all() else faults


def _unreadable_graphs(joined: Joined, known: Schema, faults: Mapping[Hashable, str]) -> dict[int, str]:
    """By number of a graph, why the model cannot read it; of one without nodes what ``faults`` say by its id."""
    reasons: dict[int, str] = {}
    for row, why in unreadable_rows(joined.nodes, known.node_names, known.node_categories).items():
        reasons.setdefault(int(joined.owner[row]), why)
    for row, why in unreadable_rows(joined.edges, known.edge_names, known.edge_categories).items():
        reasons.setdefault(int(joined.owner[joined.ends[0, row]]), why)
    for graph in np.flatnonzero(np.bincount(joined.owner, minlength=len(joined.keys)) == 0).tolist():
        where = joined.nodes.name if joined.graphs is None else joined.graphs.where(graph)
        reasons[graph] = faults.get(joined.keys[graph], f"{where} has no nodes")
    return dict(sorted(reasons.items()))


def _of_graphs(about: Table, unreadable: dict[int, str]) -> Records:
    kept = np.array([row for row in range(len(about)) if row not in unreadable], np.int64)
    return Records(about.as_written(), kept, unreadable)


def _of_nodes(nodes: Table, every: Joined, joined: Joined, unreadable: dict[int, str]) -> Records:
    """The nodes in the order of their file, those of graphs that cannot be read included."""
    why = {
        int(row): unreadable[int(graph)]
        for row, graph in zip(every.row, every.owner, strict=True)
        if graph in unreadable
    }
    return Records(nodes.as_written(), joined.row, dict(sorted(why.items())))

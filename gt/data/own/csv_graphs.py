"""Graphs from a folder of CSV files: ``nodes.csv``, ``edges.csv`` and ``graphs.csv``.

    nodes.csv   graph,node,element,charge      graphs.csv  graph,label,split      edges.csv  graph,source,target,bond
                m1,a,C,0.1                                 m1,0,train                        m1,a,b,single

The first line names the columns, in any case; in nodes.csv ``Id`` means ``node``, so that tables exported by Gephi can
be read as they are. Ids are arbitrary text. All other columns are features, see `gt.data.own.roles`. An edge list may
replace edges.csv, see `gt.data.own.edge_list`.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gt.data.own import edge_list
from gt.data.own.assemble import Choices
from gt.data.own.csv_table import read_table
from gt.data.own.graph_records import tables
from gt.data.own.tables import OwnTables
from gt.data.packed import Graphs
from gt.data.table import Table
from gt.errors import UserError, nearest
from gt.schema import Schema

PARTS = ("nodes", "edges", "graphs")
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
REQUIRED = {"nodes": ("node",), "edges": ("source", "target"), "graphs": ("graph",)}
ALIASES = {"nodes": {"id": "node"}}


def files(folder: Path, needed: Sequence[str] = PARTS[:2]) -> dict[str, Path]:
    """The file of each table; only those in ``needed`` must exist.

    Raises:
        UserError: no such folder, a table that is missing or ambiguous.
    """
    if not folder.is_dir():
        expected = " and ".join(f"{part}.csv" for part in needed)
        raise UserError(f"no folder at {folder}: set data.path to the folder that holds {expected}")
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    paths = {}
    for part in PARTS:
        exact = [name for name in names if name.lower() in {part + ending for ending in SUFFIXES}]
        matches = exact or [name for name in names if _is_table(name, part)]
        if len(matches) > 1:
            raise UserError(f"{folder / matches[0]} and {matches[1]} both exist: keep one of them")
        if matches:
            paths[part] = folder / matches[0]
    for part in needed:
        if part not in paths:
            rest = [name for name in names if folder / name not in paths.values()]
            hint = nearest(f"{part}.csv", rest) if rest else f"it holds {' and '.join(names) or 'no file'}"
            expected = f"with the column{'s' if len(REQUIRED[part]) > 1 else ''} {' and '.join(REQUIRED[part])}"
            raise UserError(f"{folder} has no {part}.csv (nor .csv.gz nor .tsv), {expected}: {hint}")
    return paths


def _is_table(name: str, part: str) -> bool:
    """Whether the file name marks a part, such as Gephi's ``Friends [Edges].csv``, or an edge list."""
    words = re.findall("[a-z]+", name.lower())
    return (part in words and name.lower().endswith(SUFFIXES)) or (part == "edges" and _is_edge_list(name))


def _is_edge_list(name: str) -> bool:
    plain = name.lower().removesuffix(".gz")
    return plain.endswith(edge_list.SUFFIXES[:2]) or plain == "edges.txt"


def read_part(part: str, path: Path, text_columns: Collection[str] = ()) -> Table:
    """Read the table of a part from a CSV file, see `gt.data.own.csv_table.read_table`, or from an edge list.

    Raises:
        UserError: as `read_table` and `gt.data.own.edge_list.read_edge_list`.
    """
    if part == "edges" and _is_edge_list(path.name):
        return tables([edge_list.read_edge_list(path)], str(path))[1]
    return read_table(path, REQUIRED[part], ALIASES.get(part, {}), text_columns)


def text_columns(model_schema: Schema | None, part: str) -> set[str]:
    """The columns of a part that were text in training: text categories, and targets with class names."""
    if model_schema is None:
        return set()
    features = {
        "nodes": (model_schema.node_names, model_schema.node_categories),
        "edges": (model_schema.edge_names, model_schema.edge_categories),
    }
    names, categories = features.get(part, ((), ()))
    words = {name for name, values in zip(names, categories, strict=True) if values and isinstance(values[0], str)}
    labelled = (
        part == ("nodes" if model_schema.level == "node" else "graphs")
        and model_schema.kind == "multiclass"
        and model_schema.names
    )
    return words | set(model_schema.target) if labelled else words


def direction(edges: Table) -> bool | None:
    """Whether edges are undirected, by Gephi's column ``Type``, which is removed; None if there is no such column.

    Raises:
        UserError: directed and undirected edges are mixed.
    """
    name = next((name for name in edges.columns if name.lower() == "type"), None)
    if name is None or not len(edges):
        return None
    words = np.array([str(word).lower() for word in edges.columns[name]])
    if not {*words.tolist()} <= {"directed", "undirected"}:
        return None
    if (words != words[0]).any():
        row = int(np.argmax(words != words[0]))
        raise UserError(f"{edges.location(row)}: an edge is {words[row]}, unlike the first: save all edges as one type")
    del edges.columns[name]
    edges.header = [column for column in edges.header if column != name]
    return bool(words[0] == "undirected")


class CSVGraphs(OwnTables):
    """Graphs from a folder of CSV or TSV files, optionally gzipped (``.csv.gz``).

    ``graphs.csv`` has a row per graph: ``graph``, targets, and optionally ``split`` (train, valid or test).
    ``nodes.csv`` has a row per node: ``graph``, ``node``, features, and optionally ``label``. ``edges.csv`` has a row
    per edge, directed from ``source`` to ``target``: ``graph``, ``source``, ``target``, features, and optionally
    Gephi's ``Type``.
    """

    prefix = "csv"
    option_for_graphs, option_for_nodes = "csv_graphs", "csv_nodes"

    def files(self) -> dict[str, Path]:
        return files(Path(self.path))

    def tables(self, model_schema: Schema | None = None) -> tuple[Table, Table, Table | None, Choices]:
        read = {part: read_part(part, path, text_columns(model_schema, part)) for part, path in self.files().items()}
        undirected = direction(read["edges"])
        choices = self.choices if self.choices.undirected is not None else replace(self.choices, undirected=undirected)
        return read["nodes"], read["edges"], read.get("graphs"), choices

    def summary(self, graphs: Graphs) -> str:
        hint = "messages flow from source to target only; data.undirected=true uses edges in both directions"
        assumed = self.choices.undirected is None and not graphs.schema.undirected and one_way(graphs)
        return super().summary(graphs) + (f"\n  edges are read as directed by default: {hint}" if assumed else "")


def one_way(graphs: Graphs) -> bool:
    """Whether there are edges, and fewer than half of them have a reverse edge."""
    source, target = np.asarray(graphs.edge_index).astype(np.int64)
    graph = np.repeat(np.arange(len(graphs)), np.diff(graphs.edge_ptr))
    first, nodes = np.asarray(graphs.node_ptr)[graph], int(graphs.node_ptr[-1]) + 1
    forward, backward = ((first + a) * nodes + first + b for a, b in ((source, target), (target, source)))
    not_loop = source != target
    return bool(not_loop.any()) and float(np.isin(backward[not_loop], forward).mean()) < 0.5

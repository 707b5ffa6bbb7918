"""Graphs from a folder of CSV files: ``nodes.csv``, ``edges.csv`` and ``graphs.csv``.

    nodes.csv   graph,node,element,charge      graphs.csv  graph,label,split      edges.csv  graph,source,target,bond
                m1,a,C,0.1                                 m1,0,train                        m1,a,b,single

The first line names the columns, in letters of any case, ``Id`` is the ``node`` of nodes.csv: tables of Gephi are read
as it exports them. Ids are any text. Columns that have no meaning of their own are features, see `gt.data.own.roles`.
In place of edges.csv there may be an edge list, see `gt.data.own.edge_list`.
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
ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
NEEDED = {"nodes": ("node",), "edges": ("source", "target"), "graphs": ("graph",)}
ALIASES = {"nodes": {"id": "node"}}


def files(folder: Path, needed: Sequence[str] = PARTS[:2]) -> dict[str, Path]:
    """The file of each table; those that are not needed may be missing.

    Raises:
        UserError: no such folder, a table that is missing or there twice.
    """
    if not folder.is_dir():
        held = " and ".join(f"{part}.csv" for part in needed)
        raise UserError(f"no folder at {folder}: set data.path to the folder that holds {held}")
    others = sorted(path.name for path in folder.iterdir() if path.is_file())
    paths = {}
    for part in PARTS:
        exact = [name for name in others if name.lower() in {part + ending for ending in ENDINGS}]
        there = exact or [name for name in others if _is_table(name, part)]
        if len(there) > 1:
            raise UserError(f"{folder / there[0]} and {there[1]} are both there: keep one of them")
        if there:
            paths[part] = folder / there[0]
    for part in needed:
        if part not in paths:
            spare = [name for name in others if folder / name not in paths.values()]
            hint = nearest(f"{part}.csv", spare) if spare else f"it holds {' and '.join(others) or 'no file'}"
            held = f"with the column{'s' if len(NEEDED[part]) > 1 else ''} {' and '.join(NEEDED[part])}"
            raise UserError(f"{folder} has no {part}.csv (nor .csv.gz nor .tsv), {held}: {hint}")
    return paths


def _is_table(name: str, part: str) -> bool:
    """Whether a file is that of a part by its name, such as ``Friends [Edges].csv`` of Gephi, or an edge list."""
    words = re.findall("[a-z]+", name.lower())
    return (part in words and name.lower().endswith(ENDINGS)) or (part == "edges" and _is_edge_list(name))


def _is_edge_list(name: str) -> bool:
    plain = name.lower().removesuffix(".gz")
    return plain.endswith(edge_list.ENDINGS[:2]) or plain == "edges.txt"


def read_part(part: str, path: Path, text_columns: Collection[str] = ()) -> Table:
    """The table of a part: a CSV file, see `gt.data.own.csv_table.read_table`, or of edges an edge list.

    Raises:
        UserError: as `read_table` and `gt.data.own.edge_list.read_edge_list`.
    """
    if part == "edges" and _is_edge_list(path.name):
        return tables([edge_list.read_edge_list(path)], str(path))[1]
    return read_table(path, NEEDED[part], ALIASES.get(part, {}), text_columns)


def text_columns(known: Schema | None, part: str) -> set[str]:
    """The columns of a part that a trained model has learned as text: categories of words, and the names of classes."""
    if known is None:
        return set()
    learned = {"nodes": (known.node_names, known.node_categories), "edges": (known.edge_names, known.edge_categories)}
    names, categories = learned.get(part, ((), ()))
    words = {name for name, values in zip(names, categories, strict=True) if values and isinstance(values[0], str)}
    labelled = part == ("nodes" if known.level == "node" else "graphs") and known.kind == "multiclass" and known.names
    return words | set(known.target) if labelled else words


def direction(edges: Table) -> bool | None:
    """Whether edges are undirected, as the column ``Type`` of Gephi says, which is taken out; None where none does.

    Raises:
        UserError: some are directed and others not.
    """
    name = next((name for name in edges.columns if name.lower() == "type"), None)
    if name is None or not len(edges):
        return None
    words = np.array([str(word).lower() for word in edges.columns[name]])
    if not {*words.tolist()} <= {"directed", "undirected"}:
        return None
    if (words != words[0]).any():
        row = int(np.argmax(words != words[0]))
        raise UserError(f"{edges.where(row)}: an edge that is {words[row]}, unlike the first: save all alike")
    del edges.columns[name]
    edges.header = [own for own in edges.header if own != name]
    return bool(words[0] == "undirected")


class CSVGraphs(OwnTables):
    """Graphs from a folder of CSV files, each perhaps gzipped (``.csv.gz``) or a ``.tsv``.

    ``graphs.csv`` has a row a graph: ``graph``, targets, and perhaps ``split`` (train, valid or test). ``nodes.csv``
    has a row a node: ``graph``, ``node``, features, and perhaps ``label``. ``edges.csv`` has a row an edge, read by
    ``target`` from ``source``: ``graph``, ``source``, ``target``, features, and perhaps Gephi's ``Type``.
    """

    prefix = "csv"
    option_for_graphs, option_for_nodes = "csv_graphs", "csv_nodes"

    def files(self) -> dict[str, Path]:
        return files(Path(self.path))

    def tables(self, known: Schema | None = None) -> tuple[Table, Table, Table | None, Choices]:
        read = {part: read_part(part, path, text_columns(known, part)) for part, path in self.files().items()}
        undirected = direction(read["edges"])
        choices = self.choices if self.choices.undirected is not None else replace(self.choices, undirected=undirected)
        return read["nodes"], read["edges"], read.get("graphs"), choices

    def summary(self, graphs: Graphs) -> str:
        told = "a node reads the sources of edges to it; data.undirected=true has edges read both ways"
        unsaid = self.choices.undirected is None and not graphs.schema.undirected and one_way(graphs)
        return super().summary(graphs) + (f"\n  edges run one way, for nothing says else: {told}" if unsaid else "")


def one_way(graphs: Graphs) -> bool:
    """Whether there are edges, and hardly any has one back."""
    source, target = np.asarray(graphs.edge_index).astype(np.int64)
    graph = np.repeat(np.arange(len(graphs)), np.diff(graphs.edge_ptr))
    first, nodes = np.asarray(graphs.node_ptr)[graph], int(graphs.node_ptr[-1]) + 1
    there, back = ((first + a) * nodes + first + b for a, b in ((source, target), (target, source)))
    between = source != target
    return bool(between.any()) and float(np.isin(back[between], there).mean()) < 0.5

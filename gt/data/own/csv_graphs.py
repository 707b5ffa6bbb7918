"""Graphs from a folder of CSV files: ``nodes.csv``, ``edges.csv`` and ``graphs.csv``.

    nodes.csv   graph,node,element,charge      graphs.csv  graph,label,split      edges.csv  graph,source,target,bond
                m1,a,C,0.1                                 m1,0,train                        m1,a,b,single

The first line names the columns, in letters of any case, ``Id`` is the ``node`` of nodes.csv: tables of Gephi are read
as it exports them. Ids are any text. Columns that have no meaning of their own are features, see `gt.data.own.roles`.
In place of edges.csv there may be an edge list, see `gt.data.own.edge_list`.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gt.data.folds import Folds
from gt.data.numbers import Numbers
from gt.data.own import edge_list
from gt.data.own.assemble import Choices, Target, assemble
from gt.data.own.base import Own, file_name
from gt.data.own.csv_table import read_table
from gt.data.own.graph_records import tables
from gt.data.own.joined import names_of
from gt.data.own.known import assemble_known
from gt.data.store import Graphs
from gt.data.table import Table
from gt.errors import UserError, nearest
from gt.schema import Kind, Schema

VERSION = 3  # raise when the same files would give another store
PARTS = ("nodes", "edges", "graphs")
ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
NEEDED = {"nodes": ("node",), "edges": ("source", "target"), "graphs": ("graph",)}
ALIASES = {"nodes": {"id": "node"}}


def files(folder: Path) -> dict[str, Path]:
    """The file of each table; ``graphs`` may be missing.

    Raises:
        UserError: no such folder, a table that is missing or there twice.
    """
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}: set data.path to the folder that holds nodes.csv and edges.csv")
    others = sorted(path.name for path in folder.iterdir() if path.is_file())
    paths = {}
    for part in PARTS:
        exact = [name for name in others if name.lower() in {part + ending for ending in ENDINGS}]
        there = exact or [name for name in others if _is_table(name, part)]
        if len(there) > 1:
            raise UserError(f"{folder / there[0]} and {there[1]} are both there: keep one of them")
        if there:
            paths[part] = folder / there[0]
    for part in PARTS[:2]:
        if part not in paths:
            raise UserError(f"{folder} has no {part}.csv (nor .csv.gz nor .tsv): {nearest(f'{part}.csv', others)}")
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


def read(folder: Path, choices: Choices, known: Schema | None = None) -> tuple[Table, Table, Table | None, Choices]:
    """The tables of nodes, edges and graphs of a folder, and the choices with what they say of the direction of edges.

    Args:
        folder: where they are.
        choices: what a user says of them.
        known: of a trained model: what was text in training is text, also where all of its cells are numbers now.

    Raises:
        UserError: as `files` and `read_part`.
    """
    text = {part: text_columns(known, part) for part in PARTS}
    tables = {part: read_part(part, path, text[part]) for part, path in files(folder).items()}
    undirected = _direction(tables["edges"])
    if choices.undirected is None:
        choices = replace(choices, undirected=undirected)
    return tables["nodes"], tables["edges"], tables.get("graphs"), choices


def text_columns(known: Schema | None, part: str) -> set[str]:
    """The columns of a part that a trained model has learned as text: categories of words, and the names of classes."""
    if known is None:
        return set()
    learned = {"nodes": (known.node_names, known.node_categories), "edges": (known.edge_names, known.edge_categories)}
    names, categories = learned.get(part, ((), ()))
    words = {name for name, values in zip(names, categories, strict=True) if values and isinstance(values[0], str)}
    labelled = part == ("nodes" if known.level == "node" else "graphs") and known.kind == "multiclass" and known.names
    return words | set(known.target) if labelled else words


def _direction(edges: Table) -> bool | None:
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
    return bool(words[0] == "undirected")


class CSVGraphs(Own):
    """Graphs from a folder of CSV files, each perhaps gzipped (``.csv.gz``) or a ``.tsv``.

    ``graphs.csv`` has a row a graph: ``graph``, targets, and perhaps ``split`` (train, valid or test). ``nodes.csv``
    has a row a node: ``graph``, ``node``, features, and perhaps ``label``. ``edges.csv`` has a row an edge, read by
    ``target`` from ``source``: ``graph``, ``source``, ``target``, features. Features and targets are found as in
    `gt.data.own.node_tables.learn_categories` and `gt.data.own.columns.answer`. Without ``graphs.csv`` it is one graph,
    whose nodes have the targets.

    Args:
        path: the folder.
        target: the column to predict, or several; None takes all of ``graphs.csv`` that have no other meaning, else
            ``label`` (or ``y``, or ``target``) of ``nodes.csv``.
        kind: what targets are; None finds it.
        undirected: each edge is also one in the other direction; None as a column ``Type`` says, else not.
        fractions: shares of train, valid and test where no column ``split`` says who is in which.
        split_seed: what such a split is drawn from.
        folds, fold: k-fold cross-validation, see `gt.data.folds.Folds`.
        features: the attributes of nodes and edges that are features; None takes all that are likely to be.
        normalise, log, standardise: how real numbers, targets and features, are scaled, see `gt.data.numbers.Numbers`.
        root: where the store is kept.

    Raises:
        UserError: on ``open``, one line with the file and the line that is wrong.
    """

    option_for_graphs, option_for_nodes = "csv_graphs", "csv_nodes"

    def __init__(
        self,
        path: str,
        target: Target = None,
        kind: Kind | None = None,
        undirected: bool | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        features: Sequence[str] | None = None,
        normalise: bool = True,
        log: bool = False,
        standardise: bool = True,
        root: str = "data",
    ) -> None:
        self.path = Path(path)
        self.name, self.root = f"csv-{file_name(self.path)}", Path(root)
        self.numbers, self.folds = Numbers(normalise, log, standardise), Folds(folds, fold, split_seed)
        self.choices = Choices(target, kind, undirected, fractions, split_seed, features, self.numbers)

    def __str__(self) -> str:
        return str(self.path)

    def key(self) -> dict[str, Any]:
        digests = {part: hashlib.sha256(path.read_bytes()).hexdigest() for part, path in files(self.path).items()}
        return {"source": "csv", "version": VERSION, "files": digests, **self.choices.facts()}

    def build(self) -> Graphs:
        return assemble(*read(self.path, self.choices))

    def build_known(self, known: Schema) -> Graphs:
        graphs, self.records = assemble_known(*read(self.path, self.choices, known), known)
        return graphs

    def names(self, graphs: Graphs) -> dict[str, np.ndarray]:
        """What the files call each graph, or each node where these have the targets."""
        tables = {part: read_part(part, path) for part, path in files(self.path).items() if part != "edges"}
        return names_of(tables["nodes"], tables.get("graphs"), graphs.schema.level)

"""Graphs from files of GraphML, GML, GEXF, or of node-link JSON (``.json``, ``.jsonl``)."""

import glob
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gt.data.folds import Folds
from gt.data.numbers import Numbers
from gt.data.own import edge_list
from gt.data.own.assemble import Choices, Target, assemble
from gt.data.own.base import Own, file_name
from gt.data.own.graph_records import GraphRecord, tables
from gt.data.own.graphml import read_graphml
from gt.data.own.joined import names_of
from gt.data.own.known import assemble_known
from gt.data.own.networkx_files import read_gexf, read_gml
from gt.data.own.node_link import read_json
from gt.data.reading import ending
from gt.data.store import Graphs
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Kind, Schema

VERSION = 3  # raise when the same files would give another store
READERS: dict[str, Callable[[Path], list[GraphRecord]]] = {
    ".graphml": read_graphml,
    ".gml": read_gml,
    ".gexf": read_gexf,
    ".json": read_json,
    ".jsonl": read_json,
}


def files(path: str) -> list[Path]:
    """The file at a path, those in a folder, or those that a pattern such as ``graphs/*.json`` matches, in order.

    Raises:
        UserError: there is none that can be read.
    """
    paths = [Path(path)] if Path(path).is_file() else list(map(Path, glob.glob(path)))
    if Path(path).is_dir():
        paths = [inner for inner in Path(path).iterdir() if ending(inner) in READERS]
    paths = sorted(inner for inner in paths if inner.is_file())
    if not paths:
        known = ", ".join(READERS)
        raise UserError(f"no graphs at {path}: set data.path to a file of {known}, or a folder of them")
    for inner in paths:
        if ending(inner) in edge_list.ENDINGS:
            raise UserError(
                f"{inner}: an edge list says nothing of nodes that could be learned: put it into a folder beside a "
                "nodes.csv with a label for each node, and set data=csv_nodes data.path=FOLDER"
            )
        if ending(inner) not in READERS:
            raise UserError(f"{inner} is none of {', '.join(READERS)} (each perhaps with .gz)")
    return paths


def read(path: str, choices: Choices, many: bool = False) -> tuple[Table, Table, Table | None, Choices]:
    """The tables of nodes, edges and graphs of files, and the choices with what they say of the direction of edges.

    Raises:
        UserError: as `files`, the readers and `gt.data.own.graph_records.tables`.
    """
    graphs = [graph for file in files(path) for graph in READERS[ending(file)](file)]
    nodes, edges, about, undirected = tables(graphs, path, many)
    if choices.undirected is None:
        choices = replace(choices, undirected=undirected)
    return nodes, edges, about, choices


class GraphFiles(Own):
    """Graphs from GraphML, GML, GEXF or node-link JSON files, each perhaps gzipped, each of one graph or several.

    Attributes of nodes and edges are features; those of graphs are targets, and ``split`` says who is in which.
    Attributes are found as the columns of `gt.data.own.csv_graphs.CSVGraphs` are; a list of numbers is a column for
    each.

    Args:
        path: a file, a folder of files, or a pattern.
        target: the attribute to predict, or several; None takes all of the graphs' own, else ``label`` or ``y`` of
            nodes.
        kind: what targets are; None finds it.
        undirected: each edge is also one in the other direction; None as the files say.
        fractions: shares of train, valid and test where no attribute ``split`` says who is in which.
        split_seed: what such a split is drawn from.
        folds, fold: k-fold cross-validation, see `gt.data.folds.Folds`.
        features: the attributes of nodes and edges that are features; None takes all that are likely to be.
        normalise, log, standardise: how real numbers, targets and features, are scaled, see `gt.data.numbers.Numbers`.
        root: where the store is kept.

    Raises:
        UserError: on ``open``, one line with the file and the line, graph or node that is wrong.
    """

    option_for_graphs, option_for_nodes = "graph_files", "graph_file_nodes"

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
        self.name, self.root, self.path = f"graphs-{file_name(path)}", Path(root), path
        self.numbers, self.folds = Numbers(normalise, log, standardise), Folds(folds, fold, split_seed)
        self.choices = Choices(target, kind, undirected, fractions, split_seed, features, self.numbers)

    def __str__(self) -> str:
        return str(self.path)

    def key(self) -> dict[str, Any]:
        digests = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files(self.path)]
        return {"source": "graph files", "version": VERSION, "files": digests, **self.choices.facts()}

    def build(self) -> Graphs:
        return assemble(*read(self.path, self.choices))

    def build_known(self, known: Schema) -> Graphs:
        graphs, self.records = assemble_known(*read(self.path, self.choices, many=known.level == "graph"), known)
        return graphs

    def names(self, graphs: Graphs) -> dict[str, np.ndarray]:
        """What the files call each graph, or each node where these have the targets."""
        nodes, _, about, _ = read(self.path, self.choices)
        return names_of(nodes, about, graphs.schema.level)

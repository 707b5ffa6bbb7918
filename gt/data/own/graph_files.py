"""Graphs from files of GraphML, GML, GEXF, or of node-link JSON (``.json``, ``.jsonl``)."""

import glob
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gt.data.datamodule import Records
from gt.data.folds import Folds
from gt.data.numbers import Numbers
from gt.data.own import edge_list
from gt.data.own.assemble import Choices, Target, assemble
from gt.data.own.base import OwnGraphs, file_name, several
from gt.data.own.graph_records import GraphRecord, tables
from gt.data.own.graphml import read_graphml
from gt.data.own.joined import names_of
from gt.data.own.known import assemble_known
from gt.data.own.networkx_files import read_gexf, read_gml
from gt.data.own.node_link import read_json
from gt.data.store import Graphs
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Kind, Level, Schema

VERSION = 3  # raise when the same files would give another store
READERS: dict[str, Callable[[Path], list[GraphRecord]]] = {
    ".graphml": read_graphml,
    ".gml": read_gml,
    ".gexf": read_gexf,
    ".json": read_json,
    ".jsonl": read_json,
}


def ending(path: Path) -> str:
    """The ending that says how a file is read; that of what is packed, where it is gzipped."""
    return (path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix).lower()


def files(path: str) -> list[Path]:
    """The file at a path, those in a folder, or those that a pattern such as ``graphs/*.json`` matches, in order.

    Raises:
        UserError: there is none that can be read.
    """
    found = [Path(path)] if Path(path).is_file() else list(map(Path, glob.glob(path)))
    if Path(path).is_dir():
        found = [inner for inner in Path(path).iterdir() if ending(inner) in READERS]
    found = sorted(inner for inner in found if inner.is_file())
    if not found:
        known = ", ".join(READERS)
        raise UserError(f"no graphs at {path}: set data.path to a file of {known}, or a folder of them")
    for inner in found:
        if ending(inner) in edge_list.ENDINGS:
            raise UserError(
                f"{inner}: an edge list says nothing of nodes that could be learned: put it into a folder beside a "
                "nodes.csv with a label for each node, and set data=csv_nodes data.path=FOLDER"
            )
        if ending(inner) not in READERS:
            raise UserError(f"{inner} is none of {', '.join(READERS)} (each perhaps with .gz)")
    return found


def key(path: str, choices: Choices) -> dict[str, Any]:
    """What the result of `build` depends on."""
    digests = [(found.name, hashlib.sha256(found.read_bytes()).hexdigest()) for found in files(path)]
    return {"source": "graph files", "version": VERSION, "files": digests, **choices.facts()}


def read(path: str, choices: Choices, many: bool = False) -> tuple[Table, Table, Table | None, Choices]:
    """The tables of nodes, edges and graphs of files, and the choices with what they say of the direction of edges.

    Raises:
        UserError: as `files`, the readers and `gt.data.own.graph_records.tables`.
    """
    graphs = [graph for found in files(path) for graph in READERS[ending(found)](found)]
    nodes, edges, about, undirected = tables(graphs, path, many)
    if choices.undirected is None:
        choices = replace(choices, undirected=undirected)
    return nodes, edges, about, choices


def build(path: str, choices: Choices) -> Graphs:
    """The graphs of a file, a folder of files or a pattern.

    Raises:
        UserError: as `read` and `gt.data.own.assemble.assemble`.
    """
    return assemble(*read(path, choices))


def build_known(path: str, choices: Choices, known: Schema) -> tuple[Graphs, Records]:
    """The same as a trained model reads them, see `gt.data.own.known.assemble_known`."""
    return assemble_known(*read(path, choices, many=known.level == "graph"), known)


def names(path: str, level: Level) -> dict[str, np.ndarray]:
    """What the files call each graph, or node, see `gt.data.own.joined.names_of`."""
    nodes, _, about, _ = read(path, Choices())
    return names_of(nodes, about, level)


class GraphFiles(OwnGraphs):
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
        batch_size: graphs in a training batch; the rest as in `DataModule` and `GraphDataModule`.

    Raises:
        UserError: on ``open``, one line with the file and the line, graph or node that is wrong.
    """

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
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
        batch_nodes: int | None = None,
        static: bool = False,
    ) -> None:
        super().__init__(
            f"graphs-{file_name(path)}", root, batch_size, eval_batch_size, workers, seed, batch_nodes, static
        )
        self.path = path
        self.numbers, self.folds = Numbers(normalise, log, standardise), Folds(folds, fold, split_seed)
        self.choices = Choices(target, kind, undirected, fractions, split_seed, features, self.numbers)

    def key(self) -> dict[str, Any]:
        return key(self.path, self.choices)

    def build(self) -> Graphs:
        if self.known is not None:
            graphs, self.records = build_known(self.path, self.choices, self.known)
            return graphs
        return several(build(self.path, self.choices), self.path, "graph_file_nodes")

    def names(self) -> dict[str, np.ndarray]:
        """What the files call each graph, or each node where these have the targets."""
        return names(self.path, self.schema.level)

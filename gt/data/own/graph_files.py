"""Graphs from files of GraphML, GML, GEXF, or of node-link JSON (``.json``, ``.jsonl``)."""

import glob
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gt.data.own import edge_list
from gt.data.own.assemble import Choices
from gt.data.own.graph_records import GraphRecord, tables
from gt.data.own.graphml import read_graphml
from gt.data.own.networkx_files import read_gexf, read_gml
from gt.data.own.node_link import read_json
from gt.data.own.tables import OwnTables
from gt.data.reading import ending
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Schema

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
        if ending(inner) in (".pt", ".pth"):
            raise UserError(f"{inner}: graphs of PyG are read by data=pyg data.path={inner}, one by data=pyg_nodes")
        if ending(inner) not in READERS:
            raise UserError(f"{inner} is none of {', '.join(READERS)} (each perhaps with .gz)")
    return paths


def _read(path: Path) -> list[GraphRecord]:
    return READERS[ending(path)](path)


def _read_new(path: Path) -> list[GraphRecord]:
    """The graphs of a file, each that cannot be read with its fault, see `gt.data.own.graph_records.tables`."""
    try:
        return read_json(path, lenient=True) if READERS[ending(path)] is read_json else _read(path)
    except UserError as error:
        return [GraphRecord(str(path), fault=str(error))]


class GraphFiles(OwnTables):
    """Graphs from GraphML, GML, GEXF or node-link JSON files, each perhaps gzipped, each of one graph or several.

    The path is that of a file, of a folder of files, or a pattern. Attributes of nodes and edges are features; those of
    graphs are targets, and ``split`` says who is in which. A list of numbers is a column for each.
    """

    prefix = "graphs"
    option_for_graphs, option_for_nodes = "graph_files", "graph_file_nodes"

    def files(self) -> dict[str, Path]:
        return {f"{number} {path.name}": path for number, path in enumerate(files(self.path))}

    def tables(self, known: Schema | None = None) -> tuple[Table, Table, Table | None, Choices]:
        read = _read_new if known is not None and known.level == "graph" else _read
        graphs = [graph for path in self.files().values() for graph in read(path)]
        nodes, edges, about, undirected = tables(graphs, self.path, known)
        choices = self.choices if self.choices.undirected is not None else replace(self.choices, undirected=undirected)
        return nodes, edges, about, choices

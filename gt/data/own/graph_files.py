"""Graphs from GraphML, GML, GEXF or node-link JSON files (``.json``, ``.jsonl``)."""

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
    """The file at a path, or the sorted files in a folder or matching a pattern such as ``graphs/*.json``.

    Raises:
        UserError: there is no file, or one has an unsupported format.
    """
    paths = [Path(path)] if Path(path).is_file() else list(map(Path, glob.glob(path)))
    if Path(path).is_dir():
        paths = [file for file in Path(path).iterdir() if ending(file) in READERS]
    paths = sorted(file for file in paths if file.is_file())
    if not paths:
        suffixes = ", ".join(READERS)
        raise UserError(f"no graphs at {path}: set data.path to a file of {suffixes}, or a folder of them")
    for file in paths:
        if ending(file) in edge_list.SUFFIXES:
            raise UserError(
                f"{file}: an edge list has no labels to learn: put it into a folder beside a nodes.csv with a label "
                "for each node, and set data=csv_nodes data.path=FOLDER"
            )
        if ending(file) in (".pt", ".pth"):
            raise UserError(f"{file}: read PyG graphs by data=pyg data.path={file}, a single one by data=pyg_nodes")
        if ending(file) not in READERS:
            raise UserError(f"{file} is not a file of {', '.join(READERS)} (optionally with .gz)")
    return paths


def _read(path: Path) -> list[GraphRecord]:
    return READERS[ending(path)](path)


def _read_new(path: Path) -> list[GraphRecord]:
    """The graphs of a file; one that cannot be read has its ``fault`` set, see `gt.data.own.graph_records.tables`."""
    try:
        return read_json(path, lenient=True) if READERS[ending(path)] is read_json else _read(path)
    except UserError as error:
        return [GraphRecord(str(path), fault=str(error))]


class GraphFiles(OwnTables):
    """Graphs from GraphML, GML, GEXF or node-link JSON files, optionally gzipped, each with one graph or several.

    The path is a file, a folder or a pattern. Attributes of nodes and edges are features; those of graphs are targets,
    and ``split`` assigns them to a split. A list of numbers becomes one column per element.
    """

    prefix = "graphs"
    option_for_graphs, option_for_nodes = "graph_files", "graph_file_nodes"

    def files(self) -> dict[str, Path]:
        return {f"{number} {path.name}": path for number, path in enumerate(files(self.path))}

    def tables(self, model_schema: Schema | None = None) -> tuple[Table, Table, Table | None, Choices]:
        read = _read_new if model_schema is not None and model_schema.level == "graph" else _read
        graphs = [graph for path in self.files().values() for graph in read(path)]
        nodes, edges, graph_table, undirected = tables(graphs, self.path, model_schema)
        choices = self.choices if self.choices.undirected is not None else replace(self.choices, undirected=undirected)
        return nodes, edges, graph_table, choices

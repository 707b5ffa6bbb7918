"""Graphs from GML (Himsolt 1997) and GEXF, as Gephi writes them, read by NetworkX."""

import io
import re
from pathlib import Path
from typing import Any
from xml.parsers import expat

import networkx as nx

from gt.data.own.graph_records import GraphRecord, Record, with_ids
from gt.data.own.graphml import parse_xml
from gt.data.reading import read_text
from gt.errors import UserError

DECLARATION = re.compile(r"\s*<\?xml\s[^>]*>")  # the declared encoding is obsolete once the file is decoded


def read_gml(path: Path) -> list[GraphRecord]:
    """Read the graph of a GML file; nodes are identified by ``id``, and ``label`` is an ordinary attribute.

    Raises:
        UserError: gives the file, and the line if NetworkX does: invalid GML, or a duplicate node or edge.
    """
    text = read_text(path)
    try:
        graph = nx.parse_gml(text, label="id")
    except Exception as error:  # on invalid text NetworkX may raise anything
        raise _unreadable(path, "GML", error) from None
    return [record_of(graph, str(path), _flattened(graph.graph))]


def read_gexf(path: Path) -> list[GraphRecord]:
    """Read the graph of a GEXF file.

    Raises:
        UserError: gives the file: invalid XML, a document type or an entity, or invalid GEXF.
    """
    text = read_text(path)
    parse_xml(expat.ParserCreate(encoding="utf-8"), text, path)
    try:
        graph = nx.read_gexf(io.BytesIO(DECLARATION.sub("", text).encode()))
    except Exception as error:
        raise _unreadable(path, "GEXF", error) from None
    return [record_of(graph, str(path), {})]  # graph attributes of a GEXF file are only its defaults


def _unreadable(path: Path, kind: str, error: Exception) -> UserError:
    text = " ".join(str(error).split())
    return UserError(f"{path} is not {kind} that NetworkX can read: {text or type(error).__name__}")


def _flattened(attributes: dict[str, Any], prefix: str = "") -> Record:
    """Flatten nested attributes: ``graphics.x`` for the ``x`` of ``graphics``."""
    flat: Record = {}
    for name, value in attributes.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def record_of(graph: Any, location: str, attributes: Record) -> GraphRecord:
    """Convert a NetworkX graph to a record with the given graph attributes.

    Raises:
        UserError: gives the location: a node that is neither text nor a number, or an attribute with a reserved name.
    """
    record = GraphRecord(location, directed=graph.is_directed(), attributes=attributes)
    for node, values in graph.nodes.data():
        item_location = f"{location}, node {str(node)!r}"
        record.nodes.append(with_ids(_flattened(values), {"node": node}, item_location))
    for source, target, values in graph.edges.data():
        item_location = f"{location}, edge {str(source)!r} -> {str(target)!r}"
        record.edges.append(with_ids(_flattened(values), {"source": source, "target": target}, item_location))
    return record

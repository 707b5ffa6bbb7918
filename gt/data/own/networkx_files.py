"""Graphs from GML (Himsolt 1997) and GEXF, as Gephi writes them, through NetworkX's readers."""

import io
import re
from pathlib import Path
from typing import Any
from xml.parsers import expat

import networkx as nx

from gt.data.own.graph_records import GraphRecord, Record, put
from gt.data.own.graphml import parse_xml
from gt.data.reading import read_text
from gt.errors import UserError

DECLARATION = re.compile(r"\s*<\?xml\s[^>]*>")  # what a file says of its encoding no longer holds once it is text


def read_gml(path: Path) -> list[GraphRecord]:
    """The graph of a GML file; nodes go by their ``id``, and a ``label`` is an attribute like others.

    Raises:
        UserError: naming the file, and the line where NetworkX does: it is no GML, or a node or edge is there twice.
    """
    text = read_text(path)
    try:
        graph = nx.parse_gml(text, label="id")
    except Exception as error:  # NetworkX raises what the text leads it to
        raise _unread(path, "GML", error) from None
    return [record_of(graph, str(path), _flat(graph.graph))]


def read_gexf(path: Path) -> list[GraphRecord]:
    """The graph of a GEXF file.

    Raises:
        UserError: naming the file: no XML, a document type or an entity, or no GEXF.
    """
    text = read_text(path)
    parse_xml(expat.ParserCreate(encoding="utf-8"), text, path)
    try:
        graph = nx.read_gexf(io.BytesIO(DECLARATION.sub("", text).encode()))
    except Exception as error:
        raise _unread(path, "GEXF", error) from None
    return [record_of(graph, str(path), {})]  # what a GEXF file says of the whole graph are its own defaults


def _unread(path: Path, kind: str, error: Exception) -> UserError:
    text = " ".join(str(error).split())
    return UserError(f"{path} is no {kind} that NetworkX can read: {text or type(error).__name__}")


def _flat(attributes: dict[str, Any], prefix: str = "") -> Record:
    """Attributes with those inside others beside them: ``graphics.x`` for the ``x`` of ``graphics``."""
    flat: Record = {}
    for name, value in attributes.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def record_of(graph: Any, place: str, attributes: Record) -> GraphRecord:
    """A NetworkX graph as a record with the given attributes of the whole.

    Raises:
        UserError: naming the place: a node that is no text or number, or an attribute with a name of its own meaning.
    """
    record = GraphRecord(place, directed=graph.is_directed(), attributes=attributes)
    for node, values in graph.nodes.data():
        where = f"{place}, node {str(node)!r}"
        record.nodes.append(put(_flat(values), {"node": node}, where))
    for source, target, values in graph.edges.data():
        where = f"{place}, edge {str(source)!r} -> {str(target)!r}"
        record.edges.append(put(_flat(values), {"source": source, "target": target}, where))
    return record

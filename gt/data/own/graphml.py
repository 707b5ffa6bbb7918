"""Graphs from GraphML (Brandes et al. 2002); errors give the line, and entities are never expanded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.parsers import expat

from gt.data.own.graph_records import GraphRecord, Record, with_ids
from gt.data.reading import read_text
from gt.errors import UserError, nearest


def _boolean(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


TYPES: dict[str, Callable[[str], Any]] = {
    "boolean": _boolean, "int": int, "long": int, "integer": int, "float": float, "double": float, "string": str
}  # fmt: skip
UNSUPPORTED = {"hyperedge": "edges that join more than two nodes", "port": "ports"}


def read_graphml(path: Path) -> list[GraphRecord]:
    """Read all graphs of a file.

    Raises:
        UserError: gives file and line: invalid XML or GraphML, a document type or an entity, an attribute that is not
            declared or not of its declared type.
    """
    return _Reader(path).read(read_text(path))


def parse_xml(parser: Any, text: str, path: Path) -> None:
    """Parse a text with an expat parser; refuses document types, so that there are no entities to expand or fetch.

    Raises:
        UserError: gives file and line: invalid XML, or a document type.
    """

    def doctype(*_: Any) -> None:
        problem = "a document type, whose entities could hide anything: remove the <!DOCTYPE ...>"
        raise UserError(f"{path}, line {parser.CurrentLineNumber}: {problem}")

    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise UserError(f"{path}, line {error.lineno}: {expat.ErrorString(error.code)}: not XML") from None


class _Reader:
    """Builds graphs from the events of an expat parser."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.graphs: list[GraphRecord] = []
        self.keys: dict[str, tuple[str, Callable[[str], Any], str]] = {}  # id: name, type, domain
        self.layout_keys: set[str] = set()  # ids of keys that describe a drawing
        self.defaults: dict[str, str] = {}
        self.open: list[tuple[str, dict[str, str], int, Record]] = []  # element, its XML attributes, line, values
        self.text = ""
        self.parser: Any = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters

    def read(self, text: str) -> list[GraphRecord]:
        parse_xml(self.parser, text, self.path)
        if not self.graphs:
            raise UserError(f"{self.path} holds no <graph>: it is not GraphML")
        return self.graphs

    def error(self, message: str, line: int | None = None) -> UserError:
        return UserError(f"{self.path}, line {self.parser.CurrentLineNumber if line is None else line}: {message}")

    def characters(self, text: str) -> None:
        self.text += text

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name, self.text = name.split(" ")[-1], ""
        if name in UNSUPPORTED:
            raise self.error(f"{UNSUPPORTED[name]} cannot be read")
        if name == "graph":
            if any(element == "graph" for element, *_ in self.open):
                raise self.error("a graph inside another cannot be read")
            directed = self.required(attributes, "edgedefault", name) == "directed"
            location = f"{self.path}, line {self.parser.CurrentLineNumber}"
            self.graphs.append(GraphRecord(location, file=str(self.path), directed=directed))
        self.open.append((name, attributes, self.parser.CurrentLineNumber, {}))

    def required(self, attributes: dict[str, str], name: str, element: str) -> str:
        if name not in attributes:
            raise self.error(f"<{element}> has no '{name}': {nearest(name, attributes)}")
        return attributes[name]

    def end(self, name: str) -> None:
        name, attributes, line, values = self.open.pop()
        if name == "key" and "yfiles.type" in attributes:  # yEd's drawing elements, which have no value
            self.layout_keys.add(self.required(attributes, "id", name))
        elif name == "key":
            kind = TYPES.get(attributes.get("attr.type", "string"))
            if kind is None:
                raise self.error(f"type '{attributes['attr.type']}': {nearest(attributes['attr.type'], TYPES)}")
            key = self.required(attributes, "id", name)
            self.keys[key] = (attributes.get("attr.name", key), kind, attributes.get("for", "all"))
        elif name == "default" and self.open and self.open[-1][0] == "key":
            if "yfiles.type" not in self.open[-1][1]:
                self.defaults[self.required(self.open[-1][1], "id", "key")] = self.text
        elif name == "data" and self.open and attributes.get("key") not in self.layout_keys:
            self.value(self.required(attributes, "key", name), self.text, self.open[-1][3], line)
        elif name in ("graph", "node", "edge"):
            if not self.graphs:
                raise self.error(f"<{name}> outside of a <graph>")
            self.element(name, attributes, line, values)

    def value(self, key: str, text: str, values: Record, line: int) -> None:
        if key not in self.keys:
            raise self.error(f"attribute '{key}' is not declared by a <key>: {nearest(key, self.keys)}", line)
        name, kind, _ = self.keys[key]
        try:
            values[name] = kind(text.strip())
        except (ValueError, KeyError):
            raise self.error(f"'{name}' is {text.strip()[:40]!r}, which is not of its declared type", line) from None

    def element(self, name: str, attributes: dict[str, str], line: int, values: Record) -> None:
        for key, text in self.defaults.items():
            if self.keys[key][0] not in values and self.keys[key][2] in (name, "all"):
                self.value(key, text, values, line)
        graph, location = self.graphs[-1], f"{self.path}, line {line}"
        if name == "graph":
            graph.attributes = values
        elif name == "node":
            graph.nodes.append(with_ids(values, {"node": self.required(attributes, "id", name)}, location))
            graph.node_lines.append(line)
        else:
            if attributes.get("directed", str(graph.directed).lower()) != str(graph.directed).lower():
                raise self.error("the direction of an edge differs from its graph's edgedefault", line)
            ends = {end: self.required(attributes, end, name) for end in ("source", "target")}
            graph.edges.append(with_ids(values, ends, location))
            graph.edge_lines.append(line)

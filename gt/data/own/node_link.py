"""Graphs from node-link JSON, by NetworkX or for D3: one graph, a list of graphs, or a graph per line (``.jsonl``)."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gt.data.own.graph_records import GraphRecord, as_id, with_ids
from gt.data.reading import parse_json, read_text
from gt.errors import UserError, nearest

ENDS = ("source", "target")


def read_json(path: Path, lenient: bool = False) -> list[GraphRecord]:
    """Read all graphs of a file.

    Args:
        lenient: set ``fault`` of a graph that cannot be read, if there are several, instead of raising.

    Raises:
        UserError: gives the file and the line or graph: invalid JSON, or JSON that is not a graph.
    """
    text = read_text(path)
    if ".jsonl" in path.suffixes:
        # str.splitlines would also split at characters that JSON strings may contain
        lines = [(number, line) for number, line in enumerate(io.StringIO(text, newline=None), 1) if line.strip()]
        return [_read_graph(f"{path}, line {n}", lenient, partial(_graph_of_line, line, path, n)) for n, line in lines]
    value = parse_json(text, path, 1)
    if not isinstance(value, list):
        return [_graph(value, str(path))]
    locations = [f"{path}, graph {number}" for number in range(len(value))]
    return [
        _read_graph(location, lenient, partial(_graph, item, location))
        for location, item in zip(locations, value, strict=True)
    ]


def _read_graph(location: str, lenient: bool, read: Callable[[], GraphRecord]) -> GraphRecord:
    try:
        return read()
    except UserError as error:
        if not lenient:
            raise
        return GraphRecord(location, fault=str(error))


def _graph_of_line(line: str, path: Path, number: int) -> GraphRecord:
    return _graph(parse_json(line, path, number), f"{path}, line {number}")


def _graph(data: Any, location: str) -> GraphRecord:
    if not isinstance(data, dict) or "nodes" not in data:
        keys = nearest("nodes", data) if isinstance(data, dict) else f"it is a {type(data).__name__}"
        raise UserError(f"{location} is not a node-link graph, which has 'nodes': {keys}")
    links = "links" if "links" in data and "edges" not in data else "edges"
    if links not in data:
        raise UserError(f"{location} has no 'edges' (nor 'links'): {nearest('edges', data)}")
    attributes = data.get("graph", {})
    if not isinstance(attributes, dict):
        raise UserError(f"{location}: 'graph' must be an object of attributes, not a {type(attributes).__name__}")
    directed = data.get("directed", False)
    if not isinstance(directed, bool):
        raise UserError(f"{location}: 'directed' is {directed!r}, but must be true or false")
    graph = GraphRecord(location, directed=directed, attributes=attributes)
    by_position = _by_position(data["nodes"], data[links])
    for number, (item_location, raw) in enumerate(_records(data["nodes"], f"{location}, node")):
        record = _lowered(raw, ("id",))
        if "id" in record:
            record = record | {"id": as_id(record["id"])}
        if by_position:
            graph.nodes.append(with_ids(record, {"node": number}, item_location))
            continue
        if "id" not in record:
            raise UserError(f"{item_location} has no 'id': {nearest('id', record)}")
        graph.nodes.append(
            with_ids({k: v for k, v in record.items() if k != "id"}, {"node": record["id"]}, item_location)
        )
    reserved = {*ENDS, "key"} if data.get("multigraph") else {*ENDS}
    for item_location, raw in _records(data[links], f"{location}, edge"):
        record = _lowered(raw, ENDS)
        for end in ENDS:
            if end not in record:
                raise UserError(f"{item_location} has no '{end}': {nearest(end, record)}")
        ends = {"source": record["source"], "target": record["target"]}
        graph.edges.append(with_ids({k: v for k, v in record.items() if k not in reserved}, ends, item_location))
    return graph


def _by_position(nodes: Any, links: Any) -> bool:
    """Whether links refer to nodes by list position, as in files for D3: all ends are integers, and none is an id."""
    if not isinstance(nodes, list) or not isinstance(links, list):
        return False
    ends = [as_id(_lowered(link, ENDS).get(end)) for link in links if isinstance(link, dict) for end in ENDS]
    named = [_lowered(node, ("id",)) for node in nodes if isinstance(node, dict)]
    ids = [as_id(node["id"]) for node in named if "id" in node]
    if not all(type(end) is int for end in ends):
        return False
    return not ids or (bool(ends) and not {*map(str, ends)} & {*map(str, ids)})


def _lowered(record: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A record in which keys that match these names in any case are lowered."""
    missing = [name for name in names if name not in record]
    if not missing:
        return record
    return {key.lower() if key.lower() in missing else key: value for key, value in record.items()}


def _records(values: Any, location: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(values, list):
        raise UserError(f"{location}s are a {type(values).__name__}, but must be a list")
    for number, record in enumerate(values):
        if not isinstance(record, dict):
            raise UserError(f"{location} {number} is a {type(record).__name__}, but must be an object of attributes")
        yield f"{location} {number}", record

"""Graphs from node-link JSON, of NetworkX or for D3: one graph, a list of graphs, or a graph a line (``.jsonl``)."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gt.data.own.graph_records import GraphRecord, as_id, put
from gt.data.reading import parse_json, read_text
from gt.errors import UserError, nearest

ENDS = ("source", "target")


def read_json(path: Path, lenient: bool = False) -> list[GraphRecord]:
    """Every graph of a file.

    Args:
        lenient: one of several that cannot be read has a fault, and is not refused.

    Raises:
        UserError: naming the file and the line or the graph, for text that is no JSON or JSON that is no graph.
    """
    text = read_text(path)
    if ".jsonl" in path.suffixes:
        # not str.splitlines, which also parts lines at characters that JSON text may hold
        lines = [(number, line) for number, line in enumerate(io.StringIO(text, newline=None), 1) if line.strip()]
        return [_record(f"{path}, line {n}", lenient, partial(_of_line, line, path, n)) for n, line in lines]
    value = parse_json(text, path, 1)
    if not isinstance(value, list):
        return [_graph(value, str(path))]
    places = [f"{path}, graph {number}" for number in range(len(value))]
    return [_record(place, lenient, partial(_graph, each, place)) for place, each in zip(places, value, strict=True)]


def _record(place: str, lenient: bool, read: Callable[[], GraphRecord]) -> GraphRecord:
    try:
        return read()
    except UserError as error:
        if not lenient:
            raise
        return GraphRecord(place, fault=str(error))


def _of_line(line: str, path: Path, number: int) -> GraphRecord:
    return _graph(parse_json(line, path, number), f"{path}, line {number}")


def _graph(data: Any, place: str) -> GraphRecord:
    if not isinstance(data, dict) or "nodes" not in data:
        keys = nearest("nodes", data) if isinstance(data, dict) else f"it is a {type(data).__name__}"
        raise UserError(f"{place} is no node-link graph, which has 'nodes': {keys}")
    links = "links" if "links" in data and "edges" not in data else "edges"
    if links not in data:
        raise UserError(f"{place} has no 'edges' (nor 'links'): {nearest('edges', data)}")
    attributes = data.get("graph", {})
    if not isinstance(attributes, dict):
        raise UserError(f"{place}: 'graph' holds its attributes by name, not a {type(attributes).__name__}")
    directed = data.get("directed", False)
    if not isinstance(directed, bool):
        raise UserError(f"{place}: 'directed' is {directed!r}, where true or false is needed")
    graph = GraphRecord(place, directed=directed, attributes=attributes)
    by_position = _by_position(data["nodes"], data[links])
    for number, (where, written) in enumerate(_records(data["nodes"], f"{place}, node")):
        record = _any_case(written, ("id",))
        if "id" in record:
            record = record | {"id": as_id(record["id"])}
        if by_position:
            graph.nodes.append(put(record, {"node": number}, where))
            continue
        if "id" not in record:
            raise UserError(f"{where} has no 'id': {nearest('id', record)}")
        graph.nodes.append(put({k: v for k, v in record.items() if k != "id"}, {"node": record["id"]}, where))
    own = {*ENDS, "key"} if data.get("multigraph") else {*ENDS}
    for where, written in _records(data[links], f"{place}, edge"):
        record = _any_case(written, ENDS)
        for end in ENDS:
            if end not in record:
                raise UserError(f"{where} has no '{end}': {nearest(end, record)}")
        ends = {"source": record["source"], "target": record["target"]}
        graph.edges.append(put({k: v for k, v in record.items() if k not in own}, ends, where))
    return graph


def _by_position(nodes: Any, links: Any) -> bool:
    """Whether links name nodes by their places in the list, as files for D3 do: by numbers, of which none is an id."""
    if not isinstance(nodes, list) or not isinstance(links, list):
        return False
    ends = [as_id(_any_case(link, ENDS).get(end)) for link in links if isinstance(link, dict) for end in ENDS]
    named = [_any_case(node, ("id",)) for node in nodes if isinstance(node, dict)]
    ids = [as_id(node["id"]) for node in named if "id" in node]
    if not all(type(end) is int for end in ends):
        return False
    return not ids or (bool(ends) and not {*map(str, ends)} & {*map(str, ids)})


def _any_case(record: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A record whose keys of these names may be in letters of any case."""
    missing = [name for name in names if name not in record]
    if not missing:
        return record
    return {key.lower() if key.lower() in missing else key: value for key, value in record.items()}


def _records(values: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(values, list):
        raise UserError(f"{where}s are a {type(values).__name__} where a list is needed")
    for number, record in enumerate(values):
        if not isinstance(record, dict):
            raise UserError(f"{where} {number} is a {type(record).__name__} where its attributes by name are needed")
        yield f"{where} {number}", record

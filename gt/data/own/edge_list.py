"""Edge lists: each line has two node ids and, optionally, a weight or a dictionary of attributes as in NetworkX."""

import ast
import re
from pathlib import Path

from gt.data.own.graph_records import GraphRecord, Record, with_ids
from gt.data.reading import read_text
from gt.errors import UserError

SUFFIXES = (".edgelist", ".edges", ".txt")
COMMENTS = ("#", "%", "//")
HEADERS = ({"source", "target"}, {"from", "to"})


def read_edge_list(path: Path) -> GraphRecord:
    """Read the edges of a file, with columns separated by blanks, commas, semicolons or tabs, and the nodes they name.

    Raises:
        UserError: gives file and line: not two or three columns, or not as many as in the first line.
    """
    text = read_text(path)
    graph = GraphRecord(str(path), file=str(path), directed=True)
    nodes: dict[str, None] = {}
    width = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(COMMENTS):
            continue
        location = f"{path}, line {number}"
        cells = re.split(r"\s*[,;\t]\s*|\s+", line.strip(), maxsplit=2)
        if not width and {cell.lower() for cell in cells[:2]} in HEADERS:
            continue
        width = width or len(cells)
        if len(cells) != width or width < 2:
            raise UserError(f"{location} has {len(cells)} columns, but an edge has {width if width > 1 else '2 or 3'}")
        graph.edges.append(
            with_ids(_attributes(cells[2:], location), {"source": cells[0], "target": cells[1]}, location)
        )
        graph.edge_lines.append(number)
        nodes |= dict.fromkeys(cells[:2])
    graph.nodes = [{"node": node} for node in nodes]
    return graph


def _attributes(cells: list[str], location: str) -> Record:
    """The attributes in the third column: a weight, or a dictionary."""
    if not cells:
        return {}
    [text] = cells
    if text.startswith("{"):
        try:
            attributes = ast.literal_eval(text)
            if isinstance(attributes, dict):
                return {str(name): value for name, value in attributes.items()}
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
        raise UserError(f"{location}: {text[:40]!r} is not a dictionary of attributes")
    for kind in (int, float):
        try:
            return {"weight": kind(text)}
        except ValueError:
            pass
    raise UserError(f"{location}: {text[:40]!r} is not a number: an edge has two ids and an optional weight")

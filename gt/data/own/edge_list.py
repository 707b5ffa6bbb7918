"""An edge list: in each line the ids of two nodes, and perhaps a weight or NetworkX's dictionary of attributes."""

import ast
import re
from pathlib import Path

from gt.data.own.graph_records import GraphRecord, Record, put
from gt.data.reading import read_text
from gt.errors import UserError

ENDINGS = (".edgelist", ".edges", ".txt")
COMMENTS = ("#", "%", "//")
HEADERS = ({"source", "target"}, {"from", "to"})


def read_edge_list(path: Path) -> GraphRecord:
    """The edges of a file, parted by blanks, commas, semicolons or tabs, and the nodes that they name.

    Raises:
        UserError: naming the file and the line that has not two or three columns, as the first one has.
    """
    text = read_text(path)
    graph = GraphRecord(str(path), file=str(path), directed=True)
    nodes: dict[str, None] = {}
    width = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(COMMENTS):
            continue
        where = f"{path}, line {number}"
        cells = re.split(r"\s*[,;\t]\s*|\s+", line.strip(), maxsplit=2)
        if not width and {cell.lower() for cell in cells[:2]} in HEADERS:
            continue
        width = width or len(cells)
        if len(cells) != width or width < 2:
            raise UserError(f"{where} has {len(cells)} columns where an edge has {width if width > 1 else '2 or 3'}")
        graph.edges.append(put(_attributes(cells[2:], where), {"source": cells[0], "target": cells[1]}, where))
        graph.edge_lines.append(number)
        nodes |= dict.fromkeys(cells[:2])
    graph.nodes = [{"node": node} for node in nodes]
    return graph


def _attributes(cells: list[str], where: str) -> Record:
    """What a third column says: a weight, or attributes by name."""
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
        raise UserError(f"{where}: {text[:40]!r} is no dictionary of attributes")
    for kind in (int, float):
        try:
            return {"weight": kind(text)}
        except ValueError:
            pass
    raise UserError(f"{where}: {text[:40]!r} is no number: an edge has two ids and perhaps a weight")

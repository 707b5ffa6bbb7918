"""OGB's graphs out of OGB's raw tables, some at a time, so that memory does not grow with the dataset."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from gt.data.ogb.download import SPLITS
from gt.data.ogb.raw_csv import Check, Number, Rows, counts, numbers, refuse
from gt.data.packed import Arrays, pointers
from gt.errors import UserError

ROOM = 1_000_000  # nodes and edges that are held at a time
WHOLE = 2**24  # bytes up to which all of a file is hashed
ENDS = 2**20  # bytes at both ends of a larger one that are


def digest(path: Path) -> str:
    """A hash of a file's contents that takes no time on a large one.

    Of a large file it sees the size and both ends; the end of a gzip file is a checksum of all that it holds.
    """
    size, content = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as handle:
        if size <= WHOLE:
            content.update(handle.read())
        else:
            content.update(str(size).encode() + handle.read(ENDS))
            handle.seek(-ENDS, 2)
            content.update(handle.read())
    return content.hexdigest()


@dataclass(frozen=True)
class Table:
    """How the rows of a file are read: see `gt.data.ogb.raw_csv.numbers`."""

    columns: int
    kind: Number = np.int64
    check: Check | None = None


@dataclass(frozen=True)
class Piece:
    """Consecutive graphs as they stand in the files.

    Attributes:
        first: the number of the first of them.
        sizes, lines: (G,) nodes of each graph, and lines of ``edge.csv.gz``: edges, or bonds that stand there once.
        ends: (sum of lines, 2) source and target, numbered from 0 within each graph.
        tables: rows of the further files, by their names.
    """

    first: int
    sizes: np.ndarray
    lines: np.ndarray
    ends: np.ndarray
    tables: Arrays

    @property
    def graphs(self) -> slice:
        """Where these graphs stand among all."""
        return slice(self.first, self.first + len(self.sizes))

    def both_ways(self) -> tuple[np.ndarray, np.ndarray]:
        """Each line as an edge in both directions: (G + 1,) offsets, (2, E) ends; its inverse follows each edge."""
        return pointers(2 * self.lines), np.stack([self.ends.ravel(), self.ends[:, ::-1].ravel()])


def pieces(
    files: Mapping[str, Path], sizes: np.ndarray, nodes: Mapping[str, Table], edges: Mapping[str, Table]
) -> Iterator[Piece]:
    """All graphs, about `ROOM` nodes and edges at a time.

    Args:
        files: the files by name, as of `gt.data.ogb.download.files`.
        sizes: (G,) the nodes of each graph, as ``num-node-list.csv.gz`` has them.
        nodes, edges: the tables with a row a node, and those with a row a line of ``edge.csv.gz``, by those names.

    Raises:
        UserError: a malformed file; names the row.
    """
    lines = counts(files["num-edge-list"], len(sizes))

    def opened(name: str, table: Table, rows: int) -> Rows:
        return Rows(files[name], table.columns, table.kind, rows, table.check)

    of_nodes = {name: opened(name, table, int(sizes.sum())) for name, table in nodes.items()}
    of_edges = {name: opened(name, table, int(lines.sum())) for name, table in edges.items()}
    ends = opened("edge", Table(2), int(lines.sum()))
    bins = (np.cumsum(sizes + lines) - 1) // ROOM
    cuts = [0, *(np.flatnonzero(np.diff(bins)) + 1).tolist(), len(sizes)]
    for low, high in pairwise(cuts):
        some, rows = slice(low, high), ends.done
        here, each = sizes[some], lines[some]
        pairs = ends.take(int(each.sum()))
        wrong = (pairs < 0) | (pairs >= np.repeat(here, each)[:, None])
        refuse(files["edge"], wrong, pairs, "is no node of its graph", rows)
        tables = {name: reader.take(int(here.sum())) for name, reader in of_nodes.items()}
        tables |= {name: reader.take(int(each.sum())) for name, reader in of_edges.items()}
        yield Piece(low, here, each, pairs, tables)


def one_graph(path: Path) -> int:
    """The nodes of the one graph of a dataset, as ``num-node-list.csv.gz`` says.

    Raises:
        UserError: it tells of another number of graphs.
    """
    sizes = counts(path, least=1)
    if len(sizes) != 1:
        raise UserError(f"{path} tells of {len(sizes)} graphs where there should be 1")
    return int(sizes[0])


def splits_of(files: Mapping[str, Path], graphs: int) -> Arrays:
    """The graph numbers of each split; a graph in two of them would be trained on and tested on.

    Raises:
        UserError: a number that is no graph, or that stands there twice; nothing to train on, or to validate with.
    """
    seen = np.zeros(graphs, dtype=np.int64)
    splits = {}
    for part in SPLITS:
        ids = numbers(files[part], 1, np.int64)
        if not len(ids) and part != "test":
            raise UserError(f"{files[part]} is empty: replace it by OGB's file")
        refuse(files[part], (ids < 0) | (ids >= graphs), ids, f"is no graph: there are {graphs}")
        splits[part] = ids[:, 0]
        np.add.at(seen, splits[part], 1)
        refuse(files[part], seen[ids] > 1, ids, "is in the splits more than once")
    return splits

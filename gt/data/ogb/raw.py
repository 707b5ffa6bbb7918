"""Reads graphs from OGB's raw tables piece by piece, so that memory does not grow with the dataset."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from gt.data.ogb.download import SPLITS
from gt.data.ogb.raw_csv import Check, DType, Rows, counts, numbers, refuse
from gt.data.packed import Arrays, pointers
from gt.errors import UserError

PIECE_SIZE = 1_000_000  # nodes and edges held at a time
FULL_HASH_LIMIT = 2**24  # bytes; smaller files are hashed whole
HASHED_ENDS = 2**20  # bytes hashed at either end of a larger file


def digest(path: Path) -> str:
    """A hash of a file's contents that is fast even for large files.

    For a large file it covers the size and both ends; a gzip file ends with a checksum of its contents.
    """
    size, content = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as handle:
        if size <= FULL_HASH_LIMIT:
            content.update(handle.read())
        else:
            content.update(str(size).encode() + handle.read(HASHED_ENDS))
            handle.seek(-HASHED_ENDS, 2)
            content.update(handle.read())
    return content.hexdigest()


@dataclass(frozen=True)
class Table:
    """Format of the rows of a file, see `gt.data.ogb.raw_csv.numbers`."""

    columns: int
    dtype: DType = np.int64
    check: Check | None = None


@dataclass(frozen=True)
class Piece:
    """Consecutive graphs as stored in the files.

    Attributes:
        first: index of the first graph.
        sizes, lines: (G,) nodes of each graph, and its lines of ``edge.csv.gz``: edges, or bonds listed once.
        ends: (sum of lines, 2) source and target, numbered from 0 within each graph.
        tables: rows of the other files, by name.
    """

    first: int
    sizes: np.ndarray
    lines: np.ndarray
    ends: np.ndarray
    tables: Arrays

    @property
    def graphs(self) -> slice:
        """The indices of these graphs in the dataset."""
        return slice(self.first, self.first + len(self.sizes))

    def both_ways(self) -> tuple[np.ndarray, np.ndarray]:
        """Each line as two consecutive edges, one in each direction: (G + 1,) offsets, (2, E) endpoints."""
        return pointers(2 * self.lines), np.stack([self.ends.ravel(), self.ends[:, ::-1].ravel()])


def pieces(
    files: Mapping[str, Path], sizes: np.ndarray, nodes: Mapping[str, Table], edges: Mapping[str, Table]
) -> Iterator[Piece]:
    """Yield all graphs, about `PIECE_SIZE` nodes and edges at a time.

    Args:
        files: the files by name, as returned by `gt.data.ogb.download.files`.
        sizes: (G,) the nodes of each graph, from ``num-node-list.csv.gz``.
        nodes, edges: by name, the tables with a row per node, and those with a row per line of ``edge.csv.gz``.

    Raises:
        UserError: a malformed file; names the row.
    """
    lines = counts(files["num-edge-list"], len(sizes))

    def opened(name: str, table: Table, rows: int) -> Rows:
        return Rows(files[name], table.columns, table.dtype, rows, table.check)

    node_tables = {name: opened(name, table, int(sizes.sum())) for name, table in nodes.items()}
    edge_tables = {name: opened(name, table, int(lines.sum())) for name, table in edges.items()}
    ends = opened("edge", Table(2), int(lines.sum()))
    bins = (np.cumsum(sizes + lines) - 1) // PIECE_SIZE
    cuts = [0, *(np.flatnonzero(np.diff(bins)) + 1).tolist(), len(sizes)]
    for low, high in pairwise(cuts):
        graphs, first_row = slice(low, high), ends.done
        node_counts, line_counts = sizes[graphs], lines[graphs]
        pairs = ends.take(int(line_counts.sum()))
        invalid = (pairs < 0) | (pairs >= np.repeat(node_counts, line_counts)[:, None])
        refuse(files["edge"], invalid, pairs, "is not a node of its graph", first_row)
        tables = {name: reader.take(int(node_counts.sum())) for name, reader in node_tables.items()}
        tables |= {name: reader.take(int(line_counts.sum())) for name, reader in edge_tables.items()}
        yield Piece(low, node_counts, line_counts, pairs, tables)


def one_graph(path: Path) -> int:
    """The number of nodes of a dataset of one graph, from ``num-node-list.csv.gz``.

    Raises:
        UserError: the file lists a different number of graphs.
    """
    sizes = counts(path, minimum=1)
    if len(sizes) != 1:
        raise UserError(f"{path} lists {len(sizes)} graphs instead of 1")
    return int(sizes[0])


def splits_of(files: Mapping[str, Path], graphs: int) -> Arrays:
    """The graph indices of each split, checked to be disjoint.

    Raises:
        UserError: an index out of range or listed twice, or an empty training or validation split.
    """
    occurrences = np.zeros(graphs, dtype=np.int64)
    splits = {}
    for part in SPLITS:
        ids = numbers(files[part], 1, np.int64)
        if not len(ids) and part != "test":
            raise UserError(f"{files[part]} is empty: replace it by OGB's file")
        refuse(files[part], (ids < 0) | (ids >= graphs), ids, f"is out of range: there are only {graphs}")
        splits[part] = ids[:, 0]
        np.add.at(occurrences, splits[part], 1)
        refuse(files[part], occurrences[ids] > 1, ids, "is in the splits more than once")
    return splits

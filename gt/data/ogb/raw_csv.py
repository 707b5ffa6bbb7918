"""Tables of numbers in OGB's raw files: gzipped CSV without a header, checked, so that a fault is named by its row.

A table is read in blocks, each turned into the type that is asked for, so that one of billions of cells needs the
memory of its numbers and not that of its text. `Rows` hands out a table piece by piece, for files that do not fit.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.reading import opened
from gt.errors import UserError

Number = type[np.int64] | type[np.int32] | type[np.float64] | type[np.float32]
BLOCK = 2**24  # bytes of text that are parsed at once
Check = Callable[[np.ndarray, int], np.ndarray]  # a block and the number of its first row; gives the block to keep


def counts(path: Path, rows: int | None = None, least: int = 0) -> np.ndarray:
    """(G,) nodes or edges of each graph, ``least`` or more."""
    values = numbers(path, 1, np.int64, rows)
    if not len(values):
        raise UserError(f"{path} is empty: replace it by OGB's file")
    refuse(path, values < least, values, f"is less than {least}")
    return values[:, 0]


def categories(path: Path, vocab: Sequence[int], rows: int) -> np.ndarray:
    """(rows, len(vocab)) categories, column c below ``vocab[c]``, in a small integer type."""
    return numbers(path, len(vocab), np.int64, rows, within(path, vocab))


def within(path: Path, vocab: Sequence[int]) -> Check:
    """A check for `numbers` and `Rows`: categories, column c below ``vocab[c]``; they come in a small integer type."""
    kind = np.min_scalar_type(max(vocab, default=1) - 1)

    def check(values: np.ndarray, first: int) -> np.ndarray:
        wrong = (values < 0) | (values >= np.asarray(vocab))
        refuse(path, wrong, values, "is outside of the table of OGB's features", first)
        return values.astype(kind)

    return check


def refuse(path: Path, wrong: np.ndarray, values: np.ndarray, why: str, first: int = 0) -> None:
    """Name the first wrong one of the values (rows, columns), which begin with row ``first`` of the file."""
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(f"{path}, row {first + row + 1}: {values[row, column]} {why}; replace the file by OGB's")


def numbers(path: Path, columns: int, kind: Number, rows: int | None = None, check: Check | None = None) -> np.ndarray:
    """(rows, columns) numbers of a gzipped CSV file without a header; empty cells are NaN where reals are read.

    Args:
        path: the file.
        columns: how many each row has.
        kind: what the cells are, and the type that they come in.
        rows: how many there should be; None takes what there is.
        check: looks at each block and gives what is kept of it, such as the same numbers in a smaller type.

    Raises:
        UserError: a file that cannot be read, or a row that is not such numbers, or too many rows, or too few.
    """
    values = np.concatenate([_nothing(columns, kind, check), *blocks(path, columns, kind, check)])
    if rows is not None and len(values) != rows:
        raise UserError(_rows(path, len(values), rows))
    return values


def blocks(path: Path, columns: int, kind: Number, check: Check | None = None) -> Iterator[np.ndarray]:
    """The rows of a table in blocks of a few million cells: see `numbers`."""
    first, rest = 0, b""
    with opened(path) as stream:
        while text := stream.read(BLOCK):
            whole, newline, rest = (rest + text).rpartition(b"\n")
            if newline and whole.strip():
                values = _parsed(path, whole, columns, kind, first)
                yield values if check is None else check(values, first)
                first += len(values)
    if rest.strip():
        values = _parsed(path, rest, columns, kind, first)
        yield values if check is None else check(values, first)


class Rows:
    """A table that is read piece by piece, from its first row to its last; arguments as of `numbers`.

    Args:
        rows: how many rows the whole table should have.
    """

    def __init__(self, path: Path, columns: int, kind: Number, rows: int, check: Check | None = None) -> None:
        self.path, self.rows, self.done = path, rows, 0
        self._blocks = blocks(path, columns, kind, check)
        self._at_hand = _nothing(columns, kind, check)

    def take(self, rows: int) -> np.ndarray:
        """(rows, columns) the next rows; the last piece is held against the end of the file.

        Raises:
            UserError: the file has fewer rows than it should, or more, or a malformed one.
        """
        parts, have = [self._at_hand], len(self._at_hand)
        while have < rows:
            block = next(self._blocks, None)
            if block is None:
                raise UserError(_rows(self.path, self.done + have, self.rows))
            parts.append(block)
            have += len(block)
        values = np.concatenate(parts)
        self._at_hand = values[rows:]
        self.done += rows
        if self.done == self.rows:
            more = len(self._at_hand) + sum(map(len, self._blocks))
            if more:
                raise UserError(_rows(self.path, self.rows + more, self.rows))
        return values[:rows]


def _nothing(columns: int, kind: Number, check: Check | None) -> np.ndarray:
    """(0, columns) of the type that blocks come in."""
    empty = np.empty((0, columns), kind)
    return empty if check is None else check(empty, 0)


def _rows(path: Path, count: int, wanted: int) -> str:
    return f"{path} has {count} rows where num-*-list.csv.gz ask for {wanted}: replace all by OGB's"


def _parsed(path: Path, text: bytes, columns: int, kind: Number, first: int) -> np.ndarray:
    """(rows, columns) the numbers of whole lines, of which the first has number ``first``."""
    try:
        values = pd.read_csv(io.BytesIO(text), header=None, dtype=kind).to_numpy()
    except (ValueError, OverflowError):
        raise UserError(_fault(path, text, columns, kind, first)) from None
    # pandas fills a short row with NaN without a word
    if values.shape[1] != columns or text.count(b",") != len(values) * (columns - 1):
        raise UserError(_fault(path, text, columns, kind, first))
    return values


def _fault(path: Path, text: bytes, columns: int, kind: Number, first: int) -> str:
    """What is wrong with the first wrong row of some lines of a CSV file."""
    for row, line in enumerate(text.decode(errors="replace").splitlines(), first + 1):
        cells = line.split(",")
        if line and len(cells) != columns:
            return f"{path}, row {row}: {len(cells)} columns where there should be {columns}; replace the file by OGB's"
        for cell in cells if line else ():
            try:
                kind(cell if cell.count('"') % 2 else cell.strip('"') or "nan")
            except (ValueError, OverflowError):
                what = "whole number" if issubclass(kind, np.integer) else "number"
                return f"{path}, row {row}: {cell!r} is not a {what}; replace the file by OGB's"
    return f"{path} is not a table of numbers with {columns} columns: replace the file by OGB's"

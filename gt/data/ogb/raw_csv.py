"""Numeric tables in OGB's raw files: gzipped CSV without a header, validated, with errors that name the row.

A table is read in blocks that are parsed straight to the requested type, so that a table of billions of cells needs
the memory of its numbers rather than of its text. `Rows` hands out a table piece by piece, for files that do not fit.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.reading import open_bytes
from gt.errors import UserError

DType = type[np.int64] | type[np.int32] | type[np.float64] | type[np.float32]
BLOCK = 2**24  # bytes of text parsed at once
Check = Callable[[np.ndarray, int], np.ndarray]  # from a block and the number of its first row to the block to keep


def counts(path: Path, rows: int | None = None, minimum: int = 0) -> np.ndarray:
    """(G,) nodes or edges of each graph, at least ``minimum``."""
    values = numbers(path, 1, np.int64, rows)
    if not len(values):
        raise UserError(f"{path} is empty: replace it by OGB's file")
    refuse(path, values < minimum, values, f"is less than {minimum}")
    return values[:, 0]


def categories(path: Path, vocab: Sequence[int], rows: int) -> np.ndarray:
    """(rows, len(vocab)) categories, column c below ``vocab[c]``, in a small integer type."""
    return numbers(path, len(vocab), np.int64, rows, within(path, vocab))


def within(path: Path, vocab: Sequence[int]) -> Check:
    """A check for `numbers` and `Rows`: categories below ``vocab[c]`` in column c, cast to a small integer type."""
    dtype = np.min_scalar_type(max(vocab, default=1) - 1)

    def check(values: np.ndarray, first: int) -> np.ndarray:
        invalid = (values < 0) | (values >= np.asarray(vocab))
        refuse(path, invalid, values, "is outside the range of OGB's features", first)
        return values.astype(dtype)

    return check


def refuse(path: Path, invalid: np.ndarray, values: np.ndarray, fault: str, first: int = 0) -> None:
    """Raise for the first invalid one of the values (rows, columns), which start at row ``first`` of the file."""
    if invalid.any():
        row, column = np.argwhere(invalid)[0]
        raise UserError(f"{path}, row {first + row + 1}: {values[row, column]} {fault}; replace the file by OGB's")


def numbers(path: Path, columns: int, dtype: DType, rows: int | None = None, check: Check | None = None) -> np.ndarray:
    """Read a gzipped CSV file without a header, as (rows, columns); empty cells of floats are NaN.

    Args:
        path: the file.
        columns: number of columns.
        dtype: type of the cells and of the result.
        rows: expected number of rows; None accepts any.
        check: validates each block and returns what to keep of it, such as the same numbers in a smaller type.

    Raises:
        UserError: the file cannot be read, a row is malformed, or the number of rows is wrong.
    """
    values = np.concatenate([_empty(columns, dtype, check), *blocks(path, columns, dtype, check)])
    if rows is not None and len(values) != rows:
        raise UserError(_row_count_message(path, len(values), rows))
    return values


def blocks(path: Path, columns: int, dtype: DType, check: Check | None = None) -> Iterator[np.ndarray]:
    """The rows of a table in blocks of a few million cells, see `numbers`."""
    first, rest = 0, b""
    with open_bytes(path) as stream:
        while text := stream.read(BLOCK):
            complete, newline, rest = (rest + text).rpartition(b"\n")
            if newline and complete.strip():
                values = _parse(path, complete, columns, dtype, first)
                yield values if check is None else check(values, first)
                first += len(values)
    if rest.strip():
        values = _parse(path, rest, columns, dtype, first)
        yield values if check is None else check(values, first)


class Rows:
    """A table read piece by piece, from first row to last; arguments as for `numbers`.

    Args:
        rows: expected number of rows of the whole table.
    """

    def __init__(self, path: Path, columns: int, dtype: DType, rows: int, check: Check | None = None) -> None:
        self.path, self.rows, self.done = path, rows, 0
        self._blocks = blocks(path, columns, dtype, check)
        self._buffer = _empty(columns, dtype, check)

    def take(self, rows: int) -> np.ndarray:
        """The next (rows, columns); after the last piece, check that the file ends there.

        Raises:
            UserError: the number of rows is wrong, or a row is malformed.
        """
        parts, count = [self._buffer], len(self._buffer)
        while count < rows:
            block = next(self._blocks, None)
            if block is None:
                raise UserError(_row_count_message(self.path, self.done + count, self.rows))
            parts.append(block)
            count += len(block)
        values = np.concatenate(parts)
        self._buffer = values[rows:]
        self.done += rows
        if self.done == self.rows:
            surplus = len(self._buffer) + sum(map(len, self._blocks))
            if surplus:
                raise UserError(_row_count_message(self.path, self.rows + surplus, self.rows))
        return values[:rows]


def _empty(columns: int, dtype: DType, check: Check | None) -> np.ndarray:
    """(0, columns) of the dtype of the blocks."""
    empty = np.empty((0, columns), dtype)
    return empty if check is None else check(empty, 0)


def _row_count_message(path: Path, count: int, expected: int) -> str:
    return f"{path} has {count} rows, but num-*-list.csv.gz imply {expected}: replace all by OGB's"


def _parse(path: Path, text: bytes, columns: int, dtype: DType, first: int) -> np.ndarray:
    """Parse whole lines, the first of them row ``first`` of the file, as (rows, columns)."""
    try:
        values = pd.read_csv(io.BytesIO(text), header=None, dtype=dtype).to_numpy()
    except (ValueError, OverflowError):
        raise UserError(_fault(path, text, columns, dtype, first)) from None
    # pandas silently fills a short row with NaN
    if values.shape[1] != columns or text.count(b",") != len(values) * (columns - 1):
        raise UserError(_fault(path, text, columns, dtype, first))
    return values


def _fault(path: Path, text: bytes, columns: int, dtype: DType, first: int) -> str:
    """The error message for the first malformed row of some lines of a CSV file."""
    for row, line in enumerate(text.decode(errors="replace").splitlines(), first + 1):
        cells = line.split(",")
        if line and len(cells) != columns:
            return f"{path}, row {row}: {len(cells)} columns, expected {columns}; replace the file by OGB's"
        for cell in cells if line else ():
            try:
                dtype(cell if cell.count('"') % 2 else cell.strip('"') or "nan")
            except (ValueError, OverflowError):
                noun = "an integer" if issubclass(dtype, np.integer) else "a number"
                return f"{path}, row {row}: {cell!r} is not {noun}; replace the file by OGB's"
    return f"{path} is not a table of numbers with {columns} columns: replace the file by OGB's"

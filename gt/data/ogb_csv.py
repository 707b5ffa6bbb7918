"""Tables of numbers in OGB's raw files: gzipped CSV without a header, checked, so that a fault is named by its row."""

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.store import smallest
from gt.errors import UserError

Number = type[np.int64] | type[np.float64]


def counts(path: Path, rows: int | None = None) -> np.ndarray:
    """(G,) nodes or edges of each graph."""
    values = numbers(path, 1, np.int64, rows)
    if not len(values):
        raise UserError(f"{path} is empty: replace it by OGB's file")
    refuse(path, values < 0, values, "is less than 0")
    return values[:, 0]


def categories(path: Path, vocab: Sequence[int], rows: int) -> np.ndarray:
    """(rows, len(vocab)) categories, column c below ``vocab[c]``, in a small integer type."""
    values = numbers(path, len(vocab), np.int64, rows)
    refuse(path, (values < 0) | (values >= vocab), values, "is outside of the table of OGB's features")
    return smallest(values)


def refuse(path: Path, wrong: np.ndarray, values: np.ndarray, why: str) -> None:
    """Name the first wrong one of the values (rows, columns)."""
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(f"{path}, row {row + 1}: {values[row, column]} {why}; replace the file by OGB's")


def numbers(path: Path, columns: int, kind: Number, rows: int | None = None) -> np.ndarray:
    """(rows, columns) numbers of a gzipped CSV file without a header; empty cells are NaN where reals are read."""
    try:
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path} ({error}): replace the file by OGB's") from None
    try:
        values = np.empty((0, columns), kind)  # what no text is, such as the edges of molecules of one atom each
        if text.strip():
            values = pd.read_csv(io.BytesIO(text), header=None, dtype=kind).to_numpy()
    except (ValueError, OverflowError):
        raise UserError(_fault(path, text, columns, kind)) from None
    # pandas fills a short row with NaN without a word
    if values.shape[1] != columns or text.count(b",") != len(values) * (columns - 1):
        raise UserError(_fault(path, text, columns, kind))
    if rows is not None and len(values) != rows:
        raise UserError(f"{path} has {len(values)} rows where num-*-list.csv.gz ask for {rows}: replace all by OGB's")
    return values


def _fault(path: Path, text: bytes, columns: int, kind: Number) -> str:
    """What is wrong with the first wrong row of a CSV file."""
    for row, line in enumerate(text.decode(errors="replace").splitlines(), 1):
        cells = line.split(",")
        if line and len(cells) != columns:
            return f"{path}, row {row}: {len(cells)} columns where there should be {columns}; replace the file by OGB's"
        for cell in cells if line else ():
            try:
                kind(cell.strip('"') or "nan")
            except (ValueError, OverflowError):
                what = "whole number" if kind is np.int64 else "number"
                return f"{path}, row {row}: {cell!r} is not a {what}; replace the file by OGB's"
    return f"{path} is not a table of numbers with {columns} columns: replace the file by OGB's"

"""One CSV file as a table: what its columns hold, and every mistake with its line."""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from gt.data.own.columns import Where
from gt.data.own.node_tables import Table
from gt.data.reading import read_text
from gt.data.table import decimal_points, delimiter_of
from gt.errors import UserError, nearest


def read_table(
    path: Path,
    needed: Sequence[str] = (),
    aliases: Mapping[str, str] = MappingProxyType({}),
    text_columns: Collection[str] = (),
) -> Table:
    """A CSV file with a header, parted by commas, semicolons or tabs; columns of integers, of reals, or of text.

    Args:
        needed: columns that it must have; their names, and ``graph`` and ``split``, may be in letters of any case.
        aliases: other names of these, in small letters.
        text_columns: columns that are text, also where all of their cells are numbers.

    Raises:
        UserError: naming file and line, for bytes that are not UTF-8, a header with a name twice or none or that
            lacks one that is needed, rows that are longer or shorter than it, or a quote that is never closed.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    delimiter = delimiter_of(text.partition("\n")[0], tabs=".tsv" in path.suffixes)
    header = [name.strip() for name in next(csv.reader(io.StringIO(text), delimiter=delimiter))]
    if not header[0] and "index" not in header:
        header[0] = "index"  # as pandas writes it
    meant = {name.lower(): name for name in (*needed, "graph", "split") if name not in header}
    meant |= {alias: name for alias, name in aliases.items() if name in meant}
    lower = [name.lower() for name in header]
    names = [
        meant[name] if name in meant and lower.count(name) == 1 else own
        for own, name in zip(header, lower, strict=True)
    ]
    for name in names:
        if not name or names.count(name) > 1:
            raise UserError(f"{path}, line 1: {f'two columns {name!r}' if name else 'a column without a name'}")
        if "\n" in name:
            raise UserError(f"{path}, line 1: a column whose name has a line break, {name[:40]!r}: is a quote open?")
    for name in needed:
        if name not in names:
            raise UserError(f"{path}, line 1: no column '{name}': {nearest(name, names)}")
    if fault := _ragged(text, delimiter, len(names)):
        raise UserError(f"{path}, {fault}")
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=delimiter, dtype=str, na_filter=False, skip_blank_lines=False, header=0, names=names
        )
    except (pd.errors.ParserError, ValueError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    where = _places(path, text, delimiter)
    ids = {*needed, "graph", "split"}
    columns = {
        name: _text(frame[name])
        if name in text_columns
        else _column(name, frame[name], where, name in ids, delimiter != ",")
        for name in names
    }
    return Table(path.name, columns, where)


def _text(cells: "pd.Series[str]") -> np.ndarray:
    """Text as it stands, None for an empty cell."""
    values = cells.str.strip().to_numpy(dtype=object)
    values[values == ""] = None
    return values


def _ragged(text: str, delimiter: str, width: int) -> str | None:
    """What is wrong with the first row that has not as many cells as the header."""
    if '"' not in text:
        raw = np.frombuffer(text.encode(), dtype=np.uint8)
        before = np.searchsorted(np.flatnonzero(raw == ord(delimiter)), np.flatnonzero(raw == ord("\n")))
        cells = np.diff(before, prepend=0) + 1
        line = int(np.argmax(cells != width))
        return f"line {line + 1} has {cells[line]} cells where the header has {width}" if cells[line] != width else None
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if len(row) != width:
                return f"line {reader.line_num} has {max(1, len(row))} cells where the header has {width}"
    except csv.Error as error:
        return f"line {reader.line_num}: {error}"
    return None


def _places(path: Path, text: str, delimiter: str) -> Where:
    """Names the line of a row; a quoted cell may hold line breaks."""

    def where(row: int) -> str:
        if '"' not in text:
            return f"{path}, line {row + 2}"
        reader = csv.reader(io.StringIO(text), delimiter=delimiter)
        for _ in range(row + 1):
            next(reader)
        return f"{path}, line {reader.line_num + 1}"

    return where


def _column(name: str, cells: "pd.Series[str]", where: Where, ids: bool, commas: bool) -> np.ndarray:
    """Ids as they stand; else integers, reals (an empty cell is NaN), or text (an empty cell is None).

    Args:
        commas: numbers may have decimal commas.

    Raises:
        UserError: an id that is empty; 'nan' or 'inf' for a number; a whole number beyond 64 bits.
    """
    values = cells.str.strip().to_numpy(dtype=object)
    empty = values == ""
    if ids:
        if empty.any():
            raise UserError(f"{where(int(np.argmax(empty)))}: '{name}' is empty")
        return values
    if commas:
        values = np.array(decimal_points(values.tolist()), dtype=object)
    filled = values[~empty]
    numbers = pd.to_numeric(pd.Series(filled, dtype=object), errors="coerce").to_numpy()
    stray = np.isnan(numbers.astype(np.float64))
    if stray.all() or stray.mean() > 0.5:
        values[empty] = None
        return values
    if stray.any():
        row = int(np.flatnonzero(~empty)[np.argmax(stray)])
        raise UserError(f"{where(row)}: '{name}' is {values[row]!r}, no number as in other rows; empty says 'none'")
    column = np.full(len(values), np.nan)
    column[~empty] = numbers
    if np.isinf(column).any():
        row = int(np.argmax(np.isinf(column)))
        raise UserError(f"{where(row)}: '{name}' is {values[row]!r}, not a finite number")
    if (np.abs(column) >= 2**63).any() and all(re.fullmatch(r"[+-]?\d+", cell) for cell in filled):
        row = int(np.argmax(np.abs(column) >= 2**63))
        raise UserError(f"{where(row)}: '{name}' is {values[row]!r}, too large a whole number: make it text")
    return numbers.astype(np.int64) if numbers.dtype.kind == "i" and not empty.any() else column

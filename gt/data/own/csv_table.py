"""Reads tables of nodes, edges and graphs from CSV and TSV files, with columns of ids, integers, floats or text."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from gt.data import table as tables
from gt.data.table import Locator, Table, first_ambiguous, plain, with_commas
from gt.errors import UserError
from gt.schema import format_list


def read_table(
    path: Path,
    needed: Sequence[str] = (),
    aliases: Mapping[str, str] = MappingProxyType({}),
    text_columns: Collection[str] = (),
) -> Table:
    """Read a file with a header: integers as int64, floats as float64, text and ids as objects; empty is NaN or None.

    Id columns get their canonical names; ``header`` keeps those of the file.

    Args:
        needed: required id columns; their names, and ``graph`` and ``split``, may be in any case.
        aliases: other names of these, in lower case.
        text_columns: columns to read as text even if all of their cells are numbers.

    Raises:
        UserError: as `gt.data.table.read_table`; with file and line, for a duplicate, empty or missing column name, an
            empty id, or a cell that is not a number where most others are.
    """
    table = tables.read_table(path)
    header = list(table.header)
    if not header[0] and "index" not in header:
        header[0] = "index"  # pandas leaves its name empty
    canonical = {name.lower(): name for name in (*needed, "graph", "split") if name not in header}
    canonical |= {alias: name for alias, name in aliases.items() if name in canonical}
    lower = [name.lower() for name in header]
    names = [
        canonical[lowered] if lowered in canonical and lower.count(lowered) == 1 else name
        for name, lowered in zip(header, lower, strict=True)
    ]
    for name in names:
        if not name or names.count(name) > 1:
            raise UserError(f"{path}, line 1: {f'two columns {name!r}' if name else 'a column without a name'}")
        if "\n" in name:
            raise UserError(f"{path}, line 1: a column whose name has a line break, {name[:40]!r}: is a quote open?")
    if not {*needed} <= {*names}:
        required = f"column{'s' if len(needed) > 1 else ''} {' and '.join(needed)}"
        raise UserError(f"{path}, line 1: needs the {required} but has {format_list(names, 8)}: rename the right ones")
    columns: dict[str, np.ndarray] = {}
    for name, cells in zip(names, table.columns.values(), strict=True):
        ids = name in (*needed, "graph", "split")
        commas = table.commas and not ids and name not in text_columns
        if commas and with_commas(words := plain(cells)) and (row := first_ambiguous(words)) is not None:
            raise UserError(
                f"{table.location(row)}: '{name}' is {words[row]!r}, which may have a thousands separator or three "
                "decimals: write the numbers of this column with decimal points, or without thousands separators"
            )
        columns[name] = plain(cells, commas=commas)
        empty = pd.isna(columns[name])
        if ids and name != "split" and empty.any():
            raise UserError(f"{table.location(int(np.argmax(empty)))}: '{name}' is empty")
        if not ids and name not in text_columns:
            columns[name] = _typed(name, columns[name], table.location)
    return Table(path.name, columns, table.location, header)


def _typed(name: str, cells: np.ndarray, where: Locator) -> np.ndarray:
    """Convert a column of text to numbers if at least half of its cells are numbers; else leave it as it is.

    Raises:
        UserError: a word, 'nan' or 'inf' among numbers; an integer beyond 64 bits.
    """
    filled = pd.notna(cells)
    numbers = pd.to_numeric(pd.Series(cells[filled], dtype=object), errors="coerce").to_numpy()
    invalid = np.isnan(numbers.astype(np.float64))
    if invalid.all() or invalid.mean() > 0.5:
        return cells
    column = np.full(len(cells), np.nan)
    column[filled] = numbers
    too_large = np.abs(column) >= 2**63
    digits = too_large.any() and all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells[filled])
    for invalid_rows, reason in (
        (filled & np.isnan(column), "not a number as in other rows; leave the cell empty for 'none'"),
        (np.isinf(column), "not a finite number"),
        (too_large & digits, "a whole number beyond 64 bits: make it text"),
    ):
        if invalid_rows.any():
            row = int(np.argmax(invalid_rows))
            raise UserError(f"{where(row)}: '{name}' is {cells[row]!r}, {reason}")
    return numbers.astype(np.int64) if numbers.dtype.kind == "i" and filled.all() else column

"""Tables of nodes, edges and graphs from CSV and TSV files: their columns are ids, integers, reals, or text."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from gt.data import table as tables
from gt.data.table import Table, Where, plain, unsure, with_commas
from gt.errors import UserError
from gt.schema import several


def read_table(
    path: Path,
    needed: Sequence[str] = (),
    aliases: Mapping[str, str] = MappingProxyType({}),
    text_columns: Collection[str] = (),
) -> Table:
    """A file with a header; integers are int64, reals float64 (NaN where empty), text and ids objects (None likewise).

    Columns of ids have the names that these are known by, and ``header`` has those of the file.

    Args:
        needed: columns of ids that it must have; their names, and ``graph`` and ``split``, may be in letters of any
            case.
        aliases: other names of these, in small letters.
        text_columns: columns that are text, also where all of their cells are numbers.

    Raises:
        UserError: as `gt.data.table.read_table`; naming file and line, for a header with a name twice or none or that
            lacks one that is needed, an empty id, or a cell that is no number where most others are.
    """
    table = tables.read_table(path)
    header = list(table.header)
    if not header[0] and "index" not in header:
        header[0] = "index"  # as pandas writes it
    canonical = {name.lower(): name for name in (*needed, "graph", "split") if name not in header}
    canonical |= {alias: name for alias, name in aliases.items() if name in canonical}
    lower = [name.lower() for name in header]
    names = [
        canonical[small] if small in canonical and lower.count(small) == 1 else name
        for name, small in zip(header, lower, strict=True)
    ]
    for name in names:
        if not name or names.count(name) > 1:
            raise UserError(f"{path}, line 1: {f'two columns {name!r}' if name else 'a column without a name'}")
        if "\n" in name:
            raise UserError(f"{path}, line 1: a column whose name has a line break, {name[:40]!r}: is a quote open?")
    if not {*needed} <= {*names}:
        wanted = f"column{'s' if len(needed) > 1 else ''} {' and '.join(needed)}"
        raise UserError(f"{path}, line 1: needs the {wanted} and has {several(names, 8)}: rename what is meant")
    columns: dict[str, np.ndarray] = {}
    for name, cells in zip(names, table.columns.values(), strict=True):
        ids = name in (*needed, "graph", "split")
        commas = table.commas and not ids and name not in text_columns
        if commas and with_commas(words := plain(cells)) and (row := unsure(words)) is not None:
            raise UserError(
                f"{table.where(row)}: '{name}' is {words[row]!r}, which may be of thousands or have three decimals: "
                "write the numbers of this column with decimal points, or with commas and no thousands apart"
            )
        columns[name] = plain(cells, commas=commas)
        empty = pd.isna(columns[name])
        if ids and name != "split" and empty.any():
            raise UserError(f"{table.where(int(np.argmax(empty)))}: '{name}' is empty")
        if not ids and name not in text_columns:
            columns[name] = _typed(name, columns[name], table.where)
    return Table(path.name, columns, table.where, header)


def _typed(name: str, cells: np.ndarray, where: Where) -> np.ndarray:
    """A column of text as numbers, where at least half of its cells are such; else as it is.

    Raises:
        UserError: among numbers a word, 'nan' or 'inf'; a whole number beyond 64 bits.
    """
    filled = pd.notna(cells)
    numbers = pd.to_numeric(pd.Series(cells[filled], dtype=object), errors="coerce").to_numpy()
    stray = np.isnan(numbers.astype(np.float64))
    if stray.all() or stray.mean() > 0.5:
        return cells
    column = np.full(len(cells), np.nan)
    column[filled] = numbers
    too_large = np.abs(column) >= 2**63
    digits = too_large.any() and all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells[filled])
    for wrong, why in (
        (filled & np.isnan(column), "no number as in other rows; empty says 'none'"),
        (np.isinf(column), "not a finite number"),
        (too_large & digits, "too large a whole number: make it text"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(f"{where(row)}: '{name}' is {cells[row]!r}, {why}")
    return numbers.astype(np.int64) if numbers.dtype.kind == "i" and filled.all() else column

"""Rows of tables that are left out, and the file that lists them with reasons."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gt.data.files import write_bytes
from gt.data.table import Table


class SkippedRows:
    """The rows of a table that are left out, by index: the text, and the reason."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows = dict(table.faults)

    def add(self, row: int | np.integer, text: object, reason: str) -> None:
        """Leave out a row of the table; the first reason is kept."""
        self.rows.setdefault(int(row), ("" if text is None else str(text), reason))

    def add_spoiled(self, column: str, smiles: str) -> None:
        """Leave out the rows whose cell in a column has a byte that is not UTF-8."""
        for row, byte in self.table.spoiled.get(column, {}).items():
            self.add(row, self.table.columns[smiles][row], f"byte 0x{byte:02x} is not UTF-8 text, in '{column}'")

    def __len__(self) -> int:
        return len(self.rows)

    def others(self) -> np.ndarray:
        """The indices of the rows that are kept."""
        return np.setdiff1d(np.arange(len(self.table)), list(self.rows))

    def reasons(self) -> dict[int, str]:
        """A message with location and reason for each row left out, by its index."""
        return {
            row: f"{self.table.location(row)}: '{text[:80]}': {reason}"
            for row, (text, reason) in sorted(self.rows.items())
        }


def write_skipped(path: Path, tables: Iterable[SkippedRows]) -> None:
    """List the skipped rows of some files in a CSV file, atomically: row from 0, line from 1, text, reason, file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "line", "text", "reason", "file"])
    for skipped in tables:
        lines, name = skipped.table.lines, skipped.table.name
        writer.writerows(
            [row, "" if lines is None else lines[row], row_text, reason, name]
            for row, (row_text, reason) in sorted(skipped.rows.items())
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.getvalue().encode())

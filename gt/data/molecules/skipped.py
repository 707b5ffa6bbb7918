"""Rows of a table that are left out: why, and a file that lists them."""

import csv
import io
from pathlib import Path

import numpy as np

from gt.data import splits
from gt.data.files import whole
from gt.data.molecules.table import Table
from gt.data.molecules.table_targets import Targets


class SkippedRows:
    """By number of the row, counted from 0: the line of the file where it begins, its text, and why it is left out."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows = {row: (line, text, why) for row, line, text, why in table.skipped}

    def add(self, place: int, text: object, why: str) -> None:
        """Leave out the row at a place of the table's frame; the first reason counts."""
        line = self.table.lines[place] if self.table.lines else 0
        self.rows.setdefault(int(self.table.frame.index[place]), (line, "" if text is None else str(text), why))

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, row: int) -> bool:
        return row in self.rows

    def first(self) -> str:
        """The first of them, as words."""
        row, (line, text, why) = min(self.rows.items())
        return f"{f'line {line}' if line else f'row {row}'}: '{text[:80]}': {why}"

    def by_row(self, path: Path) -> dict[int, str]:
        """Why each of them is left out, in words, by its number."""
        return {
            row: f"{path}, {f'line {line}' if line else f'row {row}'}: '{text[:80]}': {why}"
            for row, (line, text, why) in sorted(self.rows.items())
        }

    def write(self, path: Path) -> None:
        """List them in a CSV file, whole or not at all: row from 0, line from 1, text, reason."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "line", "text", "reason"])
        writer.writerows([row, line or "", shown, why] for row, (line, shown, why) in sorted(self.rows.items()))
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            file.write(text.getvalue().encode())


def unusable_rows(table: Table, smiles: str, split: str | None, targets: Targets) -> SkippedRows:
    """The rows that can be told to be of no use before their molecules are read."""
    skipped = SkippedRows(table)
    texts = table.frame[smiles].tolist()
    for place in np.flatnonzero(table.frame[smiles].isna()).tolist():
        skipped.add(place, "", "no molecule")
    for name in (smiles, *targets.columns, *([split] if split else [])):
        for place, byte in table.spoiled.get(name, {}).items():
            skipped.add(place, texts[place], f"byte 0x{byte:02x} is not UTF-8 text, in '{name}'")
    for place, why in targets.wrong.items():
        skipped.add(place, texts[place], why)
    for place in np.flatnonzero(np.isnan(targets.y).all(axis=1)).tolist():
        skipped.add(place, texts[place], "no label")
    for place, word in enumerate(table.frame[split] if split else ()):
        if splits.split_of(word) is None:
            skipped.add(place, texts[place], f"'{word}' in '{split}' is neither train nor valid nor test")
    return skipped

"""Labelled texts from tables: which column is which, and every mistake with its file and row."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gt.data.reading import ending
from gt.data.table import Table, read_table
from gt.errors import UserError, nearest, shell_override

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
TEXTS = ("text", "sentence", "content", "review", "document", "body", "title", "question", "comment", "tweet")
LABELS = ("label", "labels", "target", "class", "category", "sentiment", "y", "topic", "score", "rating")
LOOKED_AT = 200  # rows that columns are told apart by


@dataclass(frozen=True)
class Columns:
    """Where the text and the label of a row stand.

    Attributes:
        text, label: names of columns, or numbers where a file has no header.
        header: whether the first row names the columns.
        others: the columns that are neither.
    """

    text: str
    label: str
    header: bool = True
    others: tuple[str, ...] = ()


def kind_of(path: Path) -> str:
    """The ending that says what a file holds, ``.gz`` left aside; nothing where it is none of `KINDS`."""
    return kind if (kind := ending(path)) in KINDS else ""


def text_table(path: Path, names: Iterable[str | None], most: int | None = None, lenient: bool = False) -> Table:
    """A table whose first row is its header where that holds a usual name, or one of ``names`` that is no number.

    Values in a CSV file may be quoted; a TSV file holds quotes as they are.

    Raises:
        UserError: as `gt.data.table.read_table`.
    """
    usual = {*TEXTS, *LABELS, *(name for name in names if name is not None and not name.isdigit())}
    return read_table(path, lambda cells: bool(usual & {*cells, *map(str.lower, cells)}), lenient, True, most)


def usual_column(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The first column with a usual name, in letters of any case."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), None)


def longest_column(table: Table) -> str:
    """The column with the longest texts."""
    return max(table.columns, key=lambda name: sum(len(cell) for cell in table.columns[name] if isinstance(cell, str)))


def find_columns(path: Path, text: str | None, label: str | None) -> Columns:
    """Which columns of a file hold the text and the label.

    A first row that holds a usual name, or one that is named here, is a header. Without one, columns are numbered from
    0; where no numbers are named, the text is the column with the longest values, and the label the one of the others
    with the fewest distinct ones (the last such).

    Raises:
        UserError: an empty file, an unknown column, or none that could be the text or the label.
    """
    if not kind_of(path):
        raise UserError(f"{path} is none of CSV, TSV, JSONL and Parquet: rename it so that its ending says which")
    table = text_table(path, (text, label), most=LOOKED_AT)
    names = list(table.columns)
    if len(names) < 2:
        raise UserError(f"{path}, line 1: one column, where a text and a label should stand; is it the right ending?")
    named = {"text": text, "label": label}
    for role, column in named.items():
        if column is not None and column not in names:
            numbered = f"its columns are numbered 0 to {len(names) - 1}"
            hint = nearest(column, names) if table.header else f"without a header, {numbered}"
            raise UserError(f"{path} has no column '{column}' (data.{role}): {hint}")
    if table.header:
        named = {"text": text or usual_column(TEXTS, names), "label": label or usual_column(LABELS, names)}
    else:
        named["text"] = text or longest_column(table)
        distinct = {name: len({*cells}) for name, cells in reversed(table.columns.items()) if name != named["text"]}
        named["label"] = label or min(distinct, key=lambda name: distinct[name])
    for role, column in named.items():
        if column is None:
            raise UserError(
                f"no column of {path} is called like a {role}: set data.{role} to one of {', '.join(names)}, such as "
                f"{shell_override(f'data.{role}', names[-1])}"
            )
    table.refuse_repeated([name for name in named.values() if name])
    if named["text"] == named["label"]:
        raise UserError(f"{path}: '{named['text']}' cannot be both text and label; set data.text and data.label")
    others = tuple(name for name in names if name not in named.values())
    return Columns(str(named["text"]), str(named["label"]), bool(table.header), others)


def read_rows(path: Path, columns: Columns) -> tuple[list[str], list[str]]:
    """The texts and the labels (as text) of a file.

    Raises:
        UserError: a row with more or fewer cells than the first, without a text or a label, or a file without rows.
    """
    table = read_table(path, header=lambda _: columns.header, raw_tabs=True)
    names = (columns.text, columns.label)
    for name in names:
        if name not in table.columns:
            raise UserError(f"{path} has no column '{name}': {nearest(name, table.columns)}")
    if not len(table):
        raise UserError(f"{path} holds no rows: it should hold a text and a label a row")
    texts, labels = (table.columns[name].tolist() for name in names)
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if type(text) is type(label) is str and text.strip() and label.strip():
            continue
        absent = columns.text if text is None else columns.label if label is None else None
        if absent:
            filled = [name for name, cells in table.columns.items() if cells[row] is not None]
            raise UserError(f"{table.where(row)}: there is no '{absent}'; {nearest(absent, filled)}")
        if why := _fault(text, label, columns):
            raise UserError(f"{table.where(row)}: {why}: correct the row, or leave it out")
    return texts, [as_text(label) for label in labels]


def _fault(text: Any, label: Any, columns: Columns) -> str | None:
    """What is wrong with a row, if anything."""
    if not isinstance(text, str):
        return f"'{columns.text}' should be text, not {json.dumps(text)[:40]}"
    if not text.strip():
        return "the text is empty"
    if isinstance(label, list | dict) or (isinstance(label, float) and not math.isfinite(label)):
        return f"'{columns.label}' should be one label, not {json.dumps(label)[:40]}"
    return None if as_text(label) else "the label is missing"


def as_text(value: Any) -> str:
    """A value of a table as text, of JSON as it stands there but for the quotes; nothing for a missing one."""
    if isinstance(value, str):
        return value.strip()
    return "" if value is None or value != value else json.dumps(value)

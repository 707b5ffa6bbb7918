"""Labelled texts from tables: detection of the columns, and errors that name the file and row."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gt.data.reading import ending
from gt.data.skipped import SkippedRows
from gt.data.table import Table, read_table
from gt.errors import UserError, nearest, shell_override
from gt.schema import format_list

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
TEXTS = ("text", "sentence", "content", "review", "document", "body", "title", "question", "comment", "tweet")
LABELS = ("label", "labels", "target", "class", "category", "sentiment", "y", "topic", "score", "rating")
SAMPLE_ROWS = 2000  # examined to identify columns
MIN_LABELS, UNIQUE_RATIO = 10, 100  # a column repeats if of 10 or more cells at most 1 in 100 is unique


@dataclass(frozen=True)
class Columns:
    """The columns of the text and the label.

    Attributes:
        text, label: names of columns, or numbers if the file has no header.
        header: whether the first row names the columns.
        others: the remaining columns.
        uncertain: whether ``header`` is only a guess.
    """

    text: str
    label: str
    header: bool = True
    others: tuple[str, ...] = ()
    uncertain: bool = False


def kind_of(path: Path) -> str:
    """The extension of a file without ``.gz``; empty if it is not one of `KINDS`."""
    return kind if (kind := ending(path)) in KINDS else ""


def has_header(path: Path, requested: Iterable[str | None], expected: Iterable[str] = ()) -> tuple[bool, bool]:
    """Whether the first line of a file names its columns, and whether that is certain.

    It does if it holds a requested or expected name, or a usual one that does not recur in its column; it does not if
    a column is requested by number. Otherwise the rows below decide: a cell that recurs in its column, or a number
    above numbers, is data; a word above numbers is a name. A word above labels that all repeat is likely a name.
    Without evidence, the line is read as data.

    Raises:
        UserError: as for `gt.data.table.read_table`.
    """
    if kind_of(path) not in (".csv", ".tsv"):
        return True, True
    table = read_table(path, lambda _: False, lenient=True, raw_tabs=True, most=SAMPLE_ROWS)
    rows = list(zip(*([(cell or "").strip() for cell in cells] for cells in table.columns.values()), strict=True))
    first, numbers = rows[0], [name for name in requested if name is not None and name.isdigit()]
    below = [list(filter(None, column)) for column in zip(*rows[1:], strict=True)] or [[] for _ in first]
    columns = list(zip(first, below, strict=True))
    names = {name for name in (*requested, *expected) if name is not None and not name.isdigit()}
    if names & {*first, *map(str.lower, first)}:
        return True, True
    if any(cell.lower() in (*TEXTS, *LABELS) and cell not in column for cell, column in columns):
        return True, True
    if numbers or len(rows) == 1:
        return False, bool(numbers)
    numeric = [cell for cell, column in columns if column and all(map(_is_number, column))]
    if any(cell and not _is_number(cell) for cell in numeric):
        return True, True
    if any(map(_is_number, numeric)) or any(cell in column for cell, column in columns):
        return False, True
    # if hardly any label is unique, the first row is unlikely to hold a unique one
    unique = [sum(count == 1 for count in Counter(column).values()) for column in below]
    repeats = (
        len(column) >= MIN_LABELS and UNIQUE_RATIO * singles <= len(column)
        for column, singles in zip(below, unique, strict=True)
    )
    return any(repeats), False


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def usual_column(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The first column with a usual name, ignoring case."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), None)


def longest_column(table: Table, names: Iterable[str]) -> str:
    """The column with the longest texts."""
    return max(names, key=lambda name: sum(len(cell) for cell in table.columns[name] if isinstance(cell, str)))


def find_columns(path: Path, text: str | None, label: str | None) -> Columns:
    """Find the columns of a file that hold the text and the label.

    A column that is not specified is the one with a usual name. If there are only two columns, or no header, so that
    columns are numbered from 0, the text is the column with the longest values, and the label the other column with the
    fewest distinct values (the last of several).

    Raises:
        UserError: an empty file, an unknown column, or no candidate for the text or the label.
    """
    if not kind_of(path):
        raise UserError(f"{path} is not CSV, TSV, JSONL or Parquet: rename it to have the matching extension")
    header, certain = has_header(path, (text, label))
    table = read_table(path, lambda _: header, raw_tabs=True, most=SAMPLE_ROWS)
    names = list(table.columns)
    if len(names) < 2:
        raise UserError(f"{path}, line 1: only one column, expected a text and a label; is the file extension right?")
    chosen = {"text": text, "label": label}
    for role, column in chosen.items():
        if column is not None and column not in names:
            numbering = f"its columns are numbered 0 to {len(names) - 1}"
            hint = nearest(column, names) if table.header else f"without a header, {numbering}"
            raise UserError(f"{path} has no column '{column}' (data.{role}): {hint}")
    if table.header:
        chosen = {"text": text or usual_column(TEXTS, names), "label": label or usual_column(LABELS, names)}
    missing = [role for role, column in chosen.items() if column is None]
    likely = chosen["text"] or longest_column(table, [name for name in names if name != chosen["label"]])
    distinct = {name: len({*map(str, table.columns[name])}) for name in reversed(names) if name != likely}
    found = {"text": likely, "label": chosen["label"] or min(distinct, key=lambda name: distinct[name])}
    if missing and table.header and len(names) > 2:
        example = " ".join(shell_override(f"data.{role}", found[role]) for role in missing)
        options = " and ".join(f"data.{role}" for role in missing)
        raise UserError(
            f"no column of {path} has a usual name for the {' or '.join(missing)}: set {options}, such as {example}; "
            f"columns found: {format_list(names, 12)}"
        )
    table.refuse_repeated(list(found.values()))
    if found["text"] == found["label"]:
        raise UserError(f"{path}: '{found['text']}' cannot be both text and label; set data.text and data.label")
    others = tuple(name for name in names if name not in found.values())
    return Columns(**found, header=bool(table.header), others=others, uncertain=not certain)


def read_rows(path: Path, columns: Columns) -> tuple[list[str], list[str], SkippedRows]:
    """Read the texts and the labels (as text) of a file, and the skipped rows, which lack one of them.

    Raises:
        UserError: a row with more or fewer cells than the first, or a file without usable rows.
    """
    table = read_table(path, header=lambda _: columns.header, raw_tabs=True)
    names = (columns.text, columns.label)
    for name in names:
        if name not in table.columns:
            raise UserError(f"{path} has no column '{name}': {nearest(name, table.columns)}")
    if not len(table):
        raise UserError(f"{path} has no rows: each row should hold a text and a label")
    texts, labels = (table.columns[name].tolist() for name in names)
    skipped = SkippedRows(table)
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if type(text) is type(label) is str and text.strip() and label.strip():
            continue
        missing = columns.text if text is None else columns.label if label is None else None
        if missing:
            filled = [name for name, cells in table.columns.items() if cells[row] is not None]
            skipped.add(row, as_text(text), f"there is no '{missing}'; {nearest(missing, filled)}")
        elif fault := _fault(text, label, columns):
            skipped.add(row, as_text(text), fault)
    if len(skipped) == len(table):
        raise UserError(f"{table.location(0)}: {skipped.rows[0][1]}; no other row can be used either")
    usable = skipped.others().tolist()
    return [texts[row] for row in usable], [as_text(labels[row]) for row in usable], skipped


def _fault(text: Any, label: Any, columns: Columns) -> str | None:
    """The fault of a row; None if it has none."""
    if not isinstance(text, str):
        return f"'{columns.text}' should be text, not {as_text(text)[:40]}"
    if not text.strip():
        return "the text is empty"
    if isinstance(label, list | dict) or (isinstance(label, float) and math.isinf(label)):
        return f"'{columns.label}' should be one label, not {as_text(label)[:40]}"
    return None if as_text(label) else "the label is missing"


def as_text(value: Any) -> str:
    """A table value as text, for JSON as written but without quotes; empty for a missing value."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:
        return ""
    # Parquet also has dates, decimals and bytes
    return json.dumps(value, default=str) if isinstance(value, int | float | list | dict) else str(value)

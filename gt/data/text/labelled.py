"""Labelled texts from tables: which column is which, and every mistake with its file and row."""

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
from gt.schema import several

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
TEXTS = ("text", "sentence", "content", "review", "document", "body", "title", "question", "comment", "tweet")
LABELS = ("label", "labels", "target", "class", "category", "sentiment", "y", "topic", "score", "rating")
LOOKED_AT = 2000  # rows that columns are told apart by
ENOUGH, ALONE = 10, 100  # labels that show that labels repeat; of so many at most one then stands in one row only


@dataclass(frozen=True)
class Columns:
    """Where the text and the label of a row stand.

    Attributes:
        text, label: names of columns, or numbers where a file has no header.
        header: whether the first row names the columns.
        others: the columns that are neither.
        doubtful: whether the first row names the columns may be otherwise.
    """

    text: str
    label: str
    header: bool = True
    others: tuple[str, ...] = ()
    doubtful: bool = False


def kind_of(path: Path) -> str:
    """The ending that says what a file holds, ``.gz`` left aside; nothing where it is none of `KINDS`."""
    return kind if (kind := ending(path)) in KINDS else ""


def has_header(path: Path, asked: Iterable[str | None], known: Iterable[str] = ()) -> tuple[bool, bool]:
    """Whether the first line of a file names its columns, and whether that is sure.

    It does where it holds a name that is asked for or known, or a usual one that does not stand below itself too; it
    does not where a column is asked for by its number. Else the rows below tell: no name stands above itself, nor a
    number above numbers, and words above numbers are names. Words above labels that all repeat are likely to be, and
    where nothing tells it is read as data.

    Raises:
        UserError: as `gt.data.table.read_table`.
    """
    if kind_of(path) not in (".csv", ".tsv"):
        return True, True
    table = read_table(path, lambda _: False, lenient=True, raw_tabs=True, most=LOOKED_AT)
    rows = list(zip(*([(cell or "").strip() for cell in cells] for cells in table.columns.values()), strict=True))
    first, numbered = rows[0], [name for name in asked if name is not None and name.isdigit()]
    below = [list(filter(None, column)) for column in zip(*rows[1:], strict=True)] or [[] for _ in first]
    columns = list(zip(first, below, strict=True))
    names = {name for name in (*asked, *known) if name is not None and not name.isdigit()}
    if names & {*first, *map(str.lower, first)}:
        return True, True
    if any(cell.lower() in (*TEXTS, *LABELS) and cell not in column for cell, column in columns):
        return True, True
    if numbered or len(rows) == 1:
        return False, bool(numbered)
    numeric = [cell for cell, column in columns if column and all(map(_is_number, column))]
    if any(cell and not _is_number(cell) for cell in numeric):
        return True, True
    if any(map(_is_number, numeric)) or any(cell in column for cell, column in columns):
        return False, True
    # where hardly a label is alone, that of a first row would hardly be
    alone = [sum(count == 1 for count in Counter(column).values()) for column in below]
    repeats = (len(column) >= ENOUGH and ALONE * few <= len(column) for column, few in zip(below, alone, strict=True))
    return any(repeats), False


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def usual_column(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The first column with a usual name, in letters of any case."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), None)


def longest_column(table: Table, names: Iterable[str]) -> str:
    """The one of some columns with the longest texts."""
    return max(names, key=lambda name: sum(len(cell) for cell in table.columns[name] if isinstance(cell, str)))


def find_columns(path: Path, text: str | None, label: str | None) -> Columns:
    """Which columns of a file hold the text and the label.

    What is not named is the column with a usual name. Of two columns, and without a header, where columns are numbered
    from 0, it is for the text the one with the longest values, and for the label the one of the others with the fewest
    distinct ones (the last such).

    Raises:
        UserError: an empty file, an unknown column, or none that could be the text or the label.
    """
    if not kind_of(path):
        raise UserError(f"{path} is none of CSV, TSV, JSONL and Parquet: rename it so that its ending says which")
    header, sure = has_header(path, (text, label))
    table = read_table(path, lambda _: header, raw_tabs=True, most=LOOKED_AT)
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
    missing = [role for role, column in named.items() if column is None]
    likely = named["text"] or longest_column(table, [name for name in names if name != named["label"]])
    distinct = {name: len({*map(str, table.columns[name])}) for name in reversed(names) if name != likely}
    found = {"text": likely, "label": named["label"] or min(distinct, key=lambda name: distinct[name])}
    if missing and table.header and len(names) > 2:
        example = " ".join(shell_override(f"data.{role}", found[role]) for role in missing)
        options = " and ".join(f"data.{role}" for role in missing)
        raise UserError(
            f"no column of {path} is called like a {' or a '.join(missing)}: set {options}, such as {example}; "
            f"there are {several(names, 12)}"
        )
    table.refuse_repeated(list(found.values()))
    if found["text"] == found["label"]:
        raise UserError(f"{path}: '{found['text']}' cannot be both text and label; set data.text and data.label")
    others = tuple(name for name in names if name not in found.values())
    return Columns(**found, header=bool(table.header), others=others, doubtful=not sure)


def read_rows(path: Path, columns: Columns) -> tuple[list[str], list[str], SkippedRows]:
    """The texts and the labels (as text) of a file, and the rows that lack one of them, which are left out.

    Raises:
        UserError: a row with more or fewer cells than the first, or a file without a row that can be used.
    """
    table = read_table(path, header=lambda _: columns.header, raw_tabs=True)
    names = (columns.text, columns.label)
    for name in names:
        if name not in table.columns:
            raise UserError(f"{path} has no column '{name}': {nearest(name, table.columns)}")
    if not len(table):
        raise UserError(f"{path} holds no rows: it should hold a text and a label a row")
    texts, labels = (table.columns[name].tolist() for name in names)
    skipped = SkippedRows(table)
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if type(text) is type(label) is str and text.strip() and label.strip():
            continue
        absent = columns.text if text is None else columns.label if label is None else None
        if absent:
            filled = [name for name, cells in table.columns.items() if cells[row] is not None]
            skipped.add(row, as_text(text), f"there is no '{absent}'; {nearest(absent, filled)}")
        elif why := _fault(text, label, columns):
            skipped.add(row, as_text(text), why)
    if len(skipped) == len(table):
        raise UserError(f"{table.where(0)}: {skipped.rows[0][1]}; no other row can be used either")
    kept = skipped.others().tolist()
    return [texts[row] for row in kept], [as_text(labels[row]) for row in kept], skipped


def _fault(text: Any, label: Any, columns: Columns) -> str | None:
    """What is wrong with a row, if anything."""
    if not isinstance(text, str):
        return f"'{columns.text}' should be text, not {as_text(text)[:40]}"
    if not text.strip():
        return "the text is empty"
    if isinstance(label, list | dict) or (isinstance(label, float) and math.isinf(label)):
        return f"'{columns.label}' should be one label, not {as_text(label)[:40]}"
    return None if as_text(label) else "the label is missing"


def as_text(value: Any) -> str:
    """A value of a table as text, of JSON as it stands there but for the quotes; nothing for a missing one."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:
        return ""
    # Parquet has dates, decimal numbers and bytes too
    return json.dumps(value, default=str) if isinstance(value, int | float | list | dict) else str(value)

"""Labelled texts from CSV, TSV and JSONL files: which column is which, and every mistake with its file and row."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from gt.data.reading import parse_json
from gt.data.table import delimiter_of
from gt.data.text.files import lines
from gt.errors import UserError, nearest, shell_override

KINDS = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": ""}  # what usually separates columns
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
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else ""


def table_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV or TSV file, each with the line that it ends on; blank lines are passed over.

    Columns of a CSV file are parted by what the first line has: commas, else semicolons or tabs; values may be quoted.
    A TSV file holds quotes as they are, and no line ends within a value.
    """
    tabs = KINDS[kind_of(path)] == "\t"
    if tabs:
        for number, line in enumerate(lines(path), 1):
            if line.strip():
                yield number, line.rstrip("\n").split("\t")
        return
    csv.field_size_limit(1 << 30)
    found = lines(path)
    first = next(found, "")
    reader = csv.reader(chain([first], found), delimiter=delimiter_of(first), strict=True)
    begin = 1
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
            begin = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise UserError(f"{path}, line {begin}: a quote that opens there is never closed") from None
        raise UserError(f"{path}, line {reader.line_num}: {error}; quote values that hold quotes") from None


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        found = parse_json(line, path, number)
        if not isinstance(found, dict):
            raise UserError(f"{path}, line {number}: a line should be an object such as {{'text': ..., 'label': ...}}")
        yield number, found


def _named(path: Path, what: str, asked: str | None, usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that is asked for, or one with a usual name."""
    if asked is not None:
        if asked not in names:
            raise UserError(f"{path} has no column '{asked}' (data.{what}): {nearest(asked, names)}")
        return asked
    return column_of(usual, names)


def column_of(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The first column with a usual name, in letters of any case."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), None)


def longest_column(rows: Sequence[Sequence[str]], width: int) -> int:
    """The column with the longest values."""
    return max(range(width), key=lambda place: sum(len(row[place]) for row in rows if len(row) == width))


def _by_content(rows: Sequence[Sequence[str]], width: int) -> tuple[int, int]:
    """The column with the longest values, and of the others the one with the fewest distinct ones (the last such)."""
    columns = [[row[place] for row in rows if len(row) == width] for place in range(width)]
    text = longest_column(rows, width)
    others = [place for place in range(width) if place != text]
    return text, min(others, key=lambda place: (len(set(columns[place])), -place))


def find_columns(path: Path, text: str | None, label: str | None) -> Columns:
    """Which columns of a file hold the text and the label.

    A first row that holds a usual name, or one that was asked for, is a header. Without one, columns are numbered
    from 0; where no numbers are asked for, the text is the column with the longest values, and the label the one of
    the others with the fewest distinct ones.

    Raises:
        UserError: an empty file, an unknown column, or none that could be the text or the label.
    """
    if not kind_of(path):
        raise UserError(f"{path} is none of CSV, TSV and JSONL: rename it so that its ending says which")
    if not KINDS[kind_of(path)]:
        first = next(objects(path), None)
        if first is None:
            raise UserError(f"{path} is empty: it should hold a text and a label a row")
        return _from_header(path, text, label, list(first[1]))
    rows = [row for _, row in islice(table_rows(path), LOOKED_AT)]
    if not rows:
        raise UserError(f"{path} is empty: it should hold a text and a label a row")
    names = [name.strip() for name in rows[0]]
    if len(names) < 2:
        raise UserError(f"{path}, line 1: one column, where a text and a label should stand; is it the right ending?")
    usual = {*TEXTS, *LABELS, *(asked for asked in (text, label) if asked is not None and not asked.isdigit())}
    if usual & {*names, *map(str.lower, names)}:
        return _from_header(path, text, label, names)
    numbers = [str(place) for place in range(len(names))]
    for what, asked in (("text", text), ("label", label)):
        if asked is not None and asked not in numbers:
            raise UserError(
                f"{path} has no header that names '{asked}' (data.{what}): its columns are numbered 0 to {numbers[-1]}"
            )
    by_content = [str(place) for place in _by_content(rows, len(names))]
    found = Columns(text or by_content[0], label or by_content[1], header=False)
    if found.text == found.label:
        raise UserError(f"{path}: column {found.text} cannot be both text and label; set data.text and data.label")
    return replace(found, others=tuple(name for name in numbers if name not in (found.text, found.label)))


def _from_header(path: Path, text: str | None, label: str | None, names: Sequence[str]) -> Columns:
    found = {
        "text": _named(path, "text", text, TEXTS, names),
        "label": _named(path, "label", label, LABELS, names),
    }
    for what, column in found.items():
        if column is None:
            raise UserError(
                f"no column of {path} is called like a {what}: set data.{what} to one of {', '.join(names)}, such as "
                f"{shell_override(f'data.{what}', names[-1])}"
            )
        if names.count(column) > 1:
            raise UserError(f"{path}, line 1: two columns are called '{column}'")
    if found["text"] == found["label"]:
        raise UserError(f"{path}: column '{found['text']}' cannot be both text and label")
    others = tuple(name for name in names if name not in found.values())
    return Columns(str(found["text"]), str(found["label"]), others=others)


def read_rows(path: Path, columns: Columns) -> tuple[list[str], list[str]]:
    """The texts and the labels (as text) of a file.

    Raises:
        UserError: a row with more or fewer columns than the first, without a text or a label, or a file without rows.
    """
    table = bool(KINDS[kind_of(path)])
    texts, labels = [], []
    for number, text, label in _from_table(path, columns) if table else _from_objects(path, columns):
        if not text.strip():
            raise UserError(f"{path}, line {number}: the text is empty; leave the row out")
        if not label:
            raise UserError(f"{path}, line {number}: the label is missing")
        texts.append(text)
        labels.append(label)
    if not texts:
        raise UserError(f"{path} holds no rows: it should hold a text and a label a row")
    return texts, labels


def _from_table(path: Path, columns: Columns) -> Iterator[tuple[int, str, str]]:
    rows = table_rows(path)
    width = None
    text, label = (None, None) if columns.header else (int(columns.text), int(columns.label))
    for number, row in rows:
        if width is None:
            width = len(row)
            if columns.header:
                names = [name.strip() for name in row]
                for column in (columns.text, columns.label):
                    if column not in names:
                        raise UserError(f"{path} has no column '{column}': {nearest(column, names)}")
                text, label = names.index(columns.text), names.index(columns.label)
                continue
        if len(row) != width or text is None or label is None or max(text, label) >= width:
            raise UserError(f"{path}, line {number}: {len(row)} columns, where line 1 has {width}")
        yield number, row[text], row[label].strip()


def _from_objects(path: Path, columns: Columns) -> Iterator[tuple[int, str, str]]:
    for number, row in objects(path):
        for column in (columns.text, columns.label):
            if column not in row:
                raise UserError(f"{path}, line {number}: there is no '{column}'; {nearest(column, row)}")
            if row[column] is None:
                raise UserError(f"{path}, line {number}: '{column}' is null; leave the row out")
        text, label = row[columns.text], row[columns.label]
        if not isinstance(text, str):
            raise UserError(f"{path}, line {number}: '{columns.text}' should be text, not {json.dumps(text)[:40]}")
        if isinstance(label, list | dict) or (isinstance(label, float) and not math.isfinite(label)):
            raise UserError(
                f"{path}, line {number}: '{columns.label}' should be one label, not {json.dumps(label)[:40]}"
            )
        yield number, text, said(label)


def said(value: Any) -> str:
    """A value of JSON as text, as it stands there but for the quotes; nothing for null."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value)

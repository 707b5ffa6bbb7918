"""Texts that are new to a trained model: every row of a file in its order, labelled or not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gt.data.text.files import lines
from gt.data.text.labelled import KINDS, LABELS, TEXTS, column_of, kind_of, longest_column, objects, said, table_rows
from gt.errors import UserError, nearest
from gt.schema import Schema

PLACE = "column "  # begins the name of a column without one, its number from 0 follows


@dataclass
class NewTexts:
    """R rows of a file.

    Attributes:
        table: (R rows) all columns.
        texts: (R,) empty where a row cannot be read.
        unreadable: by row, where it stands and why.
        label: the column that holds labels, where one does.
    """

    table: pd.DataFrame
    texts: list[str]
    unreadable: dict[int, str] = field(default_factory=dict)
    label: str | None = None


def new_texts(path: Path, text: str | None, known: Schema) -> NewTexts:
    """Read a CSV, TSV or JSONL file, or any other as a text a line.

    The text is in the column that is named, or in that which held it in training, or in one with a usual name, or in
    the only one. A file without a header has its columns numbered from 0.

    Args:
        text: the column that the user names.
        known: of the trained model.

    Raises:
        UserError: no such file, an empty one, no column to be told for that of the text.
    """
    kind = kind_of(path)
    if not kind:
        rows: Iterator[tuple[int, Any]] = ((n, [line.rstrip("\r\n")]) for n, line in enumerate(lines(path), 1))
        names: list[str] | None = ["text"]
    elif KINDS[kind]:
        rows = table_rows(path)
        first = next(rows, None)
        if first is None:
            raise UserError(f"{path} is empty: it should hold a text a row")
        names = [name.strip() for name in first[1]]
        usual = {*TEXTS, *LABELS, *(name for name in (text, *known.node_names, *known.target) if name)}
        if not usual & {*names, *map(str.lower, names)}:
            rows, names = _again(first, rows), [f"{PLACE}{place}" for place in range(len(names))]
    else:
        rows, names = objects(path), None
    return _read(path, list(rows), names, text, known)


def _again(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _read(
    path: Path, rows: list[tuple[int, Any]], names: list[str] | None, text: str | None, known: Schema
) -> NewTexts:
    unreadable: dict[int, str] = {}
    if names is None:
        names = list(dict.fromkeys(name for _, record in rows for name in record))
        cells = [[record.get(name) for name in names] for _, record in rows]
    else:
        cells = [row for _, row in rows]
        for place, (line, row) in enumerate(rows):
            if len(row) != len(names):
                unreadable[place] = f"{path}, line {line}: {len(row)} columns, where line 1 has {len(names)}"
                cells[place] = [None] * len(names)
    if not names:
        raise UserError(f"{path} is empty: it should hold a text a row")
    column = _text_column(path, names, cells, text, known)
    texts = [row[column] if isinstance(row[column], str) else "" for row in cells]
    for place, (line, _) in enumerate(rows):
        if not texts[place].strip():
            why = "the text is empty" if cells[place][column] in (None, "") or texts[place] else "this is no text"
            unreadable.setdefault(place, f"{path}, line {line}: {why}")
    table = pd.DataFrame(
        {name: [said(row[place]) for row in cells] for place, name in enumerate(names)}, columns=names, dtype=object
    )
    label = next((name for name in known.target if name in names and name != names[column]), None)
    return NewTexts(table, texts, unreadable, label)


def _text_column(
    path: Path, names: Sequence[str], cells: Sequence[Sequence[Any]], text: str | None, known: Schema
) -> int:
    asked = f"{PLACE}{text}" if text is not None and text.isdigit() and text not in names else text
    if asked is not None:
        if asked not in names:
            raise UserError(f"{path} has no column '{text}' (data.text): {nearest(str(text), names)}")
        return names.index(asked)
    for name in known.node_names:
        if name in names:
            return names.index(name)
    if (usual := column_of(TEXTS, names)) is not None:
        return names.index(usual)
    if len(names) == 1:
        return 0
    if names[0] == f"{PLACE}0":
        return longest_column([row for row in cells if None not in row], len(names))
    learned = f", nor like '{known.node_names[0]}' of the training" if known.node_names else ""
    raise UserError(f"no column of {path} is called like a text{learned}: set data.text to one of {', '.join(names)}")


def missing(table: pd.DataFrame, label: str) -> np.ndarray:
    """(R,) the labels as text, None where a cell is empty."""
    return np.array([None if cell in (None, "") else str(cell).strip() for cell in table[label]], dtype=object)

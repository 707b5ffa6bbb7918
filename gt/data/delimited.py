"""What tables in text files have in common: what parts their columns, and how numbers are written."""

import re
from collections.abc import Sequence

import numpy as np

ENTIRE = re.compile(r'"(?:[^"]|"")*"')  # a quoted cell
COMMA = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+)?,\d+(?:[eE][+-]?\d+)?")  # 3,918 or 1.234,5
WHOLE = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+)(?:[eE][+-]?\d+)?")  # 12 or 1.234 beside such
MOST = 0.9  # the share of a column's cells that are numbers where it is one of numbers


def delimiter_of(line: str, tabs: bool = False) -> str:
    """Comma, semicolon or tab: the first of these, or where ``tabs`` tab first, that a line has outside of quotes."""
    plain = ENTIRE.sub("", line)
    order = "\t,;" if tabs else ",;\t"
    return next((mark for mark in order if mark in plain), order[0])


def decimal_points(cells: Sequence[str | None]) -> Sequence[str | None]:
    """The cells of a column with points for decimal commas, where that makes numbers of nearly all; else the same.

    Beside a decimal comma, points part thousands. For columns that semicolons or tabs part: a comma is then free.
    """
    filled = [cell for cell in cells if cell]
    commas = sum(COMMA.fullmatch(cell) is not None for cell in filled)
    if not commas or commas + sum(WHOLE.fullmatch(cell) is not None for cell in filled) < MOST * len(filled):
        return cells
    return [
        cell.replace(".", "").replace(",", ".") if cell and (COMMA.fullmatch(cell) or WHOLE.fullmatch(cell)) else cell
        for cell in cells
    ]


def point_column(cells: np.ndarray) -> np.ndarray:
    """`decimal_points` of an array (rows,) of text."""
    return np.array(decimal_points(cells.tolist()), dtype=object)

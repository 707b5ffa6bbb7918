"""Targets of new data, read by a trained model's schema; values that the model does not know count as unlabelled."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from gt.data.files import print_line
from gt.schema import UNLABELLED, Schema

SMALL_VOCABULARY = 10  # up to this many distinct values may be classes or categories, however few rows each has


def tells_apart(distinct: int, count: int, chosen: bool = False) -> bool:
    """Whether ``distinct`` values in ``count`` rows are too many for classes or categories.

    That is, most values occur in one row only; or all of them do, if the user has set that they are classes.
    """
    return distinct > SMALL_VOCABULARY and (distinct == count if chosen else 2 * distinct > count)


def known_targets(
    columns: Sequence[np.ndarray] | None, rows: int, schema: Schema, where: Callable[[int], str]
) -> np.ndarray:
    """Encode targets for the model; prints how many rows have a value that it does not know.

    Args:
        columns: a column (rows,) for each target of the schema: text or numbers, missing if unlabelled; None if there
            are no such columns.
        where: returns the location of a row.

    Returns:
        (rows,) int64 classes, `UNLABELLED` if there is none, or (rows, outputs) float32, NaN if there is none.
    """
    if columns is None:
        width = 1 if schema.kind == "multiclass" else schema.outputs
        columns = [np.full(rows, None)] * width
    if schema.kind == "multiclass":
        readers = [_index_in(schema.names or tuple(map(str, range(schema.outputs))))]
    elif schema.answers:
        readers = [_index_in(words) for words in schema.answers]
    else:
        readers = [_yes_no if schema.kind == "binary" else _number] * len(columns)
    y = np.stack([_read(column, read) for column, read in zip(columns, readers, strict=True)], axis=1)
    unknown = np.flatnonzero((np.isnan(y) & ~np.stack([pd.isna(column) for column in columns], axis=1)).any(1))
    if len(unknown):
        rest = "" if len(unknown) == 1 else f"; {len(unknown) - 1:,} more like it"
        print_line(f"{where(int(unknown[0]))}: the model does not know this target, so it is not scored{rest}")
    if schema.kind == "multiclass":
        return np.where(np.isnan(y), UNLABELLED, y)[:, 0].astype(np.int64)
    return y.astype(np.float32)


def _read(column: np.ndarray, read: Callable[[str], float | None]) -> np.ndarray:
    """(rows,) float64; NaN where a cell is missing or cannot be read."""
    values = [
        None if missing else read(str(value).strip()) for value, missing in zip(column, pd.isna(column), strict=True)
    ]
    return np.array([np.nan if value is None else value for value in values])


def _index_in(words: Sequence[str]) -> Callable[[str], float | None]:
    """A function that maps a word to its index; 1.0 counts as 1, as integers with gaps are read as floats."""
    exact = {word: float(index) for index, word in enumerate(words)}
    normalised = {_without_decimals(word): index for word, index in exact.items()}
    return lambda word: exact[word] if word in exact else normalised.get(_without_decimals(word))


def _without_decimals(word: str) -> str:
    number = _number(word)
    return word if number is None or number != np.floor(number) else str(int(number))


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    with np.errstate(over="ignore"):
        return number if np.isfinite(np.float32(number)) else None


def _yes_no(word: str) -> float | None:
    return {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}.get(_without_decimals(word).lower())

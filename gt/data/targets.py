"""Targets of new data, read as a trained model's schema says; what is none to it counts as no label."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from gt.data.files import say
from gt.schema import UNLABELLED, Schema

FEW = 10  # values that may be classes or categories however few rows each has


def tells_apart(distinct: int, count: int, chosen: bool = False) -> bool:
    """Whether so many different values of so many rows tell the rows apart, and are neither classes nor categories.

    Most values stand in one row only then; all, where somebody says that they are classes.
    """
    return distinct > FEW and (distinct == count if chosen else 2 * distinct > count)


def known_targets(
    columns: Sequence[np.ndarray] | None, rows: int, schema: Schema, where: Callable[[int], str]
) -> np.ndarray:
    """Targets as the model takes them; a line says of how many rows it cannot take the value.

    Args:
        columns: one (rows,) for each that the schema names as target: text or numbers, missing where there is no label;
            None where there are no such columns.
        where: names the place of a row.

    Returns:
        (rows,) int64 classes, `UNLABELLED` where there is none, or (rows, outputs) float32 where NaN says so.
    """
    if columns is None:
        width = 1 if schema.kind == "multiclass" else schema.outputs
        columns = [np.full(rows, None)] * width
    if schema.kind == "multiclass":
        reads = [_among(schema.names or tuple(map(str, range(schema.outputs))))]
    elif schema.answers:
        reads = [_among(words) for words in schema.answers]
    else:
        reads = [_yes_no if schema.kind == "binary" else _number] * len(columns)
    y = np.stack([_read(column, read) for column, read in zip(columns, reads, strict=True)], axis=1)
    strange = np.flatnonzero((np.isnan(y) & ~np.stack([pd.isna(column) for column in columns], axis=1)).any(1))
    if len(strange):
        rest = "" if len(strange) == 1 else f", and {len(strange) - 1:,} more alike"
        say(f"{where(int(strange[0]))}: a target that the model does not know, which is not scored{rest}")
    if schema.kind == "multiclass":
        return np.where(np.isnan(y), UNLABELLED, y)[:, 0].astype(np.int64)
    return y.astype(np.float32)


def _read(column: np.ndarray, read: Callable[[str], float | None]) -> np.ndarray:
    """(rows,) float64, NaN where a cell is missing or says nothing."""
    values = [
        None if missing else read(str(value).strip()) for value, missing in zip(column, pd.isna(column), strict=True)
    ]
    return np.array([np.nan if value is None else value for value in values])


def _among(words: Sequence[str]) -> Callable[[str], float | None]:
    """What numbers a word by its place among some; 1.0 is 1, as columns with gaps are read as real numbers."""
    exact = {word: float(place) for place, word in enumerate(words)}
    whole = {_plain(word): place for word, place in exact.items()}
    return lambda word: exact[word] if word in exact else whole.get(_plain(word))


def _plain(word: str) -> str:
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
    return {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}.get(_plain(word).lower())

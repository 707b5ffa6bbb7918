"""Targets of new data, read as a trained model's schema says; what is none to it counts as no label."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from gt.data.files import say
from gt.schema import UNLABELLED, Schema


def known_targets(columns: Sequence[np.ndarray], schema: Schema) -> tuple[np.ndarray, list[int]]:
    """Targets as the model takes them, and the rows with a value that it cannot take.

    Args:
        columns: one (rows,) for each that the schema names as target: text or numbers, missing where there is no label.

    Returns:
        (rows,) int64 classes, `UNLABELLED` where there is none, or (rows, outputs) float32 where NaN says so.
    """
    if schema.kind == "multiclass":
        names = schema.names or tuple(map(str, range(schema.outputs)))
        y = _read(columns[0], _among(names))
        strange = np.isnan(y) & ~pd.isna(columns[0])
        return np.where(np.isnan(y), UNLABELLED, y).astype(np.int64), np.flatnonzero(strange).tolist()
    if schema.answers:
        reads = [_among(words) for words in schema.answers]
    else:
        reads = [_yes_no if schema.kind == "binary" else _number] * len(columns)
    y = np.stack([_read(column, read) for column, read in zip(columns, reads, strict=True)], axis=1)
    strange = np.isnan(y) & ~np.stack([pd.isna(column) for column in columns], axis=1)
    return y.astype(np.float32), np.flatnonzero(strange.any(1)).tolist()


def no_targets(rows: int, schema: Schema) -> np.ndarray:
    """The same where there are no such columns."""
    if schema.kind == "multiclass":
        return np.full(rows, UNLABELLED)
    return np.full((rows, schema.outputs), np.nan, np.float32)


def say_strange(rows: Sequence[int], where: Callable[[int], str]) -> None:
    """Say how many rows have a target that the model cannot take, if any."""
    if rows:
        rest = "" if len(rows) == 1 else f", and {len(rows) - 1:,} more alike"
        say(f"{where(rows[0])}: a target that the model does not know, which is not scored{rest}")


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

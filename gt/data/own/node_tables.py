"""Columns of tables of nodes, edges and graphs: typing the values of records, and encoding columns for a model."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gt.data.own.columns import as_number_hint, to_float32
from gt.data.table import Locator, Table
from gt.errors import UserError, nearest

MAX_CHANNELS = 1000  # of a one-hot text column beside columns of floats

Categories = Sequence[Sequence[Any]]  # the categories of each column, by code; none for a column of numbers


def learn_categories(table: Table, names: Sequence[str], numbers: Collection[str] = ()) -> tuple[tuple[Any, ...], ...]:
    """Learn the categories of the named columns of a table.

    Integers and text are categories, coded in ascending order of their values over all splits: nothing tells an age
    from a part-of-speech tag. If any column holds floats, integers are numbers too.

    Args:
        numbers: columns of integers to read as numbers.

    Raises:
        UserError: an empty cell, a number that is not finite, or text with more than `MAX_CHANNELS` values.
    """
    floats = any(table.columns[name].dtype.kind == "f" or name in numbers for name in names)
    categories: list[tuple[Any, ...]] = []
    for name in names:
        column = table.columns[name]
        if floats and column.dtype.kind != "O":
            categories.append(())
            continue
        values = pd.factorize(column, sort=True)[1].tolist()
        if floats and len(values) > MAX_CHANNELS:
            raise UserError(
                f"{table.name}: '{name}' is text with {len(values):,} values beside columns of real numbers: "
                "replace its values by numbers, or leave out the columns of real numbers"
            )
        categories.append(tuple(values))
    for reason in unreadable_rows(table, names, categories).values():
        hint = "fill it in, or exclude the column by listing the others in data.features=[NAME,...]"
        raise UserError(f"{reason}, but a feature needs a value: {hint}")
    return tuple(categories)


def widths(categories: Categories) -> tuple[tuple[int, ...], int]:
    """The vocabulary size of each column or, if any column holds numbers, the total number of channels (floats)."""
    sizes = tuple(max(1, len(values)) for values in categories)
    return (sizes, 0) if all(categories) else ((), sum(sizes))


def unreadable_rows(table: Table, names: Sequence[str], categories: Categories) -> dict[int, str]:
    """By row, its location and why a model cannot read it: an empty cell or a value that it has not learned."""
    reasons: dict[int, str] = {}
    for name, vocabulary in zip(names, categories, strict=True):
        values = table.columns.get(name, np.empty(0))
        empty = pd.isna(values)
        invalid = category_codes(values, vocabulary) < 0 if vocabulary else ~np.isfinite(_numbers(values))
        problem = "which the model has not learned" if vocabulary else "not a finite number"
        integers = bool(vocabulary) and not isinstance(vocabulary[0], str)
        for row in np.flatnonzero(invalid | empty).tolist():
            reason = "is empty" if empty[row] else f"is {str(values[row])[:40]!r}, {problem}"
            if integers and not empty[row] and not isinstance(values[row], str):
                hint = f"{as_number_hint(values[row])} in the training data and train again"
                reason += f": each whole number is its own category; if it measures something, {hint}"
            reasons.setdefault(row, f"{table.location(row)}: '{name}' {reason}")
    return reasons


def _numbers(values: np.ndarray) -> np.ndarray:
    """(rows,) float64; NaN where an object is not a number, or out of range."""
    if values.dtype.kind != "O":
        return values.astype(np.float64)
    in_range = [isinstance(value, int | float) and abs(value) <= sys.float_info.max for value in values]
    return np.array([float(value) if valid else np.nan for value, valid in zip(values, in_range, strict=True)])


def encode(table: Table, names: Sequence[str], categories: Categories) -> np.ndarray:
    """(rows, columns) category codes or, if any column holds numbers, (rows, channels) float32 with one-hot categories.

    All rows must be readable, see `unreadable_rows`.

    Raises:
        UserError: a number is too large for float32.
    """
    vocab, floats = widths(categories)
    if not len(table):
        return np.empty((0, floats), np.float32) if floats else np.empty((0, len(vocab)), np.int64)
    parts = []
    for name, vocabulary in zip(names, categories, strict=True):
        values = table.columns[name]
        if not vocabulary:
            parts.append(to_float32(values.astype(np.float64)[:, None], table.location, f"in {name!r}"))
        else:
            codes = category_codes(values, vocabulary)
            parts.append(np.eye(len(vocabulary), dtype=np.float32)[codes] if floats else codes[:, None])
    return np.concatenate(parts, axis=1)


def category_codes(values: np.ndarray, categories: Sequence[Any]) -> np.ndarray:
    """(rows,) the code of each value, -1 if it is not among the categories.

    The dtype of a column may differ from that in training: text whose values all happen to be numbers is read as
    numbers, integers with gaps as floats, and integers with a word among them as objects.
    """
    if isinstance(categories[0], str):
        words = np.array([_as_text(value) for value in values], dtype=object)
        return pd.Index(categories, dtype=object).get_indexer(pd.Index(words, dtype=object))
    return pd.Index(np.asarray(categories)).get_indexer(pd.Index(values))


def _as_text(value: Any) -> str | None:
    """A cell as text; None if it is missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(int(value) if isinstance(value, bool) else value)


def required_column(table: Table, name: str) -> np.ndarray:
    """A column that a table must have.

    Raises:
        UserError: the column is missing; suggests the most similar name.
    """
    if name not in table.columns:
        raise UserError(f"{table.name} has no column '{name}': {nearest(name, table.columns)}")
    return table.columns[name]


def typed_array(values: Sequence[Any], where: Locator, name: str) -> np.ndarray:
    """A typed array of values: integers or booleans, floats (None becomes NaN), or text (None stays None).

    Raises:
        UserError: text and numbers are mixed, or a value is neither.
    """
    kinds: dict[type, int] = {}
    for row, value in enumerate(values):
        kinds.setdefault(type(value), row)
    present = {kind: row for kind, row in kinds.items() if kind is not type(None)}
    for kind, row in present.items():
        if kind not in (int, float, bool, str):
            raise UserError(f"{where(row)}: '{name}' is {_abbreviated(values[row])}, but must be a number or text")
    if str in present and len(present) > 1:
        row = max(present.values())
        raise UserError(f"{where(row)}: '{name}' is {_abbreviated(values[row])}: text and numbers are mixed")
    if str in present or not present:
        return np.array(values, dtype=object)
    try:
        return np.array(values, dtype=np.int64 if float not in present and len(present) == len(kinds) else np.float64)
    except OverflowError:
        row = next(i for i, value in enumerate(values) if isinstance(value, int) and abs(value) >= 2**63)
        raise UserError(f"{where(row)}: '{name}' is a whole number beyond 64 bits: make it text") from None


def _abbreviated(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def record_table(
    records: Sequence[Mapping[str, Any]],
    where: Locator,
    name: str,
    ids: Sequence[str],
    learned: Collection[str] | None = None,
) -> Table:
    """A table from records; missing values are empty. A list of numbers becomes one column per element.

    Args:
        learned: the columns that a trained model reads. Then no value is refused: mixed types become columns of
            objects, and `unreadable_rows` reports what the model cannot read.

    Raises:
        UserError: without ``learned``, lists of different lengths or values of unsupported types.
    """
    columns: dict[str, np.ndarray] = {}
    first_rows: dict[str, int] = {}  # with the first row that has each
    for row, record in enumerate(records):
        if not record.keys() <= first_rows.keys():
            first_rows |= {key: row for key in record if key not in first_rows}
    for key, row in first_rows.items():
        if learned is None and ("\n" in key or not key):
            raise UserError(f"{where(row)}: invalid attribute name {_abbreviated(key)}: rename it")
    for key in first_rows or ids:
        values: list[Any] = [record.get(key) for record in records]
        first = next((row for row, value in enumerate(values) if value is not None), 0)
        if key in ids:
            columns[key] = np.array(list(map(str, values)), dtype=object)
        elif learned is not None:
            columns |= _model_columns(values, where, key, learned)
        elif values and isinstance(values[first], list):
            columns |= _list_columns(values, first, where, key)
        else:
            columns[key] = typed_array(values, where, key)
    return Table(name, columns, where)


def _model_columns(values: Sequence[Any], where: Locator, name: str, learned: Collection[str]) -> dict[str, np.ndarray]:
    """The column of a name, or one for each list element that a trained model reads."""
    suffixes = {column: column.removeprefix(f"{name}.") for column in learned if column.startswith(f"{name}.")}
    indices = {column: int(index) for column, index in suffixes.items() if index.isdecimal()}
    if not indices:
        return {name: _lenient(values, where, name)}
    return {
        column: _lenient([_element(value, index) for value in values], where, column)
        for column, index in indices.items()
    }


def _element(value: Any, index: int) -> Any:
    """The list element at an index; None if the list is shorter, or the value is not a list."""
    return value[index] if isinstance(value, list) and index < len(value) else None


def _lenient(values: Sequence[Any], where: Locator, name: str) -> np.ndarray:
    """An array of values, typed if possible, else of objects, with values of unsupported types as text."""
    try:
        return typed_array(values, where, name)
    except UserError:
        plain = (int, float, bool, str, type(None))
        return np.array([value if type(value) in plain else repr(value) for value in values], dtype=object)


def _list_columns(values: Sequence[Any], first: int, where: Locator, name: str) -> dict[str, np.ndarray]:
    """One column per list element, as many as the first list has; None becomes a row of empty cells."""
    length = len(values[first])
    for row, value in enumerate(values):
        if value is not None and (not isinstance(value, list) or len(value) != length):
            raise UserError(
                f"{where(row)}: '{name}' is {_abbreviated(value)}, not of the same length as at {where(first)}"
            )
    lists = [[None] * length if value is None else value for value in values]
    columns = {f"{name}.{index}": [cells[index] for cells in lists] for index in range(length)}
    return {column: typed_array(cells, where, column) for column, cells in columns.items()}

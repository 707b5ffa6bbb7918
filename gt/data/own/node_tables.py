"""Columns of tables of nodes, edges and graphs: typed values of records, and columns as a model takes them."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gt.data.own.columns import as_number, single
from gt.data.table import Table, Where
from gt.errors import UserError, nearest

WIDEST = 1000  # channels that text columns beside real numbers may take

Categories = Sequence[Sequence[Any]]  # for each column the values behind its numbers, none for one of real numbers


def learn_categories(table: Table, names: Sequence[str], numbers: Collection[str] = ()) -> tuple[tuple[Any, ...], ...]:
    """What the named columns of a table are to a model.

    Integers and text are categories, numbered in ascending order of the values found over all splits: nothing tells an
    age from the number of a part of speech. Where there is a column of real numbers, integers are numbers too.

    Args:
        numbers: columns of integers that are to be read as real numbers.

    Raises:
        UserError: an empty cell, a number that is not finite, text with more values than there may be channels.
    """
    real = any(table.columns[name].dtype.kind == "f" or name in numbers for name in names)
    categories: list[tuple[Any, ...]] = []
    for name in names:
        column = table.columns[name]
        if real and column.dtype.kind != "O":
            categories.append(())
            continue
        values = pd.factorize(column, sort=True)[1].tolist()
        if real and len(values) > WIDEST:
            raise UserError(
                f"{table.name}: '{name}' is text with {len(values):,} values beside columns of real numbers: "
                "number its values, or leave out the real numbers"
            )
        categories.append(tuple(values))
    for why in unreadable_rows(table, names, categories).values():
        hint = "fill it in, or leave it out by data.features=[NAME,...], those to be read"
        raise UserError(f"{why}, and a feature needs a value: {hint}")
    return tuple(categories)


def widths(categories: Categories) -> tuple[tuple[int, ...], int]:
    """The numbers of categories of each column (vocab) or, where any is of real numbers, of all channels (floats)."""
    sizes = tuple(max(1, len(values)) for values in categories)
    return (sizes, 0) if all(categories) else ((), sum(sizes))


def unreadable_rows(table: Table, names: Sequence[str], categories: Categories) -> dict[int, str]:
    """By row, where it stands and why a model cannot read it: an empty cell or a value that it has not learned."""
    reasons: dict[int, str] = {}
    for name, known in zip(names, categories, strict=True):
        values = table.columns.get(name, np.empty(0))
        empty = pd.isna(values)
        wrong = category_codes(values, known) < 0 if known else ~np.isfinite(_numbers(values))
        what = "which the model has not learned" if known else "no finite number"
        whole = bool(known) and not isinstance(known[0], str)
        for row in np.flatnonzero(wrong | empty).tolist():
            why = "is empty" if empty[row] else f"is {str(values[row])[:40]!r}, {what}"
            if whole and not empty[row] and not isinstance(values[row], str):
                hint = f"{as_number(values[row])} in the training data and train again"
                why += f": each whole number is its own category; if it measures something, {hint}"
            reasons.setdefault(row, f"{table.where(row)}: '{name}' {why}")
    return reasons


def _numbers(values: np.ndarray) -> np.ndarray:
    """(rows,) float64, NaN where a cell of objects is no number, or too large for one."""
    if values.dtype.kind != "O":
        return values.astype(np.float64)
    known = [isinstance(value, int | float) and abs(value) <= sys.float_info.max for value in values]
    return np.array([float(value) if good else np.nan for value, good in zip(values, known, strict=True)])


def encode(table: Table, names: Sequence[str], categories: Categories) -> np.ndarray:
    """(rows, columns) numbers of categories or, where any column is of real numbers, (rows, channels) float32.

    Each category then has a channel (1 or 0). All rows must be readable, see `unreadable_rows`.

    Raises:
        UserError: a number that is too large for float32.
    """
    vocab, floats = widths(categories)
    if not len(table):
        return np.empty((0, floats), np.float32) if floats else np.empty((0, len(vocab)), np.int64)
    parts = []
    for name, known in zip(names, categories, strict=True):
        values = table.columns[name]
        if not known:
            parts.append(single(values.astype(np.float64)[:, None], table.where, f"in {name!r}"))
        else:
            codes = category_codes(values, known)
            parts.append(np.eye(len(known), dtype=np.float32)[codes] if floats else codes[:, None])
    return np.concatenate(parts, axis=1)


def category_codes(values: np.ndarray, categories: Sequence[Any]) -> np.ndarray:
    """(rows,) the place of each value among categories, -1 where it is none of them.

    A column of text whose values in one file all happen to be numbers is read as numbers there, and whole numbers with
    a gap as real numbers; with a word among them they are a column of objects.
    """
    if isinstance(categories[0], str):
        words = np.array([_word(value) for value in values], dtype=object)
        return pd.Index(categories, dtype=object).get_indexer(pd.Index(words, dtype=object))
    return pd.Index(np.asarray(categories)).get_indexer(pd.Index(values))


def _word(value: Any) -> str | None:
    """A cell as text; None where it is missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(int(value) if isinstance(value, bool) else value)


def column(table: Table, name: str) -> np.ndarray:
    """A column that a table must have.

    Raises:
        UserError: it has none of that name; names the nearest.
    """
    if name not in table.columns:
        raise UserError(f"{table.name} has no column '{name}': {nearest(name, table.columns)}")
    return table.columns[name]


def typed(values: Sequence[Any], where: Where, name: str) -> np.ndarray:
    """A column of values that have a type: integers and booleans, numbers (None is NaN), or text (None is None).

    Raises:
        UserError: text among numbers, or what is neither.
    """
    kinds: dict[type, int] = {}
    for row, value in enumerate(values):
        kinds.setdefault(type(value), row)
    present = {kind: row for kind, row in kinds.items() if kind is not type(None)}
    for kind, row in present.items():
        if kind not in (int, float, bool, str):
            raise UserError(f"{where(row)}: '{name}' is {_shown(values[row])}, where a number or text is needed")
    if str in present and len(present) > 1:
        row = max(present.values())
        raise UserError(f"{where(row)}: '{name}' is {_shown(values[row])}: text and numbers are mixed")
    if str in present or not present:
        return np.array(values, dtype=object)
    try:
        return np.array(values, dtype=np.int64 if float not in present and len(present) == len(kinds) else np.float64)
    except OverflowError:
        row = next(i for i, value in enumerate(values) if isinstance(value, int) and abs(value) >= 2**63)
        raise UserError(f"{where(row)}: '{name}' is too large a whole number: make it text") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def rows(
    records: Sequence[Mapping[str, Any]],
    where: Where,
    name: str,
    ids: Sequence[str],
    learned: Collection[str] | None = None,
) -> Table:
    """A table from records; what one lacks is empty. A list of numbers becomes a column for each of its places.

    Args:
        learned: the columns that a trained model reads. No value is refused then: text among numbers and the like are
            in columns of objects, of which `unreadable_rows` says what the model makes nothing of.

    Raises:
        UserError: without ``learned``, lists of different lengths, or values that have no type.
    """
    columns: dict[str, np.ndarray] = {}
    names: dict[str, int] = {}  # and the first row that has it
    for row, record in enumerate(records):
        if not record.keys() <= names.keys():
            names |= {key: row for key in record if key not in names}
    for key, row in names.items():
        if learned is None and ("\n" in key or not key):
            raise UserError(f"{where(row)}: an attribute whose name is {_shown(key)}: rename it")
    for key in names or ids:
        values: list[Any] = [record.get(key) for record in records]
        first = next((row for row, value in enumerate(values) if value is not None), 0)
        if key in ids:
            columns[key] = np.array(list(map(str, values)), dtype=object)
        elif learned is not None:
            columns |= _columns_known(values, where, key, learned)
        elif values and isinstance(values[first], list):
            columns |= _of_lists(values, first, where, key)
        else:
            columns[key] = typed(values, where, key)
    return Table(name, columns, where)


def _columns_known(values: Sequence[Any], where: Where, name: str, learned: Collection[str]) -> dict[str, np.ndarray]:
    """The column of a name, or one for each place of lists that a trained model reads."""
    places = {column: column.removeprefix(f"{name}.") for column in learned if column.startswith(f"{name}.")}
    lists = {column: int(place) for column, place in places.items() if place.isdecimal()}
    if not lists:
        return {name: _any(values, where, name)}
    return {column: _any([_at(value, place) for value in values], where, column) for column, place in lists.items()}


def _at(value: Any, place: int) -> Any:
    """What a list has at a place; None where it is shorter, or no list."""
    return value[place] if isinstance(value, list) and place < len(value) else None


def _any(values: Sequence[Any], where: Where, name: str) -> np.ndarray:
    """A column of values, typed where they have a type, else of objects, in which lists and the like are text."""
    try:
        return typed(values, where, name)
    except UserError:
        plain = (int, float, bool, str, type(None))
        return np.array([value if type(value) in plain else repr(value) for value in values], dtype=object)


def _of_lists(values: Sequence[Any], first: int, where: Where, name: str) -> dict[str, np.ndarray]:
    """A column for each place of lists, the first of which says how many there are; None is empty in all of them."""
    length = len(values[first])
    for row, value in enumerate(values):
        if value is not None and (not isinstance(value, list) or len(value) != length):
            raise UserError(f"{where(row)}: '{name}' is {_shown(value)}, unlike that of {where(first)} in its length")
    lists = [[None] * length if value is None else value for value in values]
    columns = {f"{name}.{place}": [each[place] for each in lists] for place in range(length)}
    return {column: typed(cells, where, column) for column, cells in columns.items()}

"""Tables of nodes, edges and graphs, and their columns as a model takes them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from gt.data.own.columns import Features, Where, single
from gt.errors import UserError, nearest

WIDEST = 1000  # channels that text columns beside real numbers may take


@dataclass
class Table:
    """Columns of equal length: ids as text, the others int64, float64 (NaN where empty) or text.

    Attributes:
        name: what messages call the table, such as ``nodes.csv``.
        columns: values by name; ``graph``, ``node``, ``source``, ``target`` and ``split`` have a meaning of their own.
        where: names the place of a row.
    """

    name: str
    columns: dict[str, np.ndarray]
    where: Where

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def take(self, rows: np.ndarray) -> "Table":
        """The given rows, each still known by where it stands."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Table(self.name, columns, lambda row: self.where(int(rows[row])))

    def others(self, *taken: str) -> list[str]:
        return [name for name in self.columns if name not in taken]


@dataclass
class Packed:
    """Columns as a model takes them, and the values behind the numbers of each category."""

    features: Features
    names: list[str] = field(default_factory=list)
    values: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def categories(self) -> tuple[tuple[Any, ...], ...]:
        """Those values for each column, none for one of real numbers."""
        return tuple(tuple(self.values.get(name, ())) for name in self.names)


def pack(table: Table, names: Sequence[str], numbers: Collection[str] = ()) -> Packed:
    """The named columns of a table as features (rows, columns).

    Integers and text are categories, numbered in ascending order of the values found over all splits. Where there is a
    column of real numbers, integers are numbers too, and each value of a text column has a channel of its own (1 or 0).

    Args:
        numbers: columns of integers that are to be read as real numbers.

    Raises:
        UserError: an empty cell, a number that is not finite, text with more values than there may be channels.
    """
    if not names:
        return Packed(Features(np.empty((len(table), 0))))
    columns = {name: table.columns[name] for name in names}
    for name, column in columns.items():
        empty = pd.isna(column) if column.dtype.kind == "O" else ~np.isfinite(column)
        if empty.any():
            row = int(np.argmax(empty))
            said = "is empty" if pd.isna(column[row]) else f"is {column[row]}"
            hint = "fill it in, or leave it out by data.features=[NAME,...], those to be read"
            raise UserError(f"{table.where(row)}: '{name}' {said}, and a feature needs a value: {hint}")
    real = any(column.dtype.kind == "f" or name in numbers for name, column in columns.items())
    made: list[np.ndarray] = []
    values: dict[str, list[Any]] = {}
    for name, column in columns.items():
        if real and column.dtype.kind != "O":
            made.append(single(column[:, None], table.where, f"in {name!r}"))
            continue
        codes, found = pd.factorize(column, sort=True)
        values[name] = list(found) if column.dtype.kind == "O" else found.tolist()
        if real and len(found) > WIDEST:
            raise UserError(
                f"{table.name}: '{name}' is text with {len(found):,} values beside columns of real numbers: "
                f"number its values, or leave out the real numbers"
            )
        made.append(np.eye(len(found), dtype=np.float32)[codes] if real else codes[:, None])
    x = np.concatenate(made, axis=1)
    if real:
        return Packed(Features(x, floats=x.shape[1]), list(names), values)
    return Packed(Features(x, vocab=tuple(max(1, len(values[name])) for name in names)), list(names), values)


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


def rows(records: Sequence[Mapping[str, Any]], where: Where, name: str, ids: Sequence[str]) -> Table:
    """A table from records; what one lacks is empty. A list of numbers becomes a column for each of its places.

    Raises:
        UserError: lists of different lengths.
    """
    columns: dict[str, np.ndarray] = {}
    names: dict[str, int] = {}  # and the first row that has it
    for row, record in enumerate(records):
        if not record.keys() <= names.keys():
            names |= {key: row for key in record if key not in names}
    for key, row in names.items():
        if "\n" in key or not key:
            raise UserError(f"{where(row)}: an attribute whose name is {_shown(key)}: rename it")
    for key in names or ids:
        values: list[Any] = [record.get(key) for record in records]
        if key in ids:
            columns[key] = np.array(list(map(str, values)), dtype=object)
        elif values and isinstance(values[0], list):
            for row, value in enumerate(values):
                if not isinstance(value, list) or len(value) != len(values[0]):
                    raise UserError(
                        f"{where(row)}: '{key}' is {_shown(value)}, unlike that of {where(0)} in its length"
                    )
            for place in range(len(values[0])):
                columns[f"{key}.{place}"] = typed([value[place] for value in values], where, f"{key}.{place}")
        else:
            columns[key] = typed(values, where, key)
    return Table(name, columns, where)

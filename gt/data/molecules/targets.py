"""Reading of target columns: numbers, binary answers or classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from gt.data.molecules.columns import is_numeric, numbers
from gt.data.table import Table
from gt.data.targets import SMALL_VOCABULARY, tells_apart
from gt.errors import UserError
from gt.schema import Kind

NO_WORDS = {"no", "n", "false", "f", "negative", "neg", "inactive", "absent", "off", "-", "0"}


@dataclass
class Targets:
    """The targets of R rows.

    Attributes:
        y: (R, outputs) float64, NaN where there is no label; classes are numbered from 0.
        kind: as in `Schema`.
        columns: the source columns.
        classes: the class names in order, if text or integers stand for classes.
        faults: by row, why its target cannot be used.
        answers: for binary targets not written as 0 and 1, the words for no and yes in each column.
    """

    y: np.ndarray
    kind: Kind
    columns: list[str]
    classes: tuple[str, ...] = ()
    faults: dict[int, str] = field(default_factory=dict)
    answers: tuple[tuple[str, str], ...] = ()

    @property
    def outputs(self) -> int:
        return len(self.classes) if self.kind == "multiclass" else self.y.shape[1]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The targets of some rows in the form a model expects: (rows,) int64 classes, or (rows, outputs) float32."""
        y = self.y[rows]
        return y[:, 0].astype(np.int64) if self.kind == "multiclass" else y.astype(np.float32)

    def strata(self, rows: np.ndarray, name: str) -> np.ndarray:
        """(rows,) the strata of a stratified split: the class, or the decile of a regression target.

        Fewer than 100 rows have fewer quantiles.

        Raises:
            UserError: there are several targets.
        """
        if len(self.columns) > 1:
            raise UserError(f"{name}: data.split=stratified needs a single target, not {len(self.columns)}")
        y = self.y[rows, 0]
        if self.kind != "regression":
            return y
        return y.argsort(kind="stable").argsort() * min(10, len(y) // 10 or 1) // len(y)


def read_targets(table: Table, columns: Sequence[str], kind: Kind | None) -> Targets:
    """The values of the target columns and their kind, inferred if ``kind`` is None.

    All numbers 0 or 1 (or -1 and 1), or two words: binary. One column of few distinct integers or of several words:
    multiclass. Otherwise regression.

    Raises:
        UserError: the columns do not fit the kind, or all values are the same.
    """
    cells = {name: table.columns[name] for name in columns}
    filled = {name: ~pd.isna(column) for name, column in cells.items()}
    for name in columns:
        if not filled[name].any():
            raise UserError(f"{table.name}: '{name}' is empty: there is nothing to learn")
    text = [name for name in columns if not is_numeric(cells[name])]
    if text and len(text) < len(columns):
        raise UserError(f"{table.name}: '{text[0]}' holds text, other targets numbers; name targets of one kind")
    if text:
        return _text_targets(table, columns, kind)
    y = np.stack([numbers(cells[name]) for name in columns], axis=1)
    faults: dict[int, str] = {}
    with np.errstate(over="ignore"):
        invalid = np.isnan(y) & np.stack(list(filled.values()), axis=1) | np.isinf(y.astype(np.float32))
    for row, output in np.argwhere(invalid):
        fault = "not a number" if np.isnan(y[row, output]) else "too large"
        faults.setdefault(int(row), f"'{cells[columns[output]][row]!s}' in '{columns[output]}' is {fault}")
    y[list(faults)] = np.nan
    if faults and np.isnan(y).all():
        first = min(faults)
        raise UserError(f"{table.location(first)}: {faults[first]}, and no other row has a target either")
    kind = kind or _kind_of(y)
    distinct = np.unique(y[~np.isnan(y)])
    if kind == "binary" and not {*distinct} <= {0, 1} and len(distinct) > 2:
        row, output = np.argwhere(~np.isnan(y) & (y != distinct[0]) & (y != distinct[1]))[0]
        raise UserError(
            f"{table.location(row)}: {_class_name(y[row, output])} in '{columns[output]}' is a third value, "
            "data.kind=binary takes 0 and 1"
        )
    if kind == "multiclass":
        _refuse_multiple(table, columns)
    if len(columns) == 1 and len(distinct) < 2:
        raise _constant_error(table, columns[0])
    if kind == "multiclass":
        classes = _classes(table, columns[0], list(map(_class_name, distinct)))
        y = np.where(np.isnan(y), np.nan, np.searchsorted(distinct, y))
        return Targets(y, kind, list(columns), classes, faults)
    answers: tuple[tuple[str, str], ...] = ()
    if kind == "binary" and not {*distinct} <= {0, 1}:
        y = np.where(np.isnan(y), np.nan, y == distinct[-1])
        answers = ((_class_name(distinct[0]), _class_name(distinct[-1])),) * len(columns)
    return Targets(y, kind, list(columns), faults=faults, answers=answers)


def _class_name(value: float) -> str:
    """The name of a numeric class: an integer with all its digits, since codes may differ only in the last."""
    return f"{value:.0f}" if value.is_integer() else f"{value:g}"


def _kind_of(y: np.ndarray) -> Kind:
    distinct = np.unique(y[~np.isnan(y)])
    if {*distinct} <= {0, 1} or {*distinct} == {-1, 1}:
        return "binary"
    whole = bool((distinct == np.round(distinct)).all())
    if (
        y.shape[1] == 1
        and whole
        and len(distinct) <= SMALL_VOCABULARY
        and len(distinct) * SMALL_VOCABULARY <= (~np.isnan(y)).sum()
    ):
        return "multiclass"
    return "regression"


def _text_targets(table: Table, columns: Sequence[str], kind: Kind | None) -> Targets:
    """Read text targets; of two words, the negative or else the alphabetically first one is 0."""
    cells = [pd.Series(table.columns[name], dtype=object).map(str, na_action="ignore") for name in columns]
    first, name = cells[0], columns[0]
    row = int(np.argmax(first.notna() & np.isnan(numbers(table.columns[name]))))
    fault = f"{table.location(row)}: '{first[row]}' in '{name}' is not a number"
    if kind == "regression":
        raise UserError(f"{fault}, as data.kind=regression requires")
    distinct, count = first.nunique(), int(first.count())
    if tells_apart(distinct, count, kind is not None):
        hint = "choose another target, or correct the numbers"
        raise UserError(f"{fault}, and {distinct} different values in {count} rows are too many for classes: {hint}")
    words = [sorted({*column.dropna()}, key=lambda word: (word.lower() not in NO_WORDS, word)) for column in cells]
    binary = kind != "multiclass" and all(len(pair) == 2 for pair in words)
    if not binary:
        _refuse_multiple(table, columns)
        if kind == "binary":
            raise UserError(f"{table.name}: '{name}' holds {len(words[0])} different words, data.kind=binary takes two")
        if len(words[0]) < 2:
            raise _constant_error(table, name)
        words = [sorted(words[0])]
    encoded = [
        column.map({word: n for n, word in enumerate(group)}) for column, group in zip(cells, words, strict=True)
    ]
    y = np.stack([column.to_numpy(np.float64) for column in encoded], axis=1)
    if not binary:
        return Targets(y, "multiclass", list(columns), _classes(table, name, words[0]))
    classes = tuple(words[0]) if len(columns) == 1 else ()
    return Targets(y, "binary", list(columns), classes, answers=tuple((no, yes) for no, yes in words))


def _constant_error(table: Table, column: str) -> UserError:
    return UserError(f"{table.name}: '{column}' holds only one value: there is nothing to learn")


def _refuse_multiple(table: Table, columns: Sequence[str]) -> None:
    if len(columns) > 1:
        names = ", ".join(columns)
        raise UserError(f"{table.name}: only one multiclass target is supported, not {names}")


def _classes(table: Table, column: str, names: Sequence[str], limit: int = 1000) -> tuple[str, ...]:
    if len(names) > limit:
        raise UserError(f"{table.name}: '{column}' holds {len(names)} different values, too many to be classes")
    return tuple(names)

"""The targets that columns of a table hold: numbers, yes and no, or classes, and what a model learns of them first."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gt.data.molecules.table import Table
from gt.data.molecules.table_columns import is_numeric, numbers
from gt.errors import UserError
from gt.schema import Kind, Schema

NO_WORDS = {"no", "n", "false", "f", "negative", "neg", "inactive", "absent", "off", "-", "0"}
FEW = 10  # classes that whole numbers may stand for, each found as often on average


@dataclass
class Targets:
    """What is to be predicted for R rows.

    Attributes:
        y: (R, outputs) float64, NaN where there is no label; classes are numbered from 0.
        kind: as in `Schema`.
        columns: the columns they are from.
        classes: of text or whole numbers that stand for classes, the names of these by number.
        wrong: by place of a row, why its target cannot be used.
        answers: of yes and no in other words than 1 and 0, what stands for no and for yes in each column.
    """

    y: np.ndarray
    kind: Kind
    columns: list[str]
    classes: tuple[str, ...] = ()
    wrong: dict[int, str] = field(default_factory=dict)
    answers: tuple[tuple[str, str], ...] = ()

    @property
    def outputs(self) -> int:
        return len(self.classes) if self.kind == "multiclass" else self.y.shape[1]

    def of(self, places: np.ndarray) -> np.ndarray:
        """The targets of some rows as a model takes them: (rows,) int64 classes, or (rows, outputs) float32."""
        y = self.y[places]
        return y[:, 0].astype(np.int64) if self.kind == "multiclass" else y.astype(np.float32)

    def strata(self, places: np.ndarray, path: Path) -> np.ndarray:
        """(rows,) what a stratified split keeps in equal shares: the class, or the tenth of the range of numbers.

        Raises:
            UserError: there are several targets.
        """
        if len(self.columns) > 1:
            raise UserError(f"{path}: data.split=stratified goes by one target, there are {len(self.columns)}")
        y = self.y[places, 0]
        if self.kind != "regression":
            return y
        return y.argsort(kind="stable").argsort() * min(10, len(y) // 10 or 1) // len(y)


def read_targets(table: Table, columns: Sequence[str], kind: Kind | None, path: Path) -> Targets:
    """The values of the target columns and their kind, found where it is None.

    All numbers 0 or 1 (or -1 and 1), or two words: binary. One column of few whole numbers or of several words:
    multiclass. Else regression.

    Raises:
        UserError: the columns are not of the kind, or there is nothing to tell apart.
    """
    frame = table.frame[list(columns)]
    for name in columns:
        if not frame[name].notna().any():
            raise UserError(f"{path}: '{name}' is empty, which leaves nothing to learn")
    numeric = [is_numeric(frame[name]) for name in columns]
    if any(numeric) and not all(numeric):
        text = columns[numeric.index(False)]
        raise UserError(f"{path}: '{text}' holds text and other targets numbers; name targets of one kind")
    if not all(numeric):
        return _text_targets(table, columns, kind, path)
    y = np.stack([numbers(frame[name]) for name in columns], axis=1)
    wrong: dict[int, str] = {}
    with np.errstate(over="ignore"):
        bad = np.isnan(y) & frame.notna().to_numpy() | np.isinf(y.astype(np.float32))
    for place, output in np.argwhere(bad):
        why = "no number" if np.isnan(y[place, output]) else "too large"
        wrong.setdefault(int(place), f"'{frame.iloc[place, output]!s}' in '{columns[output]}' is {why}")
    y[list(wrong)] = np.nan
    if wrong and np.isnan(y).all():
        first = min(wrong)
        raise UserError(f"{path}, {where(table, first)}: {wrong[first]}, and no other row has a target either")
    found = kind or _kind_of(y)
    if found == "regression":
        _refuse_constant(y, columns, path)
        return Targets(y, "regression", list(columns), wrong=wrong)
    distinct = np.unique(y[~np.isnan(y)])
    if found == "binary":
        if not set(distinct) <= {0, 1} and len(distinct) > 2:
            place, output = np.argwhere(~np.isnan(y) & (y != distinct[0]) & (y != distinct[1]))[0]
            raise UserError(
                f"{path}, {where(table, place)}: {y[place, output]:g} in '{columns[output]}' is a third value, "
                "data.kind=binary takes 0 and 1"
            )
        _refuse_constant(y, columns, path)
        answers: tuple[tuple[str, str], ...] = ()
        if not set(distinct) <= {0, 1}:
            y = np.where(np.isnan(y), np.nan, y == distinct[-1])
            answers = ((f"{distinct[0]:g}", f"{distinct[-1]:g}"),) * len(columns)
        return Targets(y, "binary", list(columns), wrong=wrong, answers=answers)
    _only_one(columns, path)
    _refuse_constant(y, columns, path)
    names = tuple(f"{value:g}" for value in distinct)
    y = np.where(np.isnan(y), np.nan, np.searchsorted(distinct, y))
    return Targets(y, "multiclass", list(columns), _few_enough(names, columns[0], path), wrong)


def where(table: Table, place: int) -> str:
    """The line of a row, or its number in a file without lines."""
    return f"line {table.lines[place]}" if table.lines else f"row {table.frame.index[place]}"


def _kind_of(y: np.ndarray) -> Kind:
    distinct = np.unique(y[~np.isnan(y)])
    if set(distinct) <= {0, 1} or set(distinct) == {-1, 1}:
        return "binary"
    whole = bool((distinct == np.round(distinct)).all())
    if y.shape[1] == 1 and whole and len(distinct) <= FEW and len(distinct) * FEW <= (~np.isnan(y)).sum():
        return "multiclass"
    return "regression"


def _text_targets(table: Table, columns: Sequence[str], kind: Kind | None, path: Path) -> Targets:
    """Targets that are words; of two words the one that says no, or the first in the alphabet, is 0."""
    frame = table.frame[list(columns)]
    only = frame[columns[0]]
    place = int(np.argmax(only.notna() & np.isnan(numbers(only))))
    said = f"{path}, {where(table, place)}: '{only.iloc[place]}' in '{columns[0]}' is no number"
    if kind == "regression":
        raise UserError(f"{said}, which data.kind=regression needs")
    distinct, count = only.nunique(), only.count()
    if distinct > FEW and (distinct == count or (kind is None and 2 * distinct > count)):
        hint = "choose another target, or correct the numbers"
        raise UserError(f"{said}, and {distinct} different values in {count} rows are no classes: {hint}")
    filled = [frame[name].dropna().astype(str) for name in columns]
    words = [sorted(set(column), key=lambda word: (word.lower() not in NO_WORDS, word)) for column in filled]
    binary = all(len(found) == 2 for found in words)
    if not binary or kind == "multiclass":
        _only_one(columns, path)
        if kind == "binary":
            raise UserError(f"{path}: '{columns[0]}' holds {len(words[0])} different words, data.kind=binary takes two")
        if len(words[0]) < 2:
            raise UserError(f"{path}: '{columns[0]}' holds one value only: there is nothing to learn")
        words = [sorted(words[0])]
    y = np.full(frame.shape, np.nan)
    for output, (name, found) in enumerate(zip(columns, words, strict=True)):
        y[:, output] = frame[name].map({word: number for number, word in enumerate(found)}).to_numpy(np.float64)
    if binary and kind != "multiclass":
        classes = tuple(words[0]) if len(columns) == 1 else ()
        return Targets(y, "binary", list(columns), classes, answers=tuple((no, yes) for no, yes in words))
    return Targets(y, "multiclass", list(columns), _few_enough(tuple(words[0]), columns[0], path))


def _refuse_constant(y: np.ndarray, columns: Sequence[str], path: Path) -> None:
    if len(columns) == 1 and len(np.unique(y[~np.isnan(y)])) < 2:
        raise UserError(f"{path}: '{columns[0]}' holds one value only: there is nothing to learn")


def _only_one(columns: Sequence[str], path: Path) -> None:
    if len(columns) > 1:
        raise UserError(f"{path}: of targets with several classes only one can be learned, not {', '.join(columns)}")


def _few_enough(names: tuple[str, ...], column: str, path: Path, most: int = 1000) -> tuple[str, ...]:
    if len(names) > most:
        raise UserError(f"{path}: '{column}' holds {len(names)} different values, too many to be classes")
    return names


def balanced(schema: Schema, y: np.ndarray) -> tuple[float, ...]:
    """What makes classes count alike: for each class, or for a yes of each task, 1 where one has no examples."""
    if schema.kind == "multiclass":
        counts = np.bincount(y, minlength=schema.outputs)
        return tuple(np.where(counts, len(y) / (schema.outputs * counts.clip(min=1)), 1).tolist())
    yes, no = (y == 1).sum(axis=0), (y == 0).sum(axis=0)
    return tuple(np.where((yes > 0) & (no > 0), no / yes.clip(min=1), 1.0).tolist())

"""Which columns of a table hold the molecules and the targets, found where nobody names them, and what kind those are.

A column that is only likely to be a target is never taken: where the rules below do not say which, the user must.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from gt.config import nearest
from gt.data.smiles import parses
from gt.data.splits import split_of
from gt.data.tables import Table
from gt.errors import UserError
from gt.schema import Kind

SMILES_NAMES = ("smiles", "canonicalsmiles", "isomericsmiles", "mol", "molecule", "structure", "compound")
TARGET_NAMES = re.compile(r"(target|label|class|task|property|y|value|outcome)s?\d*")
MEASURED = {"measured", "exp", "expt", "experimental", "observed", "active"}
PREDICTED = {"predicted", "prediction", "pred", "calc", "calculated", "estimated"}
ID_NAMES = {"num", "no", "nr", "number", "row", "rank", "id", "index", "idx", "cid", "cas"}
ID_ENDS = {"id", "ids", "index", "idx", "cid"}
SPLIT_NAMES = {"split", "set", "subset", "partition", "fold", "group"}
NO_WORDS = {"no", "n", "false", "f", "negative", "neg", "inactive", "absent", "off", "-", "0"}
MOST = 0.9  # the share of a column's cells that must be numbers for it to be one of numbers
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
    """

    y: np.ndarray
    kind: Kind
    columns: list[str]
    classes: tuple[str, ...] = ()
    wrong: dict[int, str] = field(default_factory=dict)

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


def named(table: Table, name: str, path: Path, option: str) -> str:
    """The column of a name.

    Raises:
        UserError: there is none; gives the nearest name.
    """
    if name not in table.frame:
        raise UserError(f"{path} has no column '{name}' ({option}): {nearest(name, map(str, table.frame.columns))}")
    return name


def smiles_column(table: Table, path: Path) -> str:
    """The column of molecules: by its name, else the one that most often reads as molecules.

    Raises:
        UserError: no column does.
    """
    if table.smiles is not None:
        return table.smiles
    plain = {str(name): re.sub(r"[\W_]", "", str(name).lower()) for name in table.frame.columns}
    for known in SMILES_NAMES[:3]:
        for name, bare in plain.items():
            if bare == known:
                return name
    for name, bare in plain.items():
        if "smiles" in bare:
            return name
    shares = {name: _share_of_molecules(table.frame[name]) for name in plain}
    # several may read as molecules, such as one-letter codes: molecules are longer
    likely = [name for name, (share, _) in shares.items() if share > 0.5]
    if not likely:
        raise UserError(f"{path}: no column reads as SMILES; name it by data.smiles=NAME: {', '.join(plain)}")
    found = max(likely, key=lambda name: (plain[name] in SMILES_NAMES, shares[name][1]))
    if parses(found):
        raise UserError(f"{path}, line 1: '{found}' reads as a molecule, not as a name; add a line that names columns")
    return found


def _share_of_molecules(column: pd.Series, sample: int = 50) -> tuple[float, float]:
    """The share of the first cells that read as molecules, and the mean length of the cells."""
    cells = [cell for cell in column.dropna().iloc[:sample] if isinstance(cell, str)]
    if not cells:
        return 0.0, 0.0
    return sum(map(parses, cells)) / len(cells), sum(map(len, cells)) / len(cells)


def numbers(column: pd.Series) -> np.ndarray:
    """(R,) float64; NaN where a cell is missing or no number. True and False are 1 and 0."""
    if column.dtype == object:
        lower = column.map(lambda cell: cell.lower() if isinstance(cell, str) else cell)
        if set(lower.dropna().unique()) <= {"true", "false"}:
            column = lower.map({"true": 1.0, "false": 0.0})
    try:
        return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):  # cells that are lists, dates, ...
        return np.full(len(column), np.nan)


def _is_numeric(column: pd.Series) -> bool:
    filled = column.notna().sum()
    return bool(filled) and (~np.isnan(numbers(column))).sum() >= MOST * filled


def _is_id(name: str, values: np.ndarray) -> bool:
    """Whether a column of numbers only numbers the rows."""
    words = _words(name)
    if "".join(words) in ID_NAMES or words[-1:] and words[-1] in ID_ENDS:
        return True
    return len(values) > 2 and bool(np.all(np.diff(values) == 1))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def split_column(table: Table, path: Path, must: bool) -> str | None:
    """The column whose name says that it is a split, and whose cells say train, valid or test.

    Raises:
        UserError: there must be one and there is none.
    """
    for name in map(str, table.frame.columns):
        if set(_words(name)) & SPLIT_NAMES and all(map(split_of, table.frame[name].dropna().unique())):
            return name
    if must:
        raise UserError(f"{path}: no column says train, valid or test; name it by data.split_column=NAME")
    return None


def target_columns(table: Table, taken: set[str], path: Path) -> list[str]:
    """The columns to predict, by the first of these rules that says so.

    1. columns called target, label, class, y, ..., numbered or not;
    2. the only column of numbers whose name says that it was measured;
    3. the only column that could be one: of numbers, but for those that number the rows and those that say they were
       predicted, or of text with few distinct values;
    4. all columns of numbers, where each holds 0 and 1 only and no text could be a target.

    Args:
        taken: columns that are something else.

    Raises:
        UserError: none of these rules says; lists the columns that might be meant.
    """
    frame = table.frame
    free = [str(name) for name in frame.columns if name not in taken and not set(_words(str(name))) & SPLIT_NAMES]
    values = {name: numbers(frame[name]) for name in free if _is_numeric(frame[name])}
    values = {name: column for name, column in values.items() if not _is_id(name, column)}
    classes = [name for name in free if name not in values and _is_classes(frame[name])]

    called = [name for name in (*values, *classes) if TARGET_NAMES.fullmatch("".join(_words(name)))]
    measured = [name for name in values if set(_words(name)) & MEASURED]
    plain = [name for name in values if not set(_words(name)) & PREDICTED]
    if called:
        return called
    if len(measured) == 1:
        return measured
    if len(plain) + len(classes) == 1:
        return plain + classes
    if values and not classes and all(np.isin(column[~np.isnan(column)], (0, 1)).all() for column in values.values()):
        return list(values)
    might = [*values, *classes]
    if not might:
        raise UserError(f"{path}: no column could be a target; there is {', '.join(free) or 'none left'}")
    raise UserError(f"{path}: cannot tell which column is the target; say data.target=NAME: {', '.join(might)}")


def _is_classes(column: pd.Series) -> bool:
    """Whether text names classes: few distinct values, each often."""
    filled = column.dropna()
    if not all(isinstance(cell, str) for cell in filled.iloc[:50]):
        return False
    distinct = filled.nunique()
    return 2 <= distinct <= 50 and distinct * 2 <= len(filled)


def read_targets(table: Table, columns: Sequence[str], kind: Kind | None, path: Path) -> Targets:
    """The values of the target columns and their kind, found where it is None.

    All numbers 0 or 1 (or -1 and 1), or two words: binary. One column of few whole numbers or of several words:
    multiclass. Else regression.

    Raises:
        UserError: the columns are not of the kind, or there is nothing to tell apart.
    """
    frame = table.frame[list(columns)]
    numeric = [_is_numeric(frame[name]) for name in columns]
    if any(numeric) and not all(numeric):
        text = columns[numeric.index(False)]
        raise UserError(f"{path}: '{text}' holds text and other targets numbers; name targets of one kind")
    if not all(numeric):
        return _text_targets(frame, columns, kind, path)
    y = np.stack([numbers(frame[name]) for name in columns], axis=1)
    wrong = {}
    with np.errstate(over="ignore"):
        bad = np.isnan(y) & frame.notna().to_numpy() | np.isinf(y.astype(np.float32))
    for place, output in np.argwhere(bad):
        why = "no number" if np.isnan(y[place, output]) else "too large"
        wrong.setdefault(int(place), f"'{frame.iat[place, output]}' in '{columns[output]}' is {why}")
    y[list(wrong)] = np.nan
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
        if not set(distinct) <= {0, 1}:
            y = np.where(np.isnan(y), np.nan, y == distinct[-1])
        return Targets(y, "binary", list(columns), wrong=wrong)
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


def _text_targets(frame: pd.DataFrame, columns: Sequence[str], kind: Kind | None, path: Path) -> Targets:
    """Targets that are words; of two words the one that says no, or the first in the alphabet, is 0."""
    if kind == "regression":
        cell = next(cell for cell in frame[columns[0]].dropna() if np.isnan(numbers(pd.Series([cell]))[0]))
        raise UserError(f"{path}: '{cell}' in '{columns[0]}' is no number, which data.kind=regression needs")
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
        return Targets(y, "binary", list(columns), tuple(words[0]) if len(columns) == 1 else ())
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

"""Which columns of a table hold the molecules, the targets and the split, found where nobody names them.

A column that is only likely to be a target is never taken: where the rules below do not say which, the user must.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.molecules.parsing import chemistry, parses, several_molecules
from gt.data.molecules.table import Table
from gt.data.splits import split_of
from gt.errors import UserError, nearest, shell_override
from gt.schema import several

SMILES_NAMES = ("smiles", "canonicalsmiles", "isomericsmiles", "mol", "molecule", "structure", "compound")
TARGET_NAMES = re.compile(r"(target|label|class|task|property|y|value|outcome)s?\d*")
MEASURED = {"measured", "exp", "expt", "experimental", "observed", "active"}
PREDICTED = {"predicted", "prediction", "pred", "calc", "calculated", "estimated"}
ID_NAMES = {"num", "no", "nr", "number", "row", "rank", "id", "index", "idx", "cid", "cas", "name"}
ID_ENDS = {"id", "ids", "index", "idx", "cid"}
SPLIT_NAMES = {"split", "set", "subset", "partition", "fold", "group"}
LONG = 4  # characters of a molecule on average, where a column holds no codes of one letter or two
MOST = 0.9  # the share of a column's cells that must be numbers for it to be one of numbers


def named(table: Table, name: str, path: Path, option: str) -> str:
    """The column of a name, or of a number, from 0, where none is called so.

    Raises:
        UserError: there is none; gives the nearest name.
    """
    if name not in table.frame and name.isdecimal() and int(name) < len(table.frame.columns):
        return str(table.frame.columns[int(name)])
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
    shares = {name: _share_of_molecules(table.frame[name]) for name in plain}
    called = [name for name, bare in plain.items() if "smiles" in bare]
    exact = [name for known in SMILES_NAMES[:3] for name in called if plain[name] == known]
    if called:
        _refuse_two(table, [*exact, *(name for name in called if name not in exact)], shares, path)
        return (exact or called)[0]
    # several may read as molecules, such as one-letter codes: molecules are longer
    likely = [name for name, (share, _) in shares.items() if share > 0.5]
    if not likely:
        for name in plain:
            if why := _no_molecules(table.frame[name]):
                raise UserError(f"{path}: '{name}' holds {why}")
        example = shell_override("data.smiles", next(iter(plain)))
        raise UserError(f"{path}: no column reads as SMILES; name it, such as {example}: {several(list(plain), 12)}")
    found = max(likely, key=lambda name: (plain[name] in SMILES_NAMES, shares[name][1]))
    if parses(found):
        raise UserError(
            f"{path}, line 1: '{found}' reads as a molecule, not as a name: add a line that names columns, "
            f"or say their numbers, data.smiles={list(plain).index(found)} data.target=NUMBER"
        )
    _refuse_two(table, [found, *(name for name in likely if shares[name][1] > LONG)], shares, path)
    return found


def _refuse_two(table: Table, names: Sequence[str], shares: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Whether no further one of some columns of SMILES holds other molecules than the first.

    Raises:
        UserError: one does: a row is of two molecules.
    """
    from rdkit import rdBase

    chem = chemistry()
    first, *others = names
    for other in others:
        if other in (first, *table.repeated) or shares[other][0] <= 0.5:
            continue
        pairs = table.frame[[first, other]].dropna().iloc[:50].astype(str)
        with rdBase.BlockLogs():
            mols = [[chem.MolFromSmiles(text) for text in pair] for pair in pairs.to_numpy()]
        known = [[chem.MolToSmiles(mol, isomericSmiles=False) for mol in pair] for pair in mols if None not in pair]
        if 2 * sum(one != two for one, two in known) > len(known):
            raise UserError(
                f"{path}: '{first}' and '{other}' hold two molecules in a row, and one can be read: choose it, "
                f"{shell_override('data.smiles', first)}"
            )


def _no_molecules(column: pd.Series) -> str | None:
    """What the first cells of a column hold in place of molecules, such as reactions; None where it is not known."""
    cells = [cell for cell in column.dropna().iloc[:50] if isinstance(cell, str)]
    why = [why for cell in cells if (why := several_molecules(cell))]
    return why[0] if 2 * len(why) > len(cells) else None


def _share_of_molecules(column: pd.Series, sample: int = 50) -> tuple[float, float]:
    """The share of the first cells that read as molecules, and the mean length of the cells."""
    cells = [cell for cell in column.dropna().iloc[:sample] if isinstance(cell, str)]
    if not cells:
        return 0.0, 0.0
    return sum(map(parses, cells)) / len(cells), sum(map(len, cells)) / len(cells)


def numbers(column: pd.Series) -> np.ndarray:
    """(R,) float64; NaN where a cell is missing or no number. True and False are 1 and 0."""
    if column.dtype.kind in "mM":  # dates
        return np.full(len(column), np.nan)
    if not pd.api.types.is_numeric_dtype(column):
        lower = column.map(lambda cell: str(cell).lower(), na_action="ignore")
        if set(lower.dropna()) <= {"true", "false"}:
            column = lower.map({"true": 1.0, "false": 0.0})
    try:
        return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):  # cells that are lists
        return np.full(len(column), np.nan)


def is_numeric(column: pd.Series) -> bool:
    filled = column.notna().sum()
    return bool(filled) and (~np.isnan(numbers(column))).sum() >= MOST * filled


def _is_id(name: str, values: np.ndarray) -> bool:
    """Whether a column of numbers only numbers the rows."""
    words = _words(name)
    if "".join(words) in ID_NAMES or (words[-1:] and words[-1] in ID_ENDS):
        return True
    return len(values) > 2 and bool(np.all(np.diff(values) == 1))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def split_column(table: Table, path: Path, must: bool) -> str | None:
    """The column whose name says that it is a split, and most of whose cells say train, valid or test.

    Raises:
        UserError: there must be one and there is none.
    """
    for name, column in table.frame.items():
        known = column.dropna().map(split_of).notna()
        if set(_words(str(name))) & SPLIT_NAMES and known.sum() * 2 > len(known):
            return str(name)
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
    free = [name for name in frame.columns if name not in taken and "".join(_words(name)) not in SPLIT_NAMES]
    numeric = {name: numbers(frame[name]) for name in free if is_numeric(frame[name])}
    values = {name: column for name, column in numeric.items() if not _is_id(name, column)}
    classes = [name for name in free if name not in numeric and _is_classes(frame[name])]

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
        hint = "a trained model predicts it: python -m gt.predict RUN data.path=FILE"
        others = f"there is {several(free, 12)}" if free else f"there is none but the molecules; {hint}"
        raise UserError(f"{path}: no column could be a target; {others}")
    example = shell_override("data.target", might[0])
    raise UserError(f"{path}: cannot tell which column is the target; say {example}, or one of: {several(might, 12)}")


def _is_classes(column: pd.Series) -> bool:
    """Whether text names classes: few distinct values, each often."""
    filled = column.dropna()
    if not all(isinstance(cell, str) for cell in filled.iloc[:50]):
        return False
    distinct = filled.nunique()
    return 2 <= distinct <= 50 and distinct * 2 <= len(filled)

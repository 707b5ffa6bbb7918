"""Which columns of a table hold the molecules, the targets and the split, found where nobody names them.

A column that is only likely to be a target is never taken: where the rules below do not say which, the user must.
"""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.molecules.parsing import chemistry, not_one_smiles, parses
from gt.data.molecules.sdf import STRUCTURE
from gt.data.reading import ending
from gt.data.splits import split_of
from gt.data.table import MOST, Table
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
SAMPLE = 50  # cells that a column is known by


def named(table: Table, name: str, option: str) -> str:
    """The column of a name, or of a number, from 0, where none is called so.

    Raises:
        UserError: there is none; gives the nearest name.
    """
    if name not in table.columns and name.isdecimal() and int(name) < len(table.columns):
        name = list(table.columns)[int(name)]
    if name not in table.columns:
        raise UserError(f"{table.name} has no column '{name}' ({option}): {nearest(name, table.columns)}")
    return name


def smiles_column(table: Table) -> str:
    """The column of molecules: by its name, else the one that most often reads as molecules.

    Raises:
        UserError: no column does.
    """
    if ending(Path(table.name)) == ".sdf":
        return STRUCTURE
    bare = {name: re.sub(r"[\W_]", "", name.lower()) for name in table.columns}
    shares = {name: _share_of_molecules(cells) for name, cells in table.columns.items()}
    called = [name for name in bare if "smiles" in bare[name]]
    if called:
        called.sort(key=lambda name: SMILES_NAMES[:3].index(bare[name]) if bare[name] in SMILES_NAMES[:3] else 3)
        _refuse_two(table, called, shares)
        return called[0]
    # several may read as molecules, such as one-letter codes: molecules are longer
    likely = [name for name, (share, _) in shares.items() if share > 0.5]
    if not likely:
        for name, cells in table.columns.items():
            if why := _no_molecules(cells):
                raise UserError(f"{table.name}: '{name}' holds {why}")
        example = shell_override("data.smiles", next(iter(bare)))
        raise UserError(
            f"{table.name}: no column reads as SMILES; name it, such as {example}; there are {several([*bare], 12)}"
        )
    best = max(likely, key=lambda name: (bare[name] in SMILES_NAMES, shares[name][1]))
    if parses(best):
        raise UserError(
            f"{table.name}, line 1: '{best}' reads as a molecule, not as a name: add a line that names columns, "
            f"or say their numbers, data.smiles={list(bare).index(best)} data.target=NUMBER"
        )
    _refuse_two(table, [best, *(name for name in likely if shares[name][1] > LONG)], shares)
    return best


def _refuse_two(table: Table, names: Sequence[str], shares: Mapping[str, tuple[float, float]]) -> None:
    """Whether no further one of some columns of SMILES holds other molecules than the first.

    Raises:
        UserError: one does: a row is of two molecules.
    """
    from rdkit import rdBase

    chem = chemistry()
    first, *others = names
    repeated = {name for name, own in zip(table.columns, table.header, strict=False) if table.header.count(own) > 1}
    for other in others:
        if other in {first, *repeated} or shares[other][0] <= 0.5:
            continue
        both = ~(pd.isna(table.columns[first]) | pd.isna(table.columns[other]))
        pairs = zip(*(table.columns[name][both][:SAMPLE] for name in (first, other)), strict=True)
        with rdBase.BlockLogs():
            mols = [[chem.MolFromSmiles(str(text)) for text in pair] for pair in pairs]
        known = [[chem.MolToSmiles(mol, isomericSmiles=False) for mol in pair] for pair in mols if None not in pair]
        if 2 * sum(one != two for one, two in known) > len(known):
            raise UserError(
                f"{table.name}: '{first}' and '{other}' hold two molecules in a row, and one can be read: choose it, "
                f"{shell_override('data.smiles', first)}"
            )


def _texts(cells: np.ndarray) -> list[str]:
    """The first cells of a column that are filled and text."""
    return [cell for cell in cells[~pd.isna(cells)][:SAMPLE] if isinstance(cell, str)]


def _no_molecules(cells: np.ndarray) -> str | None:
    """What the first cells of a column hold in place of molecules, such as reactions; None where it is not known."""
    texts = _texts(cells)
    why = [why for text in texts if (why := not_one_smiles(text))]
    return why[0] if 2 * len(why) > len(texts) else None


def _share_of_molecules(cells: np.ndarray) -> tuple[float, float]:
    """The share of the first cells that read as molecules, and the mean length of the cells."""
    texts = _texts(cells)
    return (sum(map(parses, texts)) / len(texts), sum(map(len, texts)) / len(texts)) if texts else (0.0, 0.0)


def numbers(cells: np.ndarray) -> np.ndarray:
    """(R,) float64; NaN where a cell is missing or no number. True and False are 1 and 0."""
    column = pd.Series(cells)
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


def is_numeric(cells: np.ndarray) -> bool:
    filled = (~pd.isna(cells)).sum()
    return bool(filled) and (~np.isnan(numbers(cells))).sum() >= MOST * filled


def _is_id(name: str, values: np.ndarray) -> bool:
    """Whether a column of numbers only numbers the rows."""
    words = _words(name)
    if "".join(words) in ID_NAMES or (words[-1:] and words[-1] in ID_ENDS):
        return True
    return len(values) > 2 and bool(np.all(np.diff(values) == 1))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def split_column(table: Table, must: bool) -> str | None:
    """The column whose name says that it is a split, and most of whose cells say train, valid or test.

    Raises:
        UserError: there must be one and there is none.
    """
    for name, cells in table.columns.items():
        filled = cells[~pd.isna(cells)]
        if {*_words(name)} & SPLIT_NAMES and 2 * sum(split_of(cell) is not None for cell in filled) > len(filled):
            return name
    if must:
        raise UserError(f"{table.name}: no column says train, valid or test; name it by data.split_column=NAME")
    return None


def target_columns(table: Table, others: AbstractSet[str]) -> list[str]:
    """The columns to predict, by the first of these rules that says so.

    1. columns called target, label, class, y, ..., numbered or not;
    2. the only column of numbers whose name says that it was measured;
    3. the only column that could be one: of numbers, but for those that number the rows and those that say they were
       predicted, or of text with few distinct values;
    4. all columns of numbers, where each holds 0 and 1 only and no text could be a target.

    Args:
        others: columns that are something else.

    Raises:
        UserError: none of these rules says; lists the columns that might be meant.
    """
    free = [name for name in table.columns if name not in others and "".join(_words(name)) not in SPLIT_NAMES]
    numeric = {name: numbers(table.columns[name]) for name in free if is_numeric(table.columns[name])}
    called = {name for name in free if TARGET_NAMES.fullmatch("".join(_words(name)))}
    values = {name: column for name, column in numeric.items() if name in called or not _is_id(name, column)}
    classes = [name for name in free if name not in numeric and _is_classes(table.columns[name])]

    measured = [name for name in values if {*_words(name)} & MEASURED]
    unpredicted = [name for name in values if not {*_words(name)} & PREDICTED]
    if chosen := [name for name in (*values, *classes) if name in called]:
        return chosen
    if len(measured) == 1:
        return measured
    if len(unpredicted) + len(classes) == 1:
        return unpredicted + classes
    if values and not classes and all(np.isin(column[~np.isnan(column)], (0, 1)).all() for column in values.values()):
        return list(values)
    might = [*values, *classes]
    if not might:
        rest = f"there is {several([_with_example(table, name) for name in free], 12)}"
        if not free and all(" " in text for name in table.columns for text in _texts(table.columns[name])):
            rest = "its columns seem to be parted by blanks: commas, semicolons or tabs are needed"
        elif not free:
            hint = "a trained model predicts it: python -m gt.predict RUN data.path=FILE"
            rest = f"there is none but the molecules; {hint}"
        raise UserError(f"{table.name}: no column could be a target; {rest}")
    example = shell_override("data.target", might[0])
    raise UserError(
        f"{table.name}: cannot tell which column is the target; say {example}, or one of: {several(might, 12)}"
    )


def _with_example(table: Table, name: str, longest: int = 20) -> str:
    """The name of a column, and of one of text what it holds, such as numbers with a unit."""
    texts = [] if is_numeric(table.columns[name]) else _texts(table.columns[name])[:1]
    return "".join([name, *(f" (such as {text[:longest]!r})" for text in texts)])


def _is_classes(cells: np.ndarray) -> bool:
    """Whether text names classes: few distinct values, each often."""
    filled = cells[~pd.isna(cells)]
    if not all(isinstance(cell, str) for cell in filled[:SAMPLE]):
        return False
    distinct = len(pd.unique(filled))
    return 2 <= distinct <= 50 and distinct * 2 <= len(filled)

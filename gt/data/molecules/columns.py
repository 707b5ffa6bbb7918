"""Detection of the columns that hold the molecules, the targets and the split, unless the user names them.

A column that is merely a likely target is never chosen: if the rules below do not settle it, the user must.
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
from gt.data.table import NUMERIC_SHARE, Table
from gt.errors import UserError, nearest, shell_override
from gt.schema import format_list

SMILES_NAMES = ("smiles", "canonicalsmiles", "isomericsmiles", "mol", "molecule", "structure", "compound")
TARGET_NAMES = re.compile(r"(target|label|class|task|property|y|value|outcome)s?\d*")
MEASURED = {"measured", "exp", "expt", "experimental", "observed", "active"}
PREDICTED = {"predicted", "prediction", "pred", "calc", "calculated", "estimated"}
ID_NAMES = {"num", "no", "nr", "number", "row", "rank", "id", "index", "idx", "cid", "cas", "name"}
ID_ENDS = {"id", "ids", "index", "idx", "cid"}
SPLIT_NAMES = {"split", "set", "subset", "partition", "fold", "group"}
MIN_MEAN_LENGTH = 4  # characters; columns of shorter cells are taken for one- or two-letter codes, not molecules
SAMPLE = 50  # cells examined per column


def find_column(table: Table, name: str, option: str) -> str:
    """Resolve a column given by name or, if no column has that name, by its 0-based index.

    Raises:
        UserError: no such column; suggests the nearest name.
    """
    if name not in table.columns and name.isdecimal() and int(name) < len(table.columns):
        name = list(table.columns)[int(name)]
    if name not in table.columns:
        raise UserError(f"{table.name} has no column '{name}' ({option}): {nearest(name, table.columns)}")
    return name


def smiles_column(table: Table) -> str:
    """The column of molecules: by name, else the one whose cells most often parse as molecules.

    Raises:
        UserError: no column qualifies.
    """
    if ending(Path(table.name)) == ".sdf":
        return STRUCTURE
    bare = {name: re.sub(r"[\W_]", "", name.lower()) for name in table.columns}
    shares = {name: _share_of_molecules(cells) for name, cells in table.columns.items()}
    by_name = [name for name in bare if "smiles" in bare[name]]
    if by_name:
        by_name.sort(key=lambda name: SMILES_NAMES[:3].index(bare[name]) if bare[name] in SMILES_NAMES[:3] else 3)
        _refuse_two(table, by_name, shares)
        return by_name[0]
    # several may parse, such as one-letter codes: molecules are longer
    likely = [name for name, (share, _) in shares.items() if share > 0.5]
    if not likely:
        for name, cells in table.columns.items():
            if reason := _not_molecules(cells):
                raise UserError(f"{table.name}: '{name}' holds {reason}")
        example = shell_override("data.smiles", next(iter(bare)))
        raise UserError(
            f"{table.name}: no column holds SMILES; name one, such as {example}; "
            f"columns found: {format_list([*bare], 12)}"
        )
    best = max(likely, key=lambda name: (bare[name] in SMILES_NAMES, shares[name][1]))
    if parses(best):
        raise UserError(
            f"{table.name}, line 1: '{best}' is a molecule, not a column name: add a header line, "
            f"or give column numbers, data.smiles={list(bare).index(best)} data.target=NUMBER"
        )
    _refuse_two(table, [best, *(name for name in likely if shares[name][1] > MIN_MEAN_LENGTH)], shares)
    return best


def _refuse_two(table: Table, names: Sequence[str], shares: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a table in which another column of SMILES holds different molecules from the first.

    Raises:
        UserError: the rows hold two molecules each.
    """
    from rdkit import rdBase

    chem = chemistry()
    first, *others = names
    repeated = {name for name, title in zip(table.columns, table.header, strict=False) if table.header.count(title) > 1}
    for other in others:
        if other in {first, *repeated} or shares[other][0] <= 0.5:
            continue
        both = ~(pd.isna(table.columns[first]) | pd.isna(table.columns[other]))
        pairs = zip(*(table.columns[name][both][:SAMPLE] for name in (first, other)), strict=True)
        with rdBase.BlockLogs():
            mols = [[chem.MolFromSmiles(str(text)) for text in pair] for pair in pairs]
        canonical = [[chem.MolToSmiles(mol, isomericSmiles=False) for mol in pair] for pair in mols if None not in pair]
        if 2 * sum(one != two for one, two in canonical) > len(canonical):
            raise UserError(
                f"{table.name}: '{first}' and '{other}' hold different molecules in the same row; choose one of them, "
                f"{shell_override('data.smiles', first)}"
            )


def _texts(cells: np.ndarray) -> list[str]:
    """The text among the first `SAMPLE` non-empty cells."""
    return [cell for cell in cells[~pd.isna(cells)][:SAMPLE] if isinstance(cell, str)]


def _not_molecules(cells: np.ndarray) -> str | None:
    """What a column holds instead of molecules, such as reactions, judged by its first cells; None if unrecognised."""
    texts = _texts(cells)
    reasons = [reason for text in texts if (reason := not_one_smiles(text))]
    return reasons[0] if 2 * len(reasons) > len(texts) else None


def _share_of_molecules(cells: np.ndarray) -> tuple[float, float]:
    """The share of the first cells that parse as molecules, and their mean length."""
    texts = _texts(cells)
    return (sum(map(parses, texts)) / len(texts), sum(map(len, texts)) / len(texts)) if texts else (0.0, 0.0)


def numbers(cells: np.ndarray) -> np.ndarray:
    """(R,) float64; NaN where a cell is missing or not a number. True and False become 1 and 0."""
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
    return bool(filled) and (~np.isnan(numbers(cells))).sum() >= NUMERIC_SHARE * filled


def _is_id(name: str, values: np.ndarray) -> bool:
    """Whether a numeric column merely numbers the rows."""
    words = _words(name)
    if "".join(words) in ID_NAMES or (words[-1:] and words[-1] in ID_ENDS):
        return True
    return len(values) > 2 and bool(np.all(np.diff(values) == 1))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def split_column(table: Table, required: bool) -> str | None:
    """The column whose name marks it as a split and most of whose cells say train, valid or test.

    Raises:
        UserError: none was found although ``required``.
    """
    for name, cells in table.columns.items():
        filled = cells[~pd.isna(cells)]
        if {*_words(name)} & SPLIT_NAMES and 2 * sum(split_of(cell) is not None for cell in filled) > len(filled):
            return name
    if required:
        raise UserError(f"{table.name}: no column says train, valid or test; name one with data.split_column=NAME")
    return None


def target_columns(table: Table, reserved: AbstractSet[str]) -> list[str]:
    """The columns to predict, by the first of these rules that applies.

    1. columns named target, label, class, y, ..., with or without a number;
    2. the only numeric column whose name says that it was measured;
    3. the only candidate: a numeric column, except row numbers and those whose names say they were predicted, or a
       text column with few distinct values;
    4. all numeric columns, if each holds only 0 and 1 and no text column is a candidate.

    Args:
        reserved: columns with another role.

    Raises:
        UserError: no rule applies; lists the candidates.
    """
    free = [name for name in table.columns if name not in reserved and "".join(_words(name)) not in SPLIT_NAMES]
    numeric = {name: numbers(table.columns[name]) for name in free if is_numeric(table.columns[name])}
    by_name = {name for name in free if TARGET_NAMES.fullmatch("".join(_words(name)))}
    values = {name: column for name, column in numeric.items() if name in by_name or not _is_id(name, column)}
    nominal = [name for name in free if name not in numeric and _is_classes(table.columns[name])]

    measured = [name for name in values if {*_words(name)} & MEASURED]
    unpredicted = [name for name in values if not {*_words(name)} & PREDICTED]
    if chosen := [name for name in (*values, *nominal) if name in by_name]:
        return chosen
    if len(measured) == 1:
        return measured
    if len(unpredicted) + len(nominal) == 1:
        return unpredicted + nominal
    if values and not nominal and all(np.isin(column[~np.isnan(column)], (0, 1)).all() for column in values.values()):
        return list(values)
    candidates = [*values, *nominal]
    if not candidates:
        detail = f"columns found: {format_list([_with_example(table, name) for name in free], 12)}"
        if not free and all(" " in text for name in table.columns for text in _texts(table.columns[name])):
            detail = "its columns seem to be separated by spaces: use commas, semicolons or tabs"
        elif not free:
            hint = "to predict with a trained model, run python -m gt.predict RUN data.path=FILE"
            detail = f"there are only molecules; {hint}"
        raise UserError(f"{table.name}: no column could be a target; {detail}")
    example = shell_override("data.target", candidates[0])
    raise UserError(
        f"{table.name}: cannot tell which column is the target; set {example}, or one of: {format_list(candidates, 12)}"
    )


def _with_example(table: Table, name: str, max_length: int = 20) -> str:
    """The name of a column, followed by an example cell if it holds text, such as numbers with a unit."""
    texts = [] if is_numeric(table.columns[name]) else _texts(table.columns[name])[:1]
    return "".join([name, *(f" (such as {text[:max_length]!r})" for text in texts)])


def _is_classes(cells: np.ndarray) -> bool:
    """Whether a text column names classes: few distinct values, each of them frequent."""
    filled = cells[~pd.isna(cells)]
    if not all(isinstance(cell, str) for cell in filled[:SAMPLE]):
        return False
    distinct = len(pd.unique(filled))
    return 2 <= distinct <= 50 and distinct * 2 <= len(filled)

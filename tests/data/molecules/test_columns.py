"""Columns of tables of molecules: which hold SMILES, targets and splits."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("rdkit")
from gt.data.molecules.columns import find_column, smiles_column, split_column, target_columns
from gt.data.table import Table
from gt.errors import UserError

MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O", "xyz"] * 10
RNG = np.random.default_rng(0)
REALS = [f"{value:.3f}" for value in RNG.normal(size=40)]
OTHER_REALS = [f"{value:.3f}" for value in RNG.normal(size=40)]
BINARY = ["0", "1", None, "1"] * 10
WORDS = ["active", "inactive"] * 20
NAMES = [f"compound {number}" for number in range(40)]
ROW_NUMBERS = [str(number) for number in range(1, 41)]


def make_table(**columns: list[str | None]) -> Table:
    values = {name.replace("__", " "): np.array(cells, dtype=object) for name, cells in columns.items()}
    return Table("a.csv", values, lambda row: f"a.csv, line {row + 2}")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"smiles": MOLECULES, "y": REALS}, "smiles"),
        ({"name": NAMES, "Canonical_SMILES": MOLECULES}, "Canonical_SMILES"),
        ({"smiles_of_salt": NAMES, "SMILES": MOLECULES}, "SMILES"),
        ({"drug__smiles": NAMES, "structures": MOLECULES}, "drug smiles"),  # the name takes precedence over the content
        ({"name": NAMES, "mol": MOLECULES, "y": REALS}, "mol"),
        ({"code": ["C", "N", "O", "S"] * 10, "drug": MOLECULES, "y": ROW_NUMBERS}, "drug"),
    ],
)
def test_smiles_column_is_found(columns: dict[str, list[str | None]], expected: str) -> None:
    assert smiles_column(make_table(**columns)) == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"num": REALS, "name": NAMES, "p_np": BINARY}, ["p_np"]),  # BBBP
        (  # ESOL
            {
                "Compound__ID": NAMES,
                "ESOL__predicted": OTHER_REALS,
                "Weight": REALS,
                "measured__log__solubility": OTHER_REALS,
            },
            ["measured log solubility"],
        ),
        ({"CMPD_CHEMBLID": NAMES, "exp": REALS}, ["exp"]),  # Lipophilicity
        ({"iupac": NAMES, "expt": REALS, "calc": OTHER_REALS}, ["expt"]),  # FreeSolv
        ({"logS": REALS, "logS__predicted": OTHER_REALS}, ["logS"]),
        ({"activity": ["CI", "CM", "CA", "CI"] * 10, "HIV_active": BINARY}, ["HIV_active"]),  # HIV
        ({"mol_id": OTHER_REALS, "NR-AR": BINARY, "SR-p53": BINARY}, ["NR-AR", "SR-p53"]),  # Tox21
        ({"Class": BINARY, "pIC50": REALS, "MW": OTHER_REALS}, ["Class"]),  # BACE
        ({"target_1": REALS, "target_2": OTHER_REALS, "weight": REALS}, ["target_1", "target_2"]),
        ({"y": REALS, "weight": OTHER_REALS}, ["y"]),
        ({"y": ROW_NUMBERS, "weight": OTHER_REALS}, ["y"]),  # by its name, although it numbers the rows
        ({"label": WORDS, "weight": OTHER_REALS}, ["label"]),
        ({"found": WORDS, "name": NAMES}, ["found"]),
        ({"counter": ROW_NUMBERS, "value__of__it": REALS}, ["value of it"]),
        ({"fold": ["0", "1", "2", "3"] * 10, "logS": REALS}, ["logS"]),
        ({"logS": ["<0.1", *REALS[1:]]}, ["logS"]),
    ],
)
def test_target_columns_are_found(columns: dict[str, list[str | None]], expected: list[str]) -> None:
    assert target_columns(make_table(smiles=MOLECULES, **columns), {"smiles"}) == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"mu": REALS, "gap": OTHER_REALS},
            "a.csv: cannot tell .*; set data.target=mu, or one of: mu, gap$",
        ),
        ({"logS": REALS, "found": WORDS}, "data.target=logS, or one of: logS, found$"),
        ({"logS": REALS, "toxic": BINARY}, "data.target=logS, or one of: logS, toxic$"),
        ({"exp_a": REALS, "exp_b": REALS}, "data.target=exp_a, or one of: exp_a, exp_b$"),
        ({"id": REALS, "name": NAMES}, "no column could be a target; columns found: id, name .such as 'compound 0'.$"),
        (
            {"yield": [f"{n}.5 %" for n in range(40)], "num": ROW_NUMBERS},
            "a.csv: no column could be a target; columns found: yield .such as '0.5 %'., num$",
        ),
        ({}, "a.csv: no column could be a target; there are only molecules"),
        ({f"f{n}": REALS for n in range(30)}, "f10, f11 and 18 more$"),
    ],
)
def test_missing_or_ambiguous_targets_are_reported(columns: dict[str, list[str | None]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        target_columns(make_table(smiles=MOLECULES, **columns), {"smiles"})


def test_space_separated_table_is_rejected() -> None:
    single_column = make_table(smiles__y=[f"{smiles} {y}" for smiles, y in zip(MOLECULES, REALS, strict=True)])
    with pytest.raises(UserError, match="separated by spaces: use commas, semicolons or tabs"):
        target_columns(single_column, {"smiles y"})


def test_lists_and_dates_are_not_targets() -> None:
    days = pd.date_range("2020-01-01", periods=40)
    atoms = pd.Series([[1, 2]] * 40).to_numpy()
    columns = {"smiles": np.array(MOLECULES), "atoms": atoms, "day": days.to_numpy(), "logS": RNG.normal(size=40)}
    assert target_columns(Table("a.parquet", columns, str), {"smiles"}) == ["logS"]


def test_split_column() -> None:
    words = ["train", "Valid", "test", "train"] * 10
    assert split_column(make_table(smiles=MOLECULES, Model=words), required=False) is None
    assert split_column(make_table(split=["a"] * 40, fold=words), required=False) == "fold"
    assert split_column(make_table(split=[None] * 40), required=False) is None
    assert split_column(make_table(data_split=["?", *words[1:]]), required=True) == "data_split"
    with pytest.raises(UserError, match=r"a.csv: no column says train, valid or test"):
        split_column(make_table(split=["a"] * 40), required=True)


def test_find_column() -> None:
    assert find_column(make_table(logS=REALS), "logS", "data.target") == "logS"
    with pytest.raises(UserError, match=r"a.csv has no column 'logs' \(data.target\): did you mean 'logS'\?"):
        find_column(make_table(logS=REALS, smiles=MOLECULES), "logs", "data.target")

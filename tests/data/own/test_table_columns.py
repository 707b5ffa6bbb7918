import numpy as np
import pandas as pd
import pytest

pytest.importorskip("rdkit")
from gt.data.molecules.columns import find_column, smiles_column, split_column, target_columns
from gt.data.table import Table
from gt.errors import UserError

MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O", "xyz"] * 10
RANDOM = np.random.default_rng(0)
REAL = [f"{value:.3f}" for value in RANDOM.normal(size=40)]
OTHER = [f"{value:.3f}" for value in RANDOM.normal(size=40)]
YES_NO = ["0", "1", None, "1"] * 10
WORDS = ["active", "inactive"] * 20
NAMES = [f"compound {number}" for number in range(40)]
COUNT = [str(number) for number in range(1, 41)]


def table(**columns: list[str | None]) -> Table:
    values = {name.replace("__", " "): np.array(cells, dtype=object) for name, cells in columns.items()}
    return Table("a.csv", values, lambda row: f"a.csv, line {row + 2}")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"smiles": MOLECULES, "y": REAL}, "smiles"),
        ({"name": NAMES, "Canonical_SMILES": MOLECULES}, "Canonical_SMILES"),
        ({"smiles_of_salt": NAMES, "SMILES": MOLECULES}, "SMILES"),
        ({"drug__smiles": NAMES, "structures": MOLECULES}, "drug smiles"),  # a name comes first
        ({"name": NAMES, "mol": MOLECULES, "y": REAL}, "mol"),
        ({"code": ["C", "N", "O", "S"] * 10, "drug": MOLECULES, "y": COUNT}, "drug"),
    ],
)
def test_smiles(columns: dict[str, list[str | None]], expected: str) -> None:
    assert smiles_column(table(**columns)) == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"num": REAL, "name": NAMES, "p_np": YES_NO}, ["p_np"]),  # BBBP
        (  # ESOL
            {"Compound__ID": NAMES, "ESOL__predicted": OTHER, "Weight": REAL, "measured__log__solubility": OTHER},
            ["measured log solubility"],
        ),
        ({"CMPD_CHEMBLID": NAMES, "exp": REAL}, ["exp"]),  # Lipophilicity
        ({"iupac": NAMES, "expt": REAL, "calc": OTHER}, ["expt"]),  # FreeSolv
        ({"logS": REAL, "logS__predicted": OTHER}, ["logS"]),
        ({"activity": ["CI", "CM", "CA", "CI"] * 10, "HIV_active": YES_NO}, ["HIV_active"]),  # HIV
        ({"mol_id": OTHER, "NR-AR": YES_NO, "SR-p53": YES_NO}, ["NR-AR", "SR-p53"]),  # Tox21
        ({"Class": YES_NO, "pIC50": REAL, "MW": OTHER}, ["Class"]),  # BACE
        ({"target_1": REAL, "target_2": OTHER, "weight": REAL}, ["target_1", "target_2"]),
        ({"y": REAL, "weight": OTHER}, ["y"]),
        ({"y": COUNT, "weight": OTHER}, ["y"]),  # by its name, though it counts the rows
        ({"label": WORDS, "weight": OTHER}, ["label"]),
        ({"found": WORDS, "name": NAMES}, ["found"]),
        ({"counter": COUNT, "value__of__it": REAL}, ["value of it"]),
        ({"fold": ["0", "1", "2", "3"] * 10, "logS": REAL}, ["logS"]),
        ({"logS": ["<0.1", *REAL[1:]]}, ["logS"]),
    ],
)
def test_targets(columns: dict[str, list[str | None]], expected: list[str]) -> None:
    assert target_columns(table(smiles=MOLECULES, **columns), {"smiles"}) == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"mu": REAL, "gap": OTHER},
            "a.csv: cannot tell .*; set data.target=mu, or one of: mu, gap$",
        ),
        ({"logS": REAL, "found": WORDS}, "data.target=logS, or one of: logS, found$"),
        ({"logS": REAL, "toxic": YES_NO}, "data.target=logS, or one of: logS, toxic$"),
        ({"exp_a": REAL, "exp_b": REAL}, "data.target=exp_a, or one of: exp_a, exp_b$"),
        ({"id": REAL, "name": NAMES}, "no column could be a target; columns found: id, name .such as 'compound 0'.$"),
        (
            {"yield": [f"{n}.5 %" for n in range(40)], "num": COUNT},
            "a.csv: no column could be a target; columns found: yield .such as '0.5 %'., num$",
        ),
        ({}, "a.csv: no column could be a target; there are only molecules"),
        ({f"f{n}": REAL for n in range(30)}, "f10, f11 and 18 more$"),
    ],
)
def test_no_target_to_tell(columns: dict[str, list[str | None]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        target_columns(table(smiles=MOLECULES, **columns), {"smiles"})


def test_columns_that_blanks_part() -> None:
    one = table(smiles__y=[f"{smiles} {y}" for smiles, y in zip(MOLECULES, REAL, strict=True)])
    with pytest.raises(UserError, match="separated by spaces: use commas, semicolons or tabs"):
        target_columns(one, {"smiles y"})


def test_lists_and_dates_are_no_targets() -> None:
    days = pd.date_range("2020-01-01", periods=40)
    atoms = pd.Series([[1, 2]] * 40).to_numpy()
    columns = {"smiles": np.array(MOLECULES), "atoms": atoms, "day": days.to_numpy(), "logS": RANDOM.normal(size=40)}
    assert target_columns(Table("a.parquet", columns, str), {"smiles"}) == ["logS"]


def test_split_column() -> None:
    words = ["train", "Valid", "test", "train"] * 10
    assert split_column(table(smiles=MOLECULES, Model=words), required=False) is None
    assert split_column(table(split=["a"] * 40, fold=words), required=False) == "fold"
    assert split_column(table(split=[None] * 40), required=False) is None
    assert split_column(table(data_split=["?", *words[1:]]), required=True) == "data_split"
    with pytest.raises(UserError, match=r"a.csv: no column says train, valid or test"):
        split_column(table(split=["a"] * 40), required=True)


def test_find_column() -> None:
    assert find_column(table(logS=REAL), "logS", "data.target") == "logS"
    with pytest.raises(UserError, match=r"a.csv has no column 'logs' \(data.target\): did you mean 'logS'\?"):
        find_column(table(logS=REAL, smiles=MOLECULES), "logs", "data.target")

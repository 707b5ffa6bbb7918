import gzip
import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

from gt.data import reading
from gt.data.molecules import table
from gt.data.molecules.table_files import read_table
from gt.errors import UserError


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "smiles,y\nCCO,1\nC,\n"),
        ("a.CSV", "smiles;y\r\nCCO;1\r\nC;NA\r\n"),
        ("a.tsv", "\ufeffsmiles\ty\nCCO\t1\nC\tnan"),
        ("a.txt", "smiles\ty\n\nCCO\t 1 \n\n\nC\tNone\n"),
        ("a.csv.gz", '"smiles","y"\n"CCO","1"\n"C",""\n'),
    ],
)
def test_text(tmp_path: Path, name: str, text: str) -> None:
    table = read_table(write(tmp_path / name, text))
    assert table.frame.to_dict("list") == {"smiles": ["CCO", "C"], "y": ["1", None]}
    assert table.frame.index.tolist() == [0, 1]
    assert table.rows == 2
    assert not table.skipped


def test_rows_that_do_not_fit_the_header(tmp_path: Path) -> None:
    text = 'smiles,y\nC,1\nC,2,3\n"C\nC",3\nCC\nN,4\n"C"C,5\nO,6\n'
    table = read_table(write(tmp_path / "a.csv", text))
    assert table.frame["y"].tolist() == ["1", "3", "4", "6"]
    assert table.frame.index.tolist() == [0, 2, 4, 6]
    assert table.lines == [2, 4, 7, 9]
    assert table.skipped == [
        (1, 3, "C,2,3", "3 cells where the header has 2"),
        (3, 6, "CC", "1 cells where the header has 2"),
        (5, 8, "", "',' expected after '\"'"),
    ]
    assert table.rows == 7


def test_names_of_columns(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", ",y,y, smiles \n0,1,2,C\n"))
    assert table.frame.columns.tolist() == ["column 1", "y", "y (2)", "smiles"]


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"smiles,melts at \xb0C\nC,1\nC\xe9,2\nCC,3\n")
    table = read_table(tmp_path / "a.csv")
    assert table.frame["smiles"].tolist() == ["C", r"C\xe9", "CC"]
    assert table.frame.columns.tolist() == ["smiles", r"melts at \xb0C"]
    assert table.spoiled == {"smiles": {1: 0xE9}}


def test_gzipped_to_a_thousandth(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv.gz", "smiles,y\n" + "C,1\n" * 100_000)
    assert path.stat().st_size * reading.RATIO < 400_000
    assert len(read_table(path).frame) == 100_000


def test_one_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "LONGEST", 1000)
    with pytest.raises(UserError, match=r"a.csv, line 2: longer than 1,000 characters"):
        read_table(write(tmp_path / "a.csv", "smiles,y\n" + "C" * 5000))


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")
def test_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"smiles": ["C", None], "y": [1.5, None]}, index=[7, 9])
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    for name in ("a.parquet", "a.parquet.gz"):
        table = read_table(tmp_path / name)
        assert table.frame["smiles"].iloc[0] == "C"
        assert table.frame.isna().to_numpy().tolist() == [[False, False], [True, True]]
        assert table.frame.index.tolist() == [0, 1]
    write(tmp_path / "b.parquet", "smiles,y\nC,1\n")
    with pytest.raises(UserError, match=r"b.parquet is not a Parquet file that can be read"):
        read_table(tmp_path / "b.parquet")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        read_table(write(tmp_path / "a.parquet", "x"))


@pytest.mark.parametrize("name", ["a.sdf", "a.sdf.gz"])
def test_sdf(tmp_path: Path, name: str) -> None:
    chem = pytest.importorskip("rdkit.Chem")
    texts = ["CCO", "C[C@H](N)C(=O)O", "c1ccccc1"]
    records = []
    for number, text in enumerate(texts):
        block = chem.MolToMolBlock(chem.MolFromSmiles(text), kekulize=True)
        records.append(f"{block}> <logP>  ({number})\n{number / 2}\n\n> <note>\n\n\n$$$$\n")
    records.insert(1, "title\nnot a molecule\n$$$$\n")
    table = read_table(write(tmp_path / name, "".join(records)))
    assert table.smiles == "structure"
    assert [chem.CanonSmiles(text) for text in table.frame["structure"]] == [chem.CanonSmiles(text) for text in texts]
    assert table.frame["logP"].tolist() == ["0.0", "0.5", "1.0"]
    assert table.frame["note"].isna().all()
    assert table.frame.index.tolist() == [0, 2, 3]
    first = records[0].count("\n")
    assert table.skipped == [(1, first + 1, "title", "RDKit cannot read the structure")]
    assert table.lines[1] == first + 4

"""The table reader: text formats and dialects, Parquet, and errors that name file and line."""

import csv
import gzip
import importlib
import importlib.util
import io
import json
import random
import sys
from contextlib import suppress
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gt.data import reading
from gt.data import table as tables
from gt.data.table import Table, plain, read_table
from gt.errors import UserError
from tests.data.tables_of import error_line

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")


def write_file(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def cells(table: Table) -> dict[str, list]:
    return {name: column.tolist() for name, column in table.columns.items()}


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.csv", "text,y\nCCO,1\nC,\n", [2, 3]),
        ("a.CSV", "text;y\r\nCCO;1\r\nC;\r\n", [2, 3]),
        ("a.csv", "text,y\rCCO,1\rC,\r", [2, 3]),
        ("a.tsv", "\ufefftext\ty\nCCO\t1\nC\t", [2, 3]),
        ("a.txt", "\n\ntext\ty\n\nCCO\t1\n\n\nC\t\n", [5, 8]),
        ("a.csv.gz", '"text","y"\n"CCO","1"\n"C",""\n', [2, 3]),
        ("a.jsonl", '{"text": "CCO", "y": "1"}\n\n{"y": "", "text": "C"}', [1, 3]),
        ("a.ndjson.gz", '{"text": "CCO", "y": "1"}\r\n{"text": "C", "y": ""}\r\n', [1, 2]),
    ],
)
def test_text_formats_and_dialects(name: str, text: str, lines: list[int], tmp_path: Path) -> None:
    table = read_table(write_file(tmp_path / name, text))
    assert cells(table) == {"text": ["CCO", "C"], "y": ["1", ""]}
    assert list(table.header) == ["text", "y"]
    assert [table.location(row) for row in (0, 1)] == [f"{tmp_path / name}, line {line}" for line in lines]


@pytest.mark.parametrize("seed", range(20))
def test_round_trip_of_the_csv_module_keeps_lines(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    pieces = ["a", '"', ",", ";", "\t", "\n", " ", "é", "", "1,5", "\u2028"]
    rows = [["x"] + ["".join(draw.choices(pieces, k=4)) for _ in range(3)] for _ in range(30)]
    path, text = tmp_path / "a.csv", io.StringIO()
    writer, first_lines = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL), []
    writer.writerow("abcd")
    for row in rows:
        first_lines.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    table = read_table(write_file(path, text.getvalue()))
    assert list(zip(*table.columns.values(), strict=True)) == list(map(tuple, rows))
    assert [table.location(row) for row in range(30)] == [f"{path}, line {line}" for line in first_lines]


def test_rows_that_differ_in_length_from_the_header(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.csv", 'text,y\nC,1\nC,2,3\n"C\nC",3\nCC\nN,4\n"C"C,5\nO,6\n')
    assert error_line(lambda: read_table(path)).startswith(f"{path}, line 3: 3 cells")
    table = read_table(path, lenient=True)
    assert table.columns["y"].tolist() == ["1", None, "3", None, "4", None, "6"]
    assert table.lines is not None
    assert table.lines.tolist() == [2, 3, 4, 6, 7, 8, 9]
    assert table.faults == {
        1: ("C,2,3", "3 cells where the header has 2"),
        3: ("CC", "1 cells where the header has 2"),
        5: ("", "',' expected after '\"'"),
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", " \n\n", "is empty"),
        ("a.jsonl", "\n", "is empty"),
        ("a.csv", 'a,b\n1,2\n3,"4\n5,6\n', "line 3: a quote"),
        ("a.csv", 'a,b\n"1"x,2\n', "line 2: "),
        ("a.csv", '"a"x,b\n1,2\n', "line 1: "),
        ("a.csv", b"a,b\n1,2\n\xe9,3\n", "line 3: byte 0xe9 is not UTF-8 text"),
        ("a.csv", b"a,b\n1,2\n\0,3\n", "line 3: a zero byte"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "line 1: a zero byte"),
        ("a.csv", "a,b\n1,2\n3,4\n".encode("utf-16")[:-1], "line 3: byte 0x0a is not UTF-16 text"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2: each line should be a JSON object"),
        ("a.jsonl", '{"a": 1}\n\n{"a": }\n', "line 3: Expecting value"),
        ("a.csv.gz", "", "is empty"),
    ],
)
def test_error_names_file_and_line(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    path = write_file(tmp_path / name, text)
    line = error_line(lambda: read_table(path))
    assert line.startswith(str(path))
    assert message in line


def test_missing_and_truncated_files(tmp_path: Path) -> None:
    assert f"{tmp_path / 'a.csv'}: set data.path" in error_line(lambda: read_table(tmp_path / "a.csv"))
    path = write_file(tmp_path / "a.csv.gz", "a,b\n" + "1,2\n" * 1000)
    path.write_bytes(path.read_bytes()[:-9])
    assert error_line(lambda: read_table(path)).startswith(f"{path} is incomplete")


def test_column_names(tmp_path: Path) -> None:
    table = read_table(write_file(tmp_path / "a.csv", ",y,y, text ,y (2),y\n0,1,2,C,3,4\n"))
    assert list(table.columns) == ["column 1", "y", "y (2)", "text", "y (2) (2)", "y (3)"]
    assert list(table.header) == ["", "y", "y", "text", "y (2)", "y"]


def test_columns_without_header_are_numbered(tmp_path: Path) -> None:
    table = read_table(write_file(tmp_path / "a.tsv", "C\t1\nCC\t2\n"), header=lambda cells: "text" in cells)
    assert (cells(table), table.header, table.location(0)) == (
        {"0": ["C", "CC"], "1": ["1", "2"]},
        (),
        f"{tmp_path / 'a.tsv'}, line 1",
    )


def test_raw_tabs_ignore_quotes(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.tsv", 'one, "two"\n"three\n')
    assert cells(read_table(path, header=lambda cells: False, raw_tabs=True)) == {"0": ['one, "two"', '"three']}


def test_only_the_first_rows_are_read(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.csv", "a,b\n" + "1,2\n" * 9 + "3,4,5\n")
    assert len(read_table(path, most=5)) == 4  # the header counts as a row
    records = write_file(tmp_path / "a.jsonl", '{"a": 1}\n' * 9 + "[]\n")
    assert cells(read_table(records, most=5)) == {"a": [1] * 5}


def test_invalid_utf8_affects_only_its_own_cells(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.csv", b"text,melts at \xb0C\nC,1\nC\xe9,2\n\xc3\xa9,3\n")
    table = read_table(path, lenient=True)
    assert cells(table) == {"text": ["C", r"C\xe9", "é"], r"melts at \xb0C": ["1", "2", "3"]}
    assert table.spoiled == {"text": {1: 0xE9}}


def test_highly_compressed_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.csv.gz", "text,y\n" + "C,1\n" * 100_000)
    assert path.stat().st_size * reading.RATIO < 400_000
    assert len(read_table(path)) == 100_000


@pytest.mark.parametrize(("name", "head"), [("a.csv", "text,y\n"), ("a.jsonl", '{"text": 1}\n')])
def test_overlong_line_is_rejected(name: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST", 1000)
    with pytest.raises(UserError, match=rf"{name}, line 2: longer than 1,000 characters"):
        read_table(write_file(tmp_path / name, head + "C" * 5000))


@needs_pyarrow
def test_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["C", None], "y": [1.5, None]}, index=[7, 9])
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    for name in ("a.parquet", "a.parquet.gz"):
        table = read_table(tmp_path / name)
        assert table.columns["text"].tolist() == ["C", None]
        assert np.stack([pd.isna(column) for column in table.columns.values()]).tolist() == [[False, True]] * 2
        assert (len(table), table.location(1)) == (2, f"{tmp_path / name}, row 1")
    write_file(tmp_path / "b.parquet", "text,y\nC,1\n")
    with pytest.raises(UserError, match=r"b.parquet cannot be read as Parquet"):
        read_table(tmp_path / "b.parquet")


@needs_pyarrow
def test_types_specific_to_parquet(tmp_path: Path) -> None:
    pa, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    columns = {
        "gaps": pa.array([1, None]),
        "lists": pa.array([[1, 2], None]),
        "bytes": pa.array([b"a", None]),
        "days": pa.array([date(2026, 1, 2), None]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    pd.DataFrame({"gaps": pd.array([1, None], "Int64")}).to_parquet(tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet"):
        for column, cells in read_table(tmp_path / name).columns.items():
            assert list(map(repr, cells)) == list(map(repr, columns[column].to_pylist())), column


@needs_pyarrow
def test_named_parquet_index_becomes_a_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"smiles": ["C", "CC"], "assay": ["a", "b"], "y": [1.5, 2.5]})
    for names in (["smiles"], ["smiles", "assay"]):
        frame.set_index(names).to_parquet(tmp_path / "a.parquet")
        assert cells(read_table(tmp_path / "a.parquet")) == frame.to_dict("list")
        frame.set_index(names, drop=False).to_parquet(tmp_path / "a.parquet")  # kept as columns as well
        assert cells(read_table(tmp_path / "a.parquet")) == frame.to_dict("list")
    frame[frame["y"] > 2].to_parquet(tmp_path / "a.parquet")  # its index is unnamed
    assert cells(read_table(tmp_path / "a.parquet")) == {"smiles": ["CC"], "assay": ["b"], "y": [2.5]}


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        read_table(write_file(tmp_path / "a.parquet", "x"))


def test_records_with_missing_values(tmp_path: Path) -> None:
    rows = [{"a": [1, 2], "b": None}, {"a": [3, 4], "c": True}]
    path = write_file(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert cells(read_table(path)) == {"a": [[1, 2], [3, 4]], "b": [None, None], "c": [None, True]}


def test_plain_cells() -> None:
    text = np.array([" 1,5 ", "NA", None, "", "2"], dtype=object)
    assert plain(text).tolist() == ["1,5", "NA", None, None, "2"]
    assert plain(text, {"", "NA"}, commas=True).tolist() == ["1.5", None, None, None, "2"]
    assert plain(np.array([[1], 2.5, " a "], dtype=object)).tolist() == [[1], 2.5, "a"]


def test_random_damage_raises_only_user_errors(tmp_path: Path) -> None:
    """A few bytes of a file are removed, changed or inserted at random."""
    texts = {".csv": "a,b\n" + '1,"x y"\n' * 9, ".tsv": "a\tb\n" + "1\tx\n" * 9, ".jsonl": '{"a": 1, "b": "x"}\n' * 9}
    junk = [b"", b",", b"\n", b'"', b"\xff", b"\0", b"\r", b'"\n"', b"{", b"9" * 5000, b"\xff\xfe", b"\\ud800"]
    for seed in range(300):
        draw = random.Random(seed)
        kind = draw.choice(sorted(texts))
        content = bytearray(texts[kind].encode())
        first = draw.randrange(len(content))
        content[first : first + draw.randrange(8)] = draw.choice(junk)
        path = write_file(tmp_path / f"a{kind}", bytes(content))
        with suppress(UserError):  # any other exception is a bug
            read_table(path, lenient=seed % 2 == 0)

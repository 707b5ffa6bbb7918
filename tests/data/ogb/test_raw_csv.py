"""OGB's raw tables: errors that name the file, row and fault, and reading in blocks."""

from pathlib import Path

import numpy as np
import pytest

from gt.data.ogb import raw_csv as ogb_csv
from gt.data.ogb.download import files
from tests.data.ogb_files import ATOMS, assert_fails, read_molecules, to_csv, write_gzip, write_molecules


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_molecules(tmp_path / "ogbg_molhiv", [0, 1, 1, 0])
    return tmp_path


@pytest.mark.parametrize(
    ("part", "text", "messages"),
    [
        ("num-node-list", "", ["num-node-list.csv.gz is empty"]),
        ("num-node-list", "3\n-1\n4\n4\n", ["row 2", "-1 is less than 1"]),
        ("num-node-list", "3\n2\n1\n4\n", ["edge.csv.gz, row 3", "1 is not a node"]),
        ("num-node-list", "3,1\n1,1\n2,1\n4,1\n", ["row 1", "2 columns, expected 1"]),
        ("num-edge-list", "2\n0\n1\n", ["num-edge-list.csv.gz has 3 rows", "imply 4"]),
        ("num-edge-list", "2\n0\n1\n4\n", ["has 6 rows", "imply 7"]),
        ("edge", "0,1\n1,2\n0,1\n0,1\n1,-1\n2,0\n", ["row 5", "-1 is not a node"]),
        ("edge", "0,1\n1,2\n0,1\n0,1,5\n1,2\n2,0\n", ["row 4", "3 columns, expected 2"]),
        ("edge", "0,1\n1,2\n0,\n0,1\n1,2\n2,0\n", ["row 3", "'' is not an integer"]),
        ("edge", "0,1\n1,2\n0,1.5\n0,1\n1,2\n2,0\n", ["row 3", "'1.5' is not an integer"]),
        ("edge", "0,1\n1,2\n0,99999999999999999999\n0,1\n1,2\n2,0\n", ["row 3", "99999999999999999999"]),
        ("edge-feat", "0,0,0\n" * 5, ["edge-feat.csv.gz has 5 rows", "imply 6"]),
        ("edge-feat", "0,0,0\n" * 5 + "0,6,0\n", ["row 6", "6 is outside"]),
        ("node-feat", to_csv(ATOMS).replace("45,", "oxygen,"), ["node-feat.csv.gz, row 6", "'oxygen'"]),
        ("node-feat", to_csv(ATOMS[:, :8]), ["row 1", "8 columns, expected 9"]),
        ("graph-label", "0\n1\n2\n0\n", ["graph-label.csv.gz, row 3", "2.0 is neither 0 nor 1"]),
        ("graph-label", "0\n1\nactive\n0\n", ["row 3", "'active' is not a number"]),
        ("graph-label", "0\n1\n0\n", ["has 3 rows", "imply 4"]),
        ("train", "3\n3\n", ["train.csv.gz, row 1", "more than once"]),
        ("test", "2\n1\n", ["test.csv.gz, row 2", "1 is in the splits more than once"]),
    ],
)
def test_malformed_table_is_reported_by_row(root: Path, part: str, text: str, messages: list[str]) -> None:
    write_gzip(files("ogbg-molhiv", root / "ogbg_molhiv")[part], text)
    assert_fails(lambda: read_molecules("ogbg-molhiv", root), *messages)


def test_short_label_row_is_an_error(tmp_path: Path) -> None:
    write_molecules(tmp_path / "ogbg_molclintox", [[0, 1], [1, 1], [0, 0], [1, np.nan]])
    write_gzip(tmp_path / "ogbg_molclintox" / "raw" / "graph-label.csv.gz", "0,1\n1,1\n0\n1,\n")
    assert_fails(lambda: read_molecules("ogbg-molclintox", tmp_path), "row 3: 1 columns, expected 2")


def test_infinite_target_is_rejected(tmp_path: Path) -> None:
    write_molecules(tmp_path / "ogbg_molesol", [1, 2, np.inf, 3])
    assert_fails(lambda: read_molecules("ogbg-molesol", tmp_path), "graph-label.csv.gz, row 3: inf is not finite")


@pytest.mark.parametrize("block", [1, 5, 2**24])
def test_blockwise_read_equals_whole_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(ogb_csv, "BLOCK", block)
    expected = np.arange(40).reshape(20, 2)
    write_gzip(tmp_path / "t.csv.gz", to_csv(expected).rstrip("\n"))  # the last line may lack a line break
    np.testing.assert_array_equal(ogb_csv.numbers(tmp_path / "t.csv.gz", 2, np.int64, 20), expected)
    categories = ogb_csv.categories(tmp_path / "t.csv.gz", (39, 40), 20)
    np.testing.assert_array_equal(categories, expected)
    assert categories.dtype == np.uint8
    assert_fails(lambda: ogb_csv.categories(tmp_path / "t.csv.gz", (39, 33), 20), "row 17: 33 is outside")
    reader = ogb_csv.Rows(tmp_path / "t.csv.gz", 2, np.int64, 20)
    np.testing.assert_array_equal(np.concatenate([reader.take(n) for n in (0, 7, 1, 0, 12, 0)]), expected)


def test_too_few_or_too_many_rows_are_reported(tmp_path: Path) -> None:
    write_gzip(tmp_path / "t.csv.gz", "1\n2\n3\n")
    assert_fails(lambda: ogb_csv.Rows(tmp_path / "t.csv.gz", 1, np.int64, 4).take(4), "has 3 rows", "imply 4")
    assert_fails(lambda: ogb_csv.Rows(tmp_path / "t.csv.gz", 1, np.int64, 2).take(2), "has 3 rows", "imply 2")


def test_fault_in_later_block_names_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ogb_csv, "BLOCK", 4)
    write_gzip(tmp_path / "t.csv.gz", "1,1\n2,2\n3,3\n4,x\n5,5\n")
    assert_fails(lambda: ogb_csv.numbers(tmp_path / "t.csv.gz", 2, np.int64), "row 4: 'x' is not an integer")
    assert_fails(lambda: ogb_csv.numbers(tmp_path / "t.csv.gz", 3, np.int64), "row 1: 2 columns, expected 3")

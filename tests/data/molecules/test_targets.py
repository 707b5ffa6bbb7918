"""Targets of tables of molecules: kind, classes, missing values, invalid cells and strata."""

import numpy as np
import pytest

from gt.data.molecules.targets import Targets, read_targets
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Kind


def read_columns(kind: Kind | None = None, **columns: list) -> Targets:
    values = {name: np.array(cells, dtype=object) for name, cells in columns.items()}
    return read_targets(Table("a.csv", values, lambda row: f"a.csv, line {row + 2}"), list(columns), kind)


@pytest.mark.parametrize(
    ("cells", "kind", "classes", "y"),
    [
        (["0", "1", None, "1.0"], "binary", (), [0, 1, np.nan, 1]),
        ([True, False, None], "binary", (), [1, 0, np.nan]),
        (["True", "FALSE", None], "binary", (), [1, 0, np.nan]),
        (["-1", "1", "1"], "binary", (), [0, 1, 1]),
        (["yes", "no", None, "yes"], "binary", ("no", "yes"), [1, 0, np.nan, 1]),
        (["Inactive", "Active"], "binary", ("Inactive", "Active"), [0, 1]),
        (["b", "c", "a", None], "multiclass", ("a", "b", "c"), [1, 2, 0, np.nan]),
        (["1", "2", "4"] * 20, "multiclass", ("1", "2", "4"), [0, 1, 2] * 20),
        (["1234567", "1234568"] * 10, "multiclass", ("1234567", "1234568"), [0, 1] * 10),
        (["1", "2", "4"], "regression", (), [1, 2, 4]),
        (["0.5", "1", None], "regression", (), [0.5, 1, np.nan]),
        ([str(n) for n in range(200)], "regression", (), list(range(200))),
    ],
)
def test_kind_is_inferred(cells: list, kind: Kind, classes: tuple[str, ...], y: list[float]) -> None:
    targets = read_columns(y=cells)
    assert (targets.kind, targets.classes) == (kind, classes)
    np.testing.assert_array_equal(targets.y[:, 0], y)
    assert not targets.faults
    assert targets.outputs == (len(classes) if kind == "multiclass" else 1)


def test_several_targets() -> None:
    targets = read_columns(a=["0", "1", None], b=["1", None, None])
    assert targets.kind == "binary"
    np.testing.assert_array_equal(targets.y, [[0, 1], [1, np.nan], [np.nan, np.nan]])
    targets = read_columns(a=["0", "1", None], b=["1.5", "2", "3"])
    assert (targets.kind, targets.outputs) == ("regression", 2)
    targets = read_columns(a=["no", "yes"], b=["off", "on"])
    assert (targets.kind, targets.outputs, targets.classes) == ("binary", 2, ())
    np.testing.assert_array_equal(targets.y, [[0, 0], [1, 1]])


def test_explicit_kinds() -> None:
    assert read_columns("regression", y=["0", "1"]).kind == "regression"
    targets = read_columns("multiclass", y=["0", "1", "1"])
    assert (targets.kind, targets.classes) == ("multiclass", ("0", "1"))
    np.testing.assert_array_equal(targets.of(np.array([2, 0])), [1, 0])
    assert targets.of(np.array([2, 0])).dtype == np.int64
    targets = read_columns("multiclass", y=["no", "yes", "yes"])
    assert (targets.kind, targets.classes) == ("multiclass", ("no", "yes"))
    targets = read_columns("binary", y=["3", "7", None, "3"])
    np.testing.assert_array_equal(targets.of(np.array([0, 1, 2])), [[0], [1], [np.nan]])
    assert targets.of(np.array([0])).dtype == np.float32
    assert read_columns("binary", y=["1234567", "1234568"]).answers == (("1234567", "1234568"),)
    assert read_columns("multiclass", y=["0.25", "0.5", "0.5"]).classes == ("0.25", "0.5")


def test_invalid_cells_are_missing_and_explained() -> None:
    cells: list = [f"{n / 7}" for n in range(40)]
    cells[3], cells[5], cells[9], cells[11] = "<0.1", "inf", "1e300", None
    targets = read_columns(y=cells)
    assert targets.faults == {
        3: "'<0.1' in 'y' is not a number",
        5: "'inf' in 'y' is too large",
        9: "'1e300' in 'y' is too large",
    }
    assert np.flatnonzero(np.isnan(targets.y)).tolist() == [3, 5, 9, 11]


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [
        (None, {"y": ["1", "1"]}, "a.csv: 'y' holds only one value"),
        (None, {"y": ["a", "a", None]}, "a.csv: 'y' holds only one value"),
        (None, {"y": [None, None]}, "a.csv: 'y' is empty"),
        (None, {"y": ["1", "2.5"], "z": ["a", "b"]}, "a.csv: 'z' holds text, other targets numbers"),
        (None, {"y": ["a", "b", "c"], "z": ["a", "b", "c"]}, "only one multiclass target is supported, not y, z"),
        ("binary", {"y": ["0", "1", "2"]}, "a.csv, line 4: 2 in 'y' is a third value, data.kind=binary takes"),
        ("binary", {"y": ["a", "b", "c"]}, "a.csv: 'y' holds 3 different words, data.kind=binary takes two"),
        ("multiclass", {"y": [str(n) for n in range(2000)]}, "a.csv: 'y' holds 2000 different values, too many"),
        ("multiclass", {"y": [f"name {n}" for n in range(20)]}, "20 different values in 20 rows are too many"),
        ("multiclass", {"y": ["1", "2"], "z": ["1", "2"]}, "only one multiclass target"),
    ],
)
def test_invalid_targets_are_rejected(kind: Kind | None, columns: dict[str, list], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_columns(kind, **columns)
    assert "\n" not in str(caught.value)


def test_strata_are_classes_or_quantiles() -> None:
    rows = np.arange(100)
    numbers = np.random.default_rng(0).normal(size=100)
    strata = read_columns(y=numbers.tolist()).strata(rows, "a.csv")
    assert np.bincount(strata).tolist() == [10] * 10
    assert all(numbers[strata == n].max() <= numbers[strata == n + 1].min() for n in range(9))
    assert read_columns(y=["a", "b", "c"]).strata(np.array([2, 0]), "a.csv").tolist() == [2, 0]
    with pytest.raises(UserError, match=r"data.split=stratified needs a single target, not 2"):
        read_columns(a=["0", "1"], b=["0", "1"]).strata(np.arange(2), "a.csv")

"""Notices and errors about targets before a run."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gt.data.notices import check_varied, notices, one_sided, one_split
from gt.errors import UserError
from gt.schema import UNLABELLED, Schema
from tests.data.test_numbers import SOURCES, csv_graphs

NAN = float("nan")


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_split_with_one_class_is_reported() -> None:
    targets = {"train": column(0, 1, NAN), "valid": column(1, 1), "test": column(0, 1)}
    (line,) = one_sided(Schema(kind="binary"), targets)
    assert "valid" in line
    assert "one class" in line
    assert one_sided(Schema(kind="binary"), {"train": column(0, 1), "valid": column(1, 0)}) == []


def test_binary_tasks_with_one_class_are_reported_by_split() -> None:
    schema = Schema(kind="binary", outputs=3, names=("liver", "heart", "kidney"))
    test = torch.tensor([[0.0, 1.0, NAN], [1.0, 1.0, NAN]])
    (line,) = one_sided(schema, {"train": torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]), "test": test})
    assert re.search(r"test.*2 of 3.*heart, kidney", line)


def test_classes_in_a_single_split_are_reported() -> None:
    schema = Schema(outputs=4, names=("a", "b", "c", "d"))
    targets = {"train": torch.tensor([0, 1, 1, 0]), "valid": torch.tensor([0, 0]), "test": torch.tensor([0, 2])}
    one_class, alone = one_split(schema, targets)
    assert re.search(r"valid.*one class.*\ba\b", one_class)
    assert re.search(r"2 of 4.*b \(train\), c \(test\)", alone)  # d is in no split: nothing can be done about it
    even = {"train": torch.tensor([0, 1, UNLABELLED]), "test": torch.tensor([1, 0, UNLABELLED])}
    assert one_split(schema, even) == []


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("log", [False, True])
def test_targets_spanning_decades_suggest_logarithms(tmp_path: Path, source: Any, log: bool) -> None:
    data = source(tmp_path, np.logspace(-2, 3, 40).tolist(), log=log)
    data.open([])
    lines = notices(data)
    assert len(lines) == (0 if log else 1)
    assert all("data.log=true" in line for line in lines)


@pytest.mark.parametrize("source", SOURCES)
def test_no_logarithms_for_targets_that_are_not_positive(tmp_path: Path, source: Any) -> None:
    values = np.logspace(-2, 3, 40)
    data = source(tmp_path, values.tolist())
    data.open([])
    values[data.graphs.splits["test"][0]] = 0
    data = source(tmp_path, values.tolist())
    data.open([])
    assert 0 not in data.targets("train")
    assert notices(data) == []


def test_ordinary_targets_yield_no_notice(tmp_path: Path) -> None:
    data = csv_graphs(tmp_path, [3 + n / 40 for n in range(40)])
    data.open([])
    assert notices(data) == []


def test_gaps_between_integer_classes_are_reported(tmp_path: Path) -> None:
    data = csv_graphs(tmp_path, [(0, 5, 37)[n % 3] for n in range(60)])
    data.open([])
    (line,) = notices(data)
    assert re.search(r"35 of 38 classes are in no split: 1, 2, 3, 4 and 31 more; .*data\.kind=regression", line)
    data = csv_graphs(tmp_path, [n % 3 for n in range(60)])
    data.open([])
    assert notices(data) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "'price' is always 1.5: there is nothing to learn"),
        (5, "'price' has only one class, 5: there is nothing to learn"),
        (1.0, "'price' has only one class, 1: there is nothing to learn"),  # always yes
    ],
)
def test_constant_targets_are_rejected(tmp_path: Path, value: float, message: str) -> None:
    data = csv_graphs(tmp_path, [value] * 40)
    data.open([])
    with pytest.raises(UserError) as caught:
        check_varied(data)
    assert str(caught.value) == message


def test_varying_targets_are_accepted(tmp_path: Path) -> None:
    data = csv_graphs(tmp_path, [1.5 + n % 2 for n in range(40)])
    data.open([])
    check_varied(data)


def test_missing_targets_do_not_count_as_variation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = csv_graphs(tmp_path, [5] * 40)
    data.open([])
    monkeypatch.setattr(data, "targets", lambda split: torch.tensor([5, UNLABELLED]))
    with pytest.raises(UserError, match="has only one class"):
        check_varied(data)
    monkeypatch.setattr(data, "targets", lambda split: torch.tensor([UNLABELLED]))
    check_varied(data)
    data.schema = replace(data.schema, level="link")
    monkeypatch.setattr(data, "targets", lambda split: torch.tensor([5]))
    check_varied(data)

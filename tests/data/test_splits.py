"""Ways to split samples: by scaffold against OGB, at random, by group, stratified, and by column."""

from collections import defaultdict
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gt.data import splits
from gt.data.molecules.molecules import Molecules
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.data.splits import at_random, by_scaffold, by_word, stratified

SHARES = (0.8, 0.1, 0.1)


def all_samples(found: dict[str, np.ndarray]) -> list[int]:
    assert all((np.diff(part) > 0).all() for part in found.values())
    return sorted(np.concatenate(list(found.values())).tolist())


def ogb_scaffold_split(scaffolds: list[str], train: float, valid: float) -> list[list[int]]:
    """OGB's rule for scaffold splits, written out."""
    groups = defaultdict(list)
    for sample, scaffold in enumerate(scaffolds):
        groups[scaffold].append(sample)
    ordered = sorted(groups.items(), key=lambda item: (len(item[1]), item[1][0]), reverse=True)
    parts: list[list[int]] = [[], [], []]
    for _, group in ordered:
        if len(parts[0]) + len(group) > train * len(scaffolds):
            if len(parts[0]) + len(parts[1]) + len(group) > (train + valid) * len(scaffolds):
                parts[2] += group
            else:
                parts[1] += group
        else:
            parts[0] += group
    return [sorted(part) for part in parts]


@pytest.mark.parametrize("count", [1, 2, 10, 57, 400])
def test_scaffold_split_follows_the_rule_of_ogb(count: int) -> None:
    random = np.random.default_rng(count)
    scaffolds = [str(number) for number in random.zipf(1.5, count).clip(max=count)]
    found = by_scaffold(scaffolds, SHARES)
    assert [part.tolist() for part in found.values()] == ogb_scaffold_split(scaffolds, 0.8, 0.1)
    assert all_samples(found) == list(range(count))


@pytest.mark.parametrize("count", [1, 3, 10, 57, 1001])
@pytest.mark.parametrize("shares", [SHARES, (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])
def test_random_split_has_the_given_shares(count: int, shares: tuple[float, float, float]) -> None:
    found = at_random(count, shares, seed=3)
    assert all_samples(found) == list(range(count))
    assert all(abs(len(part) - share * count) <= 1 for part, share in zip(found.values(), shares, strict=True))


@pytest.mark.parametrize("count", [12, 57, 1001])
def test_group_split_keeps_groups_together(count: int) -> None:
    groups = np.random.default_rng(count).zipf(1.6, count).clip(max=count) * 10**12
    largest = np.bincount(groups // 10**12).max()
    found = splits.by_group(groups, SHARES, seed=3)
    assert all_samples(found) == list(range(count))
    assert all(abs(len(part) - share * count) <= largest for part, share in zip(found.values(), SHARES, strict=True))
    three_groups = splits.by_group(groups % 3, (0.8, 0.1, 0.1), seed=3)
    assert min(map(len, three_groups.values())) > 0 or len(set(groups % 3)) < 3
    folds = [splits.group_k_fold(groups, 4, fold, seed=3) for fold in range(4)]
    assert sorted(np.concatenate([parts["test"] for parts in folds]).tolist()) == list(range(count))
    for fold, parts in enumerate([found, *folds]):
        assert all_samples(parts) == list(range(count))
        groups_by_part = [set(groups[part].tolist()) for part in parts.values()]
        assert sum(map(len, groups_by_part)) == len(set(groups.tolist()))
        if fold:
            assert parts["valid"].tolist() == folds[fold - 2]["test"].tolist()
            others = [len(part["test"]) for part in folds]
            assert max(others) - min(others) <= max(largest, count // 4)


def test_random_split_depends_on_seed() -> None:
    first, repeated, other_seed = (at_random(200, SHARES, seed)["test"].tolist() for seed in (0, 0, 1))
    assert first == repeated
    assert first != other_seed
    assert sum(first) / 20 == pytest.approx(100, abs=45)  # from the whole range, not from one end


def test_stratified_split_has_equal_shares_of_classes() -> None:
    classes = np.random.default_rng(0).choice(4, 500, p=[0.85, 0.1, 0.04, 0.01])
    found = stratified(classes, SHARES, seed=0)
    assert all_samples(found) == list(range(500))
    for part, share in zip(found.values(), SHARES, strict=True):
        counts = np.bincount(classes[part], minlength=4)
        np.testing.assert_allclose(counts, share * np.bincount(classes), atol=2)
    assert stratified(classes, SHARES, seed=1)["test"].tolist() != found["test"].tolist()


def test_split_names_are_recognised() -> None:
    words = ["Train", "val", "TEST ", "training", "validation", "dev", "testing", "valid", "train"]
    assert {name: part.tolist() for name, part in by_word(words).items()} == {
        "train": [0, 3, 8],
        "valid": [1, 4, 5, 7],
        "test": [2, 6],
    }
    assert splits.split_of("holdout") is None
    assert splits.split_of(None) is None


@pytest.mark.slow
def test_scaffold_split_equals_ogbg_molhiv(real_data: Path) -> None:
    pytest.importorskip("rdkit")
    from gt.data.molecules.smiles import smiles_graphs

    folder = real_data / "ogbg_molhiv"
    molecules = smiles_graphs(pd.read_csv(folder / "mapping" / "mol.csv.gz")["smiles"].tolist(), scaffolds=True)
    assert not molecules.failed
    found = by_scaffold(molecules.scaffolds, SHARES)
    for name, part in found.items():
        expected = pd.read_csv(folder / "split" / "scaffold" / f"{name}.csv.gz", header=None)[0].to_numpy()
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("fractions", [[0.8, 0.2], [0.8, 0.1, 0.2], [1.2, -0.1, -0.1], [0.8, 0.1, float("nan")]])
@pytest.mark.parametrize("source", [Molecules, CSVGraphs, GraphFiles])
def test_invalid_fractions_are_rejected_before_reading(source: type, fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="fractions"):
        source("nowhere", fractions=fractions)


def test_scaffolds_and_groups_stay_within_one_fold(tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    from gt.data.graphs import GraphData

    smiles = [ring + "C" * n for ring in ("C1CC1", "C1CCC1", "c1ccccc1", "C1CCCC1", "CC", "O1CC1") for n in range(5)]
    series = [f"s{n % 4}" if n % 7 else None for n in range(30)]  # unknown for some
    pd.DataFrame({"smiles": smiles, "y": np.arange(30) / 7, "series": series}).to_csv(tmp_path / "a.csv", index=False)
    options = {"path": str(tmp_path / "a.csv"), "target": "y", "root": str(tmp_path / "root"), "processes": 1}

    def split(**split_options: object) -> dict[str, list[int]]:
        data = GraphData(Molecules(**options, **split_options))
        data.open([])
        rows = data.graphs.graphs["row"]
        return {name: rows[data.graphs.splits[name]].tolist() for name in ("train", "valid", "test")}

    def assert_grouped(parts: dict[str, list[int]], groups: list[object]) -> None:
        assert sorted(chain(*parts.values())) == list(range(30))
        groups_by_part = [{groups[row] for row in part if groups[row] is not None} for part in parts.values()]
        assert sum(map(len, groups_by_part)) == len(set(groups) - {None})

    folds = [split(folds=3, fold=fold, split="scaffold") for fold in range(3)]
    assert sorted(chain(*(each["test"] for each in folds))) == list(range(30))
    for each in folds:
        assert_grouped(each, [row // 5 for row in range(30)])
    assert_grouped(split(split="group", split_column="series", fractions=[0.5, 0.25, 0.25]), series)
    assert_grouped(split(folds=5, split="group", split_column="series"), series)
    for invalid in ({"split": "column", "folds": 3}, {"split_column": "series", "folds": 3}, {"split": "group"}):
        with pytest.raises(ValueError, match="split"):
            Molecules(**options, **invalid)

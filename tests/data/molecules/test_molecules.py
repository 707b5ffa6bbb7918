"""The source of molecules: graphs against OGB, scaling, splits, skipped rows, and error messages."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("rdkit")
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

from gt.data.graphs import GraphData
from gt.data.molecules import molecules
from gt.data.molecules.molecules import Molecules
from gt.errors import UserError
from gt.losses import constant_prediction, loss
from tests.data.modules import make_data

RINGS = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "c1ccsc1", "C1CC1"]
# 60 molecules of 7 scaffolds, including the empty one; one molecule is a single atom
SMILES = [f"{'C' * (n // 7 + 1)}{([*RINGS, ''])[n % 7]}" for n in range(60)]
TARGETS = np.random.default_rng(0).normal(5, 3, 60).round(4).tolist()


def ogb_graph(text: str) -> dict[str, np.ndarray]:
    from ogb.utils import smiles2graph  # after the project's own import of ogb, which keeps it off the network

    return smiles2graph(text)


def write_csv(path: Path, frame: pd.DataFrame) -> str:
    frame.to_csv(path, index=False)
    return str(path)


def open_data(path: str, folder: Path, **options: object) -> Molecules:
    data = make_data(GraphData, Molecules, path, root=str(folder / "root"), processes=1, **options)  # type: ignore[arg-type]
    data.open([])
    return data


def rows_of(data: Molecules, split: str) -> list[int]:
    return np.asarray(data.graphs.graphs["row"])[data.graphs.splits[split]].tolist()


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame({"smiles": SMILES, "logS": TARGETS})


def test_defaults_with_only_a_path(tmp_path: Path, table: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "my.csv", table)
    data = open_data(path, tmp_path)
    graphs = data.graphs
    assert graphs is not None
    for number, text in enumerate(SMILES):
        expected = ogb_graph(text)
        nodes, edges = (slice(p[number], p[number + 1]) for p in (graphs.node_ptr, graphs.edge_ptr))
        np.testing.assert_array_equal(graphs.nodes["x"][nodes], expected["node_feat"])
        order = np.lexsort(expected["edge_index"])
        np.testing.assert_array_equal(graphs.edge_index[:, edges], expected["edge_index"][:, order])
        np.testing.assert_array_equal(graphs.edges["edge_attr"][edges], expected["edge_feat"][order])
    np.testing.assert_allclose(graphs.graphs["y"][:, 0], TARGETS, rtol=1e-6)
    assert graphs.schema.max_nodes == graphs.sizes.max()

    scaffolds = [MurckoScaffoldSmiles(text) for text in SMILES]
    parts = [rows_of(data, name) for name in ("train", "valid", "test")]
    assert sorted(itertools.chain(*parts)) == list(range(60))
    assert sum(len({scaffolds[row] for row in part}) for part in parts) == 7
    assert all(parts)

    summary = capsys.readouterr().out.strip().splitlines()[-1]
    sizes = " / ".join(str(len(part)) for part in parts)
    assert summary == (
        f"{path}: molecules from 'smiles', regression from 'logS'; 60 molecules; scaffold split {sizes};"
        " 0 of 60 rows skipped"
    )
    assert not data.source.skipped_rows.exists()


def test_targets_are_scaled_by_the_training_split(tmp_path: Path, table: pd.DataFrame) -> None:
    data = open_data(write_csv(tmp_path / "my.csv", table), tmp_path, split="random")
    train = table["logS"].to_numpy()[rows_of(data, "train")]
    assert data.schema.mean == pytest.approx((train.mean(),))
    assert data.schema.scale == pytest.approx((train.std(),))
    assert data.schema.squared
    assert data.measures()[1].name == "rmse"
    mean = constant_prediction(data.schema, data.targets("train")).expand(len(train), 1)
    assert float(loss(data.schema, mean, data.targets("train"))) == pytest.approx(1, rel=1e-5)

    unscaled = open_data(str(data.source.path), tmp_path, split="random", normalise=False, loss="absolute")
    assert (unscaled.schema.mean, unscaled.schema.scale, unscaled.schema.squared) == ((), (), False)
    assert unscaled.measures()[1].name == "mae"
    torch.testing.assert_close(unscaled.targets("test"), data.targets("test"))


def test_skipped_rows_are_listed(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(molecules, "PART", 7)
    clean = open_data(write_csv(tmp_path / "whole.csv", table.drop([2, 3, 4, 20, 59])), tmp_path)
    spoilt = table.astype(object)
    spoilt.loc[2, "smiles"] = "xyz"
    spoilt.loc[3, "smiles"] = "CN(C)(C)(C)C"
    spoilt.loc[4, "smiles"] = None
    spoilt.loc[20, "logS"] = "<1"
    spoilt.loc[59, "logS"] = None
    path = write_csv(tmp_path / "spoilt.csv", spoilt)
    lines = Path(path).read_text().splitlines()
    lines.insert(31, "CC,1,2,3")
    Path(path).write_text("\n".join(lines))
    data = open_data(path, tmp_path)
    assert data.source.skipped_rows.parent == tmp_path / "root" / "stores"
    with open(data.source.skipped_rows) as file:
        assert list(csv.reader(file)) == [
            ["row", "line", "text", "reason", "file"],
            ["2", "4", "xyz", "syntax error while parsing: xyz", path],
            ["3", "5", "CN(C)(C)(C)C", "Explicit valence for atom # 1 N, 5, is greater than permitted", path],
            ["4", "6", "", "no molecule", path],
            ["20", "22", SMILES[20], "'<1' in 'logS' is not a number", path],
            ["30", "32", "CC,1,2,3", "4 cells where the header has 2", path],
            ["60", "62", SMILES[59], "no label", path],
        ]
    assert "6 of 61 rows skipped, listed in" in data.source.summary(data.graphs)
    for name in ("x",):
        np.testing.assert_array_equal(data.graphs.nodes[name], clean.graphs.nodes[name])
    for name, part in clean.graphs.splits.items():
        np.testing.assert_array_equal(data.graphs.splits[name], part)
    assert data.schema == clean.schema


def test_part_of_only_invalid_molecules(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(molecules, "PART", 4)
    table.loc[:3, "smiles"] = "xyz"
    table.loc[56:, "smiles"] = "xyz"
    data = open_data(write_csv(tmp_path / "my.csv", table), tmp_path)
    assert len(data.graphs or ()) == 52
    assert "8 of 60 rows skipped" in data.source.summary(data.graphs)


def test_two_processes_equal_one(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(molecules, "PART", 7)
    path = write_csv(tmp_path / "my.csv", table)
    one = open_data(path, tmp_path)
    two = GraphData(Molecules(path, root=str(tmp_path / "two"), processes=2))
    two.open([])
    np.testing.assert_array_equal(one.graphs.nodes["x"], two.graphs.nodes["x"])
    np.testing.assert_array_equal(one.graphs.splits["test"], two.graphs.splits["test"])
    assert one.source.skipped_rows.name == two.source.skipped_rows.name


def test_missing_labels_of_several_tasks(tmp_path: Path) -> None:
    y = np.random.default_rng(1).choice([0, 1, np.nan], (60, 3))
    frame = pd.DataFrame(y, columns=["a", "b", "c"]).assign(smiles=SMILES, mol_id=range(100, 160))
    frame.loc[:5, ["a", "b", "c"]] = np.nan
    data = open_data(write_csv(tmp_path / "my.csv", frame), tmp_path, split="random", weights="balanced")
    assert (data.schema.kind, data.schema.outputs, data.schema.names) == ("binary", 3, ("a", "b", "c"))
    assert np.asarray(data.graphs.graphs["row"]).tolist() == [
        n for n in range(60) if not np.isnan(y[n]).all() and n > 5
    ]
    train = y[rows_of(data, "train")]
    expected = (train == 0).sum(axis=0) / (train == 1).sum(axis=0)
    np.testing.assert_allclose(data.schema.weights, expected)
    np.testing.assert_array_equal(data.targets("test"), y[rows_of(data, "test")].astype(np.float32))


def test_multiclass_target(tmp_path: Path) -> None:
    words = [["low", "high", None][n % 3] for n in range(60)]
    path = write_csv(tmp_path / "my.csv", pd.DataFrame({"smiles": SMILES, "label": words}))
    data = open_data(path, tmp_path, kind="multiclass", split="stratified", weights="balanced")
    assert (data.schema.kind, data.schema.names) == ("multiclass", ("high", "low"))
    assert data.targets("train").dtype == torch.int64
    assert torch.bincount(data.targets("train")).tolist() == [16, 16]
    assert data.schema.weights == (1.0, 1.0)


@pytest.mark.parametrize(("values", "listed"), [([0, 1, 2], "'rings';"), ([0, 1, 5], "'rings' (2 = 5);")])
def test_summary_lists_only_renumbered_classes(tmp_path: Path, values: list[int], listed: str) -> None:
    path = write_csv(tmp_path / "my.csv", pd.DataFrame({"smiles": SMILES, "rings": values * 20}))
    data = open_data(path, tmp_path, kind="multiclass", target="rings")
    assert f"multiclass from {listed}" in data.source.summary(data.graphs)


@pytest.mark.parametrize("options", [{}, {"split": "column"}, {"split_column": "fold of mine"}])
def test_split_column(tmp_path: Path, table: pd.DataFrame, options: dict[str, str]) -> None:
    name = options.get("split_column", "split")
    words = ["train", "valid", "test", "Train", "dev", "holdout"]
    table[name] = [words[n % 6] for n in range(60)]
    data = open_data(write_csv(tmp_path / "my.csv", table), tmp_path, **(options or {"split": "column"}))
    assert rows_of(data, "train") == [n for n in range(60) if n % 3 == 0]
    assert rows_of(data, "valid") == [n for n in range(60) if n % 6 in (1, 4)]
    assert rows_of(data, "test") == [n for n in range(60) if n % 6 == 2]
    assert "10 of 60 rows skipped" in data.source.summary(data.graphs)


def test_sdf_file(tmp_path: Path) -> None:
    chem = pytest.importorskip("rdkit.Chem")
    with chem.SDWriter(str(tmp_path / "my.sdf")) as writer:
        for text, number in zip(SMILES, TARGETS, strict=True):
            mol = chem.MolFromSmiles(text)
            mol.SetProp("logS", str(number))
            writer.write(mol)
    data = open_data(str(tmp_path / "my.sdf"), tmp_path)
    np.testing.assert_array_equal(data.graphs.sizes, [ogb_graph(text)["num_nodes"] for text in SMILES])
    np.testing.assert_allclose(data.targets("train")[:, 0], np.float32(TARGETS)[rows_of(data, "train")])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"smiles": "smile"}, r"no column 'smile' \(data.smiles\): did you mean 'smiles'\?"),
        ({}, {"target": ["logS", "logP"]}, r"no column 'logP' \(data.target\): did you mean 'logS'\?"),
        ({}, {"target": "smiles"}, "'smiles' cannot be a target"),
        ({}, {"split": "column"}, "no column says train, valid or test"),
        ({}, {"fractions": [1.0, 0.0, 0.0]}, "scaffold split of 60 molecules leaves none for train or valid"),
        ({"smiles": "c1ccccc1"}, {}, "scaffold split of 60 molecules leaves none for train and valid"),
        (
            {"other": TARGETS},
            {},
            "set data.target=logS, or one of: logS, other",
        ),
        ({"other": TARGETS}, {"target": ["logS", "other"], "split": "stratified"}, "stratified needs a single target"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, table: pd.DataFrame, change: dict, options: dict, message: str) -> None:
    path = write_csv(tmp_path / "my.csv", table.assign(**change))
    with pytest.raises(UserError, match=message) as caught:
        open_data(path, tmp_path, **options)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "root").glob("stores/*/facts.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": [0.8, 0.1]}, "fractions must be three shares"),
        ({"fractions": [0.8, 0.1, 0.2]}, "add up to 1"),
        ({"fractions": [1.2, -0.1, -0.1]}, "fractions must be three shares"),
        ({"split": "random", "split_column": "part"}, "goes with split=column or group, not with split=random"),
    ],
)
def test_invalid_options_are_rejected(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data(GraphData, Molecules, "my.csv", **options)


def test_changed_file_or_split_has_its_own_store(tmp_path: Path, table: pd.DataFrame) -> None:
    first = open_data(write_csv(tmp_path / "my.csv", table), tmp_path)
    repeated = open_data(write_csv(tmp_path / "my.csv", table), tmp_path)
    table.loc[0, "logS"] = 77
    changed = open_data(write_csv(tmp_path / "my.csv", table), tmp_path)
    assert first.source.skipped_rows == repeated.source.skipped_rows != changed.source.skipped_rows
    assert 77 in torch.cat([changed.targets(name) for name in ("train", "valid", "test")])
    assert (
        open_data(str(first.source.path), tmp_path, split="random").source.skipped_rows != changed.source.skipped_rows
    )


@pytest.mark.parametrize(
    ("name", "kind", "target", "counts"),
    [
        ("BBBP", "binary", "p_np", (2039, 11)),
        ("ESOL_delaney-processed", "regression", "measured log solubility in mols per litre", (1128, 0)),
    ],
)
def test_moleculenet_files(
    tmp_path: Path, real_data: Path, name: str, kind: str, target: str, counts: tuple[int, int]
) -> None:
    data = open_data(str(real_data / "moleculenet" / f"{name}.csv"), tmp_path)
    assert (data.schema.kind, data.schema.names) == (kind, (target,))
    skipped = pd.read_csv(data.source.skipped_rows) if data.source.skipped_rows.exists() else ()
    assert (len(data.graphs or ()), len(skipped)) == counts

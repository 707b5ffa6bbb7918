"""OGB's molecule datasets: graphs, labels and splits against OGB's own reader; schema, store and baseline."""

import ast
import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import gt
from gt.cli.config_files import CONFIGS
from gt.data.graphs import GraphData
from gt.data.ogb import raw as ogb_raw
from gt.data.ogb.code2 import FunctionNames
from gt.data.ogb.graphs import OGBMolecules
from gt.data.ogb.metric import OGBMetric
from gt.data.ogb.pcqm4mv2 import PCQM4Mv2
from gt.data.ogb.ppa import ProteinAssociations
from gt.data.packed import Graphs
from gt.data.store import load, save
from gt.schema import Schema
from gt.train.baseline import baseline
from tests.data.ogb_files import (
    ATOMS,
    assert_fails,
    assert_same_as_ogb,
    read_molecules,
    to_csv,
    write_gzip,
    write_molecules,
)

DATA = os.environ.get("GT_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="GT_DATA names no folder with real data")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_molecules(tmp_path / "ogbg_molhiv", [0, 1, 1, 0])
    return tmp_path


def test_update_check_is_disabled_before_ogb_is_imported() -> None:
    stub, importers = "sys.modules.setdefault('outdated', None)", []
    for path in Path(gt.__path__[0]).rglob("*.py"):
        statements = [ast.unparse(statement) for statement in ast.parse(path.read_text()).body]
        imports = [n for n, line in enumerate(statements) if line.startswith(("from ogb", "import ogb"))]
        package = ast.parse((path.parent / "__init__.py").read_text()).body  # runs before the module does
        if imports:
            assert stub in [*map(ast.unparse, package), *statements[: imports[0]]], path
            importers.append(path.name)
    assert "graphs.py" in importers


def test_graphs_and_schema_of_four_molecules(root: Path) -> None:
    graphs = read_molecules("ogbg-molhiv", root)
    assert graphs.node_ptr.tolist() == [0, 3, 4, 6, 10]
    assert graphs.edge_ptr.tolist() == [0, 4, 4, 6, 12]
    assert graphs.edge_index[:, :6].tolist() == [[1, 0, 2, 1, 1, 0], [0, 1, 1, 2, 0, 1]]
    assert graphs.edges["edge_attr"][:6].tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 1], [1, 2, 1], [4, 5, 0], [4, 5, 0]]
    assert graphs.graphs["y"].dtype == np.float32
    schema = graphs.schema
    assert (schema.level, schema.kind, schema.outputs, schema.max_nodes) == ("graph", "binary", 1, 4)
    assert sum(schema.node_vocab) == 174
    assert schema.edge_vocab == (5, 6, 2)
    assert_same_as_ogb("ogbg-molhiv", root)


def test_task_names_from_header_of_smiles_table(root: Path) -> None:
    assert read_molecules("ogbg-molhiv", root).schema.target == ()
    mapping = root / "ogbg_molhiv" / "mapping" / "mol.csv.gz"
    write_gzip(mapping, "HIV_active,smiles,mol_id\n0,C,a\n")
    assert read_molecules("ogbg-molhiv", root).schema.target == ("HIV_active",)
    for content in (b"no gzip", gzip.compress(b"one,two,smiles\n"), gzip.compress(b"\xff\n"), b""):
        mapping.write_bytes(content)
        assert read_molecules("ogbg-molhiv", root).schema.target == ()


def test_multitask_labels_with_missing_values(tmp_path: Path) -> None:
    labels = np.tile([0, 1, np.nan], 16).reshape(4, 12)
    labels[2] = np.nan
    write_molecules(tmp_path / "ogbg_moltox21", labels)
    assert_same_as_ogb("ogbg-moltox21", tmp_path)
    assert read_molecules("ogbg-moltox21", tmp_path).schema.outputs == 12


def test_single_task_with_missing_labels(tmp_path: Path) -> None:
    write_molecules(tmp_path / "ogbg_molbbbp", [0, np.nan, 1, np.nan])
    assert_same_as_ogb("ogbg-molbbbp", tmp_path)


def test_regression_scale_is_that_of_training_set(tmp_path: Path) -> None:
    write_molecules(tmp_path / "ogbg_mollipo", [0.1, -3.25, 1e-3, 4.0])
    assert_same_as_ogb("ogbg-mollipo", tmp_path)
    schema = read_molecules("ogbg-mollipo", tmp_path).schema
    assert (schema.kind, schema.squared) == ("regression", True)
    assert schema.mean == pytest.approx((2.05,))  # of graphs 3 and 0
    assert schema.scale == pytest.approx((1.95,))


@pytest.mark.parametrize("piece_size", [1, 7, 12])
def test_chunked_read_equals_whole_read(root: Path, monkeypatch: pytest.MonkeyPatch, piece_size: int) -> None:
    data = GraphData(OGBMolecules("ogbg-molhiv", str(root)))
    data.open([])
    whole = data.graphs
    monkeypatch.setattr(ogb_raw, "PIECE_SIZE", piece_size)
    chunks = list(data.source.read(data.source.files()))
    assert 1 < len(chunks) <= 4
    assert_same_as_ogb("ogbg-molhiv", root)
    save(iter(chunks), root / "again")
    restored = load(root / "again")
    for name in ("node_ptr", "edge_ptr", "edge_index"):
        np.testing.assert_array_equal(getattr(restored, name), getattr(whole, name))
    np.testing.assert_array_equal(restored.nodes["x"], whole.nodes["x"])
    assert restored.schema == whole.schema


def test_digest_of_large_file_covers_size_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ogb_raw, "FULL_HASH_LIMIT", 100)
    monkeypatch.setattr(ogb_raw, "HASHED_ENDS", 10)
    digests = set()
    for content in (
        b"a" * 101,
        b"a" * 102,
        b"a" * 100 + b"b",
        b"b" + b"a" * 100,
        b"a" * 100,
        b"a" * 50 + b"b" + b"a" * 49,
    ):
        (tmp_path / "file").write_bytes(content)
        digests.add(ogb_raw.digest(tmp_path / "file"))
    assert len(digests) == 6


def test_molecules_without_bonds(root: Path) -> None:
    raw = root / "ogbg_molhiv" / "raw"
    for part, text in {
        "num-node-list": "1\n" * 4,
        "num-edge-list": "0\n" * 4,
        "node-feat": to_csv(ATOMS[:4]),
        "edge": "",
        "edge-feat": "",
    }.items():
        write_gzip(raw / f"{part}.csv.gz", text)
    graphs = read_molecules("ogbg-molhiv", root)
    assert len(graphs) == 4
    assert graphs.edge_index.shape == (2, 0)
    assert graphs.edges["edge_attr"].shape == (0, 3)


@needs_data
def test_real_molecules_match_ogb() -> None:
    assert_same_as_ogb("ogbg-molhiv", Path(DATA or "", "ogb_mini"))


@needs_data
def test_molhiv_matches_published_statistics() -> None:
    graphs = read_molecules("ogbg-molhiv", Path(DATA or ""))
    y = graphs.graphs["y"][:, 0]
    assert len(graphs) == 41_127
    assert graphs.sizes.mean() == pytest.approx(25.51, abs=0.005)
    assert np.diff(graphs.edge_ptr).mean() / 2 == pytest.approx(27.47, abs=0.005)
    assert y.sum() == 1_443
    counts = {part: (len(ids), y[ids].sum()) for part, ids in graphs.splits.items()}
    assert counts == {"train": (32_901, 1_232), "valid": (4_113, 81), "test": (4_113, 130)}


def test_key_depends_on_contents_only(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(root / "ogbg_molhiv", copy / "ogbg_molhiv")
    os.utime(copy / "ogbg_molhiv" / "raw" / "edge.csv.gz", (1, 1))
    assert OGBMolecules("ogbg-molhiv", str(copy)).key() == OGBMolecules("ogbg-molhiv", str(root)).key()
    write_gzip(copy / "ogbg_molhiv" / "raw" / "graph-label.csv.gz", "1\n1\n1\n0\n")
    assert OGBMolecules("ogbg-molhiv", str(copy)).key() != OGBMolecules("ogbg-molhiv", str(root)).key()


@pytest.mark.parametrize(
    ("name", "closest"),
    [("ogbg_molhiv", "ogbg-molhiv"), ("molpcba", "ogbg-molpcba"), ("ogbg-ppa", "ogbg-mol"), ("", "ogbg")],
)
def test_unknown_name_suggests_closest(tmp_path: Path, name: str, closest: str) -> None:
    assert_fails(lambda: GraphData(OGBMolecules(name, str(tmp_path))).open([]), repr(name), closest)


def test_metric_with_unknown_name_suggests_closest() -> None:
    assert_fails(lambda: OGBMetric("ogbg-molhif"), "ogbg-molhiv")


def test_data_module_loads_batches_and_targets(root: Path) -> None:
    data = GraphData(OGBMolecules("ogbg-molhiv", str(root)), batch_size=2)
    data.open([])
    assert data.schema == read_molecules("ogbg-molhiv", root).schema
    (store,) = (path for path in (root / "stores").iterdir() if path.is_dir())
    assert store.name.startswith("ogbg-molhiv-")
    (batch,) = data.loader("train")
    assert batch.y.shape == (2, 1)
    assert sorted(batch.ptr.diff().tolist()) == [3, 4]
    assert data.targets("valid").tolist() == [[1.0]]
    assert data.has("test")


def test_changed_labels_get_a_new_store(root: Path) -> None:
    for label in (0, 1):
        write_gzip(root / "ogbg_molhiv" / "raw" / "graph-label.csv.gz", f"0\n{label}\n1\n0\n")
        data = GraphData(OGBMolecules("ogbg-molhiv", str(root)))
        data.open([])
        assert data.targets("valid").tolist() == [[label]]
    assert sum(path.is_dir() for path in (root / "stores").iterdir()) == 2


def test_existing_store_is_reused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    GraphData(OGBMolecules("ogbg-molhiv", str(root))).open([])
    monkeypatch.setattr(OGBMolecules, "read", lambda *args: pytest.fail("rebuilt"))
    GraphData(OGBMolecules("ogbg-molhiv", str(root))).open([])


@pytest.mark.parametrize(
    ("name", "measure", "mode"),
    [("ogbg-molhiv", "rocauc", "max"), ("ogbg-molpcba", "ap", "max"), ("ogbg-mollipo", "rmse", "min")],
)
def test_metric_and_criterion_by_dataset(name: str, measure: str, mode: str) -> None:
    no_graphs = Graphs(np.zeros(1), np.zeros(1), np.empty((2, 0)), Schema())
    measures, criterion = OGBMolecules(name).measures(no_graphs)
    assert list(measures) == [measure]
    assert (criterion.name, criterion.mode) == (measure, mode)


def test_baseline_auc_is_half_or_nan(root: Path) -> None:
    for part, ids in {"train": "3\n", "valid": "0\n1\n", "test": "2\n"}.items():
        write_gzip(root / "ogbg_molhiv" / "split" / "scaffold" / f"{part}.csv.gz", ids)
    data = GraphData(OGBMolecules("ogbg-molhiv", str(root)))
    data.open([])
    assert baseline(data, data.targets("valid"))["rocauc"] == 0.5
    assert np.isnan(baseline(data, data.targets("test"))["rocauc"])


def test_baseline_for_task_unlabelled_in_training(tmp_path: Path) -> None:
    write_molecules(tmp_path / "ogbg_molclintox", [[0, np.nan], [1, 1], [0, 0], [1, np.nan]])
    for part, ids in {"train": "3\n0\n", "valid": "1\n2\n", "test": ""}.items():
        write_gzip(tmp_path / "ogbg_molclintox" / "split" / "scaffold" / f"{part}.csv.gz", ids)
    data = GraphData(OGBMolecules("ogbg-molclintox", str(tmp_path)))
    data.open([])
    assert baseline(data, data.targets("valid"))["rocauc"] == 0.5
    assert not data.has("test")


CONFIGURED = {
    "ogbg_molhiv": (OGBMolecules, "ogbg-molhiv"),
    "ogbg_molpcba": (OGBMolecules, "ogbg-molpcba"),
    "ogbg_mol": (OGBMolecules, "ogbg-mollipo"),
    "ogbg_ppa": (ProteinAssociations, "ogbg-ppa"),
    "ogbg_code2": (FunctionNames, "ogbg-code2"),
    "pcqm4mv2": (PCQM4Mv2, "pcqm4m-v2"),
}


@pytest.mark.parametrize("option", CONFIGURED)
def test_config_instantiates_source(option: str) -> None:
    source_class, name = CONFIGURED[option]
    overrides = [f"data={option}", "seed=3", *([f"data.source.dataset={name}"] if option == "ogbg_mol" else [])]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        data = instantiate(compose("train", overrides=overrides).data)
    assert (type(data), type(data.source)) == (GraphData, source_class)
    assert (data.source.name, data.source.root, data.seed) == (name, Path("data"), 3)

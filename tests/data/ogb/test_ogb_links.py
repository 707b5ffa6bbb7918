"""OGB's link sets, against OGB's own reader and Evaluator."""

import os
import shutil
import sys
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import gt
from gt.data.large.links import LinkData
from gt.data.ogb.links import OGBLinks, build
from gt.data.ogb.pt import arrays
from gt.train.baseline import baseline
from gt.train.network import build as network
from gt.train.network import encodings_of, network_config
from tests.data.ogb_files import fails, put, table

sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.linkproppred import PygLinkPropPredDataset  # noqa: E402

CONFIGS = Path(gt.__path__[0]).parent / "configs"
KINDS = {"ogbl-collab": "time", "ogbl-ppa": "throughput", "ogbl-ddi": "target", "ogbl-citation2": "time"}
NODES, K = 30, 40


def split(name: str, count: int, draw: np.random.Generator, part: str) -> dict[str, np.ndarray]:
    """What one of OGB's split files holds."""
    pairs = draw.integers(NODES, size=(count, 2))
    if name == "ogbl-citation2":
        found = {"source_node": pairs[:, 0], "target_node": pairs[:, 1]}
        return found | ({} if part == "train" else {"target_node_neg": draw.integers(NODES, size=(count, 7))})
    found = {"edge": pairs}
    if name == "ogbl-collab":
        found |= {"weight": draw.integers(1, 5, size=count), "year": draw.integers(1990, 2018, size=count)}
    return found | ({} if part == "train" else {"edge_neg": draw.integers(NODES, size=(count + 130, 2))})


def write(root: Path, name: str, tensors: bool = False, **changed: Any) -> Path:
    """A random dataset in OGB's layout, the training links its graph; files that are ``changed`` hold what is given."""
    draw = np.random.default_rng(0)
    folder = root / name.replace("-", "_")
    splits = {part: split(name, count, draw, part) for part, count in {"train": K, "valid": 6, "test": 7}.items()}
    train = splits["train"]
    pairs = train["edge"] if "edge" in train else np.stack([train["source_node"], train["target_node"]], axis=1)
    raw: dict[str, object] = {"num-node-list": [NODES], "num-edge-list": [K], "edge": pairs}
    if name == "ogbl-ppa":
        raw["node-feat"] = np.eye(58, dtype=int)[draw.integers(58, size=NODES)]
    elif name != "ogbl-ddi":
        raw["node-feat"] = draw.random((NODES, 128)).round(3)
    if name == "ogbl-collab":
        raw |= {"edge_weight": train["weight"], "edge_year": train["year"]}
    if name == "ogbl-citation2":
        raw["node_year"] = draw.integers(1990, 2018, size=NODES)
    for part, rows in {**raw, **{k: v for k, v in changed.items() if k not in splits}}.items():
        put(folder / "raw" / f"{part.replace('num_', 'num-').replace('_list', '-list')}.csv.gz", table(rows))
    folder.joinpath("split", KINDS[name]).mkdir(parents=True)
    for part, values in {**splits, **{k: v for k, v in changed.items() if k in splits}}.items():
        values = {k: torch.from_numpy(v) for k, v in values.items()} if tensors else values
        torch.save(values, folder / "split" / KINDS[name] / f"{part}.pt", pickle_protocol=4 if tensors else 2)
    (folder / "RELEASE_v1.txt").touch()
    return folder


def same_as_ogb(name: str, root: Path, scratch: Path, patch: pytest.MonkeyPatch) -> None:
    """Every edge, feature and link is what OGB's own class makes of the same files."""
    folder = scratch / name.replace("-", "_")
    shutil.copytree(root / folder.name, folder)
    graphs = build(name, root)
    patch.setattr(torch, "load", partial(torch.load, weights_only=False))  # OGB's class predates the safe default
    dataset = PygLinkPropPredDataset(name, root=str(scratch))
    theirs, links = dataset[0], dataset.get_edge_split()
    edge_index = theirs.edge_index.numpy()
    columns = [edge_index[1], edge_index[0]]
    if name == "ogbl-citation2":  # one way there
        columns = [np.concatenate([edge_index[1], edge_index[0]]), np.concatenate([edge_index[0], edge_index[1]])]
    if name == "ogbl-collab":
        weight, year = theirs.edge_weight.numpy()[:, 0], theirs.edge_year.numpy()[:, 0]
        columns += [np.log(weight), (year.max() - year) / 10]

    def pairs(part: Mapping[str, torch.Tensor]) -> np.ndarray:
        ends = part["edge"] if "edge" in part else torch.stack([part["source_node"], part["target_node"]], dim=1)
        return np.asarray(ends)

    trained = {frozenset(p) for p in pairs(links["train"]).tolist()}
    asked = {frozenset(p) for s in ("valid", "test") for p in pairs(links[s]).tolist()} - trained
    rows = [row for row in zip(*columns, strict=True) if frozenset(row[:2]) not in asked]
    mine = [graphs.edge_index[1], graphs.edge_index[0], *graphs.edges.get("edge_attr", np.empty((0, 0))).T]
    np.testing.assert_allclose(sorted(zip(*mine, strict=True)), sorted(rows), rtol=1e-6)
    assert graphs.notes["edges left out because they are asked for"] == (len(columns[0]) - len(rows)) / 2
    if name == "ogbl-ppa":
        np.testing.assert_array_equal(np.eye(58)[graphs.nodes["x"][:, 0]], theirs.x)
    elif name == "ogbl-ddi":
        assert graphs.nodes["x"][:, 0].tolist() == list(range(theirs.num_nodes))
    else:
        np.testing.assert_array_equal(graphs.nodes["x"], theirs.x)
    for part, found in links.items():
        np.testing.assert_array_equal(graphs.splits[part], pairs(found))
        if part != "train":
            other, key = ("targets", "target_node_neg") if "source_node" in found else ("negatives", "edge_neg")
            np.testing.assert_array_equal(graphs.splits[f"{part}_{other}"], found[key])


@pytest.mark.parametrize("name", KINDS)
def test_same_as_ogb(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, name)
    same_as_ogb(name, tmp_path, tmp_path / "scratch", monkeypatch)


def test_same_as_ogb_on_shared_files(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same_as_ogb("ogbl-collab", real_data / "ogb_mini", tmp_path, monkeypatch)


def test_edges_that_are_asked_for_are_left_out(tmp_path: Path) -> None:
    edge = np.array([[0, 1], [2, 3], [3, 2], [4, 5], [6, 7], [9, 9]])
    asked = {"edge": np.array([[1, 0], [2, 3], [20, 21]]), "edge_neg": np.array([[1, 2]])}
    write(
        tmp_path,
        "ogbl-ddi",
        num_edge_list=[6],
        edge=edge,
        train={"edge": edge[:1]},
        valid=asked,
        test={"edge": np.array([[7, 6]]), "edge_neg": np.array([[1, 2]])},
    )
    graphs = build("ogbl-ddi", tmp_path)
    assert sorted(map(tuple, graphs.edge_index.T.tolist())) == [(0, 1), (1, 0), (4, 5), (5, 4), (9, 9), (9, 9)]
    assert graphs.notes == {"edges left out because they are asked for": 3}


@pytest.mark.parametrize("name", KINDS)
def test_configuration_trains_and_evaluates(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    config = f"data={name.replace('-', '_')}"
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        small = ["model.width=16", "model.depth=2", "data.batch_size=9"]
        cfg = compose("train", [config, f"data.source.root={tmp_path}", *small])
    data = instantiate(cfg.data)
    assert (data.source.name, data.seed) == (name, 0)
    data.open(encodings_of(cfg))
    net = network(network_config(cfg), data.schema)
    measures, criterion = data.measures()
    measure = {"ogbl-collab": "hits@50", "ogbl-ppa": "hits@100", "ogbl-ddi": "hits@20", "ogbl-citation2": "mrr"}[name]
    assert (list(measures), criterion.name, criterion.mode) == ([measure], measure, "max")
    batch = next(iter(data.loader("train")))
    out = net(batch)
    assert out.shape == batch.y.shape == (18, 1)
    torch.nn.functional.binary_cross_entropy_with_logits(out, batch.y).backward()
    net.eval()
    with torch.no_grad():
        for batch in data.loader("test"):
            measures.update(net(batch), batch.y)
    assert 0 <= measures.compute()[measure] <= 1
    expected = 1 / 4.5 if name == "ogbl-citation2" else 0  # 7 others that are tied: the middle of the ranks 1 to 8
    assert baseline(data, data.targets("valid"))[measure] == pytest.approx(expected)


def test_validation_links_as_input_are_for_collaborations_only(tmp_path: Path) -> None:
    write(tmp_path, "ogbl-collab")
    data = LinkData(OGBLinks("ogbl-collab", str(tmp_path)), valid_as_input=True)
    data.open([])
    read = (data.graph.batch, *data.loader("valid"), *data.loader("test"))
    edges = [batch.num_edges for batch in read]
    assert edges == [edges[0], edges[0], edges[0] + 12]
    fails(lambda: LinkData(OGBLinks("ogbl-ppa"), valid_as_input=True), "ogbl-ppa", "valid_as_input=false")


def test_another_file_is_another_store(tmp_path: Path) -> None:
    folder = write(tmp_path, "ogbl-ddi")
    data = OGBLinks("ogbl-ddi", str(tmp_path))
    before = data.key()
    assert OGBLinks("ogbl-ddi", str(tmp_path)).key() == before
    torch.save({"edge": np.array([[0, 1]])}, folder / "split" / "target" / "train.pt")
    assert data.key() != before


@pytest.mark.parametrize("name", ["ogbl-wikikg2", "ogbl-biokg", "ogbl-vessel"])
def test_sets_of_another_kind(name: str) -> None:
    fails(lambda: LinkData(OGBLinks(name)), name, "ogbl-collab, ogbl-citation2")
    fails(lambda: LinkData(OGBLinks(name.replace("ogbl", "ogbx"))), "did you mean ogbl-")


@pytest.mark.parametrize(
    ("name", "changed", "parts"),
    [
        ("ogbl-ddi", {"edge": [[0, 1]]}, ("edge.csv.gz has 1 rows",)),
        ("ogbl-ddi", {"edge": [[0, 30], *[[0, 1]] * (K - 1)]}, ("edge.csv.gz, row 1: 30 is not a node",)),
        ("ogbl-ddi", {"num_node_list": [NODES, 3]}, ("num-node-list.csv.gz", "2 graphs")),
        ("ogbl-ppa", {"node-feat": np.zeros((NODES, 58), dtype=int)}, ("node-feat.csv.gz, row 1: 0 species",)),
        ("ogbl-ppa", {"node-feat": np.full((NODES, 58), 2)}, ("row 1: 2 is neither 0 nor 1",)),
        ("ogbl-ddi", {"train": {"edge": np.array([[0, 1], [-1, 3]])}}, ("train.pt, row 2: -1 is not a node",)),
        ("ogbl-ddi", {"valid": {"edge": np.array([[0, 1]])}}, ("valid.pt has no 'edge_neg', only edge",)),
        ("ogbl-ddi", {"train": {"edge": np.array([0, 1])}}, ("train.pt: links have the shape (2,)",)),
        ("ogbl-ddi", {"train": {"edge": np.array([[0.5, 1]])}}, ("train.pt: links are not integers",)),
        (
            "ogbl-citation2",
            {"test": {"source_node": np.array([1]), "target_node": np.array([2, 3]), "target_node_neg": np.eye(2)}},
            ("test.pt: 'target_node' has 2 rows, 'source_node' 1",),
        ),
        ("ogbl-collab", {"edge_weight": [1, 0, *[1] * (K - 2)]}, ("edge_weight.csv.gz, row 2: 0.0 papers",)),
        (
            "ogbl-collab",
            {"valid": {"edge": np.array([[1, 2]]), "edge_neg": np.array([[1, 2]])}},
            ("valid.pt has no 'weight'",),
        ),
    ],
)
def test_malformed_files(name: str, changed: dict[str, Any], parts: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, name, **changed)
    fails(lambda: build(name, tmp_path), *parts)


def renamed(path: Path) -> None:
    """The same file as numpy 1 would have written it."""
    with zipfile.ZipFile(path) as old:
        entries = {entry.filename: old.read(entry) for entry in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name, held in entries.items():
            new.writestr(name, held.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"cnumpy.core.multiarray\n" in path.read_bytes()


def test_arrays_however_they_were_saved(tmp_path: Path) -> None:
    values = {"edge": np.arange(6).reshape(3, 2), "year": np.array([1, 2, 3], dtype=np.int32)}
    paths = [tmp_path / name for name in ("new.pt", "before_numpy_2.pt", "before_zip.pt", "tensors.pt", "fortran.pt")]
    torch.save(values, paths[0])
    torch.save(values, paths[1])
    renamed(paths[1])
    torch.save(values, paths[2], _use_new_zipfile_serialization=False)
    torch.save({name: torch.from_numpy(value) for name, value in values.items()}, paths[3])
    torch.save({name: np.asfortranarray(value) for name, value in values.items()}, paths[4])
    for path in paths:
        found = arrays(path)
        assert list(found) == list(values)
        for name, value in values.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


class Trap:
    """Runs a command where a pickle of it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("held", ["trap", "trap in an array", "list", "text", "nothing", "half"])
def test_files_that_hold_something_else(held: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "train.pt", tmp_path / "sprung"
    values = {
        "trap": {"edge": Trap(mark)},
        "trap in an array": {"edge": np.array([Trap(mark)], dtype=object)},
        "list": [1],
        "text": {"edge": "0,1"},
    }
    torch.save(values.get(held, {"edge": np.arange(9)}), path)
    if held in ("nothing", "half"):
        path.write_bytes(b"" if held == "nothing" else path.read_bytes()[: path.stat().st_size // 2])
    fails(lambda: arrays(path), str(path), "replace the file by OGB's")
    assert not mark.exists()


def test_what_is_safe_to_load_is_as_before(tmp_path: Path) -> None:
    path = tmp_path / "train.pt"
    torch.save({"edge": np.arange(9)}, path)
    before = list(torch.serialization.get_safe_globals())
    try:
        torch.serialization.clear_safe_globals()  # other tests may have added some
        torch.serialization.add_safe_globals([np.ndarray])  # a user's own
        arrays(path)
        assert np.ndarray in torch.serialization.get_safe_globals()
        assert np.dtype not in torch.serialization.get_safe_globals()
        with pytest.raises(Exception, match="weights_only"):
            torch.load(path, weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)

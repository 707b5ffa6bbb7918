"""OGB's link datasets against OGB's own reader; malformed, unsupported and unsafe files."""

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
from tests.data.ogb_files import assert_fails, to_csv, write_gzip

sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.linkproppred import PygLinkPropPredDataset  # noqa: E402

CONFIGS = Path(gt.__path__[0]).parent / "configs"
SPLITS = {"ogbl-collab": "time", "ogbl-ppa": "throughput", "ogbl-ddi": "target", "ogbl-citation2": "time"}
NODES, LINKS = 30, 40


def split_contents(name: str, count: int, rng: np.random.Generator, part: str) -> dict[str, np.ndarray]:
    """The random contents of one of OGB's split files."""
    pairs = rng.integers(NODES, size=(count, 2))
    if name == "ogbl-citation2":
        contents = {"source_node": pairs[:, 0], "target_node": pairs[:, 1]}
        return contents | ({} if part == "train" else {"target_node_neg": rng.integers(NODES, size=(count, 7))})
    contents = {"edge": pairs}
    if name == "ogbl-collab":
        contents |= {"weight": rng.integers(1, 5, size=count), "year": rng.integers(1990, 2018, size=count)}
    return contents | ({} if part == "train" else {"edge_neg": rng.integers(NODES, size=(count + 130, 2))})


def write(root: Path, name: str, tensors: bool = False, **changed: Any) -> Path:
    """A random dataset in OGB's layout, with the training links as edges; ``changed`` replaces files by name."""
    rng = np.random.default_rng(0)
    folder = root / name.replace("-", "_")
    splits = {
        part: split_contents(name, count, rng, part) for part, count in {"train": LINKS, "valid": 6, "test": 7}.items()
    }
    train = splits["train"]
    pairs = train["edge"] if "edge" in train else np.stack([train["source_node"], train["target_node"]], axis=1)
    raw: dict[str, object] = {"num-node-list": [NODES], "num-edge-list": [LINKS], "edge": pairs}
    if name == "ogbl-ppa":
        raw["node-feat"] = np.eye(58, dtype=int)[rng.integers(58, size=NODES)]
    elif name != "ogbl-ddi":
        raw["node-feat"] = rng.random((NODES, 128)).round(3)
    if name == "ogbl-collab":
        raw |= {"edge_weight": train["weight"], "edge_year": train["year"]}
    if name == "ogbl-citation2":
        raw["node_year"] = rng.integers(1990, 2018, size=NODES)
    for part, rows in {**raw, **{k: v for k, v in changed.items() if k not in splits}}.items():
        write_gzip(folder / "raw" / f"{part.replace('num_', 'num-').replace('_list', '-list')}.csv.gz", to_csv(rows))
    folder.joinpath("split", SPLITS[name]).mkdir(parents=True)
    for part, values in {**splits, **{k: v for k, v in changed.items() if k in splits}}.items():
        values = {k: torch.from_numpy(v) for k, v in values.items()} if tensors else values
        torch.save(values, folder / "split" / SPLITS[name] / f"{part}.pt", pickle_protocol=4 if tensors else 2)
    (folder / "RELEASE_v1.txt").touch()
    return folder


def assert_matches_ogb(name: str, root: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that every edge, feature and link equals that of OGB's own class on the same files."""
    folder = scratch / name.replace("-", "_")
    shutil.copytree(root / folder.name, folder)
    graphs = build(name, root)
    monkeypatch.setattr(torch, "load", partial(torch.load, weights_only=False))  # OGB's class predates the safe default
    dataset = PygLinkPropPredDataset(name, root=str(scratch))
    expected, links = dataset[0], dataset.get_edge_split()
    edge_index = expected.edge_index.numpy()
    columns = [edge_index[1], edge_index[0]]
    if name == "ogbl-citation2":  # directed in OGB
        columns = [np.concatenate([edge_index[1], edge_index[0]]), np.concatenate([edge_index[0], edge_index[1]])]
    if name == "ogbl-collab":
        weight, year = expected.edge_weight.numpy()[:, 0], expected.edge_year.numpy()[:, 0]
        columns += [np.log(weight), (year.max() - year) / 10]

    def pairs(part: Mapping[str, torch.Tensor]) -> np.ndarray:
        ends = part["edge"] if "edge" in part else torch.stack([part["source_node"], part["target_node"]], dim=1)
        return np.asarray(ends)

    training = {frozenset(p) for p in pairs(links["train"]).tolist()}
    held_out = {frozenset(p) for s in ("valid", "test") for p in pairs(links[s]).tolist()} - training
    rows = [row for row in zip(*columns, strict=True) if frozenset(row[:2]) not in held_out]
    actual = [graphs.edge_index[1], graphs.edge_index[0], *graphs.edges.get("edge_attr", np.empty((0, 0))).T]
    np.testing.assert_allclose(sorted(zip(*actual, strict=True)), sorted(rows), rtol=1e-6)
    assert graphs.notes["edges left out because they are asked for"] == (len(columns[0]) - len(rows)) / 2
    if name == "ogbl-ppa":
        np.testing.assert_array_equal(np.eye(58)[graphs.nodes["x"][:, 0]], expected.x)
    elif name == "ogbl-ddi":
        assert graphs.nodes["x"][:, 0].tolist() == list(range(expected.num_nodes))
    else:
        np.testing.assert_array_equal(graphs.nodes["x"], expected.x)
    for part, values in links.items():
        np.testing.assert_array_equal(graphs.splits[part], pairs(values))
        if part != "train":
            kind, key = ("targets", "target_node_neg") if "source_node" in values else ("negatives", "edge_neg")
            np.testing.assert_array_equal(graphs.splits[f"{part}_{kind}"], values[key])


@pytest.mark.parametrize("name", SPLITS)
def test_random_dataset_matches_ogb(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, name)
    assert_matches_ogb(name, tmp_path, tmp_path / "scratch", monkeypatch)


def test_real_collaborations_match_ogb(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_matches_ogb("ogbl-collab", real_data / "ogb_mini", tmp_path, monkeypatch)


def test_held_out_links_are_removed_from_edges(tmp_path: Path) -> None:
    edge = np.array([[0, 1], [2, 3], [3, 2], [4, 5], [6, 7], [9, 9]])
    valid = {"edge": np.array([[1, 0], [2, 3], [20, 21]]), "edge_neg": np.array([[1, 2]])}
    write(
        tmp_path,
        "ogbl-ddi",
        num_edge_list=[6],
        edge=edge,
        train={"edge": edge[:1]},
        valid=valid,
        test={"edge": np.array([[7, 6]]), "edge_neg": np.array([[1, 2]])},
    )
    graphs = build("ogbl-ddi", tmp_path)
    assert sorted(map(tuple, graphs.edge_index.T.tolist())) == [(0, 1), (1, 0), (4, 5), (5, 4), (9, 9), (9, 9)]
    assert graphs.notes == {"edges left out because they are asked for": 3}


@pytest.mark.parametrize("name", SPLITS)
def test_config_trains_and_evaluates(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    option = f"data={name.replace('-', '_')}"
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = ["model.width=16", "model.depth=2", "data.batch_size=9"]
        cfg = compose("train", [option, f"data.source.root={tmp_path}", *overrides])
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
    expected = 1 / 4.5 if name == "ogbl-citation2" else 0  # tied with 7 negatives: the middle of ranks 1 to 8
    assert baseline(data, data.targets("valid"))[measure] == pytest.approx(expected)


def test_validation_links_as_input_only_for_collab(tmp_path: Path) -> None:
    write(tmp_path, "ogbl-collab")
    data = LinkData(OGBLinks("ogbl-collab", str(tmp_path)), valid_as_input=True)
    data.open([])
    batches = (data.graph.batch, *data.loader("valid"), *data.loader("test"))
    edges = [batch.num_edges for batch in batches]
    assert edges == [edges[0], edges[0], edges[0] + 12]
    assert_fails(lambda: LinkData(OGBLinks("ogbl-ppa"), valid_as_input=True), "ogbl-ppa", "valid_as_input=false")


def test_key_depends_on_file_contents(tmp_path: Path) -> None:
    folder = write(tmp_path, "ogbl-ddi")
    source = OGBLinks("ogbl-ddi", str(tmp_path))
    before = source.key()
    assert OGBLinks("ogbl-ddi", str(tmp_path)).key() == before
    torch.save({"edge": np.array([[0, 1]])}, folder / "split" / "target" / "train.pt")
    assert source.key() != before


@pytest.mark.parametrize("name", ["ogbl-wikikg2", "ogbl-biokg", "ogbl-vessel"])
def test_unsupported_or_unknown_dataset_is_reported(name: str) -> None:
    assert_fails(lambda: LinkData(OGBLinks(name)), name, "ogbl-collab, ogbl-citation2")
    assert_fails(lambda: LinkData(OGBLinks(name.replace("ogbl", "ogbx"))), "did you mean ogbl-")


@pytest.mark.parametrize(
    ("name", "changed", "messages"),
    [
        ("ogbl-ddi", {"edge": [[0, 1]]}, ("edge.csv.gz has 1 rows",)),
        ("ogbl-ddi", {"edge": [[0, 30], *[[0, 1]] * (LINKS - 1)]}, ("edge.csv.gz, row 1: 30 is not a node",)),
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
        ("ogbl-collab", {"edge_weight": [1, 0, *[1] * (LINKS - 2)]}, ("edge_weight.csv.gz, row 2: 0.0 papers",)),
        (
            "ogbl-collab",
            {"valid": {"edge": np.array([[1, 2]]), "edge_neg": np.array([[1, 2]])}},
            ("valid.pt has no 'weight'",),
        ),
    ],
)
def test_malformed_file_is_reported(
    name: str, changed: dict[str, Any], messages: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path, name, **changed)
    assert_fails(lambda: build(name, tmp_path), *messages)


def convert_to_numpy_1(path: Path) -> None:
    """Rewrite a file as NumPy 1 would have written it."""
    with zipfile.ZipFile(path) as old:
        entries = {entry.filename: old.read(entry) for entry in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name, content in entries.items():
            new.writestr(name, content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"cnumpy.core.multiarray\n" in path.read_bytes()


def test_arrays_from_every_torch_save_format(tmp_path: Path) -> None:
    values = {"edge": np.arange(6).reshape(3, 2), "year": np.array([1, 2, 3], dtype=np.int32)}
    paths = [tmp_path / name for name in ("new.pt", "before_numpy_2.pt", "before_zip.pt", "tensors.pt", "fortran.pt")]
    torch.save(values, paths[0])
    torch.save(values, paths[1])
    convert_to_numpy_1(paths[1])
    torch.save(values, paths[2], _use_new_zipfile_serialization=False)
    torch.save({name: torch.from_numpy(value) for name, value in values.items()}, paths[3])
    torch.save({name: np.asfortranarray(value) for name, value in values.items()}, paths[4])
    for path in paths:
        loaded = arrays(path)
        assert list(loaded) == list(values)
        for name, value in values.items():
            assert loaded[name].dtype == value.dtype
            np.testing.assert_array_equal(loaded[name], value)


class Malicious:
    """Creates a folder when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("content", ["trap", "trap in an array", "list", "text", "nothing", "half"])
def test_other_contents_are_rejected_without_unpickling(content: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "train.pt", tmp_path / "sprung"
    values = {
        "trap": {"edge": Malicious(marker)},
        "trap in an array": {"edge": np.array([Malicious(marker)], dtype=object)},
        "list": [1],
        "text": {"edge": "0,1"},
    }
    torch.save(values.get(content, {"edge": np.arange(9)}), path)
    if content in ("nothing", "half"):
        path.write_bytes(b"" if content == "nothing" else path.read_bytes()[: path.stat().st_size // 2])
    assert_fails(lambda: arrays(path), str(path), "replace the file by OGB's")
    assert not marker.exists()


def test_safe_globals_are_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "train.pt"
    torch.save({"edge": np.arange(9)}, path)
    before = list(torch.serialization.get_safe_globals())
    try:
        torch.serialization.clear_safe_globals()  # other tests may have added some
        torch.serialization.add_safe_globals([np.ndarray])  # added by the user
        arrays(path)
        assert np.ndarray in torch.serialization.get_safe_globals()
        assert np.dtype not in torch.serialization.get_safe_globals()
        with pytest.raises(Exception, match="weights_only"):
            torch.load(path, weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)

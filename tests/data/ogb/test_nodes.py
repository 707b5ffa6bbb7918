"""OGB's node datasets, against OGB's own reader and Evaluator."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gt.data.large.nodes import NodeData
from gt.data.ogb import nodes as ogb_nodes
from gt.data.ogb.nodes import OGBNodeMetric, OGBNodes
from gt.errors import UserError
from gt.schema import UNLABELLED
from tests.data.ogb_files import assert_fails, to_csv, write_gzip

sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.io.read_graph_raw import read_csv_graph_raw, read_csv_heterograph_raw  # noqa: E402
from ogb.nodeproppred import Evaluator  # noqa: E402

DATA = os.environ.get("GT_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="GT_DATA names no folder with real data")
RELEASE = {"ogbn-arxiv": 1, "ogbn-products": 1, "ogbn-proteins": 1, "ogbn-mag": 2}
SPLITS = {"ogbn-arxiv": "time", "ogbn-products": "sales_ranking", "ogbn-proteins": "species", "ogbn-mag": "time"}
# both directions, a self-loop, a duplicate; node 3 is isolated
EDGES = np.array([[0, 1], [1, 0], [2, 1], [2, 2], [4, 0], [4, 0]])


def write(name: str, root: Path) -> Path:
    """A dataset of five nodes in OGB's layout."""
    rng = np.random.default_rng(0)
    folder = root / name.replace("-", "_")
    raw, split = folder / "raw", folder / "split" / SPLITS[name]
    edges, features, labels = raw, raw, raw
    if name == "ogbn-mag":
        edges, features = raw / "relations" / "paper___cites___paper", raw / "node-feat" / "paper"
        labels, split = raw / "node-label" / "paper", split / "paper"
        write_gzip(raw / "num-node-dict.csv.gz", "author,paper\n2,5\n")
        write_gzip(raw / "triplet-type-list.csv.gz", "paper,cites,paper\n")
        write_gzip(split.parent / "nodetype-has-split.csv.gz", "author,paper\nFalse,True\n")
        write_gzip(raw / "nodetype-has-feat.csv.gz", "author,paper\nFalse,True\n")
        write_gzip(edges / "edge_reltype.csv.gz", to_csv(np.zeros(6, int)))
        write_gzip(features / "node_year.csv.gz", to_csv(np.arange(5) + 2000))
    else:
        write_gzip(raw / "num-node-list.csv.gz", "5\n")
        write_gzip(raw / "node_year.csv.gz", to_csv(np.arange(5) + 2000))
        write_gzip(raw / "node_species.csv.gz", to_csv(np.array([7, 7, 7, 9, 9])))
    write_gzip(folder / f"RELEASE_v{RELEASE[name]}.txt", "")
    write_gzip(edges / "num-edge-list.csv.gz", "6\n")
    write_gzip(edges / "edge.csv.gz", to_csv(EDGES))
    if name == "ogbn-proteins":
        write_gzip(raw / "edge-feat.csv.gz", to_csv(rng.random((6, 8)).round(3)))
        write_gzip(raw / "node-label.csv.gz", to_csv(rng.integers(0, 2, (5, 112))))
    else:
        write_gzip(features / "node-feat.csv.gz", to_csv(rng.normal(size=(5, ogb_nodes.FLOATS[name])).round(4)))
        write_gzip(labels / "node-label.csv.gz", to_csv(np.array([0, 3, 1, 2, 3])))
    for part, ids in {"train": [4, 0], "valid": [1, 3], "test": [2]}.items():
        write_gzip(split / f"{part}.csv.gz", to_csv(ids))
    return folder


def read_with_ogb(name: str, folder: Path) -> dict:
    """The graph from OGB's own reader."""
    if name == "ogbn-mag":
        graph = read_csv_heterograph_raw(str(folder / "raw"), additional_node_files=["node_year"])[0]
        key = ("paper", "cites", "paper")
        return {"edge_index": graph["edge_index_dict"][key], "node_feat": graph["node_feat_dict"]["paper"]}
    return read_csv_graph_raw(str(folder / "raw"), add_inverse_edge=name in ("ogbn-products", "ogbn-proteins"))[0]


def assert_matches_ogb(name: str, root: Path, undirected: bool = True) -> None:
    """Assert that edges, features, labels and split equal those of OGB's own reader on the same files."""
    folder = root / name.replace("-", "_")
    graphs, reference = ogb_nodes.build(name, root, undirected), read_with_ogb(name, folder)
    edges = reference["edge_index"]
    if name == "ogbn-proteins":
        actual = np.c_[graphs.edge_index.T, graphs.edges["edge_attr"]]
        expected = np.c_[edges.T, reference["edge_feat"].astype(np.float32)]
        np.testing.assert_array_equal(actual[np.lexsort(actual.T)], expected[np.lexsort(expected.T)])
        nodes = int(graphs.node_ptr[-1])
        for node in range(nodes):
            incoming = reference["edge_feat"][edges[1] == node]
            mean = incoming.mean(0) if len(incoming) else np.zeros(8)
            np.testing.assert_allclose(graphs.nodes["x"][node], mean, atol=1e-6)
    else:
        if undirected or name == "ogbn-products":
            edges = np.unique(np.concatenate([edges, edges[::-1]], 1), axis=1)
        np.testing.assert_array_equal(graphs.edge_index, edges[:, np.lexsort(edges)])
        np.testing.assert_array_equal(graphs.nodes["x"], reference["node_feat"].astype(np.float32))
    order = np.lexsort(graphs.edge_index)
    np.testing.assert_array_equal(graphs.edge_index[:, order], graphs.edge_index)
    assert graphs.edge_ptr.tolist() == [0, graphs.edge_index.shape[1]]
    within = "/paper" if name == "ogbn-mag" else ""
    labels = pd.read_csv(folder / f"raw/{'node-label' + within + '/' if within else ''}node-label.csv.gz", header=None)
    np.testing.assert_array_equal(graphs.nodes["y"].reshape(len(labels), -1), labels)
    for part in ("train", "valid", "test"):
        ids = pd.read_csv(folder / f"split/{SPLITS[name]}{within}/{part}.csv.gz", header=None)[0]
        np.testing.assert_array_equal(graphs.splits[part], ids)


@pytest.mark.parametrize("name", RELEASE)
def test_small_dataset_matches_ogb(name, tmp_path):
    write(name, tmp_path)
    assert_matches_ogb(name, tmp_path)


def test_directed_edges_match_ogb(tmp_path):
    write("ogbn-arxiv", tmp_path)
    assert_matches_ogb("ogbn-arxiv", tmp_path, undirected=False)
    both, one = (NodeData(OGBNodes("ogbn-arxiv", str(tmp_path), undirected=undirected)) for undirected in (True, False))
    assert both.source.key() != one.source.key()


@needs_data
@pytest.mark.parametrize("name", ["ogbn-arxiv", "ogbn-proteins"])
def test_real_dataset_matches_ogb(name):
    assert_matches_ogb(name, Path(DATA or "", "ogb_mini"))


@needs_data
def test_schema_and_batches_of_real_proteins(tmp_path):
    shutil.copytree(Path(DATA or "", "ogb_mini", "ogbn_proteins"), tmp_path / "ogbn_proteins")
    data = NodeData(OGBNodes("ogbn-proteins", str(tmp_path)))
    data.open([])
    assert (data.schema.kind, data.schema.outputs, data.schema.level, data.schema.edge_floats) == (
        "binary",
        112,
        "node",
        8,
    )
    (batch,) = data.loader("train")
    assert (batch.num_nodes, batch.num_edges) == (120, 1200)
    assert (~batch.y.isnan()).all(1).sum() == 80
    assert batch.edge_attr.shape == (1200, 8)


def test_accuracy_matches_evaluator_and_ignores_unlabelled():
    generator = torch.Generator().manual_seed(0)
    scores, target = torch.randn(50, 40, generator=generator), torch.randint(0, 40, (50,), generator=generator)
    scores[:20, :].scatter_(1, target[:20, None], 9.0)
    labelled = torch.rand(50, generator=generator) < 0.6
    metric = OGBNodeMetric("ogbn-arxiv")
    for rows in (slice(0, 31), slice(31, 50)):
        metric.update(scores[rows], torch.where(labelled, target, UNLABELLED)[rows])
    inputs = {"y_true": target[labelled, None], "y_pred": scores[labelled].argmax(1, keepdim=True)}
    assert metric.measure == "acc"
    assert float(metric.compute()) == pytest.approx(Evaluator("ogbn-arxiv").eval(inputs)["acc"])
    metric.reset()
    metric.update(scores, torch.full((50,), UNLABELLED))
    assert metric.compute().isnan()


def test_roc_auc_matches_evaluator_and_ignores_unlabelled():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, 112, generator=generator)
    target = (torch.rand(60, 112, generator=generator) < 0.4).float()
    target[:30] = torch.nan
    metric = OGBNodeMetric("ogbn-proteins")
    metric.update(scores, target)
    expected = Evaluator("ogbn-proteins").eval({"y_true": target[30:], "y_pred": scores[30:]})["rocauc"]
    assert float(metric.compute()) == pytest.approx(expected)
    metric.reset()
    metric.update(scores[:31], target[:31])
    assert metric.compute().isnan()  # a single class in every task


@pytest.mark.parametrize(
    ("name", "part", "text", "message"),
    [
        ("ogbn-arxiv", "raw/edge.csv.gz", "0,1\n" * 5 + "0,5\n", "row 6: 5 is not a node of the graph"),
        ("ogbn-arxiv", "raw/edge.csv.gz", "0,1\n" * 5, "has 5 rows"),
        ("ogbn-arxiv", "raw/node-label.csv.gz", "1\n40\n1\n1\n1\n", "row 2: 40 is not one of 40 classes"),
        ("ogbn-arxiv", "raw/num-node-list.csv.gz", "2\n3\n", "2 graphs instead of 1"),
        ("ogbn-arxiv", "split/time/test.csv.gz", "4\n", "more than once"),
        ("ogbn-proteins", "raw/node-label.csv.gz", (",".join(["3"] * 112) + "\n") * 5, "row 1: 3.0 is neither 0 nor 1"),
    ],
)
def test_malformed_file_is_reported(name, part, text, message, tmp_path):
    write_gzip(write(name, tmp_path) / part, text)
    assert_fails(lambda: ogb_nodes.build(name, tmp_path), part, message)


def test_missing_file_or_unsupported_dataset_is_reported(tmp_path):
    folder = write("ogbn-mag", tmp_path)
    (folder / ogb_nodes.PAPERS["edge"]).unlink()
    assert_fails(lambda: ogb_nodes.build("ogbn-mag", tmp_path), "edge.csv.gz is missing")
    assert_fails(lambda: NodeData(OGBNodes("ogbn-arxvi")), "did you mean ogbn-arxiv?")
    assert_fails(
        lambda: NodeData(OGBNodes("ogbn-papers100M")), "ogbn-papers100M is not supported; available node datasets are"
    )
    with pytest.raises(UserError):
        NodeData(OGBNodes("ogbg-molhiv"))

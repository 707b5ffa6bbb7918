"""The `inspect` and `prepare` commands and the loader benchmark: tables, layouts and pictures of a dataset."""

import os
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from rich.console import Console
from torch_geometric.data import Data

from gt.attention import Demand
from gt.cli.command import check_command
from gt.cli.show_data import unused
from gt.data import bench, inspect
from gt.data.__main__ import main
from gt.data.batch_sampler import Request
from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.large.sampling import Partition
from gt.data.ogb.code2 import FunctionNames
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.picture import UNKNOWN, draw, layout, nearest, node_colours
from gt.data.static import Shape, pad_batch
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.errors import UserError
from gt.graph import GraphBatch, path_graphs
from gt.masks import Hops
from gt.schema import Schema
from tests.data import ogb_files
from tests.data.modules import make_data
from tests.data.test_batch_sampler import open_data
from tests.graphs import random_batch

ROOT = Path(__file__).parent.parent.parent


def render(table: object) -> str:
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def to_networkx(batch: GraphBatch) -> list[nx.Graph]:
    graphs = []
    for data in batch.to_data_list():
        graph = nx.Graph()
        graph.add_nodes_from(range(data.num_nodes))
        graph.add_edges_from(data.edge_index.T.tolist())
        graphs.append(graph)
    return graphs


@pytest.mark.parametrize("seed", range(4))
def test_double_sweep_is_a_lower_bound_and_exact_on_trees(seed):
    batch = random_batch((1, 9, 4, 1, 14, 2, 20), seed=seed, density=0.15)
    bounds, connected = inspect.double_sweep(batch)
    for graph, bound, is_connected in zip(to_networkx(batch), bounds, connected, strict=True):
        assert is_connected == nx.is_connected(graph)
        centre = max(graph, key=lambda node: (graph.degree(node), node))
        part = graph.subgraph(nx.node_connected_component(graph, centre))
        assert bound <= max(nx.diameter(graph.subgraph(c)) for c in nx.connected_components(graph))
        assert bound >= nx.radius(part)
    trees = [nx.random_labeled_tree(n, seed=seed) for n in (1, 2, 7, 15, 30)]
    edges = [torch.tensor(list(tree.edges), dtype=torch.long).reshape(-1, 2).T for tree in trees]
    batch = GraphBatch.from_data_list(
        [Data(edge_index=torch.cat([e, e.flip(0)], 1), num_nodes=len(t)) for e, t in zip(edges, trees, strict=True)]
    )
    bounds, connected = inspect.double_sweep(batch)
    assert bounds.tolist() == [nx.diameter(tree) for tree in trees]
    assert connected.all()


def test_size_and_feature_tables(tmp_path):
    data = open_data(tmp_path)
    found = inspect.contents(data)
    assert found.whole
    assert found.nodes.tolist() == [1 + n % 9 for n in range(60)]
    assert found.edges.sum() == found.in_degree.sum() == data.graphs.edge_ptr[-1]
    batch = GraphBatch.from_data_list(data.dataset("train")[Request(tuple(range(40)))].to_data_list())
    assert torch.equal(torch.from_numpy(found.in_degree[: batch.num_nodes]), batch.in_degree)
    text = render(inspect.size_table(found))
    assert f"60 graphs, {found.nodes.sum()} nodes, {found.edges.sum():,} edges" in text
    counts = np.bincount(data.graphs.nodes["x"][:, 0], minlength=5)
    assert f"{counts.max() / counts.sum():.1%}" in render(inspect.feature_table(found, data.schema))


def test_sizes_of_sampled_batches_exclude_padding():
    plain = random_batch((4, 1, 9, 6))
    padded = pad_batch(plain, [Shape(12, 41, 90, 7)], Schema(outputs=3))
    expected, found = inspect._contents_of([plain]), inspect._contents_of([padded])
    assert expected.nodes.tolist() == found.nodes.tolist() == [4, 1, 9, 6]
    assert expected.edges.tolist() == found.edges.tolist()
    assert expected.in_degree.tolist() == found.in_degree.tolist() == plain.in_degree.tolist()


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_label_table_shows_class_balance(tmp_path, kind):
    data = open_data(tmp_path)
    y = {
        "multiclass": np.array([0, 0, 0, 2, -100] * 12),
        "binary": np.array([[1, np.nan], [0, 1], [0, np.nan], [0, 1], [np.nan, 0]] * 12, np.float32),
        "regression": np.array([[1.0], [2.0], [3.0], [np.nan], [np.nan]] * 12, np.float32),
    }[kind]
    data.graphs.graphs["y"] = y
    data.schema = Schema(kind=kind, outputs={"multiclass": 3, "binary": 2, "regression": 1}[kind])
    text = render(inspect.label_table(data))
    expected = {
        "multiclass": ["20.00%", "class 0", "75.00%", "25.00%", "class 1", "0.00%"],
        "binary": ["output 0: missing", "20.00%", "output 0: yes", "25.00%", "output 1: missing", "40.00%", "66.67%"],
        "regression": ["missing", "40.00%", "2 ± 0.816"],
    }[kind]
    for part in expected:
        assert part in text
    assert "40" in text
    assert "20" in text


def test_mask_table_counts_pairs():
    batch = random_batch((4, 1, 9, 6))
    text = render(inspect.mask_table(batch, Demand(device="cpu")))
    all_pairs = 16 + 1 + 81 + 36
    for hops in (1, 2):
        assert f"{Hops(hops)(batch).count}" in text
        assert f"{Hops(hops)(batch).count / all_pairs:.1%}" in text
    assert f"{all_pairs}" in text
    assert "100.0%" in text
    assert "4 graphs, 20 nodes, padded to 9 each (44% padding)" in text


def test_mask_table_omits_too_many_pairs(monkeypatch):
    monkeypatch.setattr(inspect, "WALKS", 1)
    assert "too many" in render(inspect.mask_table(random_batch((9,), density=0.9), Demand()))


@pytest.mark.parametrize("nodes", [1, 2, 3, 40])
def test_layout_of_a_path(nodes):
    edges = np.stack([np.arange(nodes - 1), np.arange(1, nodes)])
    positions = layout(edges, nodes)
    assert positions.shape == (nodes, 2)
    assert np.isfinite(positions).all()
    if nodes > 3:
        distances = np.sqrt(((positions[:, None] - positions[None]) ** 2).sum(-1))
        edge_lengths = distances[edges[0], edges[1]]
        assert edge_lengths.max() < distances.max() / 5
        assert edge_lengths.min() > 0


def test_nearest_nodes():
    edges = path_graphs([50]).edge_index.numpy()
    assert nearest(edges, 50, 10).tolist() == list(range(10))
    assert nearest(np.empty((2, 0), np.int64), 5, 3).tolist()[0] == 0
    assert nearest(edges + 20, 70, 10).tolist() == list(range(20, 30))  # the first nodes have no edges


def test_layout_keeps_isolated_nodes_close():
    edges = np.random.default_rng(0).integers(1, 60, (2, 200))  # node 0 and nodes 60 to 63 have no edge
    positions = layout(np.concatenate([edges, edges[::-1]], axis=1), 64)
    distance = np.abs(positions - positions.mean(0)).max(1)
    assert distance[[0, 60, 61, 62, 63]].max() < 1.5 * distance[1:60].max()


def test_node_colours_of_categories_are_consistent():
    batch = GraphBatch.from_data_list(
        [Data(x=torch.tensor([[5], [7]]), num_nodes=2), Data(x=torch.tensor([[5], [9], [5]]), num_nodes=3)]
    )
    colours = node_colours(batch, Schema(node_vocab=(10,))).tolist()
    assert colours[0] == colours[2] == colours[4]
    assert len(set(map(tuple, colours))) == 3


def test_node_colours_by_class_and_grey_if_unlabelled():
    graph = Data(x=torch.rand(4, 3), y=torch.tensor([1, 0, 1, -100]), num_nodes=4)
    colours = node_colours(GraphBatch.from_data_list([graph]), Schema(node_floats=3, level="node", outputs=2)).tolist()
    assert colours[0] == colours[2] != colours[1]
    assert colours[3] == list(UNKNOWN)


def test_single_graph_is_counted_in_full_despite_sampling(tmp_path):
    nodes = [f"{i},{i % 3},{i % 2}" for i in range(30)]
    (tmp_path / "nodes.csv").write_text("\n".join(["node,size,label", *nodes]))
    (tmp_path / "edges.csv").write_text("\n".join(["source,target", *(f"{i},{i + 1}" for i in range(28))]))
    data = NodeData(CSVGraphs(str(tmp_path), root=str(tmp_path / "root")), sampler=Partition(parts=6))
    data.open([])
    found = inspect.contents(data)
    assert max(batch.num_nodes for batch in data.loader("train")) < 30
    assert (found.nodes.tolist(), found.edges.tolist(), found.sample.num_nodes) == ([30], [28], 30)
    text = render(inspect.size_table(found))
    assert text.startswith("1 graph, 30 nodes, 28 edges ")
    assert "6.7% of nodes have no incoming edges; the graph is disconnected" in " ".join(text.split())
    assert "blocks" not in render(inspect.label_table(data))


def test_label_table_ignores_columns_used_only_by_the_metric(tmp_path):
    ogb_files.write_code2(tmp_path / "ogbg_code2", ["get name", "set name", "get it", "run", "set it"], [0, 1, 2])
    data = GraphData(FunctionNames(str(tmp_path)))
    data.open([])
    text = render(inspect.label_table(data))
    assert "at each of 5 positions" in " ".join(text.split())
    missing = next(line for line in text.splitlines() if "missing" in line)
    assert missing.count("0.00%") == 3


@pytest.mark.parametrize("sizes", [(1,), (1, 1), (7, 300, 2, 5, 9, 4, 3, 8)])
def test_picture_of_unusual_graphs(tmp_path, sizes):
    draw(random_batch(sizes, density=0.05), Schema(outputs=3, names=("$a$", "b", "c")), tmp_path / "sub" / "a.png")
    assert (tmp_path / "sub" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.png"]


def test_text_is_inspected_as_path_graphs(tmp_path):
    (tmp_path / "a.txt").write_text("hello path graphs\n" * 60)
    data = LanguageData(Text(str(tmp_path / "a.txt")), context=16, batch_size=4)
    data.open([])
    found = inspect.contents(data)
    assert not found.whole
    assert max(found.nodes) == 16
    assert found.edges.tolist() == (found.nodes - 1).tolist()
    assert inspect.double_sweep(found.sample)[0].tolist() == (found.sample.sizes - 1).tolist()
    assert "'p'" in render(inspect.feature_table(found, data.schema)) + render(inspect.label_table(data))


def test_inspect_command(tmp_path, monkeypatch, capsys):
    ogb_files.write_molecules(tmp_path / "ogbg_molhiv", [0, 1, 0, 1])
    monkeypatch.chdir(tmp_path)

    def run_inspect(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["gt.data", "inspect", *arguments])
        main()
        return capsys.readouterr().out.splitlines()

    lines = run_inspect("ogbg_molhiv", f"data.root={tmp_path}", "--out", "pictures", "data.batch_size=2")
    first_picture = Path(lines[-1].removeprefix("picture  "))
    assert (first_picture.parent.name, first_picture.name.startswith("ogbg-molhiv-")) == ("pictures", True)
    assert any("4 graphs, 10 nodes, 12 edges" in line for line in lines)
    content = first_picture.read_bytes()
    run_inspect("ogbg_molhiv", f"data.root={tmp_path}", "--out", "pictures", "data.batch_size=1")
    assert len(list(first_picture.parent.iterdir())) == 2
    assert first_picture.read_bytes() == content
    picture = run_inspect("ogbg_molhiv", f"data.root={tmp_path}")[-1].removeprefix("picture  ")
    assert Path(picture).parent == Path("runs/inspect")
    assert not list(tmp_path.glob("*.png"))
    with pytest.raises(UserError, match=r"did you mean 'ogbg_molhiv'\?"):
        run_inspect("ogbg_molhi")
    with pytest.raises(UserError, match=r"unknown key 'data\.rot': did you mean 'root'\?"):
        run_inspect("ogbg_molhiv", "data.rot=x")
    with pytest.raises(UserError, match="--nothing"):
        run_inspect("ogbg_molhiv", "--nothing")


def test_pictures_do_not_overwrite_each_other(tmp_path):
    paths = []
    for _ in range(4):  # all within a second
        paths.append(unused(tmp_path, "a"))
        paths[-1].touch()
    assert len(set(paths)) == 4


def test_prepare_builds_but_does_not_train(tmp_path):
    ogb_files.write_molecules(tmp_path / "ogbg_molhiv", [0, 1, 0, 1])
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "data=ogbg_molhiv", f"data.root={tmp_path}", "stage=prepare",
         "hydra.run.dir=run"],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "4 graphs (2 train, 1 valid, 1 test), 10 nodes, 12 edges" in result.stdout
    assert "random_walk" in result.stdout
    store = next((tmp_path / "stores").glob("ogbg-molhiv-*/facts.json")).parent
    assert str(store) in result.stdout
    assert any(store.glob("random_walk-*.npy"))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_unknown_stage_is_rejected():
    with pytest.raises(UserError, match="stage='prepar': did you mean 'prepare'"):
        check_command(["stage=prepar"])


def test_benchmark_loads_the_same_graphs_as_pyg(tmp_path):
    data = open_data(tmp_path)
    for pyg_graph, graph in zip(bench.pyg_graphs(data.graphs, 60), range(60), strict=True):
        ours = data.dataset("train").graphs
        assert pyg_graph.num_nodes == ours.sizes[graph]
        batch = bench.GraphDataset(ours, np.arange(60))[Request((graph,))]
        for name in ("x", "edge_index", "edge_attr", "y"):
            assert torch.equal(pyg_graph[name], getattr(batch, name))
    rows = bench.compare(data, seconds=0.01)
    assert [row.batch_size for row in rows] == list(bench.SIZES)
    assert "this loader" in render(bench.table(rows))


@pytest.mark.bench
def test_loader_is_ten_times_as_fast_as_pyg(real_data, tmp_path):
    from gt.data.ogb.graphs import OGBMolecules

    (tmp_path / "ogbg_molhiv").symlink_to(real_data / "ogbg_molhiv")
    data = make_data(GraphData, OGBMolecules, "ogbg-molhiv", str(tmp_path))
    data.open([])
    for row in bench.compare(data, seconds=5):
        assert row.median(bench.OURS) * 10 <= min(row.median(bench.CACHED), row.median(bench.PACKED))

"""Graphs from a folder of CSV files: dialects, columns, targets, stores and duplicate edges."""

import numpy as np
import pytest
import torch

from gt.data.batching import gather
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.csv_table import read_table
from gt.errors import UserError
from gt.graph import GraphBatch
from tests.data.own.csv_folders import open_data
from tests.data.tables_of import EDGES, GRAPHS, NODES, TABLES, error_line, expected_molecules, gzip_file, write_tables


def assert_same_batches(store, expected):
    for ids in ([0, 1, 2], [2, 0], [0]):
        actual, reference = gather(store, ids), GraphBatch.from_data_list([expected[i] for i in ids])
        for name in ("ptr", "edge_index", "x", "edge_attr", "y"):
            assert torch.equal(getattr(actual, name), getattr(reference, name)), name


@pytest.mark.parametrize(
    "dialect",
    [
        "plain",
        "gzip",
        "tabs",
        "windows",
        "old mac",
        "BOM",
        "quotes",
        "spaces",
        "no final newline",
        "semicolons",
        "utf-16",
        "mixed case",
    ],
)
def test_round_trip_of_every_dialect(dialect, tmp_path):
    folder = write_tables(tmp_path / "csv")
    for name, text in TABLES.items():
        path = folder / name
        if dialect == "gzip":
            gzip_file(path)
        elif dialect == "tabs":
            path.unlink()
            path.with_suffix(".tsv").write_text(text.replace(",", "\t"))
        elif dialect == "windows":
            path.write_bytes(text.replace("\n", "\r\n").encode())
        elif dialect == "old mac":
            path.write_bytes(text.replace("\n", "\r").encode())
        elif dialect == "BOM":
            path.write_bytes(text.encode("utf-8-sig"))
        elif dialect == "quotes":
            path.write_text("\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in text.split("\n")[:-1]))
        elif dialect == "spaces":
            path.write_text(text.replace(",", " , "))
        elif dialect == "semicolons":
            path.write_text(text.replace(",", ";").replace("1.5", "1,5").replace("0.25", "0,25"))
        elif dialect == "utf-16":
            path.write_bytes(text.encode("utf-16"))
        elif dialect == "mixed case":
            first, rest = text.split("\n", 1)
            ids = {"graph": "Graph", "node": "Id", "source": "Source", "target": "TARGET", "split": "Split"}
            path.write_text(",".join(ids.get(name, name) for name in first.split(",")) + "\n" + rest)
        elif dialect == "no final newline":
            path.write_text(text.rstrip("\n"))
    store = open_data(folder, undirected=True).graphs
    assert_same_batches(store, expected_molecules())
    assert (store.schema.node_vocab, store.schema.edge_vocab) == ((3, 2), (2,))
    assert (store.schema.level, store.schema.kind, store.schema.max_nodes) == ("graph", "regression", 3)
    assert {split: ids.tolist() for split, ids in store.splits.items()} == {"train": [0, 2], "valid": [1]}
    assert (store.schema.node_names, store.schema.node_categories) == (("element", "ring"), (("C", "N", "O"), (0, 1)))
    assert (store.schema.edge_names, store.schema.edge_categories) == (("bond",), (("double", "single"),))


def test_edges_are_directed_by_default(tmp_path):
    batch = gather(open_data(write_tables(tmp_path / "csv")).graphs, [1, 2])
    assert batch.edge_index.T.tolist() == [[1, 0], [2, 3], [4, 3]]
    assert batch.edge_attr.tolist() == [[1], [0], [1]]


def test_summary_of_the_graphs_is_printed(tmp_path, capsys):
    open_data(write_tables(tmp_path / "csv"))
    assert capsys.readouterr().out == (
        "csv-csv: 3 graphs, 6 nodes, 3 edges; a node has categories of 3 (element), 2 (ring), "
        "an edge categories of 2 (bond); "
        "train 2, valid 1\n"
        "  nodes  categories: element, ring\n"
        "  edges  categories: bond\n"
        "  graphs target: label; split: split\n"
        "  edges are read as directed by default: messages flow from source to target only; data.undirected=true uses "
        "edges in both directions\n"
    )


@pytest.mark.parametrize(
    ("edges", "options", "announced"),
    [
        ("graph,source,target,bond\nm1,a,b,single\nm1,b,a,single\n", {}, False),  # in both directions already
        ("graph,source,target,bond\nm1,a,a,single\n", {}, False),
        (EDGES, {"undirected": False}, False),
        (EDGES, {"undirected": True}, False),
        (EDGES.replace("bond\n", "Type\n").replace("single", "directed").replace("double", "directed"), {}, True),
    ],
)
def test_default_direction_is_announced(edges, options, announced, tmp_path, capsys):
    open_data(write_tables(tmp_path / "csv", edges=edges), **options)
    assert ("read as directed by default" in capsys.readouterr().out) is announced


def test_categories_beside_floats_become_one_hot(tmp_path):
    lines = NODES.replace("ring", "charge").splitlines()
    lines[1:] = [line.rsplit(",", 1)[0] + f",{i / 4}" for i, line in enumerate(lines[1:])]
    store = open_data(write_tables(tmp_path / "csv", nodes="\n".join(lines))).graphs
    assert (store.schema.node_vocab, store.schema.node_floats) == ((), 4)
    expected = [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0.5], [0, 1, 0, 0.25], [1, 0, 0, 0.75], [0, 0, 1, 1.25]]
    np.testing.assert_allclose(store.nodes["x"], expected)  # C, N, O, charge; m3, m1, m2


def test_in_degree_replaces_missing_features(tmp_path):
    nodes = "\n".join(",".join(line.split(",")[:2]) for line in NODES.splitlines())
    store = open_data(write_tables(tmp_path / "csv", nodes=nodes), undirected=True).graphs
    assert store.nodes["x"].tolist() == [[0], [1], [1], [1], [2], [1]]
    assert store.schema.node_vocab == (3,)


def test_edges_need_no_graph_column_for_unique_ids(tmp_path):
    nodes = NODES.replace("m3,a", "m3,z")
    edges = "\n".join(",".join(line.split(",")[1:]) for line in EDGES.splitlines())
    store = open_data(write_tables(tmp_path / "csv", nodes=nodes, edges=edges), undirected=True).graphs
    assert_same_batches(store, expected_molecules())
    message = error_line(lambda: open_data(write_tables(tmp_path / "again", edges=edges)))
    assert message == "edges.csv has no column 'graph', but node 'a' is in two graphs"


def test_kind_of_target_is_inferred(tmp_path):
    graphs = "graph,toxic,soluble,split\nm3,1,,train\nm1,0,1,valid\nm2,1,0,train\n"
    folder = write_tables(tmp_path / "csv", graphs=graphs)
    store = open_data(folder).graphs
    assert (store.schema.kind, store.schema.outputs) == ("binary", 2)
    np.testing.assert_array_equal(store.graphs["y"], [[1, np.nan], [0, 1], [1, 0]])
    single = open_data(folder, target="toxic").graphs
    assert (single.schema.kind, single.graphs["y"].tolist()) == ("multiclass", [1, 0, 1])
    assert open_data(folder, target=["toxic"], kind="regression").graphs.schema.kind == "regression"
    text_labels = GRAPHS.replace("1.5", "yes").replace("0.25", "no").replace("-2", "yes")
    classes = open_data(write_tables(tmp_path / "words", graphs=text_labels)).graphs
    assert (classes.schema.names, classes.graphs["y"].tolist()) == (("no", "yes"), [1, 0, 1])


def test_node_targets(tmp_path):
    graphs = "graph,split\nm3,valid\nm1,train\nm2,train\n"
    labels = ["x", "", "y", "x", "x", "y"]
    lines = NODES.splitlines()
    nodes = "\n".join([lines[0] + ",label", *(f"{a},{b}" for a, b in zip(lines[1:], labels, strict=True))])
    data = open_data(write_tables(tmp_path / "csv", nodes=nodes, graphs=graphs))
    store = data.graphs
    assert (store.schema.level, store.schema.names, store.schema.node_vocab) == ("node", ("x", "y"), (3, 2))
    assert store.nodes["y"].tolist() == [0, 0, 1, -100, 0, 1]  # m3; m1; m2
    assert data.targets("train").tolist() == [0, 1, -100, 0, 1]


def test_single_graph_without_graph_table(tmp_path):
    nodes = "node,size,label,split\n7,1,u,test\n5,2,v,train\n9,3,,train\n3,2,u,valid\n"
    folder = write_tables(tmp_path / "csv", nodes=nodes, edges="source,target\n7,5\n9,7\n", graphs=None)
    data = NodeData(CSVGraphs(str(folder), root=str(tmp_path / "built")))
    data.open([])
    store = data.graphs
    assert {split: ids.tolist() for split, ids in store.splits.items()} == {"train": [1], "valid": [3], "test": [0]}
    assert store.nodes["y"].tolist() == [0, 1, -100, 0]
    assert store.nodes["x"].tolist() == [[0], [1], [2], [1]]
    assert store.edge_index.T.tolist() == [[2, 0], [0, 1]]
    assert error_line(lambda: open_data(folder)).startswith(f"{folder} is a single graph: choose data=csv_nodes")


def test_store_key_depends_on_options_and_files(tmp_path):
    folder = write_tables(tmp_path / "csv")
    first = open_data(folder).source.key()
    assert open_data(folder).source.key() == first
    assert CSVGraphs(str(folder), undirected=True).key() != first
    write_tables(folder, graphs=GRAPHS.replace("1.5", "1.6"))
    assert CSVGraphs(str(folder)).key() != first


def test_duplicate_edges_are_dropped_and_counted(tmp_path, capsys):
    folder = write_tables(tmp_path / "csv", edges=EDGES + "m1,a,b,single\nm2,1,2,double\n")
    assert gather(open_data(folder).graphs, [1]).edge_index.tolist() == [[1, 0], [0, 1]]
    assert "  1 duplicate edge left out" in capsys.readouterr().out.splitlines()
    undirected_graphs = open_data(folder, undirected=True).graphs
    assert "  2 duplicate edges left out, in either direction" in capsys.readouterr().out.splitlines()
    assert_same_batches(undirected_graphs, expected_molecules())
    conflicting = write_tables(tmp_path / "other", edges=EDGES + "m1,a,b,double\n")
    assert len(open_data(conflicting).graphs.edge_index[0]) == 4
    line = error_line(lambda: open_data(conflicting, undirected=True))
    assert line.endswith("other/edges.csv, line 3 (undirected edges are the same in both directions): keep one of them")
    with_loop = open_data(write_tables(tmp_path / "loop", edges=EDGES + "m3,a,a,single\n"), undirected=True).graphs
    assert gather(with_loop, [0]).edge_index.tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2", "3"], "i"),
        (["1", "", "3"], "f"),
        (["1.5", "1e3", "-.5"], "f"),
        (["C", "1", "O"], "O"),
        (["", "", ""], "O"),
    ],
)
def test_column_type_follows_its_cells(cells, kind, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("node,value\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    table = read_table(path, ["node"])
    assert table.columns["value"].dtype.kind == kind
    assert table.columns["node"].tolist() == ["0", "1", "2"]


def test_ids_are_compared_as_text(tmp_path):
    nodes = NODES.replace("m2,1,", "m2,01,").replace("m2,3,", "m2,1,")
    with pytest.raises(UserError, match="line 4: there is no node '3'"):
        open_data(write_tables(tmp_path / "csv", nodes=nodes))

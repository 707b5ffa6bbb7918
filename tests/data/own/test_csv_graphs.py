"""Graphs from a folder of CSV files: parsing, dialects, and errors that name file and line."""

import random

import numpy as np
import pytest
import torch

from gt.data.batching import gather
from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.csv_table import read_table
from gt.errors import UserError
from gt.graph import GraphBatch
from tests.data.modules import over
from tests.data.tables_of import EDGES, GRAPHS, NODES, TABLES, line_of, molecules, pack, write


def open_data(folder, **options):
    data = over(GraphData, CSVGraphs, str(folder), root=str(folder.parent / "built"), **options)
    data.open([])
    return data


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
    folder = write(tmp_path / "csv")
    for name, text in TABLES.items():
        path = folder / name
        if dialect == "gzip":
            pack(path)
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
    assert_same_batches(store, molecules())
    assert (store.schema.node_vocab, store.schema.edge_vocab) == ((3, 2), (2,))
    assert (store.schema.level, store.schema.kind, store.schema.max_nodes) == ("graph", "regression", 3)
    assert {split: ids.tolist() for split, ids in store.splits.items()} == {"train": [0, 2], "valid": [1]}
    assert (store.schema.node_names, store.schema.node_categories) == (("element", "ring"), (("C", "N", "O"), (0, 1)))
    assert (store.schema.edge_names, store.schema.edge_categories) == (("bond",), (("double", "single"),))


def test_edges_are_directed_by_default(tmp_path):
    batch = gather(open_data(write(tmp_path / "csv")).graphs, [1, 2])
    assert batch.edge_index.T.tolist() == [[1, 0], [2, 3], [4, 3]]
    assert batch.edge_attr.tolist() == [[1], [0], [1]]


def test_summary_of_the_graphs_is_printed(tmp_path, capsys):
    open_data(write(tmp_path / "csv"))
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
    open_data(write(tmp_path / "csv", edges=edges), **options)
    assert ("read as directed by default" in capsys.readouterr().out) is announced


def test_categories_beside_floats_become_one_hot(tmp_path):
    lines = NODES.replace("ring", "charge").splitlines()
    lines[1:] = [line.rsplit(",", 1)[0] + f",{i / 4}" for i, line in enumerate(lines[1:])]
    store = open_data(write(tmp_path / "csv", nodes="\n".join(lines))).graphs
    assert (store.schema.node_vocab, store.schema.node_floats) == ((), 4)
    expected = [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0.5], [0, 1, 0, 0.25], [1, 0, 0, 0.75], [0, 0, 1, 1.25]]
    np.testing.assert_allclose(store.nodes["x"], expected)  # C, N, O, charge; m3, m1, m2


def test_in_degree_replaces_missing_features(tmp_path):
    nodes = "\n".join(",".join(line.split(",")[:2]) for line in NODES.splitlines())
    store = open_data(write(tmp_path / "csv", nodes=nodes), undirected=True).graphs
    assert store.nodes["x"].tolist() == [[0], [1], [1], [1], [2], [1]]
    assert store.schema.node_vocab == (3,)


def test_edges_need_no_graph_column_for_unique_ids(tmp_path):
    nodes = NODES.replace("m3,a", "m3,z")
    edges = "\n".join(",".join(line.split(",")[1:]) for line in EDGES.splitlines())
    store = open_data(write(tmp_path / "csv", nodes=nodes, edges=edges), undirected=True).graphs
    assert_same_batches(store, molecules())
    message = line_of(lambda: open_data(write(tmp_path / "again", edges=edges)))
    assert message == "edges.csv has no column 'graph', but node 'a' is in two graphs"


def test_kind_of_target_is_inferred(tmp_path):
    graphs = "graph,toxic,soluble,split\nm3,1,,train\nm1,0,1,valid\nm2,1,0,train\n"
    folder = write(tmp_path / "csv", graphs=graphs)
    store = open_data(folder).graphs
    assert (store.schema.kind, store.schema.outputs) == ("binary", 2)
    np.testing.assert_array_equal(store.graphs["y"], [[1, np.nan], [0, 1], [1, 0]])
    single = open_data(folder, target="toxic").graphs
    assert (single.schema.kind, single.graphs["y"].tolist()) == ("multiclass", [1, 0, 1])
    assert open_data(folder, target=["toxic"], kind="regression").graphs.schema.kind == "regression"
    text_labels = GRAPHS.replace("1.5", "yes").replace("0.25", "no").replace("-2", "yes")
    classes = open_data(write(tmp_path / "words", graphs=text_labels)).graphs
    assert (classes.schema.names, classes.graphs["y"].tolist()) == (("no", "yes"), [1, 0, 1])


def test_node_targets(tmp_path):
    graphs = "graph,split\nm3,valid\nm1,train\nm2,train\n"
    labels = ["x", "", "y", "x", "x", "y"]
    lines = NODES.splitlines()
    nodes = "\n".join([lines[0] + ",label", *(f"{a},{b}" for a, b in zip(lines[1:], labels, strict=True))])
    data = open_data(write(tmp_path / "csv", nodes=nodes, graphs=graphs))
    store = data.graphs
    assert (store.schema.level, store.schema.names, store.schema.node_vocab) == ("node", ("x", "y"), (3, 2))
    assert store.nodes["y"].tolist() == [0, 0, 1, -100, 0, 1]  # m3; m1; m2
    assert data.targets("train").tolist() == [0, 1, -100, 0, 1]


def test_single_graph_without_graph_table(tmp_path):
    nodes = "node,size,label,split\n7,1,u,test\n5,2,v,train\n9,3,,train\n3,2,u,valid\n"
    folder = write(tmp_path / "csv", nodes=nodes, edges="source,target\n7,5\n9,7\n", graphs=None)
    data = NodeData(CSVGraphs(str(folder), root=str(tmp_path / "built")))
    data.open([])
    store = data.graphs
    assert {split: ids.tolist() for split, ids in store.splits.items()} == {"train": [1], "valid": [3], "test": [0]}
    assert store.nodes["y"].tolist() == [0, 1, -100, 0]
    assert store.nodes["x"].tolist() == [[0], [1], [2], [1]]
    assert store.edge_index.T.tolist() == [[2, 0], [0, 1]]
    assert line_of(lambda: open_data(folder)).startswith(f"{folder} is a single graph: choose data=csv_nodes")


def test_store_key_depends_on_options_and_files(tmp_path):
    folder = write(tmp_path / "csv")
    first = open_data(folder).source.key()
    assert open_data(folder).source.key() == first
    assert CSVGraphs(str(folder), undirected=True).key() != first
    write(folder, graphs=GRAPHS.replace("1.5", "1.6"))
    assert CSVGraphs(str(folder)).key() != first


def drop_column(text, column):
    index = text.splitlines()[0].split(",").index(column)
    rows = [line.split(",") for line in text.splitlines()]
    return "\n".join(",".join(row[:index] + row[index + 1 :]) for row in rows) + "\n"


FAULTS = {
    "no nodes": (
        {"nodes": None},
        "{folder} has no nodes.csv (nor .csv.gz nor .tsv), with the column node: it holds edges.csv and graphs.csv",
    ),
    "blank file": ({"graphs": "\n \n"}, "{folder}/graphs.csv is empty"),
    "wrong column": (
        {"edges": EDGES.replace("source", "sorce")},
        "{folder}/edges.csv, line 1: needs the columns source and target but has graph, sorce, target, bond: rename",
    ),
    "other names of columns": (
        {"edges": EDGES.replace("source,target", "src,dst")},
        "{folder}/edges.csv, line 1: needs the columns source and target but has graph, src, dst, bond: rename",
    ),
    "no graph of nodes": ({"nodes": drop_column(NODES, "graph")}, "nodes.csv has no column 'graph': "),
    "no ids": (
        {"nodes": NODES.replace("node,", "nod,")},
        "{folder}/nodes.csv, line 1: needs the column node but has graph, nod, element, ring: rename the right ones",
    ),
    "column twice": ({"nodes": NODES.replace("ring", "node")}, "{folder}/nodes.csv, line 1: two columns 'node'"),
    "unnamed column": ({"nodes": NODES.replace("ring", "")}, "{folder}/nodes.csv, line 1: a column without a name"),
    "short and long": (
        {"edges": EDGES.replace("m2,1,2,double", "m2,1,2") + "m1,a,b,x,y\n"},
        "{folder}/edges.csv, line 2: 3 cells where the header has 4",
    ),
    "behind a blank row": (
        {"edges": EDGES.replace("m1,b", "\nm1,c")},
        "{folder}/edges.csv, line 4: there is no node 'c'",
    ),
    "short row with quotes": (
        {"nodes": NODES.replace("m1,b,O,1", 'm1,"b\n",O,1').replace("m3,a,C,0", "m3,a,C")},
        "{folder}/nodes.csv, line 7: 3 cells where the header has 4",
    ),
    "classes beyond what a float tells apart": (
        {"graphs": f"graph,label\nm1,1\nm2,{2**53}\nm3,{2**53}\n"},
        "{folder}/graphs.csv, line 3: 9007199254740992.0 is too large to be a class",
    ),
    "thousands or decimals": (
        {"nodes": "graph;node;size\nm1;a;950\nm1;b;1,234\n"},
        "{folder}/nodes.csv, line 3: 'size' is '1,234', which may have a thousands separator or three decimals: ",
    ),
    "thousands beside decimals": (
        {"nodes": "graph;node;size\nm1;a;12,5\nm1;b;1.234\n"},
        "{folder}/nodes.csv, line 3: 'size' is '1.234', which may have a thousands separator or three decimals: ",
    ),
    "open quote": (
        {"nodes": NODES.replace("m2,2,C,1", 'm2,"2,C,1')},
        "{folder}/nodes.csv, line 5: a quote opened here is never closed",
    ),
    "empty id": ({"edges": EDGES.replace("m2,3,2", "m2,,2")}, "{folder}/edges.csv, line 4: 'source' is empty"),
    "empty feature": (
        {"nodes": NODES.replace("m2,2,C,1", "m2,2,,1")},
        "{folder}/nodes.csv, line 5: 'element' is empty",
    ),
    "text feature": (
        {"nodes": NODES.replace("m2,2,C,1", "m2,2,C,one")},
        "{folder}/nodes.csv, line 5: 'ring' is 'one', not a number",
    ),
    "nan target": (
        {"graphs": GRAPHS.replace("0.25", "nan")},
        "{folder}/graphs.csv, line 3: 'label' is 'nan', not a number",
    ),
    "empty target": (
        {"graphs": GRAPHS.replace("0.25", "")},
        "graphs.csv: column 'split' assigns no labelled row to 'valid'",
    ),
    "no split": (
        {"graphs": GRAPHS.replace("train", "").replace("valid", "")},
        "graphs.csv: column 'split' is empty in all rows: fill it in, or remove it for a random split",
    ),
    "no target": (
        {"graphs": drop_column(GRAPHS, "label")},
        "graphs.csv and nodes.csv: no attribute is called label, y or target; choose one of element, ring: ",
    ),
    "unknown graph of a node": (
        {"nodes": NODES.replace("m3", "m4")},
        "{folder}/nodes.csv, line 6: there is no graph 'm4' in graphs.csv",
    ),
    "unknown graph of an edge": (
        {"edges": EDGES + "m4,a,b,single\n"},
        "{folder}/edges.csv, line 5: there is no graph 'm4'",
    ),
    "graph twice": (
        {"graphs": GRAPHS + "m1,1,train\n"},
        "{folder}/graphs.csv, line 5: graph 'm1' already exists, see {folder}/graphs.csv, line 3",
    ),
    "edge twice": (
        {"edges": EDGES + "m1,b,a,double\n"},
        "{folder}/edges.csv, line 5: edge 'b' -> 'a' already exists with other values, see {folder}/edges.csv, line",
    ),
    "edge between graphs": (
        {"edges": EDGES.replace("m1,b,a", "m1,b,3")},
        "{folder}/edges.csv, line 3: node '3' is in another graph, see {folder}/nodes.csv, line 7",
    ),
    "wrong split": (
        {"graphs": GRAPHS.replace("valid", "vaild")},
        "{folder}/graphs.csv, line 3: split 'vaild' is not train, valid or test",
    ),
    "empty split": (
        {"graphs": GRAPHS.replace("valid", "test")},
        "graphs.csv: column 'split' assigns no labelled row to 'valid'",
    ),
    "too few to split": (
        {
            "graphs": drop_column(GRAPHS, "split").replace("m1,0.25\n", "").replace("m2,-2\n", ""),
            "nodes": "graph,node\nm3,a\n",
            "edges": "graph,source,target\n",
        },
        "graphs.csv: too few labelled samples (1)",
    ),
    "latin-1": (
        {"nodes": NODES.replace("m1,b,O", "m1,b,\xe9").encode("latin-1")},
        "{folder}/nodes.csv, line 4: byte 0xe9 is not UTF-8 text: save the file as UTF-8",
    ),
    "half of utf-16": (
        {"nodes": NODES.encode("utf-16")[:-1]},
        "{folder}/nodes.csv, line 7: byte 0x0a is not UTF-16 text",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_one_line_and_leaves_no_store(fault, tmp_path):
    changes, message = FAULTS[fault]
    folder = write(tmp_path / "csv", **changes)
    error = line_of(lambda: open_data(folder))
    assert error.startswith(message.format(folder=folder)), error
    assert not list((tmp_path / "built").rglob("*.npy"))


def test_duplicate_edges_are_dropped_and_counted(tmp_path, capsys):
    folder = write(tmp_path / "csv", edges=EDGES + "m1,a,b,single\nm2,1,2,double\n")
    assert gather(open_data(folder).graphs, [1]).edge_index.tolist() == [[1, 0], [0, 1]]
    assert "  1 duplicate edge left out" in capsys.readouterr().out.splitlines()
    undirected_graphs = open_data(folder, undirected=True).graphs
    assert "  2 duplicate edges left out, in either direction" in capsys.readouterr().out.splitlines()
    assert_same_batches(undirected_graphs, molecules())
    conflicting = write(tmp_path / "other", edges=EDGES + "m1,a,b,double\n")
    assert len(open_data(conflicting).graphs.edge_index[0]) == 4
    line = line_of(lambda: open_data(conflicting, undirected=True))
    assert line.endswith("other/edges.csv, line 3 (undirected edges are the same in both directions): keep one of them")
    with_loop = open_data(write(tmp_path / "loop", edges=EDGES + "m3,a,a,single\n"), undirected=True).graphs
    assert gather(with_loop, [0]).edge_index.tolist() == [[0], [0]]


def test_unknown_target_gets_a_suggestion(tmp_path):
    folder = write(tmp_path / "csv")
    assert line_of(lambda: open_data(folder, target="lable")) == (
        "data.target: no column 'lable' to predict: did you mean 'label'?"
    )


def test_csv_and_tsv_of_one_table_are_rejected(tmp_path):
    folder = write(tmp_path / "csv")
    (folder / "nodes.tsv").write_text(NODES)
    assert "nodes.csv and nodes.tsv both exist: keep one" in line_of(lambda: open_data(folder))


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_raises_only_user_errors(seed, tmp_path):
    """A few bytes of a file are removed, replaced or inserted at random."""
    rng = random.Random(seed)
    folder = write(tmp_path / "csv")
    path = folder / rng.choice(sorted(TABLES))
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    patch = rng.choice([b"", b",", b"\n", b'"', b"nan", b"\xff", b"\0", b"1e999", b"m1", b"\r", b'"\n"', bytes([seed])])
    content[start : start + rng.randrange(8)] = patch
    path.write_bytes(content)
    message = ""
    try:
        CSVGraphs(str(folder)).build()
    except UserError as error:  # any other exception is a bug
        message = str(error)
    assert "\n" not in message


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
        open_data(write(tmp_path / "csv", nodes=nodes))

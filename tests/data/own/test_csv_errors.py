"""Errors in folders of CSV files: one line that names file and line, whatever the damage."""

import random

import pytest

from gt.data.own.csv_graphs import CSVGraphs
from gt.errors import UserError
from tests.data.own.csv_folders import open_data
from tests.data.tables_of import EDGES, GRAPHS, NODES, TABLES, error_line, write_tables


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
    folder = write_tables(tmp_path / "csv", **changes)
    error = error_line(lambda: open_data(folder))
    assert error.startswith(message.format(folder=folder)), error
    assert not list((tmp_path / "built").rglob("*.npy"))


def test_unknown_target_gets_a_suggestion(tmp_path):
    folder = write_tables(tmp_path / "csv")
    assert error_line(lambda: open_data(folder, target="lable")) == (
        "data.target: no column 'lable' to predict: did you mean 'label'?"
    )


def test_csv_and_tsv_of_one_table_are_rejected(tmp_path):
    folder = write_tables(tmp_path / "csv")
    (folder / "nodes.tsv").write_text(NODES)
    assert "nodes.csv and nodes.tsv both exist: keep one" in error_line(lambda: open_data(folder))


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_raises_only_user_errors(seed, tmp_path):
    """A few bytes of a file are removed, replaced or inserted at random."""
    rng = random.Random(seed)
    folder = write_tables(tmp_path / "csv")
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

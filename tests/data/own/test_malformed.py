"""Malformed files of every source: the error is one line with file and row, the files stay, and nothing is left behind.

Faults that only one format can have are tested where that format is read.
"""

import csv
import gzip
import io
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")
from gt.data import reading
from gt.data.molecules.molecules import Molecules
from gt.errors import UserError
from tests.data.sources import (
    CONFIGS,
    GRAPH,
    KEYS,
    LABELLED,
    LINES,
    MOLECULES,
    SOURCES,
    TEXT,
    Change,
    file_contents,
    open_source,
    overrides_of,
    write_source,
)
from tests.data.tables_of import EDGES, GRAPHS, NODES

NOISE = random.Random(0).randbytes(4000)
TRUNCATED_GZIP = gzip.compress(NOISE)[:-9]


class Trap:
    """Creates the file ``sprung`` when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return shutil.copyfile, (__file__, "sprung")


def truncate(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def with_line(number: int, text: str | bytes) -> Callable[[bytes], bytes]:
    """A change of a file that replaces the line of this number."""

    def change(content: bytes) -> bytes:
        lines = content.split(b"\n")
        lines[number - 1] = text.encode() if isinstance(text, str) else text
        return b"\n".join(lines)

    return change


def torch_saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def with_tensors(**changed: Any) -> Callable[[bytes], bytes]:
    """A change of PyG's file of processed graphs that replaces some of its tensors."""

    def change(content: bytes) -> bytes:
        first, *rest = torch.load(io.BytesIO(content), weights_only=True)
        return torch_saved((first | changed, *rest))

    return change


def molecule_table(*rows: str, header: str = "smiles,logS") -> dict[str, Change]:
    """A table whose rows follow some templates in turn, with carbon chains and numbers that no two rows share."""
    lines = [rows[n % len(rows)].format(smiles="C" * (n + 1), y=n * n / 7) for n in range(30)]
    return {"m.csv": "\n".join([header, *lines]) + "\n"}


def replace_in_line(number: int, old: str, new: str) -> dict[str, Change]:
    """Node-link JSON with a text replaced in one of its lines."""
    assert old in LINES[number - 1]
    return {"g.jsonl": with_line(number, LINES[number - 1].replace(old, new))}


Case = tuple[dict[str, Change], str] | tuple[dict[str, Change], str, dict[str, Any]]
RAW, SPLIT = "ogbg_molhiv/raw", "ogbg_molhiv/split/scaffold"
# by source and name: changes of its files, part of the message (``@`` is the folder of the files), further options
CASES: dict[str, dict[str, Case]] = {
    "molecules": {
        "missing": ({"m.csv": None}, "there is no file @/m.csv: set data.path"),
        "a folder": ({"m.csv": None, "m.csv/inside": "x"}, "there is no file @/m.csv: set data.path"),
        "empty": ({"m.csv": ""}, "@/m.csv is empty"),
        "header alone": ({"m.csv": "smiles,logS\n"}, "@/m.csv has no rows"),
        "no header": (molecule_table("{smiles},{y}", header="CO,1"), "@/m.csv, line 1: 'CO' is a molecule"),
        "no SMILES": (molecule_table("some water,{y}", header="name,logS"),
         "@/m.csv: no column holds SMILES; name one, such as data.smiles=name"),
        "every row unreadable": (molecule_table("xyz{y},{y}"), "@/m.csv, line 2: 'xyz0.0': syntax"),
        "every row ragged": (molecule_table("{smiles},{y},7"), "@/m.csv, line 2: 3 cells where the header has 2"),
        "every target missing": (molecule_table("{smiles},NaN"), "@/m.csv: 'logS' is empty", {"target": "logS"}),
        "every target infinite": (molecule_table("{smiles},inf"),
         "@/m.csv, line 2: 'inf' in 'logS' is too large, and no other row has a target", {"target": "logS"}),
        "text among numbers": (molecule_table("{smiles},{y}", "{smiles},high"),
         "@/m.csv, line 3: 'high' in 'logS' is not a number, and 16 different values in 30 rows are too many for",
         {"target": "logS"}),
        "decimal commas": (molecule_table("{smiles};{y},5", header="smiles;logS"),
         "@/m.csv, line 2: '0.0,5' in 'logS' is not a number", {"target": "logS"}),
        "text for regression": (molecule_table("{smiles},high", "{smiles},low"),
         "@/m.csv, line 2: 'high' in 'logS' is not a number, as data.kind=regression requires", {"kind": "regression"}),
        "column twice": (molecule_table("{smiles},{y},{y}", header="smiles,logS,logS"),
         "@/m.csv, line 1: several columns are called 'logS'", {"target": "logS"}),
        "SMILES twice": (molecule_table("{smiles},{smiles}N,{y}", header="smiles,smiles,logS"),
         "@/m.csv, line 1: several columns are called 'smiles'"),
        "unknown splits": (molecule_table("{smiles},{y},a", header="smiles,logS,split"),
         "@/m.csv, line 2: 'C': 'a' in 'split' is neither train nor valid nor test",
         {"split": None, "split_column": "split"}),
        "no validation": (molecule_table("{smiles},{y},train", header="smiles,logS,split"),
         "@/m.csv: the column split of 30 molecules leaves none for valid", {"split": None}),
        "UTF-16 without a mark": ({"m.csv": MOLECULES.encode("utf-16-le")}, "@/m.csv, line 1: a zero byte"),
        "noise": ({"m.csv": NOISE}, "@/m.csv, line 2: 1 cells where the header has 2"),
        "open quote": ({"m.csv": with_line(5, '"CC,1.5')}, "@/m.csv, line 5: a quote opened here is never closed"),
        "cut off": ({"m.csv.gz": TRUNCATED_GZIP}, "@/m.csv.gz is incomplete, or not gzipped", {"path": "m.csv.gz"}),
        "not gzipped": ({"m.csv.gz": b"C,1"}, "@/m.csv.gz is incomplete, or not gzipped", {"path": "m.csv.gz"}),
        "bytes changed": (
         {"m.csv.gz": gzip.compress(MOLECULES.encode())[:60] + b"????" + gzip.compress(MOLECULES.encode())[64:]},
         "@/m.csv.gz is incomplete, or not gzipped", {"path": "m.csv.gz"}),
        "zip": ({"m.zip": b"PK"}, "@/m.zip: unknown file type '.zip'", {"path": "m.zip"}),
        "TSV of commas": ({"m.tsv": MOLECULES.replace(",", "\t", 1)}, "@/m.tsv, line 2: 1 cells where the header has 2",
         {"path": "m.tsv"}),
        "broken header": ({"m.csv": with_line(1, '"smiles"x,logS')}, "@/m.csv, line 1: ',' expected after '\"'"),
        "lines within a cell": (molecule_table('"xyz\n{y}",{y}'),
         "@/m.csv, line 2: 'xyz 0.0': '\\n' is no"),
        "too few that can be read": (molecule_table("{smiles},{y}", *["xyz,{y}"] * 9),
         "@/m.csv: the random split of 3 molecules leaves none for test"),
        "SDF of text": ({"m.sdf": TEXT}, "@/m.sdf, line 1: RDKit", {"path": "m.sdf"}),
        "SDF of noise": ({"m.sdf": NOISE}, "@/m.sdf, line 1: ", {"path": "m.sdf"}),
    },
    "csv graphs": {
        "no folder": ({}, "no folder at @/nodes.csv: set data.path", {"path": "nodes.csv"}),
        "missing": ({"edges.csv": None},
         "@ has no edges.csv (nor .csv.gz nor .tsv), with the columns source and target: it holds graphs.csv and"),
        "empty": ({"edges.csv": ""}, "@/edges.csv is empty"),
        "no nodes": ({"nodes.csv": "graph,node,element\n"}, "nodes.csv has no rows: there are no nodes"),
        "edge beyond": ({"edges.csv": EDGES.replace("m2,3,2", "m2,4,2")},
         "@/edges.csv, line 4: there is no node '4' in nodes.csv"),
        "negative edge": ({"edges.csv": EDGES.replace("m2,3,2", "m2,-1,2")},
         "@/edges.csv, line 4: there is no node '-1'"),
        "edge of a fraction": ({"edges.csv": EDGES.replace("m2,3,2", "m2,3.0,2")},
         "@/edges.csv, line 4: there is no node '3.0'"),
        "short row": ({"nodes.csv": with_line(5, "m2,2,C")}, "@/nodes.csv, line 5: 3 cells where the header has 4"),
        "long row": ({"edges.csv": EDGES + "m1,a,b,x,y\n"}, "@/edges.csv, line 5: 5 cells where the header has 4"),
        "nan": ({"nodes.csv": with_line(5, "m2,2,C,nan")}, "@/nodes.csv, line 5: 'ring' is 'nan', not a number"),
        "infinite": ({"nodes.csv": with_line(5, "m2,2,C,inf")}, "@/nodes.csv, line 5: 'ring' is 'inf', not a finite"),
        "too large": ({"nodes.csv": with_line(5, "m2,2,C,99999999999999999999")},
         "@/nodes.csv, line 5: 'ring' is '99999999999999999999', a whole number beyond 64 bits"),
        "node twice": ({"nodes.csv": NODES + "m1,a,C,0\n"},
         "@/nodes.csv, line 8: node 'a' already exists, see @/nodes.csv, line 2"),
        "graph without nodes": ({"graphs.csv": GRAPHS + "m4,1,train\n"},
         "@/graphs.csv, line 5: graph 'm4' has no node in nodes.csv"),
        "target of no graph": ({"graphs.csv": GRAPHS.replace("m3", "m4")},
         "@/nodes.csv, line 6: there is no graph 'm3' in graphs.csv"),
        "text target": ({"graphs.csv": GRAPHS.replace("0.25", "high")},
         "@/graphs.csv, line 3: 'label' is 'high', not a number"),
        "no training": ({"graphs.csv": GRAPHS.replace("train", "test")},
         "graphs.csv: column 'split' assigns no labelled row to 'train'"),
        "latin-1": ({"nodes.csv": with_line(3, b"m2,1,N\xe9,1")}, "@/nodes.csv, line 3: byte 0xe9 is not UTF-8 text"),
        "zero byte": ({"nodes.csv": with_line(3, b"m2,1,\0,1")}, "@/nodes.csv, line 3: a zero byte, which no text has"),
        "cut off": ({"nodes.csv": None, "nodes.csv.gz": gzip.compress(NODES.encode())[:-9]},
         "@/nodes.csv.gz is incomplete, or not gzipped"),
    },
    "csv nodes": {
        "node twice": ({"nodes.csv": "node,label\n7,u\n7,v\n"}, "@/nodes.csv, line 3: node '7' already exists"),
        "edge to no node": ({"edges.csv": "source,target\n7,5\n9,8\n"}, "@/edges.csv, line 3: there is no node '8'"),
        "nan": ({"nodes.csv": with_line(3, "5,nan,v,train")}, "@/nodes.csv, line 3: 'size' is 'nan', not a number"),
        "split of no label": ({"nodes.csv": with_line(5, "3,2,,valid")},
         "nodes.csv: column 'split' assigns no labelled row to 'valid'"),
        "unknown split": ({"nodes.csv": with_line(3, "5,2,v,trian")}, "@/nodes.csv, line 3: split 'trian' is not"),
        "several graphs": (
         {"nodes.csv": "graph,node,label\na,7,u\na,5,v\nb,9,u\n", "edges.csv": "graph,source,target\n"},
         "the graphs of nodes.csv: too few labelled samples (2)"),
    },
    "graphml": {
        "empty": ({"g.graphml": ""}, "@/g.graphml is empty"),
        "cut off": ({"g.graphml": KEYS}, "@/g.graphml, line 4: no element found: not XML"),
        "entities": (
         {"g.graphml": '<?xml version="1.0"?>\n<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>\n<x>&b;</x>'},
         "@/g.graphml, line 2: a document type, whose entities could hide anything"),
        "undeclared": ({"g.graphml": KEYS + GRAPH.replace('"k"', '"z"', 1) % 0 + "</graphml>"},
         "@/g.graphml, line 5: attribute 'z' is not declared"),
        "attribute missing": (
         {"g.graphml": KEYS + (GRAPH % 0) * 9 + GRAPH.replace('<data key="k">y</data>', "") % 1 + "</graphml>"},
         "@/g.graphml, line 42: 'kind' is empty, but a feature needs a value"),
        "edge to no node": (
         {"g.graphml": KEYS + (GRAPH % 0) * 9 + GRAPH.replace('target="b"', 'target="c"') % 1 + "</graphml>"},
         "@/g.graphml, line 43: there is no node 'c'"),
        "mixed directions": (
         {"g.graphml": KEYS + GRAPH % 0 + GRAPH.replace("directed", "undirected") % 1 + "</graphml>"},
         "@/g.graphml, line 8 is undirected, unlike @/g.graphml, line 4"),
    },
    "json": {
        "cut off": (replace_in_line(3, "]}", ""), "@/g.jsonl, line 3: Expecting ',' delimiter: not JSON"),
        "edge to no node": (replace_in_line(3, '"target": "b"', '"target": "z"'),
         "@/g.jsonl, line 3, edge 'a' -> 'z': there is no node 'z'"),
        "attribute missing": (replace_in_line(3, '"b", "x": 1', '"b"'), "@/g.jsonl, line 3, node 'b': 'x' is empty"),
        "mixed directions": (replace_in_line(3, "true", "false"),
         "@/g.jsonl, line 3 is undirected, unlike @/g.jsonl, line 1"),
        "direction in words": (replace_in_line(3, "true", '"no"'),
         "@/g.jsonl, line 3: 'directed' is 'no', but must be true or"),
        "NaN": (replace_in_line(3, '"x": 1', '"x": NaN'), "@/g.jsonl, line 3, node 'b': 'x' is empty"),
        "endless number": (replace_in_line(3, '"x": 1', '"x": ' + "9" * 5000),
         "@/g.jsonl, line 3: a number of too many digits"),
        "half a character": (replace_in_line(3, '"b", "x"', r'"\udc00", "x"'),
         r"@/g.jsonl, line 3: '\udc00' is half of a"),
    },
    "text": {
        "missing": ({"t.txt": None}, "no text file at @/t.txt: set data.path"),
        "empty": ({"t.txt": ""}, "@/t.txt is empty: set data.path to a file with text"),
        "blank": ({"t.txt": " \n\t\n"}, "@/t.txt is empty: set data.path to a file with text"),
        "empty folder": ({"t.txt": None}, "the folder @ holds no files: set data.path", {"path": ""}),
        "no match": ({}, "no file matches @/*.md: set data.path", {"path": "*.md"}),
        "latin-1": ({"t.txt": with_line(5, b"caf\xe9")}, "@/t.txt, line 5: byte 0xe9 is not UTF-8 text"),
        "UTF-16 that is cut off": ({"t.txt": TEXT.encode("utf-16")[:-1]}, "@/t.txt, line 20: byte 0x0a is not UTF-16"),
        "UTF-16 without a mark": ({"t.txt": TEXT.encode("utf-16-le")}, "@/t.txt, line 1: a zero byte"),
        "cut off": ({"t.txt.gz": TRUNCATED_GZIP}, "@/t.txt.gz is incomplete, or not gzipped", {"path": "t.txt.gz"}),
        "bytes changed": ({"t.txt.gz": gzip.compress(TEXT.encode())[:40] + b"????" + gzip.compress(TEXT.encode())[44:]},
         "@/t.txt.gz is incomplete, or not gzipped", {"path": "t.txt.gz"}),
        "empty validation": ({"t.txt": None, "t.train.txt": TEXT, "t.valid.txt": ""}, "the valid text of @ is empty",
         {"path": ""}),
        "no tokenizer": ({}, "no tokenizer at @/t.json: set data.tokenizer", {"tokenizer": "t.json"}),
        "no tokenizer in it": ({"t.json": "{}"}, "@/t.json is not a tokenizer that the", {"tokenizer": "t.json"}),
        "broken tokenizer": ({"t.json": '{"version": "1.0", "model": {'},
         "@/t.json is not a tokenizer that the package tokenizers can read", {"tokenizer": "t.json"}),
    },
    "labelled": {
        "short row": ({"a.tsv": with_line(5, "a text")}, "@/a.tsv, line 5: 1 cells where the header has 2"),
        "no label": ({"a.tsv": "text\tlabel\na text\t\n"}, "@/a.tsv, line 2: the label is missing; no other row"),
        "no column": ({"a.tsv": "text\tkind\tid\na\t1\t0\n"}, "no column of @/a.tsv has a usual name for the label"),
        "column twice": ({"a.tsv": "text\tlabel\tlabel\na\t1\t0\n"}, "@/a.tsv, line 1: several columns are called"),
        "latin-1": ({"a.tsv": with_line(5, b"caf\xe9\t1")}, "@/a.tsv, line 5: byte 0xe9 is not UTF-8 text"),
        "UTF-16": ({"a.tsv": LABELLED.encode("utf-16-le")}, "@/a.tsv, line 1: a zero byte"),
        "cut off": ({"a.tsv.gz": TRUNCATED_GZIP}, "@/a.tsv.gz is incomplete, or not gzipped", {"path": "a.tsv.gz"}),
        "open quote": ({"a.csv": 'text,label\na,1\n"b,0\nc,1\n'},
         "@/a.csv, line 3: a quote opened here is never closed", {"path": "a.csv"}),
    },
    "objects": {
        "broken": ({"a.jsonl": with_line(5, '{"text": "a", ')}, "@/a.jsonl, line 5: Expecting property name"),
        "nested": ({"a.jsonl": with_line(5, '{"text": ' + "[" * 100_000)}, "@/a.jsonl, line 5: nested too deeply"),
        "endless number": ({"a.jsonl": with_line(5, '{"label": ' + "9" * 5000 + "}")},
         "@/a.jsonl, line 5: a number of too"),
        "NaN": ({"a.jsonl": '{"text": "a", "label": NaN}'}, "@/a.jsonl, line 1: the label is missing; no other row"),
        "null": ({"a.jsonl": '{"text": null, "label": 1}'}, "@/a.jsonl, line 1: there is no 'text'"),
        "half a character": ({"a.jsonl": with_line(5, r'{"text": "\ud800", "label": 1}')},
         r"@/a.jsonl, line 5: '\ud800'"),
    },
    "tu": {
        "pickle": ({"TINY/processed/data.pt": torch_saved(Trap())},
         "@/TINY/processed/data.pt holds something other than tensors (shutil.copyfile): remove @/TINY/processed"),
        "cut off": ({"TINY/processed/data.pt": truncate}, "@/TINY/processed/data.pt holds nothing that can be read"),
        "edge beyond": ({"TINY/processed/data.pt": with_tensors(edge_index=torch.full((2, 36), 9))},
         "TINY, graph 0: an edge joins [9, 9], but nodes are 0..1"),
        "more nodes than rows": ({"TINY/processed/data.pt": with_tensors(_num_nodes=[3] * 12)},
         "TINY, graph 0: x has 2 rows for 3 nodes"),
        "fewer edges than told": ({"TINY/processed/data.pt": with_tensors(edge_index=torch.ones(2, 5).long())},
         "TINY: edge_index has 5 rows, but its slices end at 36"),
        "nan": ({"TINY/processed/data.pt": with_tensors(x=torch.full((30, 3), torch.nan))}, "TINY, graph 0: nan in x"),
    },
    "molhiv": {
        "missing": ({f"{RAW}/edge.csv.gz": None}, "@/ogbg_molhiv/raw/edge.csv.gz is missing or cannot be read"),
        "cut off": ({f"{RAW}/edge.csv.gz": truncate}, "@/ogbg_molhiv/raw/edge.csv.gz is incomplete, or not gzipped"),
        "a web page": ({f"{RAW}/edge.csv.gz": b"<html>"}, "@/ogbg_molhiv/raw/edge.csv.gz is incomplete, or not"),
        "ragged": ({f"{RAW}/edge.csv.gz": "0,1\n2,1\n1\n0,1\n1,2\n2,0\n"},
         "@/ogbg_molhiv/raw/edge.csv.gz, row 3: 1 columns, expected 2"),
        "open quote": ({f"{RAW}/edge.csv.gz": '0,1\n2,"1\n1,0\n0,1\n1,2\n2,0\n'},
         "@/ogbg_molhiv/raw/edge.csv.gz, row 2: '\"1' is not an integer"),
        "edge beyond": ({f"{RAW}/edge.csv.gz": "0,1\n2,1\n1,0\n0,1\n1,4\n2,0\n"},
         "@/ogbg_molhiv/raw/edge.csv.gz, row 5: 4 is not a node of its graph"),
        "more nodes than rows": ({f"{RAW}/num-node-list.csv.gz": "3\n1\n2\n5\n"},
         "@/ogbg_molhiv/raw/node-feat.csv.gz has 10 rows, but num-*-list.csv.gz imply 11"),
        "graph without nodes": ({f"{RAW}/num-node-list.csv.gz": "3\n0\n3\n4\n"},
         "@/ogbg_molhiv/raw/num-node-list.csv.gz, row 2: 0 is less than 1"),
        "no labels": ({f"{RAW}/graph-label.csv.gz": '""\n' * 4},
         "@/ogbg_molhiv/raw/graph-label.csv.gz labels no graph"),
        "split beyond": ({f"{SPLIT}/test.csv.gz": "2\n9\n"},
         "@/ogbg_molhiv/split/scaffold/test.csv.gz, row 2: 9 is out of range: there are only 4"),
        "no training": ({f"{SPLIT}/train.csv.gz": ""}, "@/ogbg_molhiv/split/scaffold/train.csv.gz is empty"),
    },
    "code2": {
        "missing mapping": ({"ogbg_code2/mapping/typeidx2type.csv.gz": None},
         "@/ogbg_code2/mapping/typeidx2type.csv.gz is missing or cannot be read"),
        "bytes changed": ({"ogbg_code2/mapping/typeidx2type.csv.gz": lambda raw: raw[:30] + b"????" + raw[34:]},
         "@/ogbg_code2/mapping/typeidx2type.csv.gz is incomplete, or not gzipped"),
    },
    "pcqm4m": {
        "pickle": ({"pcqm4m-v2/split_dict.pt": torch_saved({"train": Trap()})},
         "@/pcqm4m-v2/split_dict.pt holds something other than tensors (shutil.copyfile): replace the file by OGB's"),
        "a number for a split": ({"pcqm4m-v2/split_dict.pt": torch_saved({"train": np.array(3)})},
         "@/pcqm4m-v2/split_dict.pt is not a dictionary of numeric arrays"),
        "text for a gap": ({"pcqm4m-v2/raw/data.csv.gz": "idx,smiles,homolumogap\n0,CCO,5.5\n1,C,much\n"},
         "@/pcqm4m-v2/raw/data.csv.gz, row 2: 'much' is not a valid homolumogap"),
        "endless number": ({"pcqm4m-v2/raw/data.csv.gz": "idx,smiles,homolumogap\n99999999999999999999,C,5.5\n"},
         "@/pcqm4m-v2/raw/data.csv.gz, row 1: '99999999999999999999' is not a valid idx"),
        "infinite gap": ({"pcqm4m-v2/raw/data.csv.gz": "idx,smiles,homolumogap\n0,CCO,5.5\n1,C,inf\n"},
         "@/pcqm4m-v2/raw/data.csv.gz, row 2: inf is not finite"),
        "ragged": ({"pcqm4m-v2/raw/data.csv.gz": "idx,smiles,homolumogap\n0,CCO,5.5,7\n1,C,4.25\n"},
         "@/pcqm4m-v2/raw/data.csv.gz, row 1: 4 columns, expected 3"),
    },
    "arxiv": {
        "infinite": ({"ogbn_arxiv/raw/node-feat.csv.gz": (",".join(["inf"] * 128) + "\n") * 5},
         "@/ogbn_arxiv/raw/node-feat.csv.gz, row 1: inf is not a finite number"),
        "no validation": ({"ogbn_arxiv/split/time/valid.csv.gz": ""}, "@/ogbn_arxiv/split/time/valid.csv.gz is empty"),
    },
    "ddi": {
        "pickle": ({"ogbl_ddi/split/target/train.pt": torch_saved({"edge": Trap()})},
         "@/ogbl_ddi/split/target/train.pt holds something other than tensors"),
        "no training": ({"ogbl_ddi/split/target/train.pt": torch_saved({"edge": torch.empty(0, 2).long()})},
         "@/ogbl_ddi/split/target/train.pt has no links"),
    },
}  # fmt: skip
PARAMETERS = [
    pytest.param(source, changes, message, *(options or [{}]), id=f"{source}: {name}")
    for source, cases in CASES.items()
    for name, (changes, message, *options) in cases.items()
]


@pytest.mark.parametrize("source", SOURCES)
def test_intact_files_open(source: str, tmp_path: Path) -> None:
    """Without a change the files open: the faults below come from the changes alone."""
    source_folder = write_source(source, tmp_path, {})
    before = file_contents(source_folder)
    assert open_source(source, tmp_path).has("train")
    assert {
        name: content for name, content in file_contents(source_folder).items() if not name.startswith("stores/")
    } == before


@pytest.mark.parametrize(("source", "changes", "message", "options"), PARAMETERS)
def test_fault_is_one_line_and_changes_no_file(
    source: str,
    changes: dict[str, Change],
    message: str,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    source_folder = write_source(source, tmp_path, changes)
    before = file_contents(tmp_path)
    with pytest.raises(UserError) as caught:
        open_source(source, tmp_path, **options)
    error = str(caught.value)
    assert message.replace("@", str(source_folder)) in error
    assert len(error.splitlines()) == 1
    assert file_contents(tmp_path) == before


def test_tiny_validation_share_is_reported(tmp_path: Path) -> None:
    write_source("text", tmp_path, {"t.txt": "x" * 900})
    with pytest.raises(UserError, match=r"t\.txt: the valid split has 1 of 900 characters.* data\.valid"):
        open_source("text", tmp_path, context=16, valid=0.001)


def test_store_of_a_short_text_serves_shorter_blocks(tmp_path: Path) -> None:
    source_folder = write_source("text", tmp_path, {"t.txt": "x" * 36})
    with pytest.raises(UserError) as caught:
        open_source("text", tmp_path, context=16)
    assert (
        str(caught.value)
        == f"{source_folder}/t.txt has 32 training characters of 36: too few for blocks of 16; lower data.context"
    )
    kept = file_contents(tmp_path / "root")
    assert open_source("text", tmp_path, context=15).has("train")
    assert file_contents(tmp_path / "root") == kept


# by name: a replacement of line 5 of the table, and why this row is skipped
SKIPPED = {
    "not SMILES": ("xyz,1.5", "syntax error while parsing: xyz"),
    "no SMILES": (",1.5", "no molecule"),
    "impossible": ("CN(C)(C)(C)C,1.5", "Explicit valence for atom # 1 N, 5, is greater than permitted"),
    "no target": ("CC,", "no label"),
    "NaN": ("CC,NaN", "no label"),
    "infinite": ("CC,inf", "'inf' in 'logS' is too large"),
    "text": ("CC,high", "'high' in 'logS' is not a number"),
    "endless number": ("CC," + "9" * 5000, "' in 'logS' is not a number"),
    "short": ("CC", "1 cells where the header has 2"),
    "long": ("CC,1.5,7", "3 cells where the header has 2"),
    "broken quote": ('"C"C,1.5', "',' expected after '\"'"),
    "latin-1": (b"CC\xe9,1.5", "byte 0xe9 is not UTF-8 text"),
    "zero byte": (b"CC\0,1.5", r"'\x00' is not allowed in SMILES"),
}


@pytest.mark.parametrize("fault", SKIPPED)
def test_skipped_row_is_listed_with_its_reason(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, reason = SKIPPED[fault]
    source_folder = write_source("molecules", tmp_path, {"m.csv": with_line(5, row)})
    before = file_contents(source_folder)
    data = open_source("molecules", tmp_path)
    assert isinstance(data.source, Molecules)
    assert f"29 molecules; random split 23 / 3 / 3; 1 of 30 rows skipped, listed in {data.source.skipped_rows}" in (
        capsys.readouterr().out
    )
    with open(data.source.skipped_rows, newline="") as file:
        [listed] = csv.DictReader(file)
    assert (listed["row"], listed["line"]) == ("3", "5")
    assert reason in listed["reason"]
    assert file_contents(source_folder) == before
    assert not list(tmp_path.rglob("*.part"))


GZIP_BOMBS = {
    "molecules": ("m.csv.gz", b"smiles,logS\n", {"path": "m.csv.gz"}),
    "csv graphs": ("graphs.csv.gz", b"graph,label\n", {}),
    "graphml": ("g.graphml.gz", b"<graphml>\n", {"path": "g.graphml.gz"}),
    "text": ("t.txt.gz", b"text\n", {"path": "t.txt.gz"}),
    "labelled": ("a.tsv.gz", b"text\tlabel\n", {"path": "a.tsv.gz"}),
    "molhiv": (f"{RAW}/edge.csv.gz", b"0,1\n", {}),
    "pcqm4m": ("pcqm4m-v2/raw/data.csv.gz", b"idx,smiles,homolumogap\n", {}),
}


@pytest.mark.parametrize("source", GZIP_BOMBS)
def test_gzip_bomb_is_rejected(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MIN_LIMIT", 2**20)
    name, row, options = GZIP_BOMBS[source]
    source_folder = write_source(source, tmp_path, {name: gzip.compress(row + row * (2**22 // len(row)))})
    (source_folder / name.removesuffix(".gz")).unlink(missing_ok=True)
    before = file_contents(tmp_path)
    with pytest.raises(UserError, match="grows to more than 200 times its size") as caught:
        open_source(source, tmp_path, **options)
    assert str(caught.value).startswith(str(source_folder / name))
    assert file_contents(tmp_path) == before


RUN_CASES = [("molecules", "every row unreadable"), ("objects", "broken"), ("tu", "pickle")]


def test_train_script_ends_with_the_error_line(tmp_path: Path) -> None:
    def run(index: int) -> tuple[str, subprocess.CompletedProcess[str]]:
        source, name = RUN_CASES[index]
        changes, message, *_ = CASES[source][name]
        folder = tmp_path / source.replace(" ", "_")
        folder.mkdir()
        source_folder = write_source(source, folder, changes)
        before = file_contents(folder)
        keys = [f"data.{key}={value}" for key, value in overrides_of(source, folder, {}).items()]
        command = [sys.executable, str(CONFIGS.parent / "train.py"), f"data={SOURCES[source][1]}", *keys, "logger=csv"]
        result = subprocess.run(
            [*command, f"hydra.run.dir={tmp_path}/run{index}", "trainer.accelerator=cpu"],
            cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
            check=False,
        )  # fmt: skip
        assert file_contents(folder) == before
        return message.replace("@", str(source_folder)), result

    with ThreadPoolExecutor(2) as pool:
        for message, result in pool.map(run, range(len(RUN_CASES))):
            assert result.returncode == 1
            [error] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
            assert message in error
            assert "Traceback" not in result.stdout + result.stderr

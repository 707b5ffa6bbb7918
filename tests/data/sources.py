"""A small dataset of every source as files, which tests may damage and open by its configuration."""

import gzip
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import gt
from gt.data.datamodule import DataModule
from tests.data import ogb_files, tables_of
from tests.data.ogb import test_links, test_nodes, test_pcqm4mv2
from tests.data.own import pyg_datasets

CONFIGS = Path(gt.__path__[0]).parent / "configs"
# a change to a file: new contents, a function of its bytes, or None to remove it; text is gzipped for names in .gz
Change = str | bytes | Callable[[bytes], bytes] | None

MOLECULES = "smiles,logS\n" + "".join(f"{'C' * n}O,{n / 7:.3f}\n" for n in range(1, 31))
ONE_GRAPH = {
    "nodes.csv": "node,size,label,split\n7,1,u,test\n5,2,v,train\n9,3,,train\n3,2,u,valid\n",
    "edges.csv": "source,target\n7,5\n9,7\n",
}
KEYS = """<graphml>
<key id="k" for="node" attr.name="kind" attr.type="string"/>
<key id="l" for="graph" attr.name="label" attr.type="int"/>
"""
GRAPH = """<graph edgedefault="directed"><data key="l">%d</data>
<node id="a"><data key="k">x</data></node>
<node id="b"><data key="k">y</data></node>
<edge source="a" target="b"/></graph>
"""
GRAPHML = KEYS + "".join(GRAPH % (n % 2) for n in range(10)) + "</graphml>\n"
LINES = [
    json.dumps(
        {
            "directed": True,
            "graph": {"label": n % 2},
            "nodes": [{"id": "a", "x": n}, {"id": "b", "x": 1}],
            "edges": [{"source": "a", "target": "b"}],
        }
    )
    for n in range(10)
]
TEXT = "".join(f"Line {n} of a text.\n" for n in range(20))
LABELLED = "text\tlabel\n" + "".join(f"text number {n}\t{n % 2}\n" for n in range(20))
OBJECTS = "".join(f'{{"text": "text number {n}", "label": {n % 2}}}\n' for n in range(20))


def _writer_of(files: Mapping[str, str]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).write_text(text)

    return write


def _write_tu(folder: Path) -> None:
    pyg_datasets.write_tu_dataset(folder)
    from torch_geometric.datasets import TUDataset

    TUDataset(str(folder), "TINY")  # writes the processed files, as after first use


# by name: a function that writes the files, the option of the group ``data``, and overrides of its configuration
SOURCES: dict[str, tuple[Callable[[Path], object], str, dict[str, Any]]] = {
    "molecules": (_writer_of({"m.csv": MOLECULES}), "molecules", {"path": "m.csv", "split": "random", "processes": 1}),
    "csv graphs": (tables_of.write_tables, "csv_graphs", {"path": ""}),
    "csv nodes": (_writer_of(ONE_GRAPH), "csv_nodes", {"path": ""}),
    "graphml": (_writer_of({"g.graphml": GRAPHML}), "graph_files", {"path": "g.graphml"}),
    "json": (_writer_of({"g.jsonl": "\n".join(LINES)}), "graph_files", {"path": "g.jsonl"}),
    "text": (_writer_of({"t.txt": TEXT}), "text", {"path": "t.txt", "context": 8}),
    "labelled": (_writer_of({"a.tsv": LABELLED}), "text_classification", {"path": "a.tsv"}),
    "objects": (_writer_of({"a.jsonl": OBJECTS}), "text_classification", {"path": "a.jsonl"}),
    "tu": (_write_tu, "tu", {"dataset.root": "", "dataset.name": "TINY"}),
    "molhiv": (lambda at: ogb_files.write_molecules(at / "ogbg_molhiv", [0, 1, 1, 0]), "ogbg_molhiv", {"root": ""}),
    "code2": (
        lambda at: ogb_files.write_code2(at / "ogbg_code2", ["a b", "b", "c", "a"], [0, 1]),
        "ogbg_code2",
        {"root": ""},
    ),
    "pcqm4m": (test_pcqm4mv2.write, "pcqm4mv2", {"root": "", "processes": 1}),
    "arxiv": (lambda at: test_nodes.write("ogbn-arxiv", at), "ogbn_arxiv", {"root": ""}),
    "ddi": (lambda at: test_links.write(at, "ogbl-ddi"), "ogbl_ddi", {"root": ""}),
}


@cache
def _config(option: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", [f"data={option}"])


def write_source(source: str, folder: Path, changes: Mapping[str, Change]) -> Path:
    """Write the files of a source into a subfolder, some of them changed; return that folder."""
    at = folder / "source"
    at.mkdir()
    SOURCES[source][0](at)
    for name, change in changes.items():
        path = at / name
        if change is None:
            path.unlink()
            continue
        content = change(path.read_bytes()) if callable(change) else change
        if isinstance(content, str):
            content = gzip.compress(content.encode()) if name.endswith(".gz") else content.encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return at


def overrides_of(source: str, folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides of the configuration ``data`` for a source that `write_source` wrote, by key."""
    settings = {"root": str(folder / "root"), **SOURCES[source][2], **options}
    paths = {"path", "root", "dataset.root", "tokenizer"} & settings.keys()
    return settings | {key: str(folder / "source" / settings[key]) for key in paths}


def open_source(source: str, folder: Path, **options: Any) -> DataModule:
    """Open a source that `write_source` wrote, as ``python train.py data=...`` would."""
    config = OmegaConf.create({"data": _config(SOURCES[source][1]).data, "seed": 0})
    for key, value in overrides_of(source, folder, options).items():
        of_module = key.split(".")[0] in config.data and key != "source"
        OmegaConf.update(config, f"data.{key}" if of_module else f"data.source.{key}", value)
    data: DataModule = instantiate(config.data)
    data.open([])
    return data


def file_contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder; not the locks and the folder they lie in, which a failed `open_source` may leave."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"a folder"
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".lock" and path.name not in ("root", "stores")
    }

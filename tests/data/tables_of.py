"""Three small molecules as CSV files and as the equivalent PyG graphs."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from gt.errors import UserError

NODES = """graph,node,element,ring
m1,a,C,0
m2,1,N,1
m1,b,O,1
m2,2,C,1
m3,a,C,0
m2,3,O,0
"""
EDGES = """graph,source,target,bond
m2,1,2,double
m1,b,a,single
m2,3,2,single
"""
GRAPHS = """graph,label,split
m3,1.5,train
m1,0.25,valid
m2,-2,train
"""
TABLES = {"nodes.csv": NODES, "edges.csv": EDGES, "graphs.csv": GRAPHS}


def expected_molecules() -> list[Data]:
    """The graphs in `TABLES`, edges in both directions: elements C, N, O are 0, 1, 2; bonds double, single 0, 1."""
    x = [[[0, 0]], [[0, 0], [2, 1]], [[1, 1], [0, 1], [2, 0]]]
    edges: list[list[list[int]]] = [[], [[1, 0], [0, 1]], [[0, 1], [2, 1], [1, 0], [1, 2]]]
    bonds: list[list[list[int]]] = [[], [[1], [1]], [[0], [1], [0], [1]]]
    return [
        Data(
            x=torch.tensor(x[i]),
            edge_index=torch.tensor(edges[i], dtype=torch.long).view(-1, 2).T,
            edge_attr=torch.tensor(bonds[i], dtype=torch.long).view(-1, 1),
            y=torch.tensor([[[1.5], [0.25], [-2.0]][i]]),
        )
        for i in range(3)
    ]


def write_tables(folder: Path, **changed: str | bytes | None) -> Path:
    """Write `TABLES` into a folder, some with other contents (None omits a file); ``nodes`` is nodes.csv, and so on."""
    folder.mkdir(exist_ok=True)
    for name, text in TABLES.items():
        content = changed.get(name.removesuffix(".csv"), text)
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def gzip_file(path: Path) -> None:
    """Replace a file by its gzipped version."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def error_line(call: Callable[[], object]) -> str:
    """The message of the `UserError` that a call raises, which must be a single line."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)

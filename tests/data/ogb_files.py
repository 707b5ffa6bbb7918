"""Small datasets in OGB's raw layout, and comparisons with OGB's own reader."""

import gzip
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gt.data.ogb.graphs import OGBGraphs, OGBMolecules
from gt.data.packed import Arrays, Graphs, pointers
from gt.errors import UserError

sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.io.read_graph_raw import read_csv_graph_raw  # noqa: E402

# three bonded atoms, a single atom, a pair, and a triangle with an unbonded fourth atom
SIZES, BONDS = [3, 1, 2, 4], [2, 0, 1, 3]
EDGES = [[0, 1], [2, 1], [1, 0], [0, 1], [1, 2], [2, 0]]
ATOMS = np.arange(90).reshape(10, 9) % [119, 5, 12, 12, 10, 6, 6, 2, 2]
KINDS = [[0, 0, 0], [1, 2, 1], [4, 5, 0], [3, 0, 1], [3, 0, 1], [2, 1, 0]]


def write_gzip(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def to_csv(rows: object) -> str:
    return pd.DataFrame(rows).to_csv(header=False, index=False)


def write_molecules(folder: Path, labels: object) -> Path:
    """Write a dataset of four molecules in OGB's layout."""
    raw = {"num-node-list": SIZES, "num-edge-list": BONDS, "edge": EDGES, "node-feat": ATOMS, "edge-feat": KINDS}
    for part, rows in {**raw, "graph-label": labels}.items():
        write_gzip(folder / "raw" / f"{part}.csv.gz", to_csv(rows))
    for part, ids in {"train": [3, 0], "valid": [1], "test": [2]}.items():
        write_gzip(folder / "split" / "scaffold" / f"{part}.csv.gz", to_csv(ids))
    (folder / "RELEASE_v1.txt").write_text("v1\n")
    return folder


def concatenate(chunks: Iterable[Graphs]) -> Graphs:
    """Concatenate chunks of graphs."""
    parts = list(chunks)

    def cat(group: str) -> Arrays:
        return {name: np.concatenate([getattr(c, group)[name] for c in parts]) for name in getattr(parts[0], group)}

    return replace(
        parts[-1],
        node_ptr=pointers(np.concatenate([c.sizes for c in parts])),
        edge_ptr=pointers(np.concatenate([np.diff(c.edge_ptr) for c in parts])),
        edge_index=np.concatenate([c.edge_index for c in parts], axis=1),
        nodes=cat("nodes"),
        edges=cat("edges"),
        graphs=cat("graphs"),
        schema=replace(parts[-1].schema, max_nodes=max(c.schema.max_nodes for c in parts)),
    )


def read_graphs(data: OGBGraphs) -> Graphs:
    """All graphs of a dataset, read from its files."""
    return concatenate(data.read(data.files()))


def read_molecules(name: str, root: Path) -> Graphs:
    return read_graphs(OGBMolecules(name, str(root)))


def assert_same_as_ogb(name: str, root: Path) -> None:
    """Assert that every graph, label and split equals that of OGB's own reader for the same files."""
    folder = root / name.replace("-", "_")
    graphs = read_molecules(name, root)
    references = read_csv_graph_raw(str(folder / "raw"), add_inverse_edge=True)
    assert len(graphs) == len(references)
    for number, reference in enumerate(references):
        nodes, edges = (slice(p[number], p[number + 1]) for p in (graphs.node_ptr, graphs.edge_ptr))
        np.testing.assert_array_equal(graphs.nodes["x"][nodes], reference["node_feat"])
        found = np.c_[graphs.edge_index[:, edges].T, graphs.edges["edge_attr"][edges]]
        expected = np.c_[reference["edge_index"].T, reference["edge_feat"]]
        np.testing.assert_array_equal(found, expected[np.lexsort((expected[:, 0], expected[:, 1]))])
    labels = pd.read_csv(folder / "raw" / "graph-label.csv.gz", header=None).to_numpy(np.float32)
    np.testing.assert_array_equal(graphs.graphs["y"], labels)
    for part in ("train", "valid", "test"):
        ids = pd.read_csv(folder / "split" / "scaffold" / f"{part}.csv.gz", header=None)[0]
        np.testing.assert_array_equal(graphs.splits[part], ids)


def assert_fails(call: Callable[[], object], *parts: str) -> str:
    """Assert that a call raises a `UserError` of one line that contains all parts; return the line."""
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line
    return line


def open_with_ogb(name: str, root: Path) -> object:
    """A dataset read by OGB's own class, which writes its processed files into ``root``."""
    from numpy.dtypes import Float32DType, Float64DType, Int64DType
    from ogb.graphproppred import PygGraphPropPredDataset
    from torch.serialization import add_safe_globals
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    rebuilt = np.empty(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    add_safe_globals([DataEdgeAttr, DataTensorAttr, GlobalStorage, np.ndarray, np.dtype, Int64DType, Float64DType])
    add_safe_globals([Float32DType, (rebuilt, "numpy._core.multiarray._reconstruct"), rebuilt, scalar])
    return PygGraphPropPredDataset(name, root=str(root))


# two syntax trees: one of five nodes, whose depth-first order differs from their numbering, and one of a single node
CODE2 = {
    "num-node-list": [5, 1],
    "num-edge-list": [4, 0],
    "edge": [[0, 1], [0, 2], [2, 3], [2, 4]],
    "node-feat": [[0, 1], [1, 2], [2, 0], [1, 1], [0, 3], [2, 2]],
    "node_depth": [0, 1, 1, 25, 2, 0],
    "node_dfs_order": [0, 4, 1, 3, 2, 0],
    "node_is_attributed": [0, 1, 0, 1, 1, 1],
}


def write_code2(folder: Path, names: list[str], train: list[int]) -> Path:
    """Write the two trees in turn, one per name; the first graph that is not in ``train`` is valid, the others test."""
    pairs, odd = divmod(len(names), 2)
    for part, rows in CODE2.items():
        count = {"num-node-list": 1, "num-edge-list": 1, "edge": 4}.get(part, 5)
        write_gzip(folder / "raw" / f"{part}.csv.gz", to_csv([*rows * pairs, *(rows[:count] if odd else [])]))
    write_gzip(folder / "raw" / "graph-label.csv.gz", to_csv(names))
    write_gzip(folder / "mapping" / "typeidx2type.csv.gz", "type idx,type\n0,Load\n1,Name\n2,Call\n")
    write_gzip(folder / "mapping" / "attridx2attr.csv.gz", "attr idx,attr\n0,self\n1,None\n2,x\n3,y\n")
    others = [g for g in range(len(names)) if g not in train]
    for part, ids in {"train": train, "valid": others[:1], "test": others[1:]}.items():
        write_gzip(folder / "split" / "project" / f"{part}.csv.gz", to_csv(ids) if ids else "")
    (folder / "RELEASE_v1.txt").write_text("v1\n")
    return folder

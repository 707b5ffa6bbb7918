"""Four molecules in OGB's layout, and what OGB's own reader makes of a folder."""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gt.data import ogb
from gt.errors import UserError

sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.io.read_graph_raw import read_csv_graph_raw  # noqa: E402

# three bonded atoms, a lone atom, a pair, a triangle with a fourth atom apart
SIZES, BONDS = [3, 1, 2, 4], [2, 0, 1, 3]
EDGES = [[0, 1], [2, 1], [1, 0], [0, 1], [1, 2], [2, 0]]
ATOMS = np.arange(90).reshape(10, 9) % [119, 5, 12, 12, 10, 6, 6, 2, 2]
KINDS = [[0, 0, 0], [1, 2, 1], [4, 5, 0], [3, 0, 1], [3, 0, 1], [2, 1, 0]]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def table(rows: object) -> str:
    return pd.DataFrame(rows).to_csv(header=False, index=False)


def write(folder: Path, labels: object) -> Path:
    """A dataset of four molecules in OGB's layout."""
    raw = {"num-node-list": SIZES, "num-edge-list": BONDS, "edge": EDGES, "node-feat": ATOMS, "edge-feat": KINDS}
    for part, rows in {**raw, "graph-label": labels}.items():
        put(folder / "raw" / f"{part}.csv.gz", table(rows))
    for part, ids in {"train": [3, 0], "valid": [1], "test": [2]}.items():
        put(folder / "split" / "scaffold" / f"{part}.csv.gz", table(ids))
    (folder / "RELEASE_v1.txt").write_text("v1\n")
    return folder


def same_as_ogb(name: str, root: Path) -> None:
    """Every graph, label and split is what OGB's own reader makes of the same files."""
    folder = root / name.replace("-", "_")
    graphs = ogb.build(name, root)
    theirs = read_csv_graph_raw(str(folder / "raw"), add_inverse_edge=True)
    assert len(graphs) == len(theirs)
    for g, other in enumerate(theirs):
        nodes, edges = (slice(p[g], p[g + 1]) for p in (graphs.node_ptr, graphs.edge_ptr))
        np.testing.assert_array_equal(graphs.nodes["x"][nodes], other["node_feat"])
        mine = np.c_[graphs.edge_index[:, edges].T, graphs.edges["edge_attr"][edges]]
        expected = np.c_[other["edge_index"].T, other["edge_feat"]]
        np.testing.assert_array_equal(mine, expected[np.lexsort((expected[:, 0], expected[:, 1]))])
    labels = pd.read_csv(folder / "raw" / "graph-label.csv.gz", header=None).to_numpy(np.float32)
    np.testing.assert_array_equal(graphs.graphs["y"], labels)
    for part in ("train", "valid", "test"):
        ids = pd.read_csv(folder / "split" / "scaffold" / f"{part}.csv.gz", header=None)[0]
        np.testing.assert_array_equal(graphs.splits[part], ids)


def fails(call: Callable[[], object], *parts: str) -> str:
    """The error's one line, which has all these parts."""
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line
    return line

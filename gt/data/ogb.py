"""Molecule datasets of the Open Graph Benchmark (Hu et al. 2020), read from OGB's raw CSV files.

OGB's own classes pickle what they read; here the CSV files are read directly. A dataset of another data type than
``mol`` differs in its columns and its targets only: see `build`.
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torchmetrics import MetricCollection

from gt.data.datamodule import GraphDataModule
from gt.data.ogb_catalogue import facts
from gt.data.ogb_csv import categories, counts, numbers, refuse
from gt.data.ogb_download import SPLITS, files, locate
from gt.data.ogb_metric import OGBMetric
from gt.data.store import Arrays, Graphs, pointers
from gt.metrics import Criterion
from gt.schema import Kind, Schema

# importing ogb starts a thread that asks PyPI for a newer release, without a time-out; lacking `outdated` it does not
sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.utils.features import get_atom_feature_dims, get_bond_feature_dims  # noqa: E402

VERSION = 1  # raise when `build` makes something else of the same files
KINDS: dict[str, Kind] = {"binary classification": "binary", "regression": "regression"}


def key(name: str, root: Path) -> dict[str, Any]:
    """What the result of `build` depends on; a copy of the same files elsewhere gives the same key."""
    found = files(name, locate(name, root))
    digests = {part: hashlib.sha256(path.read_bytes()).hexdigest() for part, path in found.items()}
    return {"source": "ogb", "name": name, "version": VERSION, "files": digests}


def build(name: str, root: Path) -> Graphs:
    """Read a molecule dataset: ``x`` (N, 9) atom and ``edge_attr`` (E, 3) bond categories, ``y`` (G, tasks) float32.

    The files store each bond once; here it is an edge in each direction. Unlabelled targets are NaN. The splits are
    OGB's (by scaffold).

    Raises:
        UserError: a file is missing or malformed; names the file, and the row where one is to blame.
    """
    found, about = files(name, locate(name, root)), facts(name)
    kind, tasks = KINDS[about["task type"]], int(about["num tasks"])
    vocab = {"node-feat": tuple(get_atom_feature_dims()), "edge-feat": tuple(get_bond_feature_dims())}

    sizes = counts(found["num-node-list"])
    bonds = counts(found["num-edge-list"], len(sizes))
    nodes = categories(found["node-feat"], vocab["node-feat"], sizes.sum())
    edges = categories(found["edge-feat"], vocab["edge-feat"], bonds.sum())
    ends = numbers(found["edge"], 2, np.int64, bonds.sum())
    refuse(found["edge"], (ends < 0) | (ends >= np.repeat(sizes, bonds)[:, None]), ends, "is no atom of its graph")
    y = numbers(found["graph-label"], tasks, np.float64, len(sizes)).astype(np.float32)
    refuse(found["graph-label"], np.isinf(y), y, "is not finite")
    if kind == "binary":
        refuse(found["graph-label"], ~np.isnan(y) & (y != 0) & (y != 1), y, "is neither 0 nor 1 nor empty")

    return Graphs(
        node_ptr=pointers(sizes),
        edge_ptr=pointers(2 * bonds),
        edge_index=np.stack([ends.ravel(), ends[:, ::-1].ravel()]),  # (2, E): each bond, then its inverse
        nodes={"x": nodes},
        edges={"edge_attr": np.repeat(edges, 2, axis=0)},
        graphs={"y": y},
        splits=_splits(found, len(sizes)),
        schema=Schema(
            node_vocab=vocab["node-feat"],
            edge_vocab=vocab["edge-feat"],
            level="graph",
            kind=kind,
            outputs=tasks,
            max_nodes=int(sizes.max()),
        ),
    ).sort_edges()


def _splits(found: Mapping[str, Path], graphs: int) -> Arrays:
    """The graph numbers of each split; a graph in two of them would be trained on and tested on."""
    seen = np.zeros(graphs, dtype=np.int64)
    splits = {}
    for part in SPLITS:
        ids = numbers(found[part], 1, np.int64)
        refuse(found[part], (ids < 0) | (ids >= graphs), ids, f"is no graph: there are {graphs}")
        splits[part] = ids[:, 0]
        np.add.at(seen, splits[part], 1)
        refuse(found[part], seen[ids] > 1, ids, "is in the splits more than once")
    return splits


class OGBGraphs(GraphDataModule):
    """A molecule dataset of OGB, with OGB's split and the metric of its leaderboard.

    Args:
        dataset: its name, such as ``ogbg-molhiv``.
        root: the folder that holds, or will hold, the dataset's own folder (``ogbg_molhiv``).
        batch_size: molecules in a training batch; the rest as in `DataModule` and `GraphDataModule`.

    Raises:
        UserError: on ``open``, an unknown name, or files that are absent and cannot be downloaded, or are malformed.
    """

    name: str

    def __init__(
        self,
        dataset: str,
        root: str = "data",
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
        batch_nodes: int | None = None,
        static: bool = False,
    ) -> None:
        super().__init__(dataset, root, batch_size, eval_batch_size, workers, seed, batch_nodes, static)

    def key(self) -> dict[str, Any]:
        return key(self.name, self.root)

    def build(self) -> Graphs:
        return build(self.name, self.root)

    def measures(self) -> tuple[MetricCollection, Criterion]:
        """The metric of the leaderboard alone, which also says what is best."""
        metric = OGBMetric(self.name)
        criterion = Criterion(metric.measure, "max" if metric.higher_is_better else "min")
        return MetricCollection({metric.measure: metric}), criterion

"""Node prediction on large single graphs of the Open Graph Benchmark (Hu et al. 2020), read from OGB's raw tables.

The files are read in blocks, so that memory holds the numbers of a graph once and never their text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ogb.nodeproppred import Evaluator
from torch import Tensor
from torchmetrics import MetricCollection

from gt.data.ogb.catalogue import metadata
from gt.data.ogb.download import files, locate
from gt.data.ogb.metric import LeaderboardMetric
from gt.data.ogb.raw import digest, one_graph, splits_of
from gt.data.ogb.raw_csv import DType, counts, numbers, refuse
from gt.data.packed import Graphs, pointers
from gt.data.source import Source
from gt.errors import UserError
from gt.losses import Criterion, both_answers
from gt.schema import UNLABELLED, Schema

VERSION = 1  # raise when `build` gives a different result for the same files
FLOATS = {"ogbn-arxiv": 128, "ogbn-products": 100, "ogbn-mag": 128}  # columns of node-feat.csv.gz
STRENGTHS = 8  # kinds of evidence for an association of two proteins, each from 0 to 1
NAMES = (*FLOATS, "ogbn-proteins")
PAPERS = {  # the files of ogbn-mag's citation graph
    "num-edge-list": "raw/relations/paper___cites___paper/num-edge-list.csv.gz",
    "edge": "raw/relations/paper___cites___paper/edge.csv.gz",
    "node-feat": "raw/node-feat/paper/node-feat.csv.gz",
    "node-label": "raw/node-label/paper/node-label.csv.gz",
    "train": "split/time/paper/train.csv.gz",
    "valid": "split/time/paper/valid.csv.gz",
    "test": "split/time/paper/test.csv.gz",
}


def supported_metadata(name: str) -> Mapping[str, str]:
    """OGB's metadata of a dataset that this module can read.

    Raises:
        UserError: the dataset is unknown or not supported.
    """
    info = metadata(name, "node")
    if name not in NAMES:
        raise UserError(f"{name} is not supported; available node datasets are {', '.join(NAMES)}")
    return info


def tables(name: str, root: Path) -> dict[str, Path]:
    """The files of a dataset; for ogbn-mag, those of its citation graph.

    Raises:
        UserError: a file is missing.
    """
    folder = locate(name, root)
    raw = files(name, folder)
    if name != "ogbn-mag":
        return raw
    raw |= {part: folder / path for part, path in PAPERS.items()}
    for path in raw.values():
        if not path.is_file():
            raise UserError(f"{path} is missing: remove {folder} to download {name} again")
    return raw


def node_count(name: str, raw: Mapping[str, Path]) -> int:
    """Number of nodes of the graph."""
    if name == "ogbn-mag":  # rows of labels, as its counts are for several node types in a table with a header
        return len(numbers(raw["node-label"], 1, np.int64))
    return one_graph(raw["num-node-list"])


def bidirectional(ends: np.ndarray, nodes: int) -> np.ndarray:
    """(E, 2) edges to (2, E') with reverse edges added, sorted by (target, source), without duplicates."""
    key = np.concatenate([ends[:, 1] * np.int64(nodes) + ends[:, 0], ends[:, 0] * np.int64(nodes) + ends[:, 1]])
    key.sort()
    key = key[np.append(True, key[1:] != key[:-1])] if len(key) else key
    return np.stack([key % nodes, key // nodes]).astype(ends.dtype)


def build(name: str, root: Path, undirected: bool = True) -> Graphs:
    """Read a dataset as one graph; ``nodes`` hold ``x`` and ``y``, splits are node indices.

    - ``ogbn-arxiv``, ``ogbn-products``, ``ogbn-mag`` (only its citation graph): float ``x``, classes ``y`` (N,). Edges
      are unique; if ``undirected``, the reverse of each is added.
    - ``ogbn-proteins``: ``edge_attr`` (E, 8), with each association as an edge in both directions. ``x`` (N, 8) is its
      mean over the edges of a protein, as in OGB's baselines; species are not used, as they define the split. ``y``
      (N, 112) is binary.

    Raises:
        UserError: a file is missing or malformed; names the file, and the row if possible.
    """
    info, raw = supported_metadata(name), tables(name, root)
    nodes = node_count(name, raw)
    lines = int(counts(raw["num-edge-list"], 1)[0])
    id_dtype: DType = np.int32
    ends = numbers(raw["edge"], 2, id_dtype, lines)
    refuse(raw["edge"], (ends < 0) | (ends >= nodes), ends, "is not a node of the graph")
    if name == "ogbn-proteins":
        return proteins(raw, nodes, ends)
    if undirected or info["add_inverse_edge"] == "True":
        edge_index = bidirectional(ends, nodes)
    else:
        edge_index = ends[np.lexsort((ends[:, 0], ends[:, 1]))].T
    classes = int(info["num classes"])
    y = numbers(raw["node-label"], 1, np.int64, nodes)
    refuse(raw["node-label"], (y < 0) | (y >= classes), y, f"is not one of {classes} classes")
    return Graphs(
        node_ptr=pointers(np.array([nodes])),
        edge_ptr=pointers(np.array([edge_index.shape[1]])),
        edge_index=edge_index,
        nodes={"x": finite(raw["node-feat"], FLOATS[name], nodes), "y": y[:, 0]},
        splits=splits_of(raw, nodes),
        schema=Schema(node_floats=FLOATS[name], level="node", kind="multiclass", outputs=classes, max_nodes=nodes),
    )


def finite(path: Path, columns: int, rows: int) -> np.ndarray:
    """(rows, columns) float32."""

    def check(values: np.ndarray, first: int) -> np.ndarray:
        refuse(path, ~np.isfinite(values), values, "is not a finite number", first)
        return values

    return numbers(path, columns, np.float32, rows, check)


def proteins(raw: Mapping[str, Path], nodes: int, ends: np.ndarray) -> Graphs:
    """See `build`."""
    info = metadata("ogbn-proteins")
    tasks = int(info["num tasks"])
    strengths = finite(raw["edge-feat"], STRENGTHS, len(ends))
    y = numbers(raw["node-label"], tasks, np.float32, nodes)
    refuse(raw["node-label"], ~np.isnan(y) & (y != 0) & (y != 1), y, "is neither 0 nor 1 nor empty")
    source, target = np.concatenate([ends, ends[:, ::-1]]).T
    order = np.lexsort((source, target))
    degree = np.bincount(target, minlength=nodes)
    sums = [np.bincount(ends.ravel(), np.repeat(column, 2), nodes) for column in strengths.T]
    x = (np.stack(sums, 1) / np.maximum(degree, 1)[:, None]).astype(np.float32)
    return Graphs(
        node_ptr=pointers(np.array([nodes])),
        edge_ptr=pointers(np.array([len(order)])),
        edge_index=np.stack([source[order], target[order]]),
        nodes={"x": x, "y": y},
        edges={"edge_attr": strengths[order % max(1, len(ends))]},
        splits=splits_of(raw, nodes),
        schema=Schema(
            node_floats=STRENGTHS, edge_floats=STRENGTHS, level="node", kind="binary", outputs=tasks, max_nodes=nodes
        ),
    )


class OGBNodeMetric(LeaderboardMetric):
    """Accuracy of scores (N, classes) and targets (N,), or ROC-AUC averaged over tasks; unlabelled nodes are ignored.

    Args:
        name: the dataset, such as ``ogbn-arxiv``.
    """

    def __init__(self, name: str) -> None:
        supported_metadata(name)
        evaluator = Evaluator(name)
        super().__init__(evaluator.eval_metric, (evaluator.num_tasks, evaluator.num_tasks))
        self.evaluator = evaluator

    def update(self, preds: Tensor, target: Tensor) -> None:
        target = target.view(len(preds), -1)
        labelled = (target != UNLABELLED if self.measure == "acc" else ~target.isnan()).any(1)
        super().update(preds[labelled], target[labelled])  # most nodes of a large graph belong to another split

    def answers(self, preds: Tensor) -> Tensor:
        return preds.argmax(1, keepdim=True) if self.measure == "acc" else preds

    def score(self, preds: Tensor, target: Tensor) -> float:
        if self.measure == "rocauc":
            defined = both_answers(target).any() and preds.isfinite().all()
            if not defined:
                return np.nan
        return self.evaluator.eval({"y_true": target, "y_pred": preds})[self.measure]


class OGBNodes(Source):
    """A node dataset of OGB, with OGB's split and the metric of its leaderboard.

    Features are used as published, without scaling, as in the models on the leaderboard.

    Args:
        dataset: ``ogbn-arxiv``, ``ogbn-products``, ``ogbn-proteins`` or ``ogbn-mag``.
        root: the folder that holds, or will hold, the dataset's own folder (``ogbn_arxiv``).
        undirected: add the reverse of each citation (arxiv, mag); the other datasets have both directions anyway.

    Raises:
        UserError: an unknown name; on ``open``, files that are malformed, or absent and cannot be downloaded.
    """

    def __init__(self, dataset: str, root: str = "data", undirected: bool = True) -> None:
        supported_metadata(dataset)
        self.name, self.root, self.undirected = dataset, Path(root), undirected

    def key(self) -> dict[str, Any]:
        digests = {part: digest(path) for part, path in tables(self.name, self.root).items()}
        options = {"version": VERSION, "undirected": self.undirected}
        return {"source": "ogb nodes", "name": self.name, "files": digests} | options

    def build(self) -> Graphs:
        return build(self.name, self.root, self.undirected)

    def measures(self, graphs: Graphs) -> tuple[MetricCollection, Criterion]:
        """Only the metric of the leaderboard, which also selects the best checkpoint."""
        metric = OGBNodeMetric(self.name)
        return MetricCollection({metric.measure: metric}), Criterion(metric.measure, "max")

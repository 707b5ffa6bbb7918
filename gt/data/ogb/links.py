"""Link prediction on graphs of the Open Graph Benchmark (Hu et al. 2020): collaborations, citations, interactions.

Graphs, features and links are read from OGB's own files; only the arrays of the official split are unpickled.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torchmetrics import MetricCollection

from gt.data.large.links import LinkSource, add_reverses
from gt.data.large.negatives import AnotherTarget, AnyPair
from gt.data.ogb.catalogue import metadata
from gt.data.ogb.download import SPLITS, files, locate
from gt.data.ogb.link_metric import Hits, ReciprocalRank
from gt.data.ogb.pt import arrays
from gt.data.ogb.raw import digest, one_graph
from gt.data.ogb.raw_csv import counts, numbers, refuse
from gt.data.packed import Arrays, Graphs, pointers
from gt.errors import UserError
from gt.losses import Criterion
from gt.schema import Schema

VERSION = 1  # raise when `build` gives a different result for the same files
FEATURES = {"ogbl-collab": 128, "ogbl-citation2": 128, "ogbl-ppa": 58}  # columns of node-feat.csv.gz
NAMES = (*FEATURES, "ogbl-ddi")


def supported_metadata(name: str) -> Mapping[str, str]:
    """OGB's metadata of a dataset that this module can read.

    Raises:
        UserError: the dataset is unknown or not supported.
    """
    info = metadata(name, "link")
    if name not in NAMES:
        raise UserError(
            f"{name} ({info['task type']}) is not supported; available link datasets are {', '.join(NAMES)}"
        )
    return info


def build(name: str, root: Path) -> Graphs:
    """Read a dataset as one graph with its links to learn and to predict, see `LinkSource`.

    Edges go both ways, even if OGB's are directed (citations). ``x`` (N, ...) holds OGB's 128 floats for
    ``ogbl-collab`` and ``ogbl-citation2``, the species index for ``ogbl-ppa``, and the node index for ``ogbl-ddi``, to
    which OGB gives no features. ``edge_attr`` (E, 2) of ``ogbl-collab`` holds the logarithm of the number of joint
    papers, and their age in decades before the last training year.

    Edges that are validation or test links but not training links are left out and counted in ``notes``; OGB's own
    files have none.

    Raises:
        UserError: a file is missing or malformed; names the file, and the row if possible.
    """
    supported_metadata(name)
    raw = files(name, locate(name, root))
    nodes = one_graph(raw["num-node-list"])
    pairs = numbers(raw["edge"], 2, np.int64, int(counts(raw["num-edge-list"], 1)[0]))
    refuse(raw["edge"], (pairs < 0) | (pairs >= nodes), pairs, "is not a node of the graph")
    split_arrays = {part: arrays(raw[part]) for part in SPLITS}
    splits = _links(raw, split_arrays, nodes)

    visible = ~_hidden(pairs, splits, nodes)
    edges: Arrays = {}
    if name == "ogbl-collab":
        weight = numbers(raw["edge_weight"], 1, np.float64, len(pairs))
        year = numbers(raw["edge_year"], 1, np.int64, len(pairs))
        last = int(year.max(initial=0))
        edges["edge_attr"] = np.repeat(_collaboration(raw["edge_weight"], weight, year, last)[visible], 2, axis=0)
        _, weight, year = _table(raw["valid"], split_arrays["valid"], "edge", "weight", "year")
        valid_edge_attr = _collaboration(raw["valid"], weight.reshape(-1, 1), year.reshape(-1, 1), last)
        splits["valid_edge_attr"] = valid_edge_attr
    x, x_schema = _features(name, raw, nodes)
    return Graphs(
        node_ptr=pointers(np.array([nodes])),
        edge_ptr=pointers(2 * visible.sum(keepdims=True)),
        edge_index=add_reverses(pairs[visible]),
        nodes={"x": x},
        edges=edges,
        splits=splits,
        schema=Schema(
            **x_schema,
            edge_floats=2 if edges else 0,
            level="link",
            kind="binary",
            target=("whether there is one",),
            max_nodes=nodes,
        ),
        notes={"edges left out because they are asked for": int((~visible).sum())},
    ).sort_edges()


def _features(name: str, raw: Mapping[str, Path], nodes: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The node features (N, ...), and the fields of a `Schema` that describe them."""
    if name not in FEATURES:
        return np.arange(nodes)[:, None], {"node_vocab": (nodes,)}
    path, columns = raw["node-feat"], FEATURES[name]
    if name != "ogbl-ppa":
        return numbers(path, columns, np.float32, nodes), {"node_floats": columns}

    def species(values: np.ndarray, first: int) -> np.ndarray:
        refuse(path, (values != 0) & (values != 1), values, "is neither 0 nor 1", first)
        ones = values.sum(1, keepdims=True)
        refuse(path, ones != 1, ones, "species for one protein", first)
        return values.argmax(1).astype(np.uint8)[:, None]

    return numbers(path, columns, np.int64, nodes, species), {"node_vocab": (columns,)}


def _table(path: Path, values: Mapping[str, np.ndarray], *names: str) -> list[np.ndarray]:
    """The named arrays of a split file, checked to have equally many rows."""
    for name in names:
        if name not in values:
            raise UserError(f"{path} has no {name!r}, only {', '.join(values)}: replace the file by OGB's")
        if len(values[name]) != len(values[names[0]]):
            raise UserError(f"{path}: {name!r} has {len(values[name])} rows, {names[0]!r} {len(values[names[0]])}")
    return [values[name] for name in names]


def _links(raw: Mapping[str, Path], split_arrays: Mapping[str, Mapping[str, np.ndarray]], nodes: int) -> Arrays:
    """The official split, under the names that `LinkSource` expects."""
    splits: Arrays = {}
    for part in SPLITS:
        path, values = raw[part], split_arrays[part]
        if "source_node" in values:  # citations: each source with a thousand papers that it does not cite
            source, target = _table(path, values, "source_node", "target_node")
            splits[part] = np.column_stack([source, target])
            if part != "train":
                splits[f"{part}_targets"] = _table(path, values, "source_node", "target_node_neg")[1]
        else:
            splits[part] = _table(path, values, "edge")[0]
            if part != "train":
                splits[f"{part}_negatives"] = _table(path, values, "edge_neg")[0]
        for name in (name for name in splits if name.startswith(part)):
            pairs = splits[name]
            if pairs.dtype.kind == "f":
                raise UserError(f"{path}: links are not integers; replace the file by OGB's")
            if pairs.ndim != 2 or not (pairs.shape[1] == 2 or name.endswith("_targets")):
                raise UserError(f"{path}: links have the shape {pairs.shape} instead of two columns")
            if not len(pairs):
                raise UserError(f"{path} has no links: replace the file by OGB's")
            refuse(path, (pairs < 0) | (pairs >= nodes), pairs, "is not a node of the graph")
    return splits


def _hidden(pairs: np.ndarray, splits: Arrays, nodes: int) -> np.ndarray:
    """(K,) True for pairs (K, 2) that are validation or test links but not training links, in either direction."""

    def key(pairs: np.ndarray) -> np.ndarray:
        return pairs.min(1).astype(np.int64) * nodes + pairs.max(1)

    held_out = np.concatenate([key(splits[part]) for part in ("valid", "test")])
    keys = key(pairs)
    return np.isin(keys, held_out) & ~np.isin(keys, key(splits["train"]))


def _collaboration(path: Path, weight: np.ndarray, year: np.ndarray, last: int) -> np.ndarray:
    """(K, 2) float32: the logarithm of the papers (K, 1) of a year (K, 1), and decades from it to ``last``."""
    refuse(path, ~(weight >= 1), weight, "papers written together")
    return np.column_stack([np.log(weight), (last - year) / 10]).astype(np.float32)


class OGBLinks(LinkSource):
    """A link dataset of OGB, with OGB's split, its evaluation negatives, and the metric of its leaderboard.

    In training, each link gets one random pair as its negative or, for ``ogbl-citation2``, where OGB ranks the targets
    of each source, one random target of the same source.

    Args:
        dataset: ``ogbl-collab``, ``ogbl-ppa``, ``ogbl-ddi`` or ``ogbl-citation2``.
        root: the folder that holds, or will hold, the dataset's own folder (``ogbl_collab``).

    Raises:
        UserError: an unknown name; on ``open``, files that are malformed, or absent and cannot be downloaded.
    """

    def __init__(self, dataset: str, root: str = "data") -> None:
        self.ranked = supported_metadata(dataset)["eval metric"] == "mrr"
        self.name, self.root = dataset, Path(root)
        self.negatives = AnotherTarget if self.ranked else AnyPair
        self.late_links = dataset == "ogbl-collab"  # the only dataset for which OGB allows it

    def key(self) -> dict[str, Any]:
        raw = files(self.name, locate(self.name, self.root))
        digests = {part: digest(path) for part, path in raw.items()}
        return {"source": "ogb links", "name": self.name, "version": VERSION, "files": digests}

    def build(self) -> Graphs:
        return build(self.name, self.root)

    def measures(self, graphs: Graphs) -> tuple[MetricCollection, Criterion]:
        """Only the metric of the leaderboard, which also selects the best checkpoint."""
        metric = ReciprocalRank(self.name) if self.ranked else Hits(self.name)
        return MetricCollection({metric.measure: metric}), Criterion(metric.measure, "max")

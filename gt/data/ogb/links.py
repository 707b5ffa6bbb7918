"""Link prediction on graphs of the Open Graph Benchmark (Hu et al. 2020): who will work with whom, what interacts.

Graphs, features and links are read from OGB's own files; nothing is unpickled but the arrays of the official split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torchmetrics import MetricCollection

from gt.data.large.links import LinkSource, both_ways
from gt.data.large.negatives import AnotherTarget, AnyPair
from gt.data.ogb.catalogue import facts
from gt.data.ogb.download import SPLITS, files, locate
from gt.data.ogb.link_metric import Hits, ReciprocalRank
from gt.data.ogb.pt import arrays
from gt.data.ogb.raw import digest, one_graph
from gt.data.ogb.raw_csv import counts, numbers, refuse
from gt.data.packed import Arrays, Graphs, pointers
from gt.errors import UserError
from gt.losses import Criterion
from gt.schema import Schema

VERSION = 1  # raise when `build` makes something else of the same files
FEATURES = {"ogbl-collab": 128, "ogbl-citation2": 128, "ogbl-ppa": 58}  # columns of node-feat.csv.gz
NAMES = (*FEATURES, "ogbl-ddi")


def known(name: str) -> Mapping[str, str]:
    """OGB's facts about a dataset that can be read here.

    Raises:
        UserError: it cannot.
    """
    about = facts(name, "link")
    if name not in NAMES:
        raise UserError(f"{name} ({about['task type']}) is none of the link sets read here: {', '.join(NAMES)}")
    return about


def build(name: str, root: Path) -> Graphs:
    """Read a dataset: one graph, its links to learn and to find, see `LinkSource`.

    Edges go both ways, also where OGB's go one way (citations). As ``x`` (N, ...) ``ogbl-collab`` and
    ``ogbl-citation2`` have the 128 real numbers of OGB, ``ogbl-ppa`` the number of a protein's species, and
    ``ogbl-ddi``, which OGB leaves without features, the number of each node. ``edge_attr`` (E, 2) of ``ogbl-collab`` is
    the logarithm of the papers written together and how many tens of years before the last training year.

    Edges of the graph that the validation or the test asks for, and that are no training links, are left out; OGB's own
    files have none, and ``notes`` say how many there were.

    Raises:
        UserError: a file is missing or malformed; names the file, and the row where one is to blame.
    """
    known(name)
    raw = files(name, locate(name, root))
    nodes = one_graph(raw["num-node-list"])
    pairs = numbers(raw["edge"], 2, np.int64, int(counts(raw["num-edge-list"], 1)[0]))
    refuse(raw["edge"], (pairs < 0) | (pairs >= nodes), pairs, "is no node of the graph")
    read = {part: arrays(raw[part]) for part in SPLITS}
    splits = _links(raw, read, nodes)

    shown = ~_hidden(pairs, splits, nodes)
    edges: Arrays = {}
    if name == "ogbl-collab":
        weight = numbers(raw["edge_weight"], 1, np.float64, len(pairs))
        year = numbers(raw["edge_year"], 1, np.int64, len(pairs))
        last = int(year.max(initial=0))
        edges["edge_attr"] = np.repeat(_collaboration(raw["edge_weight"], weight, year, last)[shown], 2, axis=0)
        _, weight, year = _table(raw["valid"], read["valid"], "edge", "weight", "year")
        late = _collaboration(raw["valid"], weight.reshape(-1, 1), year.reshape(-1, 1), last)
        splits["valid_edge_attr"] = late
    x, described = _features(name, raw, nodes)
    return Graphs(
        node_ptr=pointers(np.array([nodes])),
        edge_ptr=pointers(2 * shown.sum(keepdims=True)),
        edge_index=both_ways(pairs[shown]),
        nodes={"x": x},
        edges=edges,
        splits=splits,
        schema=Schema(
            **described,
            edge_floats=2 if edges else 0,
            level="link",
            kind="binary",
            target=("whether there is one",),
            max_nodes=nodes,
        ),
        notes={"edges left out because they are asked for": int((~shown).sum())},
    ).sort_edges()


def _features(name: str, raw: Mapping[str, Path], nodes: int) -> tuple[np.ndarray, dict[str, Any]]:
    """What is known of each node (N, ...), and what a schema says of it."""
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
    """Arrays of a split file, with as many rows each."""
    for name in names:
        if name not in values:
            raise UserError(f"{path} has no {name!r}, only {', '.join(values)}: replace the file by OGB's")
        if len(values[name]) != len(values[names[0]]):
            raise UserError(f"{path}: {name!r} has {len(values[name])} rows, {names[0]!r} {len(values[names[0]])}")
    return [values[name] for name in names]


def _links(raw: Mapping[str, Path], read: Mapping[str, Mapping[str, np.ndarray]], nodes: int) -> Arrays:
    """The official split, under the names that `LinkSource` asks for."""
    splits: Arrays = {}
    for part in SPLITS:
        path, values = raw[part], read[part]
        if "source_node" in values:  # citations: each paper with a thousand that it does not cite
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
                raise UserError(f"{path}: links are no whole numbers; replace the file by OGB's")
            if pairs.ndim != 2 or not (pairs.shape[1] == 2 or name.endswith("_targets")):
                raise UserError(f"{path}: links come as {pairs.shape} where there should be two columns")
            if not len(pairs):
                raise UserError(f"{path} has no links: replace the file by OGB's")
            refuse(path, (pairs < 0) | (pairs >= nodes), pairs, "is no node of the graph")
    return splits


def _hidden(pairs: np.ndarray, splits: Arrays, nodes: int) -> np.ndarray:
    """(K,) True at pairs (K, 2) that are asked for and no training links, whichever way round."""

    def numbered(pairs: np.ndarray) -> np.ndarray:
        return pairs.min(1).astype(np.int64) * nodes + pairs.max(1)

    questions = np.concatenate([numbered(splits[part]) for part in ("valid", "test")])
    mine = numbered(pairs)
    return np.isin(mine, questions) & ~np.isin(mine, numbered(splits["train"]))


def _collaboration(path: Path, weight: np.ndarray, year: np.ndarray, last: int) -> np.ndarray:
    """(K, 2) float32: the logarithm of the papers (K, 1) of a year (K, 1), how many tens of years before the last."""
    refuse(path, ~(weight >= 1), weight, "papers written together")
    return np.column_stack([np.log(weight), (last - year) / 10]).astype(np.float32)


class OGBLinks(LinkSource):
    """A link set of OGB, with OGB's split, its negatives in evaluation, and the metric of its leaderboard.

    In training a link is told from as many random pairs; where OGB ranks the targets of each source
    (``ogbl-citation2``), from as many random targets of the same sources.

    Args:
        dataset: ``ogbl-collab``, ``ogbl-ppa``, ``ogbl-ddi`` or ``ogbl-citation2``.
        root: the folder that holds, or will hold, the dataset's own folder (``ogbl_collab``).

    Raises:
        UserError: an unknown name; on ``open`` files that are absent and cannot be downloaded, or are malformed.
    """

    def __init__(self, dataset: str, root: str = "data") -> None:
        self.ranked = known(dataset)["eval metric"] == "mrr"
        self.name, self.root = dataset, Path(root)
        self.negatives = AnotherTarget if self.ranked else AnyPair
        self.late_links = dataset == "ogbl-collab"  # the only set for which OGB allows it

    def key(self) -> dict[str, Any]:
        raw = files(self.name, locate(self.name, self.root))
        digests = {part: digest(path) for part, path in raw.items()}
        return {"source": "ogb links", "name": self.name, "version": VERSION, "files": digests}

    def build(self) -> Graphs:
        return build(self.name, self.root)

    def measures(self, graphs: Graphs) -> tuple[MetricCollection, Criterion]:
        """The metric of the leaderboard alone, which also says what is best."""
        metric = ReciprocalRank(self.name) if self.ranked else Hits(self.name)
        return MetricCollection({metric.measure: metric}), Criterion(metric.measure, "max")

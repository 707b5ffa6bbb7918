"""Any dataset of PyTorch Geometric (Fey & Lenssen 2019) that holds homogeneous graphs, turned into a store.

A file of tensors that holds anything else is refused. Some datasets of PyG (Planetoid, ZINC, a few more) come as
pickles though, which PyG opens, and so runs, when it first processes them: trust the raw files of these as PyG does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import Dataset
from torchmetrics import MetricCollection

from gt.data.folds import Folds, numbered
from gt.data.numbers import Numbers
from gt.data.own.base import Own, file_name
from gt.data.own.columns import Answer, answer, features, most_neighbours, random_split, widths_of
from gt.data.own.pyg_metric import measures
from gt.data.own.pyg_open import open_dataset, takes_split, title
from gt.data.own.pyg_read import THEIRS, Part, digest, joined, links_only, read
from gt.data.splits import check_fractions
from gt.data.store import Arrays, Graphs, pointers
from gt.data.table import Where
from gt.data.targets import known_targets
from gt.errors import UserError
from gt.metrics import Criterion
from gt.schema import UNLABELLED, Kind, Level, Schema

VERSION = 4  # raise when the same dataset would give another store


def place_of(pointer: np.ndarray, name: str) -> Where:
    """Names the graph of a row, where graph i has the rows ``pointer[i]`` to ``pointer[i + 1]``."""
    return lambda row: f"{name}, graph {int(np.searchsorted(pointer, row, side='right')) - 1}"


def pack(part: Part, name: str, kind: Kind | None, numbers: Numbers) -> tuple[Graphs, Answer]:
    """The graphs without splits, and their targets (a row a graph or a node)."""
    node_vocab, node_floats = widths_of(part.x)
    edge_vocab, edge_floats = widths_of(part.edge_attr)
    degree = not (node_vocab or node_floats)
    if degree:
        firsts = pointers(part.sizes)[:-1]
        node_vocab = (most_neighbours(part.edge_index[1] + np.repeat(firsts, part.edges)) + 1,)
    widths = {"x": (node_vocab, node_floats), "edge_attr": (edge_vocab, edge_floats)}
    roles = {key: "categories" if vocab else "numbers" for key, (vocab, floats) in widths.items() if vocab or floats}
    if degree:
        del roles["x"]
    assert part.y is not None  # `read` refuses a dataset without
    where = place_of(pointers(part.sizes if part.level == "node" else np.ones_like(part.sizes)), name)
    targets = answer(part.y, where, numbers.kind(kind))
    numbers.check(targets.kind, targets.y, where)
    schema = Schema(
        node_vocab=node_vocab,
        node_floats=node_floats,
        edge_vocab=edge_vocab,
        edge_floats=edge_floats,
        level=part.level,
        kind=targets.kind,
        outputs=targets.outputs,
        names=targets.names,
        target=("y",),
        degree=degree,
    )
    attributes = {"data": {**roles, "y": "target", **dict.fromkeys(part.others, "not used")}}
    notes = {"attributes": attributes} | ({"degree": True} if degree else {})
    return replace(_graphs(part, name, targets.y, schema), notes=notes), targets


def pack_known(part: Part, name: str, known: Schema) -> Graphs:
    """The graphs as a trained model reads them, without splits; targets may be missing.

    Raises:
        UserError: features of another width or kind, a category beyond those that it has learned.
    """
    rows, columns = int(part.sizes.sum()) if known.level == "node" else len(part.sizes), None
    if part.y is not None:
        columns = list(part.y.reshape(len(part.y), -1).T)
        if known.kind == "multiclass":  # -100 is no label
            columns[0] = np.where(columns[0] == UNLABELLED, np.nan, columns[0])
        if len(columns) != (1 if known.kind == "multiclass" else known.outputs):
            raise UserError(f"{name}: y has {len(columns)} columns where the model predicts {known.outputs}")
    y = known_targets(columns, rows, known, lambda row: f"{name}, {known.level} {row}")
    return _graphs(part, name, y, known)


def _graphs(part: Part, name: str, y: np.ndarray, schema: Schema) -> Graphs:
    """A store without splits, of the features that a schema describes, and targets of its level."""
    nodes, edges = pointers(part.sizes), pointers(part.edges)
    if schema.degree:
        target = part.edge_index[1] + np.repeat(nodes[:-1], part.edges)
        x = np.bincount(target, minlength=nodes[-1]).clip(max=schema.node_vocab[0] - 1)[:, None]
    else:
        x = features(part.x, place_of(nodes, name), "x", schema.node_vocab, schema.node_floats)
    edge_arrays = {}
    if schema.edge_vocab or schema.edge_floats:
        place = place_of(edges, name)
        edge_arrays["edge_attr"] = features(part.edge_attr, place, "edge_attr", schema.edge_vocab, schema.edge_floats)
    return Graphs(
        node_ptr=nodes,
        edge_ptr=edges,
        edge_index=part.edge_index,
        nodes={"x": x} | ({"y": y} if schema.level == "node" else {}),
        edges=edge_arrays,
        graphs={} if schema.level == "node" else {"y": y},
        schema=replace(schema, max_nodes=int(part.sizes.max())),
    ).sort_edges()


def by_graph(answer: Answer, graphs: Graphs) -> Answer:
    """What a random split of whole graphs goes by: their own targets, or, of targets at nodes, that there are any."""
    if graphs.schema.level == "graph":
        return answer
    return Answer(np.where(np.add.reduceat(answer.labelled, graphs.node_ptr[:-1]) > 0, 0, UNLABELLED), "multiclass", 1)


def build(
    datasets: Mapping[str, Dataset],
    name: str,
    level: Level | None = None,
    kind: Kind | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    split_seed: int = 0,
    numbers: Numbers = Numbers(),  # noqa: B008  a frozen value
) -> Graphs:
    """A store of PyG datasets: one that is split at random, or one for each of ``train``, ``valid``, ``test``.

    ``x`` of integers are categories, of reals numbers; without it the in-degree is a category. ``edge_attr`` likewise.

    Raises:
        UserError: naming the dataset and the graph that cannot be read.
    """
    parts = [read(dataset, f"{name} ({split})" if split else name, level) for split, dataset in datasets.items()]
    graphs, targets = pack(joined(parts, name), name, kind, numbers)
    if len(graphs) > 1 and any(part.masks for part in parts):
        raise UserError(f"{name} has masks of nodes in several graphs, which cannot be followed: drop them first")
    if len(parts) > 1:
        ends = np.cumsum([0, *(len(part.sizes) for part in parts)])
        splits = {split: np.arange(ends[i], ends[i + 1]) for i, split in enumerate(datasets)}
    elif len(graphs) == 1:
        raise UserError(f"{name} is one graph: choose data=pyg_nodes, where each split is some of its nodes")
    else:
        splits = random_split(by_graph(targets, graphs), fractions, split_seed, f"{name}: {len(graphs)} graphs")
    return numbers.learn(replace(graphs, splits=splits))


def one_graph(
    dataset: Dataset,
    name: str,
    kind: Kind | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    split_seed: int = 0,
    numbers: Numbers = Numbers(),  # noqa: B008  a frozen value
) -> Graphs:
    """A single large graph with a target at each node: ``nodes`` hold x and y, ``splits`` are numbers of nodes.

    The splits are the dataset's masks; where these have several columns, as Geom-GCN's have, all of them, see
    `gt.data.folds.numbered`. Without masks, labelled nodes are shared out at random, each class alike.

    Raises:
        UserError: the masks of two splits meet or leave one empty.
    """
    part = read(dataset, name, "node")
    graphs, targets = pack(part, name, kind, numbers)
    if not part.masks:
        splits = random_split(targets, fractions, split_seed, f"{name}: nodes")
        return numbers.learn(replace(graphs, splits=splits))
    masks = {split: mask.reshape(len(mask), -1).astype(bool) for split, mask in part.masks.items()}
    count = max(mask.shape[1] for mask in masks.values())  # a mask that all splits share has a single column
    columns = [{split: mask[:, number % mask.shape[1]] for split, mask in masks.items()} for number in range(count)]
    official = [_of_masks(column, targets.labelled, name) for column in columns]
    learned = numbers.learn(replace(graphs, splits=official[0]))
    return replace(learned, splits=numbered(official))


def _of_masks(masks: Mapping[str, np.ndarray], labelled: np.ndarray, name: str) -> Arrays:
    """Node numbers by split of masks (N,) bool.

    Raises:
        UserError: the masks of two splits meet or leave one empty.
    """
    twice = np.flatnonzero(sum(mask.astype(int) for mask in masks.values()) > 1)
    if len(twice):
        raise UserError(f"{name}: node {twice[0]} is in more than one of the masks of its splits")
    splits = {split: np.flatnonzero(mask & labelled) for split, mask in masks.items()}
    for split in ("train", "valid"):
        if not len(splits.get(split, ())):
            raise UserError(f"{name}: no labelled node is in {THEIRS[split]}_mask")
    return splits


class PyG(Own):
    """A dataset of PyG: many graphs; or one, such as Planetoid, whose masks say which split each node is in.

    Args:
        dataset: makes the dataset, such as ``partial(TUDataset, root="data/pyg", name="MUTAG")``. Where it takes a
            ``split`` that is not set, it is asked for ``train``, ``val`` and ``test``; else graphs are split at random.
        level: whether each graph or each node has a target; None finds it.
        kind: what targets are; None finds it, see `gt.data.own.columns.answer`.
        fractions: shares of train, valid and test of a random split.
        split_seed: what a random split, or folds, are drawn from.
        folds, fold: k-fold cross-validation; without ``folds`` the number of an official split where masks have several
            columns, see `gt.data.folds.Folds`.
        normalise, log, standardise: how real numbers, targets and features, are scaled, see `gt.data.numbers.Numbers`.
        root: where the store is kept.

    Raises:
        UserError: PCQM-Contact, before it is downloaded; on ``open``, a dataset that cannot be had or read.
    """

    option_for_graphs, option_for_nodes = "pyg", "pyg_nodes"

    def __init__(
        self,
        dataset: Callable[..., Dataset],
        level: Level | None = None,
        kind: Kind | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        normalise: bool = True,
        log: bool = False,
        standardise: bool = True,
        root: str = "data",
    ) -> None:
        self.make = dataset if isinstance(dataset, partial) else partial(dataset)
        self.name, self.root = file_name(title(self.make)), Path(root)
        if self.name.lower() == "pcqm-contact":
            raise links_only(self.name)
        self.level, self.kind, self.numbers = level, kind, Numbers(normalise, log, standardise)
        self.folds = Folds(folds, fold, split_seed)
        check_fractions(fractions)
        self.fractions, self.split_seed = tuple(fractions), split_seed

    def datasets(self) -> dict[str, Dataset]:
        """The dataset by split, under '' where it has none of its own."""
        if not takes_split(self.make):
            return {"": open_dataset(self.make)}
        make = self.make
        plain = partial(make.func, *make.args, **make.keywords)  # a partial of another object is not flattened
        by_split = {split: open_dataset(partial(plain, split=word)) for split, word in THEIRS.items()}
        same = digest({"": by_split["train"]}, self.name) == digest({"": by_split["valid"]}, self.name)
        return {"": by_split["train"]} if same else by_split  # some, such as CSL, take a split and give all they have

    def measures(self, graphs: Graphs) -> tuple[MetricCollection, Criterion]:
        """The metrics of the kind of target; of a known benchmark also its own, which then says what is best."""
        return measures(self.make, graphs.schema)

    def key(self) -> dict[str, Any]:
        facts = {"level": self.level, "kind": self.kind, "fractions": self.fractions, "seed": self.split_seed}
        return {
            "source": "pyg",
            "version": VERSION,
            "content": digest(self.datasets(), self.name),
            **facts,
            **self.numbers.facts(),
        }

    def build(self) -> Graphs:
        datasets = self.datasets()
        if "" in datasets and len(datasets[""]) == 1 and self.level != "graph":
            return one_graph(datasets[""], self.name, self.kind, self.fractions, self.split_seed, self.numbers)
        return build(datasets, self.name, self.level, self.kind, self.fractions, self.split_seed, self.numbers)

    def build_known(self, known: Schema) -> Graphs:
        parts = [read(each, self.name, known.level, optional=True) for each in self.datasets().values()]
        return pack_known(joined(parts, self.name), self.name, known)

"""Any dataset of PyTorch Geometric (Fey & Lenssen 2019) that holds homogeneous graphs, or saved graphs, as a store.

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

from gt.data.batching import runs
from gt.data.folds import Folds, numbered
from gt.data.link_pairs import Negatives
from gt.data.numbers import Numbers
from gt.data.own.base import Own, file_name
from gt.data.own.columns import Answer, random_split
from gt.data.own.pyg_metric import measures
from gt.data.own.pyg_open import is_named, open_dataset, takes_split, title
from gt.data.own.pyg_pack import pack, pack_known
from gt.data.own.pyg_read import THEIRS, digest, joined, read
from gt.data.own.pyg_saved import saved_graphs
from gt.data.packed import Arrays, Graphs, held
from gt.data.source import small
from gt.data.splits import check_fractions
from gt.errors import UserError
from gt.losses import Criterion
from gt.schema import UNLABELLED, Kind, Level, Schema

VERSION = 4  # raise when the same dataset would give another store


def by_graph(answer: Answer, graphs: Graphs) -> Answer:
    """What a random split of whole graphs goes by: their own targets; of targets within them, that there are any."""
    if graphs.schema.level == "graph":
        return answer
    pointer = graphs.node_ptr if graphs.schema.level == "node" else graphs.link_ptr
    return Answer(np.where(held(answer.labelled, pointer) > 0, 0, UNLABELLED), "multiclass", 1)


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
        if graphs.schema.level == "link":
            raise UserError(
                f"{name} is one graph, and links are learned from some graphs and looked for in others: for those "
                "within one, write its edges into a table and choose data=csv_links"
            )
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
            None, or one that lacks an argument such as its name: there is a path.
        level: whether each graph, each node or each pair of ``edge_label_index`` has a target; None finds it.
        kind: what targets are; None finds it, see `gt.data.own.columns.answer`.
        fractions: shares of train, valid and test of a random split.
        split_seed: what a random split, or folds, are drawn from.
        folds, fold: k-fold cross-validation; without ``folds`` the number of an official split where masks have several
            columns, see `gt.data.folds.Folds`.
        normalise, log, standardise: how real numbers, targets and features, are scaled, see `gt.data.numbers.Numbers`.
        negatives: of links, pairs that are none for each link, drawn in place of those that the data name, see
            `gt.data.link_pairs.Negatives`; None: those of the data. Of new data all pairs are asked for as they are.
        path: of a file of ``torch.save`` that is read in place of a dataset, see `gt.data.own.pyg_saved.saved_graphs`.
        root: where the store is kept.

    Raises:
        UserError: on ``open``, a dataset that cannot be had or read.
    """

    option_for_graphs, option_for_nodes = "pyg", "pyg_nodes"

    def __init__(
        self,
        dataset: Callable[..., Dataset] | None = None,
        level: Level | None = None,
        kind: Kind | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        normalise: bool = True,
        log: bool = False,
        standardise: bool = True,
        negatives: int | None = None,
        path: str | None = None,
        root: str = "data",
    ) -> None:
        self.path = path
        if path is not None:
            if dataset is not None and is_named(dataset):
                raise UserError(
                    f"data.path={path} is read in place of a dataset: choose data=pyg, or pyg_nodes, for it"
                )
            dataset = partial(saved_graphs, path=path)
        elif dataset is None:
            raise UserError("data.path is not set: name a file of torch.save, or a data.dataset of PyG")
        self.make = dataset if isinstance(dataset, partial) else partial(dataset)
        self.name, self.root = file_name(title(self.make)), Path(root)
        self.level, self.kind, self.numbers = level, kind, Numbers(normalise, log, standardise)
        self.folds = Folds(folds, fold, split_seed)
        self.present = None if negatives is None else Negatives(negatives)
        check_fractions(fractions)
        self.fractions, self.split_seed = tuple(self.folds.fractions(fractions)), split_seed

    def check_files(self) -> None:
        if self.path is not None and (not Path(self.path).is_file() or small([Path(self.path)])):
            self.datasets()

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
        if "" in datasets and len(datasets[""]) == 1 and self.level not in ("graph", "link"):
            return one_graph(datasets[""], self.name, self.kind, self.fractions, self.split_seed, self.numbers)
        return build(datasets, self.name, self.level, self.kind, self.fractions, self.split_seed, self.numbers)

    def resplit(self, graphs: Graphs) -> Graphs:
        graphs = super().resplit(graphs)
        if graphs.schema.level == "link":
            self._check_links(graphs)
        elif self.present is not None:
            raise UserError(f"data.negatives is of links, and {self.name} has a target for each {graphs.schema.level}")
        return graphs

    def _check_links(self, graphs: Graphs) -> None:
        train = graphs.splits["train"]
        y = graphs.links["y"][runs(graphs.link_ptr[train], np.diff(graphs.link_ptr)[train])]
        if not (y == 1).any():
            raise UserError(f"{self.name}: no pair of the training graphs is linked, there is nothing to learn")
        if self.present is None and not (y == 0).any():
            raise UserError(f"{self.name} names no pairs that are not linked: have some drawn by data.negatives=2")

    def build_known(self, known: Schema) -> Graphs:
        self.present = None
        parts = [read(each, self.name, known.level, optional=True) for each in self.datasets().values()]
        return pack_known(joined(parts, self.name), self.name, known)

"""Any dataset of PyTorch Geometric (Fey & Lenssen 2019) with homogeneous graphs, or saved graphs, as a store.

Files of tensors that hold anything else are refused. But the raw files of some PyG datasets (Planetoid, ZINC, a few
more) are pickles, which PyG loads, and so executes, when it first processes them: these have to be trusted.
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
from gt.data.folds import Folds, number_splits
from gt.data.link_pairs import Negatives
from gt.data.numbers import Numbers
from gt.data.own.base import Own, file_name
from gt.data.own.columns import Targets, random_split
from gt.data.own.pyg_metric import measures
from gt.data.own.pyg_open import is_named, open_dataset, takes_split, title
from gt.data.own.pyg_pack import pack, pack_known
from gt.data.own.pyg_read import PYG_SPLITS, concatenate, digest, read
from gt.data.own.pyg_saved import saved_graphs
from gt.data.packed import Arrays, Graphs, count_in_runs
from gt.data.source import small
from gt.data.splits import check_fractions
from gt.errors import UserError
from gt.losses import Criterion
from gt.schema import UNLABELLED, Kind, Level, Schema

VERSION = 4  # raise when the same dataset would give another store


def split_targets(targets: Targets, graphs: Graphs) -> Targets:
    """Targets for a random split of whole graphs: their own or, for node and link targets, whether there are any."""
    if graphs.schema.level == "graph":
        return targets
    pointer = graphs.node_ptr if graphs.schema.level == "node" else graphs.link_ptr
    return Targets(np.where(count_in_runs(targets.labelled, pointer) > 0, 0, UNLABELLED), "multiclass", 1)


def build(
    datasets: Mapping[str, Dataset],
    name: str,
    level: Level | None = None,
    kind: Kind | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    split_seed: int = 0,
    numbers: Numbers = Numbers(),  # noqa: B008  a frozen value
) -> Graphs:
    """Build graphs from PyG datasets: one that is split at random, or one for each of ``train``, ``valid``, ``test``.

    ``x`` and ``edge_attr`` hold categories if they are integers, numbers if they are floats. Without ``x``, the
    in-degree is a category.

    Raises:
        UserError: gives the dataset and the graph that cannot be read.
    """
    parts = [read(dataset, f"{name} ({split})" if split else name, level) for split, dataset in datasets.items()]
    graphs, targets = pack(concatenate(parts, name), name, kind, numbers)
    if len(graphs) > 1 and any(part.masks for part in parts):
        raise UserError(f"{name} has masks of nodes in several graphs, which is not supported: remove them first")
    if len(parts) > 1:
        ends = np.cumsum([0, *(len(part.sizes) for part in parts)])
        splits = {split: np.arange(ends[i], ends[i + 1]) for i, split in enumerate(datasets)}
    elif len(graphs) == 1:
        if graphs.schema.level == "link":
            raise UserError(
                f"{name} is a single graph, but data=pyg learns links from some graphs and predicts them in others: to "
                "predict links within one, write its edges into a table and choose data=csv_links"
            )
        raise UserError(f"{name} is a single graph: choose data=pyg_nodes, which splits its nodes")
    else:
        splits = random_split(split_targets(targets, graphs), fractions, split_seed, f"{name}: {len(graphs)} graphs")
    return numbers.learn(replace(graphs, splits=splits))


def one_graph(
    dataset: Dataset,
    name: str,
    kind: Kind | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    split_seed: int = 0,
    numbers: Numbers = Numbers(),  # noqa: B008  a frozen value
) -> Graphs:
    """Build a single large graph with a target at each node; ``splits`` hold node indices.

    The splits are the dataset's masks; all of them, if masks have several columns, as in Geom-GCN, see
    `gt.data.folds.number_splits`. Without masks, labelled nodes are split at random, stratified by class.

    Raises:
        UserError: masks overlap or leave a split empty.
    """
    part = read(dataset, name, "node")
    graphs, targets = pack(part, name, kind, numbers)
    if not part.masks:
        splits = random_split(targets, fractions, split_seed, f"{name}: nodes")
        return numbers.learn(replace(graphs, splits=splits))
    masks = {split: mask.reshape(len(mask), -1).astype(bool) for split, mask in part.masks.items()}
    count = max(mask.shape[1] for mask in masks.values())  # a mask that all splits share has a single column
    columns = [{split: mask[:, number % mask.shape[1]] for split, mask in masks.items()} for number in range(count)]
    official = [_mask_splits(column, targets.labelled, name) for column in columns]
    learned = numbers.learn(replace(graphs, splits=official[0]))
    return replace(learned, splits=number_splits(official))


def _mask_splits(masks: Mapping[str, np.ndarray], labelled: np.ndarray, name: str) -> Arrays:
    """Node indices by split, from masks (N,) bool.

    Raises:
        UserError: masks overlap or leave a split empty.
    """
    overlap = np.flatnonzero(sum(mask.astype(int) for mask in masks.values()) > 1)
    if len(overlap):
        raise UserError(f"{name}: node {overlap[0]} is in more than one split mask")
    splits = {split: np.flatnonzero(mask & labelled) for split, mask in masks.items()}
    for split in ("train", "valid"):
        if not len(splits.get(split, ())):
            raise UserError(f"{name}: no labelled node is in {PYG_SPLITS[split]}_mask")
    return splits


class PyG(Own):
    """A PyG dataset of many graphs, or of one, such as Planetoid, whose masks split its nodes.

    Args:
        dataset: makes the dataset, such as ``partial(TUDataset, root="data/pyg", name="MUTAG")``. If it has a parameter
            ``split`` that is not set, it is called for ``train``, ``val`` and ``test``; else graphs are split at
            random. With a ``path`` it must be None or lack a required argument such as its name.
        level: whether graphs, nodes or the pairs of ``edge_label_index`` have targets; None infers it.
        kind: kind of the targets; None infers it, see `gt.data.own.columns.infer_targets`.
        fractions: shares of train, valid and test of a random split.
        split_seed: seed of a random split, or of the folds.
        folds, fold: k-fold cross-validation; without ``folds``, the number of an official split if masks have several
            columns, see `gt.data.folds.Folds`.
        normalise, log, standardise: how real-valued targets and features are scaled, see `gt.data.numbers.Numbers`.
        negatives: negative pairs per link, drawn instead of using those in the data, see
            `gt.data.link_pairs.Negatives`; None uses those in the data. For new data, all their pairs are predicted.
        path: a file of ``torch.save`` to read instead of a dataset, see `gt.data.own.pyg_saved.saved_graphs`.
        root: the folder that holds the store.

    Raises:
        UserError: on ``open``, the dataset cannot be obtained or read.
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
                raise UserError(f"data.path={path} replaces a named dataset: choose data=pyg, or pyg_nodes, to read it")
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
        """The dataset by split, under '' if it has no splits of its own."""
        if not takes_split(self.make):
            return {"": open_dataset(self.make)}
        make = self.make
        flat = partial(make.func, *make.args, **make.keywords)  # a partial of another object is not flattened
        by_split = {split: open_dataset(partial(flat, split=pyg_split)) for split, pyg_split in PYG_SPLITS.items()}
        same = digest({"": by_split["train"]}, self.name) == digest({"": by_split["valid"]}, self.name)
        return {"": by_split["train"]} if same else by_split  # some, such as CSL, ignore the split

    def measures(self, graphs: Graphs) -> tuple[MetricCollection, Criterion]:
        """The metrics of the kind of target; a known benchmark adds its own, which becomes the criterion."""
        return measures(self.make, graphs.schema)

    def key(self) -> dict[str, Any]:
        options = {"level": self.level, "kind": self.kind, "fractions": self.fractions, "seed": self.split_seed}
        return {
            "source": "pyg",
            "version": VERSION,
            "content": digest(self.datasets(), self.name),
            **options,
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
            raise UserError(f"data.negatives is for links, but {self.name} has a target for each {graphs.schema.level}")
        return graphs

    def _check_links(self, graphs: Graphs) -> None:
        train = graphs.splits["train"]
        y = graphs.links["y"][runs(graphs.link_ptr[train], np.diff(graphs.link_ptr)[train])]
        if not (y == 1).any():
            raise UserError(f"{self.name}: no pair of the training graphs is linked, nothing to learn")
        if self.present is None and not (y == 0).any():
            raise UserError(f"{self.name} has no negative pairs: draw some by data.negatives=2")

    def build_known(self, model_schema: Schema) -> Graphs:
        self.present = None
        parts = [read(each, self.name, model_schema.level, optional=True) for each in self.datasets().values()]
        return pack_known(concatenate(parts, self.name), self.name, model_schema)

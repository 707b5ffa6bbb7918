"""k-fold cross-validation, and the choice among several official splits of a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gt.data.packed import Arrays, Graphs, count_in_runs
from gt.data.splits import SPLITS, group_k_fold, k_fold
from gt.errors import UserError
from gt.schema import UNLABELLED

GROUP = "group"  # graph array with the group of each graph, (graphs,) int64: groups are never split


@dataclass(frozen=True)
class Folds:
    """Assigns samples to training, validation and test by run, where the store does not fix the split.

    With ``folds``, labelled samples are split by `gt.data.splits.k_fold`, whatever split the dataset has, or by
    `gt.data.splits.group_k_fold` if graphs have a ``group``; all folds share a store and its encodings. Without,
    ``fold`` is the number of an official split, see `number_splits`.

    Attributes:
        folds: number of folds; None follows the dataset's own split.
        fold: index of the fold.
        seed: seed of the folds.

    Raises:
        UserError: fewer than three folds, or no such fold.
    """

    folds: int | None = None
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds is not None and self.folds < 3:
            raise UserError(f"data.folds={self.folds}: one fold is for the test, one for validation: choose 3 or more")
        if self.fold < 0 or (self.folds is not None and self.fold >= self.folds):
            last = "1, 2, ..." if self.folds is None else f"..., {self.folds - 1}"
            raise UserError(f"data.fold={self.fold}: folds are numbered 0, {last}")

    def __str__(self) -> str:
        if self.folds is not None:
            return f"fold {self.fold} of {self.folds} for the test"
        return f"official split {self.fold}" if self.fold else ""

    def facts(self) -> dict[str, Any]:
        """The JSON-serialisable values that a store built for one fold depends on; empty without folds."""
        return {} if self.folds is None else {"folds": self.folds, "fold": self.fold}

    def fractions(self, fractions: Sequence[float]) -> Sequence[float]:
        """The fractions of the split a store is built with; with folds, some that work for as few as three samples."""
        return fractions if self.folds is None else (1 / 3, 1 / 3, 1 / 3)

    def choose(self, graphs: Graphs, name: str) -> Arrays | None:
        """Sample numbers of each split; None to keep the splits of the store.

        Raises:
            UserError: too few samples, or no such official split.
        """
        if self.folds is not None:
            rows, classes = _labelled(graphs)
            groups = graphs.graphs[GROUP][rows] if GROUP in graphs.graphs else None
            return {split: rows[part] for split, part in self.deal(classes, name, groups).items()}
        if _key(0, SPLITS[0]) not in graphs.splits:
            if self.fold:
                raise UserError(f"data.fold={self.fold} needs data.folds: {name} has no official splits to choose from")
            return None
        keys = {split: _key(self.fold, split) for split in SPLITS}
        official = {split: graphs.splits[key] for split, key in keys.items() if key in graphs.splits}
        if not official:
            count = sum(key.endswith(f".{SPLITS[0]}") for key in graphs.splits)
            raise UserError(f"data.fold={self.fold}: {name} has {count} official splits, 0 to {count - 1}")
        return official

    def deal(self, classes: np.ndarray, name: str, groups: np.ndarray | None = None) -> Arrays:
        """Indices of the samples of each split, stratified by classes (samples,), or by groups that are never split.

        Raises:
            UserError: too few samples, or groups.
        """
        assert self.folds is not None
        if len(classes) < self.folds:
            raise UserError(f"data.folds={self.folds}: {name} has only {len(classes)} samples with a target")
        if groups is not None:
            if (count := len(np.unique(groups))) < self.folds:
                raise UserError(f"data.folds={self.folds}: {name} has only {count} groups of samples with a target")
            return group_k_fold(groups, self.folds, self.fold, self.seed)
        return k_fold(classes, self.folds, self.fold, self.seed)


def number_splits(splits: list[Arrays]) -> Arrays:
    """Several official splits for a store, by names such as ``3.train``; a single one unchanged."""
    if len(splits) == 1:
        return splits[0]
    return {_key(number, split): rows for number, split_rows in enumerate(splits) for split, rows in split_rows.items()}


def _key(number: int, split: str) -> str:
    return f"{number}.{split}"


def _labelled(graphs: Graphs) -> tuple[np.ndarray, np.ndarray]:
    """The labelled samples, and their classes for stratification: those of a single class target, else all equal.

    Samples are graphs; or nodes, if a single graph has targets at its nodes.
    """
    schema = graphs.schema
    y = np.asarray({"graph": graphs.graphs, "node": graphs.nodes, "link": graphs.links}[schema.level]["y"])
    labelled = y != UNLABELLED if schema.kind == "multiclass" else ~np.isnan(y).all(1)
    if schema.level != "graph" and len(graphs) > 1:
        rows = np.flatnonzero(count_in_runs(labelled, graphs.node_ptr if schema.level == "node" else graphs.link_ptr))
        return rows, np.zeros(len(rows))
    rows = np.flatnonzero(labelled)
    if schema.kind == "multiclass":
        return rows, y[rows]
    return rows, y[rows, 0] if schema.kind == "binary" and y.shape[1] == 1 else np.zeros(len(rows))

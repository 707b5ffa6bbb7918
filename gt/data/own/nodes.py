"""One large graph of one's own whose nodes have the targets: of PyG, CSV, GraphML, GML, GEXF or JSON."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch_geometric.data import Dataset

from gt.data.folds import Folds
from gt.data.large.nodes import NodeData
from gt.data.large.sampling import Sampler
from gt.data.numbers import Numbers
from gt.data.own import csv_graphs, graph_files
from gt.data.own.assemble import Choices, Target
from gt.data.own.base import Own, file_name, single
from gt.data.own.pyg import VERSION, one_graph, pack_known
from gt.data.own.pyg_open import open_dataset, title
from gt.data.own.pyg_read import digest, read
from gt.data.store import Graphs
from gt.schema import Kind

Evaluate = Literal["full", "sampled"]


class OwnNodes(Own, NodeData):
    """A graph of one's own with a target at each node."""


class PyGNodes(OwnNodes):
    """The one graph of a PyG dataset, such as Planetoid; splits are its masks, see `gt.data.own.pyg.one_graph`.

    Args:
        dataset: makes the dataset, such as ``partial(Planetoid, root="data/pyg", name="Cora")``.
        kind: what targets are; None finds it.
        fractions: shares of train, valid and test where there are no masks.
        split_seed: what such a split, or folds, are drawn from.
        folds, fold: k-fold cross-validation; without ``folds`` the number of an official split where masks have several
            columns, see `gt.data.folds.Folds`.
        normalise, log, standardise: how real numbers, targets and features, are scaled, see `gt.data.numbers.Numbers`.
        root: where the store is kept.
        sampler: what a training step sees, see `gt.data.large.sampling`; the rest as in `NodeData`.
    """

    def __init__(
        self,
        dataset: Callable[..., Dataset],
        kind: Kind | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        normalise: bool = True,
        log: bool = False,
        standardise: bool = True,
        root: str = "data",
        sampler: Sampler | None = None,
        evaluate: Evaluate = "full",
        chunk: int = 1 << 19,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.make = dataset if isinstance(dataset, partial) else partial(dataset)
        super().__init__(file_name(title(self.make)), root, sampler, evaluate, chunk, workers, seed)
        self.numbers, self.folds = Numbers(normalise, log, standardise), Folds(folds, fold, split_seed)
        self.kind, self.fractions, self.split_seed = kind, tuple(fractions), split_seed

    def key(self) -> dict[str, Any]:
        content = digest({"": open_dataset(self.make)}, self.name)
        facts = {"kind": self.kind, "fractions": self.fractions, "seed": self.split_seed}
        return {"source": "pyg nodes", "version": VERSION, "content": content, **facts, **self.numbers.facts()}

    def build(self) -> Graphs:
        dataset = open_dataset(self.make)
        if self.known is not None:
            return pack_known(read(dataset, self.name, "node", optional=True), self.name, self.known)
        return one_graph(dataset, self.name, self.kind, self.fractions, self.split_seed, self.numbers)


class CSVNodes(OwnNodes):
    """One graph from a folder of CSV files, ``nodes.csv`` (node, features, label, split) and ``edges.csv``.

    Args:
        path: the folder; it, ``target``, ``kind``, ``undirected``, ``fractions``, ``split_seed``, ``folds``, ``fold``,
            ``features``, ``normalise``, ``log``, ``standardise`` and ``root`` are as in
            `gt.data.own.csv_graphs.CSVGraphs`.
        sampler: what a training step sees, see `gt.data.large.sampling`; the rest as in `NodeData`.
    """

    def __init__(
        self,
        path: str,
        target: Target = None,
        kind: Kind | None = None,
        undirected: bool | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        features: Sequence[str] | None = None,
        normalise: bool = True,
        log: bool = False,
        standardise: bool = True,
        root: str = "data",
        sampler: Sampler | None = None,
        evaluate: Evaluate = "full",
        chunk: int = 1 << 19,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.path = Path(path)
        super().__init__(f"csv-{file_name(path)}", root, sampler, evaluate, chunk, workers, seed)
        self.numbers, self.folds = Numbers(normalise, log, standardise), Folds(folds, fold, split_seed)
        self.choices = Choices(target, kind, undirected, fractions, split_seed, features, self.numbers)

    def key(self) -> dict[str, Any]:
        return {**csv_graphs.key(self.path, self.choices), "splits": "nodes"}

    def build(self) -> Graphs:
        if self.known is not None:
            graphs, self.records = csv_graphs.build_known(self.path, self.choices, self.known)
            return graphs
        return single(csv_graphs.build(self.path, self.choices), self.path, "csv_graphs")

    def names(self) -> dict[str, np.ndarray]:
        """What the files call each node."""
        return csv_graphs.names(self.path, "node")


class GraphFileNodes(OwnNodes):
    """One graph from a file of GraphML, GML, GEXF or node-link JSON, its nodes with ``label`` (perhaps ``split``).

    Args:
        path: the file; it, ``target``, ``kind``, ``undirected``, ``fractions``, ``split_seed``, ``folds``, ``fold``,
            ``features``, ``normalise``, ``log``, ``standardise`` and ``root`` are as in
            `gt.data.own.graph_files.GraphFiles`.
        sampler: what a training step sees, see `gt.data.large.sampling`; the rest as in `NodeData`.
    """

    def __init__(
        self,
        path: str,
        target: Target = None,
        kind: Kind | None = None,
        undirected: bool | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        features: Sequence[str] | None = None,
        normalise: bool = True,
        log: bool = False,
        standardise: bool = True,
        root: str = "data",
        sampler: Sampler | None = None,
        evaluate: Evaluate = "full",
        chunk: int = 1 << 19,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.path = path
        super().__init__(f"graphs-{file_name(path)}", root, sampler, evaluate, chunk, workers, seed)
        self.numbers, self.folds = Numbers(normalise, log, standardise), Folds(folds, fold, split_seed)
        self.choices = Choices(target, kind, undirected, fractions, split_seed, features, self.numbers)

    def key(self) -> dict[str, Any]:
        return {**graph_files.key(self.path, self.choices), "splits": "nodes"}

    def build(self) -> Graphs:
        if self.known is not None:
            graphs, self.records = graph_files.build_known(self.path, self.choices, self.known)
            return graphs
        return single(graph_files.build(self.path, self.choices), self.path, "graph_files")

    def names(self) -> dict[str, np.ndarray]:
        """What the file calls each node."""
        return graph_files.names(self.path, "node")

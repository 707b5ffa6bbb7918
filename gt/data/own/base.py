"""Somebody's own graphs: what they hold is found and printed as one line."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from gt.data.batching import runs, tensor
from gt.data.folds import Folds
from gt.data.graph_datamodule import GraphDataModule
from gt.data.numbers import Numbers
from gt.data.own.columns import describe
from gt.data.store import Graphs
from gt.encodings import Encoding
from gt.errors import UserError
from gt.schema import Schema


def file_name(path: Path | str) -> str:
    """The last part of a path, of letters that any file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).name) or "graphs"


def several(graphs: Graphs, name: object, option: str) -> Graphs:
    """The same graphs.

    Raises:
        UserError: there is but one, with targets at its nodes: names the configuration for such.
    """
    if len(graphs) == 1:
        raise UserError(f"{name} is one graph: choose data={option}, where each split is some of its nodes")
    return graphs


def single(graphs: Graphs, name: object, option: str) -> Graphs:
    """The same graph.

    Raises:
        UserError: there are several, or the one has no targets at its nodes: names the configuration for such.
    """
    if len(graphs) != 1 or graphs.schema.level != "node":
        raise UserError(f"{name} is not one graph with targets at its nodes: choose data={option}")
    return graphs


class Own(GraphDataModule):
    """What somebody's own graphs have in common; lines say what was found in them."""

    name: str
    numbers: Numbers
    folds: Folds

    def open(self, encodings: Sequence[Encoding], known: Schema | None = None) -> None:
        super().open(encodings, known)
        if known is None:
            lines = [describe(self.name, self._opened()), str(self.folds)]
            rank_zero_only(print)("\n".join(filter(None, lines)), flush=True)

    def resplit(self, graphs: Graphs) -> Graphs:
        splits = self.folds.choose(graphs, self.name)
        return graphs if splits is None else self.numbers.learn(replace(graphs, splits=splits))


class OwnGraphs(Own):
    """Graphs with a target each, or with a target at each node."""

    def targets(self, split: str) -> Tensor:
        graphs = self._opened()
        if graphs.schema.level == "graph":
            return super().targets(split)
        ids = np.asarray(graphs.splits[split], dtype=np.int64)
        return tensor(graphs.nodes["y"][runs(graphs.node_ptr[ids], graphs.sizes[ids])])

"""The base class of sources that read a user's own graphs, infer their structure and summarise it."""

import re
from dataclasses import replace
from pathlib import Path

from gt.data.folds import Folds
from gt.data.numbers import Numbers
from gt.data.own.columns import describe
from gt.data.packed import Graphs
from gt.data.source import Source


def file_name(path: Path | str) -> str:
    """The last part of a path, reduced to characters that are valid on any file system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).name) or "graphs"


class Own(Source):
    """Base class of sources of a user's own graphs.

    Attributes:
        numbers: how targets and features are scaled.
        folds: how samples are assigned to training, validation and test.
    """

    numbers: Numbers
    folds: Folds

    def summary(self, graphs: Graphs) -> str:
        return "\n".join(filter(None, [describe(self.name, graphs), str(self.folds)]))

    def resplit(self, graphs: Graphs) -> Graphs:
        splits = self.folds.choose(graphs, self.name)
        return graphs if splits is None else self.numbers.learn(replace(graphs, splits=splits))

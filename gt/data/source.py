"""The interface of a dataset; `gt.data.datamodule` makes batches of any."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from gt.data.batching import GraphDataset
from gt.data.packed import Graphs
from gt.graph import GraphBatch
from gt.losses import Criterion
from gt.schema import Schema

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


SMALL = 1 << 18  # bytes that are read and parsed without a noticeable delay


def small(paths: Collection[Path]) -> bool:
    """Whether files are small enough to be read just for an early check."""
    return sum(path.stat().st_size for path in paths) <= SMALL and not any(path.suffix == ".gz" for path in paths)


@dataclass(frozen=True)
class Records:
    """The input rows of a source, unreadable ones included.

    Attributes:
        table: the R rows as they are in the source, in its order.
        row: (S,) the row of each sample.
        unreadable: by index of a row that is not a sample, its location and the reason.
    """

    table: pd.DataFrame
    row: np.ndarray
    unreadable: dict[int, str]


class Source(ABC):
    """Where graphs come from, what is predicted for them and how that is scored. Subclass this for your own dataset.

    Attributes:
        name: name of its store.
        made_of: a word for the files that the store is built from, which goes into the folder name of the store but
            not into its key.
        root: the folder that holds ``stores`` and downloads.
        folder: the folder of the store, set before the source has to build it.
        records: the input rows of new data, if the source has rows.
        in_memory: whether new data are small enough to be read in one chunk and kept in memory instead of in a store.
        identifies: whether `names` identify every sample, so that a table needs no sample numbers.
        present: transform of each batch, if the model should not see the stored graphs as they are: called with a batch
            and (B,) uint64 random numbers, one per graph, in training different ones each epoch. It may add edges, to
            each graph at most as many as ``added_edges`` of the store says.
        option_for_graphs, option_for_nodes: the options of configs/data that read the source as many graphs, and as a
            single graph with targets at its nodes; an error recommends the other.
    """

    name: str
    made_of: str = ""
    root: Path = Path("data")
    folder: Path = Path()
    records: Records | None = None
    in_memory: bool = False
    identifies: bool = False
    present: Callable[[GraphBatch, np.ndarray], GraphBatch] | None = None
    option_for_graphs: str | None = None
    option_for_nodes: str | None = None

    def __str__(self) -> str:
        """The name to use in messages."""
        return self.name

    @property
    def skipped_rows(self) -> Path:
        """The file beside the store that lists the rows left out of it; it exists only if there are any."""
        return self.folder.with_name(f"{self.folder.name}.skipped_rows.csv")

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """JSON-serialisable values that the store depends on; each key has its own store, see `gt.keys.full_key`."""

    @abstractmethod
    def build(self) -> Graphs | Iterable[Graphs]:
        """Build all graphs with schema and splits; or, to save memory, consecutive chunks, see `gt.data.store.save`.

        Raises:
            UserError: they cannot be read.
        """

    def check_files(self) -> None:  # noqa: B027  most sources read none
        """Check, before anything slow, that the input files exist and, if they are `small`, hold data.

        Raises:
            UserError: a file is missing or cannot be read.
        """

    def build_known(self, model_schema: Schema) -> Graphs | Iterable[Graphs]:
        """Build all graphs, labelled or not, with the columns and categories of a trained model; sets ``records``.

        Raises:
            UserError: the data do not fit the schema of the model.
        """
        return self.build()

    def resplit(self, graphs: Graphs) -> Graphs:
        """The stored graphs with the splits of this run, where they differ, and the statistics learned from them."""
        return graphs

    def measures(self, graphs: Graphs) -> "tuple[MetricCollection, Criterion]":
        """The metrics, and the criterion by which the best checkpoint is chosen."""
        from gt.metrics import metrics  # late: importing torchmetrics takes two seconds, too long for reporting a typo

        return metrics(graphs.schema)

    def summary(self, graphs: Graphs) -> str:
        """A few lines on how the input was interpreted; empty if there is nothing to report."""
        return ""

    def names(self, graphs: Graphs) -> dict[str, np.ndarray]:
        """By column, the names of all samples in the source, in the order of the store."""
        return {}

    def smiles_of(self, graphs: Graphs) -> Sequence[str] | None:
        """The SMILES of each stored graph; None if they are not molecules, or not known to be."""
        return None

    def texts_of(self, graphs: Graphs) -> Sequence[str] | None:
        """The text that each stored graph was made from; None if they were not made from text."""
        return None

    def labels(self, graphs: Graphs, number: int, batch: GraphBatch) -> list[str] | None:
        """A label for each node of a batch of one graph, ``number`` in the store; None if the schema suffices."""
        return None

    def spelled(self, graphs: Graphs, numbers: np.ndarray, answers: Tensor, batch: GraphBatch) -> list[str] | None:
        """The text of predicted classes (rows, positions); None if it is simply the schema's names in sequence.

        Args:
            numbers: (B,) indices of the batch's graphs in the store.
        """
        return None

    def examples(self, dataset: GraphDataset, net: nn.Module) -> str:
        """A readable sample of a trained network's predictions; empty if the data have no such form."""
        return ""

    def submission(self, split: str, prediction: np.ndarray, folder: Path) -> Path | None:
        """Write the predictions (samples, outputs) of a split in a challenge's format; None if there is none."""
        return None

"""What a dataset is. How it becomes batches is said once for all of them: `gt.data.datamodule`."""

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


SMALL = 1 << 18  # bytes that are read and parsed while nobody would notice


def small(paths: Collection[Path]) -> bool:
    """Whether files are so small that they may be read only to say what is wrong with them."""
    return sum(path.stat().st_size for path in paths) <= SMALL and not any(path.suffix == ".gz" for path in paths)


@dataclass(frozen=True)
class Records:
    """What a source says of its samples, those that cannot be read included.

    Attributes:
        table: (R rows) as they stand there, in its order.
        row: (S,) for each sample its row.
        unreadable: by number of a row that is no sample, where it stands and why.
    """

    table: pd.DataFrame
    row: np.ndarray
    unreadable: dict[int, str]


class Source(ABC):
    """Where graphs come from, what is predicted of them and how that is scored. A dataset of one's own is one of these.

    Attributes:
        name: of its store.
        made_of: a word for the files that the store is made of, where its name is to say it and its content does not
            depend on how they are called.
        root: the folder that holds ``stores``, and whatever is downloaded.
        folder: the store, once the source is asked to build it.
        records: of new data: their rows, where the source has such.
        in_memory: whether new data are so few that they are read in one chunk and held, rather than kept in a store.
        identifies: whether `names` tell all samples apart, so that a table need not number them.
        present: what a model is shown of some graphs of the store, where not all of them: called with a batch and (B,)
            uint64 random numbers, for each graph its own, and in training another each epoch. It may add edges, of each
            graph as many as ``added_edges`` of the store says at most.
        option_for_graphs, option_for_nodes: the options of configs/data that read the source as many graphs, and as one
            whose nodes have the targets: an error recommends the other.
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
        """What messages call it."""
        return self.name

    @property
    def skipped_rows(self) -> Path:
        """The file that lists the rows that the store leaves out, beside it; there is none where there are none."""
        return self.folder.with_name(f"{self.folder.name}.skipped_rows.csv")

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """JSON-able facts that the store depends on; another key is another store, see `gt.keys.full_key`."""

    @abstractmethod
    def build(self) -> Graphs | Iterable[Graphs]:
        """All graphs with schema and splits, or chunks of consecutive ones, see `gt.data.store.save`, for less memory.

        Raises:
            UserError: they cannot be read.
        """

    def check_files(self) -> None:  # noqa: B027  most sources read none
        """Whether the files that it reads are there and, where they are `small`, hold data; before anything slow.

        Raises:
            UserError: one is not there, or cannot be read.
        """

    def build_known(self, known: Schema) -> Graphs | Iterable[Graphs]:
        """All graphs, targets or not, as a trained model reads them: its columns, its categories; sets ``records``.

        Raises:
            UserError: they cannot be read like that.
        """
        return self.build()

    def resplit(self, graphs: Graphs) -> Graphs:
        """The graphs of the store, split as this run asks where that differs, with what is learned from the split."""
        return graphs

    def measures(self, graphs: Graphs) -> "tuple[MetricCollection, Criterion]":
        """The metrics, and which of them says what is best."""
        from gt.metrics import metrics  # late: torchmetrics takes two seconds, which a typo need not wait for

        return metrics(graphs.schema)

    def summary(self, graphs: Graphs) -> str:
        """What was read as what, in a line or a few; nothing where there is nothing to say."""
        return ""

    def names(self, graphs: Graphs) -> dict[str, np.ndarray]:
        """By column, what the source calls each sample, in the order of the store."""
        return {}

    def smiles_of(self, graphs: Graphs) -> Sequence[str] | None:
        """The SMILES of each graph of the store; None where they are no molecules, or that is not known."""
        return None

    def texts_of(self, graphs: Graphs) -> Sequence[str] | None:
        """The text that each graph of the store was made of; None where they are none."""
        return None

    def labels(self, graphs: Graphs, number: int, batch: GraphBatch) -> list[str] | None:
        """A word for each node of a batch of one graph, by its number in the store; None where the schema says all."""
        return None

    def spelled(self, graphs: Graphs, numbers: np.ndarray, answers: Tensor, batch: GraphBatch) -> list[str] | None:
        """The words of predicted classes (rows, positions), where they are not the schema's names in a row.

        Args:
            numbers: (B,) of the batch's graphs in the store.
        """
        return None

    def examples(self, dataset: GraphDataset, net: nn.Module) -> str:
        """What a trained network says of a few samples, as a person reads it; nothing where there is no such form."""
        return ""

    def submission(self, split: str, prediction: np.ndarray, folder: Path) -> Path | None:
        """Write the predictions (samples, outputs) of a split as a challenge takes them; None where nothing is."""
        return None

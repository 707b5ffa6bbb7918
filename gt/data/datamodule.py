"""The interface between datasets and the trainer: loaders of complete `GraphBatch`es, splits, targets and metrics."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from gt.attention import Reading, look_up_device
from gt.data.batch_sampler import Batches, Epochs
from gt.data.batching import BatchDataset, Shares
from gt.data.parallel import leave_group
from gt.encodings import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.losses import Criterion
from gt.ranges import at_least
from gt.schema import Schema

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torchmetrics import MetricCollection

ALL = "all"  # the only split of data that are new to a trained model: every sample
# Node pairs, padding included, up to which an evaluation batch may be twice as large as a training batch. Scores take
# 4 bytes per pair and head, pair features 4 bytes per pair and channel: 0.25 GB with 64 channels, several times over.
# An evaluation batch no larger than a training batch always fits: it needs less memory.
PAIRS = 2**20


class Loader(DataLoader[GraphBatch]):
    """A data loader that records how long its consumer waits; without workers it indexes the dataset directly.

    PyTorch's own iterator would add a fifth to the time that gathering small graphs takes, for features unused here.

    Attributes:
        waited: seconds waited so far in this epoch.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[GraphBatch]:  # type: ignore[override]
        if self.num_workers and isinstance(self.sampler, Epochs):
            look_up_device(self.sampler.readings())  # before the workers are forked
        in_process = not (self.num_workers or self.pin_memory)
        self.waited, batches = 0.0, map(self.dataset.__getitem__, self.sampler) if in_process else super().__iter__()
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            self.waited += time.monotonic() - start
            if batch is None:
                return
            yield batch


@dataclass(kw_only=True, eq=False, repr=False)
class DataModule(ABC):
    """Loaders for the splits of one dataset.

    Args:
        source: the dataset.
        workers: processes that make batches; 0 makes them in the training process.
        seed: seed of the order of training batches.

    Attributes:
        schema: schema of the data, once they are open.
        readings: returns what attention will need from the next batch.
        spread: each process gets a share of the nodes of every batch instead of batches of its own.
        trainer: the trainer that requests the loaders, see `gt.train.feed.Feed`; None if they serve this process alone.
    """

    source: Any = field(kw_only=False)
    workers: int = 0
    seed: int = 0

    schema: Schema = field(init=False)

    def __post_init__(self) -> None:
        at_least(0, self.workers, "workers")
        at_least(0, self.seed, "seed")
        self.readings: Callable[[], Iterable[Reading]] = tuple
        self.spread = False
        self.trainer: pl.Trainer | None = None

    @abstractmethod
    def open(self, encodings: Sequence[Encoding], model_schema: Schema | None = None) -> None:
        """Prepare the data, building on disk whatever is missing, and set ``schema``.

        Args:
            encodings: positional and structural encodings to compute.
            model_schema: the schema of a trained model to which these data are new. All samples, labelled or not, form
                a single split, `ALL`, in the order of the source. Whatever was inferred in training, such as the role
                of each column and the code of each category, is taken from this schema; nothing is kept on disk.

        Raises:
            UserError: the data cannot be read, or do not fit the schema of the model.
        """

    @abstractmethod
    def dataset(self, split: str) -> BatchDataset:
        """The samples of ``train``, ``valid`` or ``test``."""

    @abstractmethod
    def has(self, split: str) -> bool:
        """Whether there are samples in a split."""

    def splits(self) -> list[str]:
        """The names of the splits that have samples."""
        return [name for name in ("train", "valid", "test", ALL) if self.has(name)]

    def check_split(self, split: str) -> None:
        """Check that a split has samples.

        Raises:
            UserError: it has none; names the splits that have some.
        """
        if not self.has(split):
            raise UserError(f"these data have no split '{split}', only {', '.join(self.splits())}")

    def last_split(self) -> str:
        """The split on which a finished run is scored."""
        return "test" if self.has("test") else "valid"

    @abstractmethod
    def targets(self, split: str) -> Tensor:
        """All targets of a split, in any order."""

    def holds(self) -> str:
        """A few lines that describe the open data and where they are stored."""
        samples = {split: len(self.dataset(split)) for split in ("train", "valid", "test") if self.has(split)}
        return ", ".join(f"{count:,} {split}" for split, count in samples.items()) + "; nothing is kept on disk"

    def examples(self, net: nn.Module, split: str) -> str:
        """A readable sample of a trained network's predictions on a split; empty if the data have no such form."""
        return ""

    @abstractmethod
    def measures(self) -> "tuple[MetricCollection, Criterion]":
        """The metrics, and the criterion by which the best checkpoint is chosen."""

    @abstractmethod
    def batches(self, split: str, **state: int) -> Epochs:
        """The batch sampler of a split."""

    def workers_for(self, split: str) -> int:
        """The number of processes that make the batches of a split."""
        return self.workers

    @property
    def world(self) -> int:
        """The number of processes that have batches of their own."""
        return 1 if self.trainer is None or self.spread else self.trainer.world_size

    def loader(self, split: str) -> Loader:
        """A loader for a split: this process's share of the batches or, if ``spread``, its share of each batch."""
        state, dataset = {}, self.dataset(split)
        if self.trainer is not None:
            rank = self.trainer.global_rank
            state = {"rank": 0 if self.spread else rank, "world": self.world}
            if self.spread:
                dataset = Shares(dataset, self.schema.level, rank, self.trainer.world_size)
            if split == "train":
                state |= self._progress(self.trainer)
        batches = self.batches(split, **state)
        batches.readings = self.readings
        return Loader(
            dataset,
            sampler=batches,
            batch_size=None,  # a request describes a whole batch
            num_workers=self.workers_for(split),
            worker_init_fn=leave_group,
            # only on a GPU: pinning takes some of its memory, and a thread
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=self.workers_for(split) > 0,
        )

    @staticmethod
    def _progress(trainer: "pl.Trainer") -> dict[str, int]:
        """The current epoch, and how many of its batches a resumed run has already processed."""
        loop: Any = trainer.fit_loop
        if not loop.restarting:
            return {"epoch": trainer.current_epoch, "first": 0}
        batch_progress = loop.epoch_loop.batch_progress
        # after the last batch of an epoch at most its validation remains: batches continue with the next epoch. A run
        # that a callback stopped at the end of a batch has processed that batch, though it is not yet counted as done
        if batch_progress.is_last_batch:
            return {"epoch": trainer.current_epoch + 1, "first": 0}
        return {"epoch": trainer.current_epoch, "first": batch_progress.current.processed}


@dataclass(kw_only=True, eq=False, repr=False)
class Sized(DataModule):
    """Data modules whose batches have a given number of samples.

    Args:
        batch_size: graphs, links or text blocks in a training batch of each process: N processes train like one with
            N times the batch size.
        eval_batch_size: the same for validation and test; None uses up to twice the training batch size, as memory
            allows: see `PAIRS`.
    """

    batch_size: int = 32
    eval_batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.batch_size, "batch_size")
        if self.eval_batch_size is not None:
            at_least(1, self.eval_batch_size, "eval_batch_size")

    def measure(self, split: str) -> dict[str, Any]:
        """The arguments of `Batches` that set the batch size of a split."""
        if split != "train" and self.eval_batch_size is not None:
            return {"batch_size": self.eval_batch_size}
        return {"batch_size": self.batch_size} | ({} if split == "train" else {"pairs": PAIRS})

    def batches(self, split: str, **state: int) -> Batches:
        sizes, train = self.dataset(split).sizes, split == "train"
        return Batches(sizes, shuffle=train, seed=self.seed, **self.measure(split), **state)

"""How a dataset becomes batches: what every data module gives a trainer, loaders of ready `GraphBatch`es among it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from gt.attention import Reading
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

ALL = "all"  # the split of data that are new to a trained model: every sample
# Pairs of nodes, padding included, up to which a batch in evaluation may be twice as large as one in training. A matrix
# of scores takes 4 bytes a pair and head, features of pairs 4 bytes a pair and channel: with 64 channels 0.25 GB, and
# some of that several times over. A batch as large as one in training takes less than that does.
PAIRS = 2**20


class Loader(DataLoader[GraphBatch]):
    """A loader that knows how long it was waited for. In the training process it asks the dataset itself.

    PyTorch's own iterator takes a fifth of the time in which small graphs are gathered, for what is not needed here.

    Attributes:
        waited: seconds of this epoch until now.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[GraphBatch]:  # type: ignore[override]
        alone = not (self.num_workers or self.pin_memory)
        self.waited, batches = 0.0, map(self.dataset.__getitem__, self.sampler) if alone else super().__iter__()
        while True:
            begun = time.monotonic()
            batch = next(batches, None)
            self.waited += time.monotonic() - begun
            if batch is None:
                return
            yield batch


@dataclass(kw_only=True, eq=False, repr=False)
class DataModule(ABC):
    """Loaders for the splits of one dataset.

    Args:
        source: what the dataset is.
        workers: processes that make batches; 0 makes them in the training process.
        seed: what the order of training batches is drawn from.

    Attributes:
        schema: of the data, once they are open.
        readings: says what the model will ask of the next batch.
        spread: every process is to have a share of the nodes of each batch, rather than batches of its own.
        trainer: which asks for the loaders, see `gt.train.feed.Feed`; None: they are for this process alone.
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
    def open(self, encodings: Sequence[Encoding], known: Schema | None = None) -> None:
        """Make the data ready, building what is missing on disk, and set ``schema``.

        Args:
            encodings: what is computed of each node's place.
            known: of a trained model: these data are new to it. All samples are one split, `ALL`, in the order of the
                source, targets or not. Whatever training found out, such as which column is which and which number
                stands for which category, is as it says; nothing is kept on disk.

        Raises:
            UserError: the data cannot be read, or not as the model was trained to read such.
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
        """Whether there are samples in a split.

        Raises:
            UserError: there are none; names the splits that have some.
        """
        if not self.has(split):
            raise UserError(f"these data have no split '{split}': there are {', '.join(self.splits())}")

    def last_split(self) -> str:
        """The split that a run is scored on when it is done."""
        return "test" if self.has("test") else "valid"

    @abstractmethod
    def targets(self, split: str) -> Tensor:
        """Every target of a split, in any order."""

    def holds(self) -> str:
        """What there is once the data are open, and where, in a few lines."""
        samples = {split: len(self.dataset(split)) for split in ("train", "valid", "test") if self.has(split)}
        return ", ".join(f"{count:,} {split}" for split, count in samples.items()) + "; nothing is kept on disk"

    def examples(self, net: nn.Module, split: str) -> str:
        """What a trained network says of a few samples of a split, as a person reads it; nothing where that is none."""
        return ""

    @abstractmethod
    def measures(self) -> "tuple[MetricCollection, Criterion]":
        """The metrics, and which of them says what is best."""

    @abstractmethod
    def batches(self, split: str, **place: int) -> Epochs:
        """Which samples go together."""

    def workers_for(self, split: str) -> int:
        """Processes that make the batches of a split."""
        return self.workers

    @property
    def world(self) -> int:
        """How many processes have batches of their own."""
        return 1 if self.trainer is None or self.spread else self.trainer.world_size

    def loader(self, split: str) -> Loader:
        """A loader of the batches of a split: this process's share of them, or of each where ``spread``."""
        place, dataset = {}, self.dataset(split)
        if self.trainer is not None:
            rank = self.trainer.global_rank
            place = {"rank": 0 if self.spread else rank, "world": self.world}
            if self.spread:
                dataset = Shares(dataset, self.schema.level, rank, self.trainer.world_size)
            if split == "train":
                place |= self._progress(self.trainer)
        batches = self.batches(split, **place)
        batches.readings = self.readings
        return Loader(
            dataset,
            sampler=batches,
            batch_size=None,  # a request is a whole batch
            num_workers=self.workers_for(split),
            worker_init_fn=leave_group,
            # on a GPU alone: pinning takes some of its memory, and a thread
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=self.workers_for(split) > 0,
        )

    @staticmethod
    def _progress(trainer: "pl.Trainer") -> dict[str, int]:
        """Where training stands: the epoch, and how many of its batches a resumed run has already seen."""
        loop: Any = trainer.fit_loop
        if not loop.restarting:
            return {"epoch": trainer.current_epoch, "first": 0}
        seen = loop.epoch_loop.batch_progress
        # after the last batch of an epoch only a validation may be left of it: batches go on with the next one. A run
        # stopped by a callback at the end of a batch has processed that batch, though not yet counted it as done
        if seen.is_last_batch:
            return {"epoch": trainer.current_epoch + 1, "first": 0}
        return {"epoch": trainer.current_epoch, "first": seen.current.processed}


@dataclass(kw_only=True, eq=False, repr=False)
class Sized(DataModule):
    """Batches of so many samples.

    Args:
        batch_size: graphs, links or blocks of text in a training batch, on each process: N processes train as one does
            with N times as many.
        eval_batch_size: the same for validation and test; None takes up to twice the training batch, as memory allows:
            see `PAIRS`.
    """

    batch_size: int = 32
    eval_batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.batch_size, "batch_size")
        if self.eval_batch_size is not None:
            at_least(1, self.eval_batch_size, "eval_batch_size")

    def measure(self, split: str) -> dict[str, Any]:
        """How much goes into a batch of a split, in the words of `Batches`."""
        if split != "train" and self.eval_batch_size is not None:
            return {"batch_size": self.eval_batch_size}
        return {"batch_size": self.batch_size} | ({} if split == "train" else {"pairs": PAIRS})

    def batches(self, split: str, **place: int) -> Batches:
        sizes, train = self.dataset(split).sizes, split == "train"
        return Batches(sizes, shuffle=train, seed=self.seed, **self.measure(split), **place)

"""Progress as a bar on a terminal or else as occasional lines; and the cost of loading and padding batches."""

import sys
import time
from statistics import median
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar

from gt.parallel import Share
from gt.schema import format_number

FIRST, NEXT = 12.0, 30.0  # seconds until the first line without a terminal, and between two
REFRESH = 0.5  # seconds between two readings of the metrics that the bar shows
WARM_UP = 3  # initial batches, in which kernels are selected and memory is allocated


class Progress(RichProgressBar):
    """A progress bar with loss, metric and speed on a terminal, and a line for each validation.

    Without a terminal, lines show the progress of an epoch, validation or test instead of the bar: the first after
    ``FIRST`` seconds without any line, so that short ones have none, then every ``NEXT`` seconds.
    """

    def __init__(self) -> None:
        super().__init__(leave=False)
        self._bar = sys.stdout.isatty()
        if not self._bar:
            self.disable()
        self._graphs, self._start = 0, 0.0
        self._due = 0.0  # time at which the next line is due
        self._refresh_due = 0.0  # time at which the bar's metrics are read again

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._graphs, self._start = 0, time.monotonic()
        self._due = self._start + FIRST

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        whole, world = (batch.whole, 1) if isinstance(batch, Share) else (batch, trainer.world_size)
        self._graphs += (whole.num_graphs - whole.padding[0]) * world
        if self._line_is_due(trainer):
            numbers = [
                f"  {n} {format_number(float(v))}" for n, v in trainer.callback_metrics.items() if n == "train/loss"
            ]
            position = f"{_epoch_label(trainer)}  batch {batch_idx + 1}/{trainer.num_training_batches}"
            self._print(f"{position}{''.join(numbers)}{self._speed()}")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, *more)
        if self._line_is_due(trainer):
            prefix = f"{_epoch_label(trainer)}  " if trainer.state.fn == "fit" else ""
            self._print(f"{prefix}validation batch {batch_idx + 1}/{_num_batches(trainer.num_val_batches)}")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_start(trainer, pl_module)
        self._due = time.monotonic() + FIRST

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, *more)
        if self._line_is_due(trainer):
            self._print(f"test batch {batch_idx + 1}/{_num_batches(trainer.num_test_batches)}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != "fit":
            return
        names = [n for n in sorted(trainer.callback_metrics) if n.startswith(("train/loss", "valid/"))]
        numbers = "  ".join(f"{n} {format_number(float(trainer.callback_metrics[n]))}" for n in names)
        if trainer.is_global_zero:
            callbacks: list[Callback] = getattr(trainer, "callbacks", [])
            waits = [f"  waiting {loading.wait:.0%}" for loading in callbacks if isinstance(loading, Loading)]
            self._print(
                f"{_epoch_label(trainer)}  step {trainer.global_step}  {numbers}{self._speed()}{''.join(waits)}"
            )
        self._due = time.monotonic() + FIRST

    def _update_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Override Lightning's, which reads the loss after every batch, and waits for the GPU to have computed it."""
        if time.monotonic() >= self._refresh_due:
            super()._update_metrics(trainer, pl_module)
            self._refresh_due = time.monotonic() + REFRESH

    def _line_is_due(self, trainer: pl.Trainer) -> bool:
        return not self._bar and trainer.is_global_zero and time.monotonic() >= self._due

    def _print(self, line: str) -> None:
        print(f"{line}\n", end="", flush=True)  # in one write, as the trials of a sweep share a terminal
        self._due = time.monotonic() + NEXT

    def _speed(self) -> str:
        return f"  {self._graphs / max(time.monotonic() - self._start, 1e-9):.0f} graphs/s"


def _epoch_label(trainer: pl.Trainer) -> str:
    total = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{total}"


def _num_batches(batches: Any) -> int:
    """The number of batches, which Lightning gives as a list by loader; there is one loader."""
    return sum(batches) if isinstance(batches, list) else batches


class Loading(Callback):
    """Logs the fractions of padding and of waiting for batches in training as ``data/padding`` and ``data/wait``.

    Padding is the fraction of rows of the dense view (graphs times nodes of the largest) that hold no node. Waiting is
    the fraction of time in which this process waits for its loader; a GPU may be busy meanwhile. Both cover the epoch
    so far, without validation.
    """

    def __init__(self) -> None:
        self._warm_up_left, self._paces = WARM_UP, list[float]()
        self._reset()

    def _reset(self) -> None:
        self._nodes = self._rows = self._timed_batches = 0
        self._waited = self._elapsed = self._seconds = 0.0
        self._mark = time.monotonic()

    @property
    def padding(self) -> float:
        """The fraction of padding, 0 to 1."""
        return 1 - self._nodes / self._rows if self._rows else 0.0

    @property
    def wait(self) -> float:
        """The fraction of time spent waiting, 0 to 1."""
        return self._waited / self._elapsed if self._elapsed else 0.0

    @property
    def seconds_per_batch(self) -> float | None:
        """Time from the end of one training batch to the end of the next: the median over epochs of the mean.

        Excludes warm-up and validation; None if there was nothing else.
        """
        return median(self._paces) if self._paces else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._warm_up_left, self._paces = WARM_UP, []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        elapsed, self._mark = now - self._mark, now
        self._elapsed += elapsed
        if self._warm_up_left:
            self._warm_up_left -= 1
        else:
            self._timed_batches, self._seconds = self._timed_batches + 1, self._seconds + elapsed
        loader: Any = trainer.train_dataloader
        self._waited = loader.waited
        self._nodes += batch.num_nodes - batch.padding[1]
        self._rows += batch.num_graphs * batch.max_nodes

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._timed_batches:
            self._paces.append(self._seconds / self._timed_batches)
        pl_module.log("data/padding", self.padding, rank_zero_only=True)
        pl_module.log("data/wait", self.wait, rank_zero_only=True)

"""Progress: on a terminal a bar, elsewhere a line now and then; and what the loading of batches costs."""

import sys
import time
from statistics import median
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar

from gt.parallel import Share
from gt.schema import number

FIRST, NEXT = 12.0, 30.0  # seconds until a line off a terminal, and between two
WARM_UP = 3  # batches of a run in which kernels are chosen and memory is fetched


class Progress(RichProgressBar):
    """A bar with loss, metric and speed on a terminal, and everywhere a line for each validation.

    Off a terminal, where a bar would be thousands of lines, a line says now and then how far an epoch, a validation or
    a test is: the first after ``FIRST`` seconds without any line, so that short ones have none, then every ``NEXT``.
    """

    def __init__(self) -> None:
        super().__init__(leave=False)
        self._bar = sys.stdout.isatty()
        if not self._bar:
            self.disable()
        self._graphs, self._start = 0, 0.0
        self._due = 0.0  # when a line is due next, by the clock

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
            numbers = [f"  {n} {number(float(v))}" for n, v in trainer.callback_metrics.items() if n == "train/loss"]
            where = f"{_epoch(trainer)}  batch {batch_idx + 1}/{trainer.num_training_batches}"
            self._print(f"{where}{''.join(numbers)}{self._speed()}")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, *more)
        if self._line_is_due(trainer):
            where = f"{_epoch(trainer)}  " if trainer.state.fn == "fit" else ""
            self._print(f"{where}validation batch {batch_idx + 1}/{_count(trainer.num_val_batches)}")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_start(trainer, pl_module)
        self._due = time.monotonic() + FIRST

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, *more)
        if self._line_is_due(trainer):
            self._print(f"test batch {batch_idx + 1}/{_count(trainer.num_test_batches)}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != "fit":
            return
        names = [n for n in sorted(trainer.callback_metrics) if n.startswith(("train/loss", "valid/"))]
        numbers = "  ".join(f"{n} {number(float(trainer.callback_metrics[n]))}" for n in names)
        if trainer.is_global_zero:
            callbacks: list[Callback] = getattr(trainer, "callbacks", [])
            waits = [f"  waiting {each.wait:.0%}" for each in callbacks if isinstance(each, Loading)]
            self._print(f"{_epoch(trainer)}  step {trainer.global_step}  {numbers}{self._speed()}{''.join(waits)}")
        self._due = time.monotonic() + FIRST

    def _line_is_due(self, trainer: pl.Trainer) -> bool:
        return not self._bar and trainer.is_global_zero and time.monotonic() >= self._due

    def _print(self, line: str) -> None:
        print(f"{line}\n", end="", flush=True)  # one write: the trials of a sweep share a terminal
        self._due = time.monotonic() + NEXT

    def _speed(self) -> str:
        return f"  {self._graphs / max(time.monotonic() - self._start, 1e-9):.0f} graphs/s"


def _epoch(trainer: pl.Trainer) -> str:
    of_all = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{of_all}"


def _count(batches: Any) -> int:
    """Lightning says the number of batches of each loader; there is one."""
    return sum(batches) if isinstance(batches, list) else batches


class Loading(Callback):
    """How much of training is spent on padding and on waiting for batches; logged as ``data/padding``, ``data/wait``.

    Padding is the share of the rows of the dense view (graphs times nodes of the largest) that hold no node. Waiting
    is the share of the time in which this process waits for its loader: a GPU may be busy meanwhile. Both are of the
    epoch so far; validation counts for neither.
    """

    def __init__(self) -> None:
        self._warming, self._paces = WARM_UP, list[float]()
        self._begin()

    def _begin(self) -> None:
        self._nodes = self._rows = self._timed = 0
        self._waited = self._passed = self._seconds = 0.0
        self._mark = time.monotonic()

    @property
    def padding(self) -> float:
        """The share of padding, 0 to 1."""
        return 1 - self._nodes / self._rows if self._rows else 0.0

    @property
    def wait(self) -> float:
        """The share of waiting, 0 to 1."""
        return self._waited / self._passed if self._passed else 0.0

    @property
    def seconds_per_batch(self) -> float | None:
        """From the end of a training batch to that of the next: the mean of an epoch, of these the median.

        Warm-up and validation do not count; None where there was nothing else.
        """
        return median(self._paces) if self._paces else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._warming, self._paces = WARM_UP, []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        passed, self._mark = now - self._mark, now
        self._passed += passed
        if self._warming:
            self._warming -= 1
        else:
            self._timed, self._seconds = self._timed + 1, self._seconds + passed
        loader: Any = trainer.train_dataloader
        self._waited = loader.waited
        self._nodes += batch.num_nodes - batch.padding[1]
        self._rows += batch.num_graphs * batch.max_nodes

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._timed:
            self._paces.append(self._seconds / self._timed)
        pl_module.log("data/padding", self.padding, rank_zero_only=True)
        pl_module.log("data/wait", self.wait, rank_zero_only=True)

"""What happens around training: progress on the terminal, and a clean stop when asked to."""

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar


class Progress(RichProgressBar):
    """A bar with loss, metric and speed on a terminal, and everywhere a line for each validation."""

    def __init__(self) -> None:
        super().__init__(leave=False)
        if not sys.stdout.isatty():
            self.disable()
        self._graphs, self._start = 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._graphs, self._start = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._graphs += (batch.num_graphs - batch.padding[0]) * trainer.world_size

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != "fit":
            return
        names = [n for n in sorted(trainer.callback_metrics) if n.startswith(("train/loss", "valid/"))]
        numbers = "  ".join(f"{n} {float(trainer.callback_metrics[n]):.4f}" for n in names)
        speed = self._graphs / max(time.monotonic() - self._start, 1e-9)
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        if trainer.is_global_zero:
            where = f"epoch {trainer.current_epoch + 1}{epochs}  step {trainer.global_step}"
            callbacks: list[Callback] = getattr(trainer, "callbacks", [])
            waits = [f"  waiting {each.wait:.0%}" for each in callbacks if isinstance(each, Loading)]
            print(f"{where}  {numbers}  {speed:.0f} graphs/s{''.join(waits)}", flush=True)


class Loading(Callback):
    """How much of training is spent on padding and on waiting for batches; logged as ``data/padding``, ``data/wait``.

    Padding is the share of the rows of the dense view (graphs times nodes of the largest) that hold no node. Waiting
    is the share of the time in which this process waits for its loader: a GPU may be busy meanwhile. Both are of the
    epoch so far; validation counts for neither.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._nodes = self._rows = 0
        self._waited = self._passed = 0.0
        self._mark = time.monotonic()

    @property
    def padding(self) -> float:
        """The share of padding, 0 to 1."""
        return 1 - self._nodes / self._rows if self._rows else 0.0

    @property
    def wait(self) -> float:
        """The share of waiting, 0 to 1."""
        return self._waited / self._passed if self._passed else 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self._passed += now - self._mark
        self._mark = now
        loader: Any = trainer.train_dataloader
        self._waited = loader.waited
        self._nodes += batch.num_nodes - batch.padding[1]
        self._rows += batch.num_graphs * batch.max_nodes

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("data/padding", self.padding, rank_zero_only=True)
        pl_module.log("data/wait", self.wait, rank_zero_only=True)


class Interrupted(Exception):
    """The run was asked to stop and has saved all it needs to go on."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class SaveOnInterrupt(Callback):
    """On Ctrl-C or SIGTERM, finish the batch, save ``last.ckpt`` and stop; a second signal stops at once."""

    def __init__(self) -> None:
        self._asked: int | None = None
        self._before: dict[int, Any] = {}

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if self._asked is not None:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self._asked = signum
        print("\nstopping after this batch (once more to stop at once) ...", file=sys.stderr, flush=True)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._asked = None
        self._before = {signum: signal.signal(signum, self._ask) for signum in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        asked = trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False)
        if asked:  # one process was asked: all stop at the same batch
            checkpoint = trainer.checkpoint_callback
            folder = Path(getattr(checkpoint, "dirpath", None) or trainer.default_root_dir)
            trainer.save_checkpoint(folder / "last.ckpt")
            raise Interrupted(self._asked or signal.SIGTERM)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

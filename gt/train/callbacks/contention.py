"""Warns if other programs slow down a run by competing for its CPU cores."""

import resource
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

WINDOW = 20.0  # seconds per measurement
MAX_PREEMPTIONS = 50.0  # preemptions per second and thread: 16 if it runs alone, 90 and more beside another program
MIN_USAGE = 0.75  # fraction of time for which threads run: 1 if alone, 0.65 and less beside another program


class Contention(Callback):
    """Prints a warning, once, if other processes compete for the cores on which this one runs several threads.

    On a CPU several threads share each operation, and all wait for the slowest. One that is preempted by another
    program delays the others, so that a step may take ten times as long; fewer threads avoid that. Neither the number
    of involuntary context switches, which may be short, nor low CPU usage, which may come from single-threaded
    loading, is conclusive on its own; both together are.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        threads = torch.get_num_threads() if pl_module.device.type == "cpu" else 1
        self._threads = threads if trainer.is_global_zero and threads > 1 else 0  # 0: nothing to warn about
        self._reset()

    def _reset(self) -> None:
        self._start, self._preempted, self._cpu_time = time.monotonic(), _preemptions(), time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._threads or (elapsed := time.monotonic() - self._start) < WINDOW:
            return
        seconds = self._threads * elapsed
        if (
            _preemptions() - self._preempted > MAX_PREEMPTIONS * seconds
            and time.process_time() - self._cpu_time < MIN_USAGE * seconds
        ):
            print(
                f"other processes compete for the same cores, and the {self._threads} threads of this one wait for one "
                f"another: with fewer, such as OMP_NUM_THREADS={self._threads // 2} before the command, it may be "
                "several times faster",
                flush=True,
            )
            self._threads = 0
        self._reset()


def _preemptions() -> int:
    """The number of involuntary context switches of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw

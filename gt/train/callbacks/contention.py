"""A line on a run that other programs slow down many times over."""

import resource
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

WINDOW = 20.0  # seconds that are looked at together
OFTEN = 50.0  # times a second that a thread loses its core: 16 where it is alone, 90 and more beside another program
BUSY = 0.75  # share of the time for which threads have their cores: all where they are alone, 0.65 and less beside one


class Contention(Callback):
    """Says once that other processes want the cores on which this one computes by several threads.

    On a CPU several threads share each operation, and all wait for the last. One that has lost its core to another
    program holds up the others, so that a step may take ten times as long; with fewer threads it does not. The system
    counts how often it takes a core from a thread that could go on. That alone says little where it gets it back at
    once, nor does a small share of the cores where loading goes by one thread: both together do.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        threads = torch.get_num_threads() if pl_module.device.type == "cpu" else 1
        self._threads = threads if trainer.is_global_zero and threads > 1 else 0  # 0: there is nothing to say
        self._begin()

    def _begin(self) -> None:
        self._start, self._lost, self._worked = time.monotonic(), _cores_lost(), time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._threads or (passed := time.monotonic() - self._start) < WINDOW:
            return
        seconds = self._threads * passed
        if _cores_lost() - self._lost > OFTEN * seconds and time.process_time() - self._worked < BUSY * seconds:
            print(
                f"other processes want the same cores, and the {self._threads} threads of this one wait for one "
                f"another: with fewer, such as OMP_NUM_THREADS={self._threads // 2} before the command, it may be "
                "several times as fast",
                flush=True,
            )
            self._threads = 0
        self._begin()


def _cores_lost() -> int:
    """How often a thread of this process has lost its core to another one, although it could have gone on."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw

"""Schedules masks over the course of training."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from gt.errors import UserError
from gt.train.length import all_steps


class MaskSchedule(Callback):
    """Advances each `gt.masks.Schedule` of a network; `gt.train.task.Task` adds it automatically.

    Masks change between epochs, or between steps if the training is limited by steps alone.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise UserError if the training has no fixed length."""
        if all_steps(trainer) < 0:
            raise UserError("mask.schedule gives each mask a share of the steps: set trainer.max_epochs or max_steps")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        task: Any = pl_module
        progress = task.progress()
        if progress != task.net.progress:
            task.net.set_progress(progress)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.on_train_epoch_start(trainer, pl_module)

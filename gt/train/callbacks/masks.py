"""Masks that follow the training."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from gt.errors import UserError
from gt.train.length import all_steps


class MaskSchedule(Callback):
    """Has the masks of each `gt.masks.Schedule` of a network take turns; `gt.train.task.Task` adds it by itself.

    Where epochs are counted a mask changes between two of them, else between two steps.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises UserError where the training has no end, of which there is no share."""
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

"""Validates after the last step of a training that is limited by steps."""

import math

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class LastValidation(Callback):
    """Validates after the last of ``trainer.max_steps`` if it falls before the next regular validation.

    Lightning does not, so that the final weights of a schedule would never be validated, and a training shorter than an
    epoch would have no best checkpoint.
    """

    def __init__(self) -> None:
        self._steps = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._steps = trainer.max_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bring_forward(trainer)  # a run that resumes within an epoch skips `on_train_epoch_start`

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bring_forward(trainer)

    def _bring_forward(self, trainer: pl.Trainer) -> None:
        batches, interval = trainer.num_training_batches, trainer.val_check_batch
        if self._steps < 0 or interval is None or math.isinf(batches) or not batches:
            return
        steps_per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        epoch, last = divmod(self._steps - 1, steps_per_epoch)
        last = min((last + 1) * trainer.accumulate_grad_batches, int(batches))
        if trainer.check_val_every_n_epoch is None:  # the validation interval counts batches across epochs
            last += epoch * int(batches)
        elif trainer.current_epoch != epoch:
            return
        elif (epoch + 1) % trainer.check_val_every_n_epoch:  # no validation is due in this epoch: add one at the end
            trainer.check_val_every_n_epoch, interval = 1, last + 1
        if last < interval:
            trainer.val_check_batch = last

"""A validation after the last step, where steps say how long a training is."""

import math

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class LastValidation(Callback):
    """Validates after the last of ``trainer.max_steps`` where it falls before the next validation is due.

    Lightning would not, so that the weights at the end of a schedule were never looked at, and a training shorter than
    an epoch had no best checkpoint.
    """

    def __init__(self) -> None:
        self._steps = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._steps = trainer.max_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bring_forward(trainer)  # of a run that goes on within an epoch no other start is told

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bring_forward(trainer)

    def _bring_forward(self, trainer: pl.Trainer) -> None:
        batches, every = trainer.num_training_batches, trainer.val_check_batch
        if self._steps < 0 or every is None or math.isinf(batches) or not batches:
            return
        of_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        epoch, last = divmod(self._steps - 1, of_epoch)
        last = min((last + 1) * trainer.accumulate_grad_batches, int(batches))
        if trainer.check_val_every_n_epoch is None:  # validations count batches through all epochs
            last += epoch * int(batches)
        elif trainer.current_epoch != epoch:
            return
        elif (epoch + 1) % trainer.check_val_every_n_epoch:  # none is due in this epoch, but for that at its end
            trainer.check_val_every_n_epoch, every = 1, last + 1
        if last < every:
            trainer.val_check_batch = last

"""Running averages of the weights, which are validated, kept as the best, and tested."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging


class WeightAverage(EMAWeightAveraging):
    """Lightning's exponential moving average, for runs that are interrupted within validation or test a checkpoint.

    Lightning's own would save the two sets of weights in each other's place while one is validated, and test those that
    were not averaged: a checkpoint holds both, the average as its ``state_dict``.

    Args:
        decay: share of the average that stays at an update.
        update_every_n_steps: optimiser steps between two updates.
    """

    def __init__(self, decay: float = 0.999, update_every_n_steps: int = 1) -> None:
        super().__init__(decay=decay, update_every_n_steps=update_every_n_steps)
        self._exchanged = False  # whether the network holds the average, and the average the network's weights

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._exchanged = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._exchanged = False

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._average_model = None  # from here on the network is what is loaded into it

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._exchanged:
            average, current = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint.update(current_model_state=current, state_dict=average)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

"""Running averages of the weights, which are validated, kept as the best, and tested."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_swa_avg_fn

from gt.errors import UserError
from gt.ranges import at_least, below_one
from gt.train.length import all_steps


class Average(WeightAveraging):
    """Lightning's average of the weights, for runs that are interrupted within validation or test a checkpoint.

    Lightning's own would save the two sets of weights in each other's place while one is validated, and test those that
    were not averaged: a checkpoint holds both, the average as its ``state_dict``. As long as nothing has been averaged
    the network itself is validated and kept.
    """

    _exchanged = False  # whether the network holds the average, and the average the network's weights

    @property
    def _has_begun(self) -> bool:
        return self._average_model is not None and bool(self._average_model.n_averaged > 0)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        callbacks: list[pl.Callback] = getattr(trainer, "callbacks", [])
        if sum(isinstance(callback, Average) for callback in callbacks) > 1:
            raise UserError("only one average of the weights can be validated: leave ema or swa out of callbacks")
        super().setup(trainer, pl_module, stage)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # before callbacks that look at what is validated, and while `SaveLast` holds interrupts back, as at the end
        if self._has_begun:
            self._swap_models(pl_module)
            self._exchanged = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._exchanged:
            self._swap_models(pl_module)
            self._exchanged = False

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's own would exchange the weights here,"""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """and back again here."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._has_begun:
            super().on_train_end(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._average_model = None  # from here on the network is what is loaded into it

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._exchanged:
            average, current = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint.update(current_model_state=current, state_dict=average)
        elif self._average_model is not None and not self._has_begun:
            checkpoint["state_dict"] = checkpoint["current_model_state"]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class WeightAverage(Average):
    """An exponential moving average of the weights.

    At the n-th update no more than ``(1 + n) / (10 + n)`` of the average stays: else the weights that a short training
    began with would be most of it.

    Args:
        decay: share of the average that stays at an update, in the end.
        update_every_n_steps: optimiser steps between two updates.
    """

    def __init__(self, decay: float = 0.999, update_every_n_steps: int = 1) -> None:
        below_one(decay, "decay")
        at_least(1, update_every_n_steps, "update_every_n_steps")
        self.update_every_n_steps = update_every_n_steps

        def average(averaged: Tensor, current: Tensor, updates: Tensor) -> Tensor:
            kept = ((1 + updates) / (10 + updates)).clamp(max=decay)  # on the device, which nothing waits for
            return kept * averaged + (1 - kept) * current

        super().__init__(avg_fn=average)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx % self.update_every_n_steps == 0


class StochasticWeightAverage(Average):
    """The mean of the weights after each of the last optimiser steps (Izmailov et al. 2018, arXiv 1803.05407).

    Before these the network itself is validated. Statistics of batch norms are averaged too;
    `gt.train.callbacks.NormStatistics` takes them anew, as the paper does.

    Args:
        start: share of the training's steps after which averaging begins.
    """

    def __init__(self, start: float = 0.75) -> None:
        below_one(start, "start")
        # given, because PyTorch's default cannot average the batches that a norm has counted, on a GPU
        super().__init__(avg_fn=get_swa_avg_fn())
        self.start = start
        self._first = 0  # the number of the first step that counts, from 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises UserError where the training has no end, of which there is no share."""
        steps = all_steps(trainer)
        if steps < 0:
            raise UserError("callbacks=swa averages the last share of the steps: set trainer.max_epochs or max_steps")
        self._first = int(self.start * steps)
        if trainer.global_step < self._first and self._average_model is not None:
            self._average_model.n_averaged.zero_()  # of a run that goes on for longer the end comes later

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= self._first

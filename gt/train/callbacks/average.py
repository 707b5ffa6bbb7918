"""Weight averaging: the averaged weights are validated, saved as the best, and tested."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_swa_avg_fn

from gt.errors import UserError
from gt.ranges import at_least, below_one
from gt.train.length import all_steps


class Average(WeightAveraging):
    """Lightning's weight averaging, made safe for runs interrupted during validation and for testing checkpoints.

    Lightning would save the two sets of weights swapped during validation, and test those that are not averaged. Here a
    checkpoint holds both, with the average as its ``state_dict``. Before averaging begins, the network itself is
    validated and saved.
    """

    _swapped = False  # whether the network and the average currently hold each other's weights

    @property
    def _has_started(self) -> bool:
        return self._average_model is not None and bool(self._average_model.n_averaged > 0)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        callbacks: list[pl.Callback] = getattr(trainer, "callbacks", [])
        if sum(isinstance(callback, Average) for callback in callbacks) > 1:
            raise UserError("only one average of the weights can be validated: leave ema or swa out of callbacks")
        if self._device is None:  # the network is only moved to its device later, the average would stay on the CPU
            self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # before callbacks that read the validated weights, and while `SaveLast` defers interrupts, as at the end
        if self._has_started:
            self._swap_models(pl_module)
            self._swapped = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._swapped:
            self._swap_models(pl_module)
            self._swapped = False

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Override Lightning's, which would swap the weights here."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Override Lightning's, which would swap the weights back here."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._has_started:
            super().on_train_end(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._average_model = None  # from here on, weights loaded into the network are used as they are

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:
            average, current = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint.update(current_model_state=current, state_dict=average)
        elif self._average_model is not None and not self._has_started:
            checkpoint["state_dict"] = checkpoint["current_model_state"]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class WeightAverage(Average):
    """An exponential moving average of the weights.

    At the n-th update the decay is at most ``(1 + n) / (10 + n)``, as the initial weights would otherwise dominate the
    average of a short training.

    Args:
        decay: the decay rate, reached after a number of updates.
        update_every_n_steps: optimiser steps between two updates.
    """

    def __init__(self, decay: float = 0.999, update_every_n_steps: int = 1) -> None:
        below_one(decay, "decay")
        at_least(1, update_every_n_steps, "update_every_n_steps")
        self.update_every_n_steps = update_every_n_steps

        def average(averaged: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
            rate = ((1 + updates) / (10 + updates)).clamp(max=decay)  # on the device, without synchronisation
            if averaged[0].is_floating_point():  # three kernels for all tensors
                torch._foreach_mul_(averaged, rate)
                torch._foreach_add_(averaged, torch._foreach_mul(current, 1 - rate))
            else:
                for mean, value in zip(averaged, current, strict=True):
                    mean.copy_(rate * mean + (1 - rate) * value)

        super().__init__(multi_avg_fn=average)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx % self.update_every_n_steps == 0


class StochasticWeightAverage(Average):
    """The mean of the weights over the last optimiser steps (Izmailov et al. 2018, arXiv 1803.05407).

    Before these, the network itself is validated. Batch-norm statistics are averaged too;
    `gt.train.callbacks.NormStatistics` recomputes them, as in the paper.

    Args:
        start: fraction of the training's steps after which averaging begins.
    """

    def __init__(self, start: float = 0.75) -> None:
        below_one(start, "start")
        # explicit, because PyTorch's default cannot average the integer batch counters of norms on a GPU
        super().__init__(avg_fn=get_swa_avg_fn())
        self.start = start
        self._first_step = 0  # index of the first averaged step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise UserError if the training has no fixed length."""
        steps = all_steps(trainer)
        if steps < 0:
            raise UserError(
                "callbacks=swa averages the last steps of the training: set trainer.max_epochs or max_steps"
            )
        self._first_step = int(self.start * steps)
        if trainer.global_step < self._first_step and self._average_model is not None:
            self._average_model.n_averaged.zero_()  # resumed with a longer training, averaging begins later

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= self._first_step

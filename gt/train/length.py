"""The length of a training in optimiser steps, known before its loaders are created."""

from typing import Any

from pytorch_lightning.callbacks import Timer
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

# reasons for which early stopping ends a training regardless of its patience
LIMITS = {
    EarlyStoppingReason.STOPPING_THRESHOLD: "stopping_threshold",
    EarlyStoppingReason.DIVERGENCE_THRESHOLD: "divergence_threshold",
    EarlyStoppingReason.NON_FINITE_METRIC: "check_finite",
}


def all_steps(trainer: Any) -> int:
    """Optimiser steps of the whole training."""
    if trainer.datamodule is None:
        return int(trainer.estimated_stepping_batches)
    if not counts_epochs(trainer):
        return trainer.max_steps
    steps = epoch_steps(trainer) * trainer.max_epochs
    return steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)


def counts_epochs(trainer: Any) -> bool:
    """Whether the training is limited by epochs, and not by steps alone."""
    return trainer.datamodule is not None and trainer.max_epochs is not None and trainer.max_epochs >= 0


def epoch_steps(trainer: Any) -> int:
    """Optimiser steps of an epoch."""
    # Lightning's own estimate would create the training loader now, before the state of a resumed run is loaded
    batches = epoch_batches(trainer, len(trainer.datamodule.data.loader("train")))
    return -(-batches // trainer.accumulate_grad_batches)


def epoch_batches(trainer: Any, batches: int) -> int:
    """Batches per epoch and rank, given the number available."""
    limit = trainer.limit_train_batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def stopping_option(trainer: Any) -> str:
    """The option that ended a finished training."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return "trainer.max_steps"
    all_epochs = counts_epochs(trainer) and trainer.current_epoch >= trainer.max_epochs
    if all_epochs and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return "trainer.max_epochs"  # even if patience or time ran out at the same moment
    for callback in trainer.early_stopping_callbacks:
        if callback.wait_count >= callback.patience:
            return "callbacks.early_stopping.patience"
        if callback.stopping_reason in LIMITS:
            return f"callbacks.early_stopping.{LIMITS[callback.stopping_reason]}"
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]
    if any((timer.time_remaining() or 1) <= 0 for timer in timers):
        return "trainer.max_time"
    return "trainer.max_epochs"

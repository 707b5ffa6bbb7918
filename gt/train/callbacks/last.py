"""The state of a training, saved so that a run that stops anywhere goes on exactly."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.loops.progress import _BatchProgress, _ProcessedTracker

from gt.ranges import at_least
from gt.train.checkpoint_files import LAST, clean, older
from gt.train.interrupts import Interrupted, interrupts
from gt.train.sharding import Sharded


class SaveLast(Checkpoint):
    """Saves ``last.ckpt`` whatever the score: after each epoch and validation, by time, and where a signal stops it.

    Those before are kept as ``previous.ckpt``, ``previous-2.ckpt``, ... A signal waits for the end of a training batch,
    but never for that of a validation: one that is cut short is repeated when the run goes on. After training there is
    nothing more to save. Several processes save and stop at the same batch.

    It comes last among the callbacks (Lightning calls those of this class after others), so that what is saved holds
    what they know.

    Args:
        dirpath: the folder of checkpoints.
        minutes: within an epoch, what a crash loses at most.
        keep: how many of the last checkpoints are kept.
    """

    def __init__(self, dirpath: str, minutes: float = 10.0, keep: int = 2) -> None:
        if minutes < 0:
            raise ValueError(f"minutes must be 0 or more, not {minutes}")
        at_least(1, keep, "keep")
        self.folder, self.minutes = Path(dirpath), minutes
        self.older = older(self.folder, keep)
        self._saved = 0.0  # when
        self._validating = False
        self._repeats_validation = False  # the run goes on in the middle of one
        # the run goes on after a whole epoch; where steps are limited, Lightning would end that epoch once more
        self._begins_epoch = False
        self._hidden_steps: int | None = None  # the limit of steps, kept from Lightning while it restores its loops

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            clean(self.folder)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stopped = [c for c in trainer.early_stopping_callbacks if c.wait_count >= c.patience]
        if stopped and not self._repeats_validation:
            trainer.should_stop = True  # Lightning forgets that it was, and would train for one more epoch
        if self._repeats_validation and trainer.max_steps >= 0:
            trainer.fit_loop.epoch_loop.max_steps += 1  # after the last step Lightning would not validate any more
        if self._begins_epoch:
            self._hidden_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._hidden_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._hidden_steps = self._hidden_steps, None
        interrupts.hold()
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop: Any = trainer.fit_loop.epoch_loop
        if loop._num_ready_batches_reached() or loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            return  # what comes next saves the state
        due = loop._is_training_done or time.monotonic() - self._saved >= 60 * self.minutes
        if trainer.strategy.reduce_boolean_decision(due or interrupts.pending is not None, all=False):
            self._save(trainer)
            self._stop_if_asked(trainer, trainer._logger_connector.update_train_step_metrics)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _in_training(trainer):
            self._validating = True
            self._stop_if_asked(trainer)
            if not isinstance(trainer.strategy, Sharded):  # whose state takes all processes to save, at one place
                interrupts.release()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _in_training(trainer):
            interrupts.hold()
            self._validating = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not _in_training(trainer):
            return
        loop: Any = trainer.fit_loop.epoch_loop
        if self._repeats_validation:
            self._repeats_validation = False
            if trainer.max_steps >= 0:
                loop.max_steps -= 1
        if not loop._num_ready_batches_reached():  # else the end of the epoch comes next
            self._save(trainer)
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loop: Any = trainer.fit_loop.epoch_loop
        if loop._num_ready_batches_reached():
            self._save(trainer)
        # else training ends within the epoch, at a state that is saved already: one from here would count the epoch as
        # done, and a run that goes on for longer would skip the rest of it
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        interrupts.release()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Interrupted) and self._validating:
            # as `Trainer.save_checkpoint`, but without waiting for other processes: they may be anywhere in theirs
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            trainer.strategy.save_checkpoint(checkpoint, self.folder / LAST, storage_options=self.older)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.folder / LAST, storage_options=self.older)
        self._saved = time.monotonic()

    def _stop_if_asked(self, trainer: pl.Trainer, log: Callable[[], None] | None = None) -> None:
        """Called by all processes at the same place: one that was asked stops all.

        Args:
            log: tells the loggers what a step that is done, and not repeated, has measured, where Lightning has yet to.
        """
        if trainer.strategy.reduce_boolean_decision(interrupts.pending is not None, all=False):
            if log is not None:
                log()
            raise Interrupted(interrupts.pending or signal.SIGTERM)

    def state_dict(self) -> dict[str, Any]:
        return {"validating": self._validating}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._repeats_validation = state_dict["validating"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._validating:  # Lightning would go on in the middle, without the sums of what it had measured
            first = _BatchProgress.from_defaults(_ProcessedTracker, ready=1, started=1)
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = first.state_dict()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Where a run's folder was moved or copied, its checkpoints are those in the new place."""
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        self._begins_epoch = epochs["processed"] == epochs["ready"] and checkpoint["global_step"] < trainer.max_steps
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state:
                _move(state, str(callback.dirpath))


def _in_training(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _move(state: dict[str, Any], folder: str) -> None:
    """Turn the paths in the state of a `ModelCheckpoint` into those of the files' namesakes in another folder."""

    def moved(path: str) -> str:
        return str(Path(folder) / Path(path).relative_to(before)) if Path(path).is_relative_to(before) else path

    before = state["dirpath"]
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = moved(state[name]) if state[name] else state[name]
    state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}
    state["dirpath"] = folder

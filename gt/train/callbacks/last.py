"""Saves the state of training such that a run can be interrupted anywhere and resume exactly."""

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
    """Saves ``last.ckpt`` regardless of the score: after each epoch and validation, periodically, and on a signal.

    Earlier ones are kept as ``previous.ckpt``, ``previous-2.ckpt``, ... A signal takes effect at the end of a training
    batch, or immediately during a validation, which is then repeated on resuming. After training there is nothing more
    to save. All ranks save and stop at the same batch.

    As a `Checkpoint`, it is called by Lightning after all other callbacks, so that it saves their latest state.

    Args:
        dirpath: the folder of checkpoints.
        minutes: interval between checkpoints within an epoch, which is the most that a crash can lose.
        keep: number of checkpoints to keep.
    """

    def __init__(self, dirpath: str, minutes: float = 10.0, keep: int = 2) -> None:
        if minutes < 0:
            raise ValueError(f"minutes must be 0 or more, not {minutes}")
        at_least(1, keep, "keep")
        self.folder, self.minutes = Path(dirpath), minutes
        self.older = older(self.folder, keep)
        self._last_save = 0.0  # time of the last checkpoint
        self._validating = False
        self._repeats_validation = False  # whether the run resumes within a validation
        # whether the run resumes after a whole epoch; with a limit of steps, Lightning would end that epoch once more
        self._starts_epoch = False
        self._hidden_steps: int | None = None  # limit of steps, hidden from Lightning while it restores its loops

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            clean(self.folder)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stopped = [c for c in trainer.early_stopping_callbacks if c.wait_count >= c.patience]
        if stopped and not self._repeats_validation:
            trainer.should_stop = True  # Lightning does not save this, and would train for one more epoch
        if self._repeats_validation and trainer.max_steps >= 0:
            trainer.fit_loop.epoch_loop.max_steps += 1  # otherwise Lightning would not validate after the last step
        if self._starts_epoch:
            self._hidden_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._hidden_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._hidden_steps = self._hidden_steps, None
        interrupts.hold()
        self._last_save = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop: Any = trainer.fit_loop.epoch_loop
        if loop._num_ready_batches_reached() or loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            return  # the validation or the end of the epoch, which follow, save the state
        due = loop._is_training_done or time.monotonic() - self._last_save >= 60 * self.minutes
        if trainer.strategy.reduce_boolean_decision(due or interrupts.pending is not None, all=False):
            self._save(trainer)
            self._stop_if_signalled(trainer, trainer._logger_connector.update_train_step_metrics)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _in_training(trainer):
            self._validating = True
            self._stop_if_signalled(trainer)
            if not isinstance(trainer.strategy, Sharded):  # saving a sharded state is collective
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
        if not loop._num_ready_batches_reached():  # otherwise the end of the epoch follows
            self._save(trainer)
            self._stop_if_signalled(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loop: Any = trainer.fit_loop.epoch_loop
        if loop._num_ready_batches_reached():
            self._save(trainer)
        # otherwise training ends within the epoch, in a state that has been saved: a checkpoint from here would mark
        # the epoch as completed, and a run resumed with a longer training would skip the rest of it
        self._stop_if_signalled(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        interrupts.release()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Interrupted) and self._validating:
            # like `Trainer.save_checkpoint`, but without a barrier: other ranks may be anywhere in their validation
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            trainer.strategy.save_checkpoint(checkpoint, self.folder / LAST, storage_options=self.older)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.folder / LAST, storage_options=self.older)
        self._last_save = time.monotonic()

    def _stop_if_signalled(self, trainer: pl.Trainer, log: Callable[[], None] | None = None) -> None:
        """Stop all ranks if one received a signal; a collective call.

        Args:
            log: passes the metrics of the completed step to the loggers, if Lightning has not done so yet.
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
        if self._validating:  # Lightning would resume within the validation, without the metrics' state
            first = _BatchProgress.from_defaults(_ProcessedTracker, ready=1, started=1)
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = first.state_dict()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """If the run's folder was moved or copied, refer to the checkpoints in the new location."""
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        self._starts_epoch = epochs["processed"] == epochs["ready"] and checkpoint["global_step"] < trainer.max_steps
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state:
                _relocate(state, str(callback.dirpath))


def _in_training(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _relocate(state: dict[str, Any], folder: str) -> None:
    """Rewrite the paths in the state of a `ModelCheckpoint` for files that are now in another folder."""

    def relocated(path: str) -> str:
        return str(Path(folder) / Path(path).relative_to(original)) if Path(path).is_relative_to(original) else path

    original = state["dirpath"]
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = relocated(state[name]) if state[name] else state[name]
    state["best_k_models"] = {relocated(path): score for path, score in state["best_k_models"].items()}
    state["dirpath"] = folder

"""Reports the validations of a sweep's trial, and ends its run if the trial is pruned."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytorch_lightning as pl

from gt.train.job import Pruned
from gt.train.study import file_in, load, report, trial_of

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


class Pruning(pl.Callback):
    """Reports each validation to the sweep's trial to which a run belongs, and ends the run if that is pruned.

    Does nothing for a run that belongs to no sweep (see `gt.train.study`), or to one with several objectives.

    Args:
        pruner: one of Optuna's; it compares trials after the same number of validations.
        monitor: metric to report, at its best so far.
        mode: whether it is to be minimised or maximised.
        dirpath: the run's folder of checkpoints.
    """

    def __init__(self, pruner: "BasePruner", monitor: str, mode: Literal["min", "max"], dirpath: str) -> None:
        self.pruner, self.monitor, self.sign = pruner, monitor, 1.0 if mode == "max" else -1.0
        self.run = Path(dirpath).resolve().parent
        self.validations, self.best = 0, -math.inf  # times the sign

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self.validations += 1
        value = self.sign * float(trainer.callback_metrics[self.monitor])
        if not math.isnan(value):  # undefined on these samples
            self.best = max(self.best, value)
        if trainer.strategy.broadcast(trainer.is_global_zero and self._is_pruned()):
            raise Pruned(f"{self.monitor} {self.sign * self.best:.4g} after {self.validations} validations")

    def _is_pruned(self) -> bool:
        trial, path = trial_of(self.run), file_in(self.run.parent)
        if trial is None or path is None or math.isinf(self.best):
            return False
        study = load(path, pruner=self.pruner)
        return len(study.directions) == 1 and report(study, *trial, self.validations, self.sign * self.best)

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations, self.best = state_dict["validations"], state_dict["best"]

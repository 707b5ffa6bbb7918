"""What Hydra calls for ``sweep=NAME``: trials that Optuna chooses in place of a product of values."""

import sys
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Trials(Sweeper):
    """Runs the trials that the section ``sweep`` asks for, see `gt.cli.trials`.

    Args:
        max_batch_size, params: of Hydra's own sweeper, in whose place this one is; they are nothing to it.
    """

    def __init__(self, max_batch_size: int | None = None, params: Any = None) -> None:
        self.composed = DictConfig({})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.composed = config

    def sweep(self, arguments: list[str]) -> None:
        from gt.cli.trials.run import sweep  # late: Hydra imports this file whatever it is asked

        sweep(self.composed, sys.argv[1:])

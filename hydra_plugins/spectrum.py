"""Hydra sweeper of ``experiment=spectrum``: a map between GNN and Transformer in place of a grid of values."""

import sys
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Spectrum(Sweeper):
    """Runs the map that the section ``spectrum`` defines, see `gt.cli.spectrum`.

    Args:
        max_batch_size, params: arguments of Hydra's default sweeper, which this one replaces; ignored.
    """

    def __init__(self, max_batch_size: int | None = None, params: Any = None) -> None:
        self.composed = DictConfig({})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.composed = config

    def sweep(self, arguments: list[str]) -> None:
        from gt.cli.spectrum.run import sweep  # late, as Hydra imports all plugins on every start

        sweep(self.composed, sys.argv[1:])

"""Recomputes batch-norm statistics for the weights that are validated."""

from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.nn.modules.batchnorm import _BatchNorm

from gt.ranges import at_least


class NormStatistics(Callback):
    """Recomputes batch-norm statistics before each validation, as means over training batches (GRASS).

    A running average lags behind the weights, and random masks shift the distribution that is averaged (Wu & Johnson
    2021, arXiv 2105.07576). Dropout is off meanwhile; a random mask is sampled once for each batch. Frozen norms keep
    their statistics.

    Args:
        batches: number of batches of each rank.
    """

    def __init__(self, batches: int = 100) -> None:
        at_least(1, batches, "batches")
        self.batches = batches

    @torch.no_grad()
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        strategy: Any = trainer.strategy
        data: Any = trainer.datamodule.data  # type: ignore[attr-defined]
        net: Any = pl_module.net
        norms = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
        norms = [norm for norm in norms if all(parameter.requires_grad for parameter in norm.parameters())]
        if trainer.state.fn != "fit" or not norms:
            return
        # always the batches of the first epoch, so that a resumed run uses the same ones
        batches, dataset = data.batches("train", rank=trainer.global_rank, world=data.world), data.dataset("train")
        batches.readings = data.readings
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
        parts = [net, *norms]
        depth, net.stochastic_depth = getattr(net, "stochastic_depth", 0.0), 0.0
        with torch.random.fork_rng(devices=[pl_module.device] if pl_module.device.type == "cuda" else []):
            torch.manual_seed(trainer.global_step)
            for part in parts:
                part.training = True  # not train(): dropout stays off
            with trainer.precision_plugin.forward_context():
                for request in islice(batches, self.batches):
                    pl_module(strategy.batch_to_device(dataset[request]))
            for part in parts:
                part.training = False
        net.stochastic_depth = depth
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

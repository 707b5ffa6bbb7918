"""Norms whose parameters are not trained."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.nn.modules.batchnorm import _BatchNorm


class FrozenNorms(Callback):
    """Has norms that are frozen use the statistics that they have; `gt.train.task.Task` adds it by itself."""

    def on_train_batch_start(  # not of an epoch: a run that goes on within one never begins it
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        for module in pl_module.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, _BatchNorm) and own and not any(parameter.requires_grad for parameter in own):
                module.eval()

"""Batch norms whose parameters are frozen."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.nn.modules.batchnorm import _BatchNorm


class FrozenNorms(Callback):
    """Keeps frozen batch norms in eval mode, with saved statistics; `gt.train.task.Task` adds it automatically."""

    def on_train_batch_start(  # not `on_train_epoch_start`, which a run that resumes within an epoch skips
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        for module in pl_module.modules():
            params = list(module.parameters(recurse=False))
            if isinstance(module, _BatchNorm) and params and not any(parameter.requires_grad for parameter in params):
                module.eval()

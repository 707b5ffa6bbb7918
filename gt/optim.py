"""Optimisers with their schedule."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from gt.checks import at_least, below_one, positive


@dataclass(frozen=True)
class AdamW:
    """AdamW (Loshchilov & Hutter 2019) with a linear warm-up and a cosine decay, stepped every optimiser step.

    Attributes:
        lr: the highest learning rate.
        weight_decay: on matrices and tables; vectors (biases, norms, blend weights) are not decayed.
        betas: decay of the running moments.
        warmup: optimiser steps of the warm-up; below 1 a share of all steps.
        final: the last learning rate, as a share of ``lr``.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.05
    final: float = 0.0

    def __post_init__(self) -> None:
        positive(self.lr, "lr")
        at_least(0, self.weight_decay, "weight_decay")
        for beta in self.betas:
            below_one(beta, "each of betas")
        at_least(0, self.warmup, "warmup")
        if not 0 <= self.final <= 1:
            raise ValueError(f"final must lie between 0 and 1, not {self.final}")

    def configure(self, net: nn.Module, steps: int) -> dict[str, Any]:
        """What ``LightningModule.configure_optimizers`` returns, for a training of ``steps`` optimiser steps."""
        trained = [p for p in net.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=self.lr, betas=tuple(self.betas), fused=True)  # type: ignore[arg-type]
        warm = max(1, min(int(self.warmup if self.warmup >= 1 else self.warmup * steps), steps - 1))
        schedule = SequentialLR(
            optimiser,
            [
                LinearLR(optimiser, start_factor=1 / (warm + 1), total_iters=warm),
                CosineAnnealingLR(optimiser, max(1, steps - warm), eta_min=self.final * self.lr),
            ],
            milestones=[warm],
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

"""Optimisers with their schedule."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from gt.errors import UserError, nearest
from gt.ranges import at_least, below_one, positive


class Schedule(LambdaLR):
    """A learning rate that is a function of the step alone.

    A checkpoint says which step that is and nothing else: what the optimiser is told, its rates too, is what it was
    made with. A run that goes on under other settings does what one would that had them from the start.

    Args:
        optimiser: fresh, as configured.
        share: of the optimiser's learning rate, for each step from 0.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, share: Callable[[int], float]) -> None:
        super().__init__(optimiser, share)
        self.settings = [{k: v for k, v in group.items() if k != "params"} for group in optimiser.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch}  # PyTorch's word for the step

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a step; the optimiser has been given its state before."""
        self.last_epoch = state_dict["last_epoch"]
        for group, settings in zip(self.optimizer.param_groups, self.settings, strict=True):
            group.update(settings | {"lr": settings["initial_lr"] * self.lr_lambdas[0](self.last_epoch)})
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def warmup_cosine(steps: int, warm: int, final: float) -> Callable[[int], float]:
    """1 / (warm + 1) rising in a line to 1 at step ``warm``, then half a cosine down to ``final``, where it stays."""

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        done = min(1.0, (step - warm) / max(1, steps - warm))
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return share


@dataclass(frozen=True)
class AdamW:
    """AdamW (Loshchilov & Hutter 2019) with a linear warm-up and a cosine decay, stepped every optimiser step.

    Attributes:
        lr: the highest learning rate.
        weight_decay: of the parameters that ``decayed`` names.
        betas: decay of the running moments.
        warmup: optimiser steps of the warm-up; below 1 a share of all steps; 0 for none.
        final: the last learning rate, as a share of ``lr``: 1 keeps it constant.
        decayed: patterns of parameters' names, such as ``nodes.*`` (the embedding) or ``blocks.0.*``; None means
            matrices and tables: vectors (biases, norms, blend weights) are not decayed.
    """

    kind: ClassVar[type[torch.optim.Optimizer]] = torch.optim.AdamW

    lr: float = 1e-3
    weight_decay: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.05
    final: float = 0.0
    decayed: Sequence[str] | None = None

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
        trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
        decayed = self._decayed(trained)
        groups = [
            {"params": [p for name, p in trained.items() if name in decayed], "weight_decay": self.weight_decay},
            {"params": [p for name, p in trained.items() if name not in decayed], "weight_decay": 0.0},
        ]
        kind: Any = self.kind
        optimiser = kind(groups, lr=self.lr, betas=tuple(self.betas), fused=True)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": self._schedule(optimiser, steps), "interval": "step"},
        }

    def _decayed(self, trained: Mapping[str, nn.Parameter]) -> set[str]:
        """The names of the parameters that are decayed.

        Raises:
            UserError: a pattern names none.
        """
        if self.decayed is None:
            return {name for name, parameter in trained.items() if parameter.dim() >= 2}
        named: set[str] = set()
        for pattern in self.decayed:
            alike = {name for name in trained if fnmatchcase(name, pattern)}
            if not alike:
                parts = {f"{name.partition('.')[0]}.*" for name in trained}
                raise UserError(f"optim.decayed: no parameter is called '{pattern}': {nearest(pattern, parts)}")
            named |= alike
        return named

    def _schedule(self, optimiser: torch.optim.Optimizer, steps: int) -> Schedule:
        """The learning rate over a training of so many steps."""
        warm = int(self.warmup if self.warmup >= 1 else self.warmup * steps)
        warm = max(0, min(max(warm, 1 if self.warmup else 0), steps - 1))
        return Schedule(optimiser, warmup_cosine(steps, warm, self.final))


@dataclass(frozen=True)
class Adam(AdamW):
    """Adam (Kingma & Ba 2015) with the same schedule; weight decay is a part of the gradient, as an L2 penalty is."""

    kind = torch.optim.Adam

"""Optimisers and learning rate schedules: any of ``torch.optim``, with any of ``torch.optim.lr_scheduler``."""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR, LRScheduler, ReduceLROnPlateau

from gt.errors import UserError, nearest
from gt.losses import Criterion
from gt.ranges import at_least, positive, up_to_one

NEVER = 1 << 62  # epochs, or steps
LENGTH_ARGUMENTS = ("total_steps", "T_max", "total_iters")  # names that schedulers give to the total number of steps
LOSS = Criterion("loss", "min")
EMBEDDING = ("nodes.", "edges.", "encodings.", "embedding_norm.", "virtual")  # prefixes of the embedding's parameters


def stable_then_decay(optimizer: Optimizer, total_steps: int, decay: float = 0.2, final: float = 0.0) -> LambdaLR:
    """A constant rate with a linear decay at the end: the "WSD" schedule (Hu et al. 2024), without its warm-up.

    Args:
        total_steps: optimiser steps of the whole schedule.
        decay: fraction of the steps over which the rate decays.
        final: the final rate, as a fraction of the initial one.

    Raises:
        ValueError: ``decay`` is not between 0 and 1.
    """
    up_to_one(decay, "decay")
    start = (1 - decay) * total_steps

    def factor(step: int) -> float:
        return 1 - (1 - final) * max(0.0, min(1.0, (step - start) / max(1.0, total_steps - start)))

    return LambdaLR(optimizer, factor)


class WarmUp(LRScheduler):
    """A linear warm-up followed by another schedule, computed from the step alone.

    The other schedule drives a dummy optimiser. Checkpoints store only the step: the optimiser's hyperparameters,
    including its rates, come from the configuration. A run that resumes with other settings thus behaves like one that
    had them from the start.

    Args:
        optimizer: newly created; the largest rate of its groups is the learning rate, other rates scale with it.
        schedule: creates the other schedule, which may change the learning rate only, for an optimiser.
        warm: steps of the warm-up.
        steps: of the whole training, after which the rate stays constant; `NEVER` if training is open-ended.
    """

    def __init__(
        self, optimizer: Optimizer, schedule: Callable[[Optimizer], LRScheduler], warm: int, steps: int
    ) -> None:
        self.settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        self.lr, self.warm, self.steps = max(group["lr"] for group in optimizer.param_groups), warm, steps
        self.group_scales = [group["lr"] / self.lr for group in optimizer.param_groups]
        dummy = SGD([nn.Parameter(torch.zeros(()))], self.lr)
        self.schedule = schedule(dummy)
        dummy.step()  # PyTorch expects this before the first step of a scheduler
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rate of each parameter group at the current step."""
        if self.last_epoch < self.warm:
            return self._group_rates(self.lr * ((self.last_epoch + 1) / (self.warm + 1)))
        while self.schedule.last_epoch < min(self.last_epoch, self.steps) - self.warm:
            self.schedule.step()
        return self._group_rates(self.schedule.get_last_lr()[0])

    def _group_rates(self, rate: float | torch.Tensor) -> list[float | torch.Tensor]:
        return [rate * scale for scale in self.group_scales]

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch}  # PyTorch's name for the step

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a step; the state of the optimiser must be loaded before."""
        self.last_epoch = state_dict["last_epoch"]
        self._last_lr = self.get_lr()
        for group, settings, rate in zip(self.optimizer.param_groups, self.settings, self._last_lr, strict=True):
            group.update(settings | {"initial_lr": settings["lr"], "lr": rate})


class Joint(Optimizer):
    """Combines several optimisers, each of which updates its own parameters."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share_state()

    def _share_state(self) -> None:
        """Have the parts use the same group and state objects that this optimiser exposes, saves and loads."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups, part.state = [next(groups) for _ in part.param_groups], self.state

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self._share_state()

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss


@dataclass(frozen=True)
class Optimisation:
    """An optimiser with a learning rate schedule and a linear warm-up.

    Attributes:
        lr: the peak learning rate.
        weight_decay: of the parameters selected by ``decayed``.
        decayed: patterns of parameter names, such as ``nodes.*`` (the embedding) or ``blocks.0.*``; None selects
            matrices and tables, but not vectors (biases, norms, blend weights).
        layer_decay: for fine-tuning: the head learns at ``lr``, each block at this factor times the rate of the block
            after it, and the embedding at the lowest rate; 1 disables it.
        warmup: optimiser steps of the warm-up; below 1 a fraction of all steps; 0 for none.
        final: the final learning rate as a fraction of ``lr``, for schedules that have one.
        optimizer: creates the optimiser from parameter groups and ``lr``. ``torch.optim.Muon`` only takes matrices
            (including embedding tables and those of the head); AdamW then trains all other parameters at the same rate.
        schedule: creates the scheduler of an optimiser. Unless set, those of its parameters that are called
            ``total_steps``, ``T_max`` or ``total_iters`` are the steps after the warm-up, ``max_lr`` is ``lr``,
            ``eta_min`` is ``final`` times ``lr``, and ``mode`` is that of the criterion. It is stepped at every
            optimiser step and may only change the learning rate; ``ReduceLROnPlateau`` is stepped by the criterion
            after each validated epoch, without a warm-up.
        skip: number of steps with a non-finite loss or gradient to skip; the next one ends the run. On a GPU this
            synchronises every step.
        loss_limit: a larger loss is treated as non-finite; None for no limit.
        base_batch: global batch size that ``lr`` refers to, see `scaled`; None leaves ``lr`` unscaled.
        scaling: how the rate scales with the batch size: "linear" (Goyal et al. 2017, for SGD), or "sqrt", with its
            square root (Malladi et al. 2022, for Adam).
    """

    lr: float = 1e-3
    weight_decay: float = 1e-5
    decayed: Sequence[str] | None = None
    layer_decay: float = 1.0
    warmup: float = 0.05
    final: float = 0.0
    optimizer: Callable[..., Optimizer] = field(default=partial(torch.optim.AdamW, fused=True))
    schedule: Callable[..., Any] = field(default=CosineAnnealingLR)
    skip: int = 0
    loss_limit: float | None = None
    base_batch: int | None = None
    scaling: Literal["linear", "sqrt"] = "linear"

    def __post_init__(self) -> None:
        if self.base_batch is not None:
            at_least(1, self.base_batch, "base_batch")
        positive(self.lr, "lr")
        at_least(0, self.weight_decay, "weight_decay")
        at_least(0, self.warmup, "warmup")
        at_least(0, self.skip, "skip")
        if self.loss_limit is not None:
            positive(self.loss_limit, "loss_limit")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, not {self.layer_decay}")
        up_to_one(self.final, "final")
        for name in ("lr", "weight_decay"):
            if name in getattr(self.optimizer, "keywords", {}):
                raise ValueError(f"optimizer.{name} has no effect: set optim.{name}")
        if self.warmup and _function(self.schedule) is ReduceLROnPlateau:
            raise ValueError("warmup must be 0 with ReduceLROnPlateau, which does not support it")
        # report invalid arguments early
        self._schedule(self.optimizer([nn.Parameter(torch.zeros(1, 1))], lr=self.lr), 2, LOSS)

    def scaled(self, trainer: Any) -> "Optimisation":
        """A copy whose rate, and thus its schedule, is scaled by a trainer's global batch size over ``base_batch``.

        Raises:
            UserError: the batch size varies from step to step.
        """
        if self.base_batch is None:
            return self
        data = trainer.datamodule and trainer.datamodule.data
        if not hasattr(data, "batch_size") or getattr(data, "batch_nodes", None):
            raise UserError("optim.base_batch: these batches have no fixed number of samples: set optim.lr directly")
        samples = data.batch_size * data.world * trainer.accumulate_grad_batches
        factor = samples / self.base_batch
        return replace(self, lr=self.lr * (factor if self.scaling == "linear" else math.sqrt(factor)), base_batch=None)

    def configure(self, module: nn.Module, steps: int, criterion: Criterion = LOSS) -> dict[str, Any]:
        """The result of ``LightningModule.configure_optimizers``, for a training of ``steps`` optimiser steps.

        Args:
            module: a network, or a task, whose network's parameters are matched by their names in the network.
            steps: -1 for open-ended training, which rules out schedules and warm-ups relative to its length.

        Raises:
            UserError: a pattern of ``decayed`` matches no parameter, or the schedule needs the length of an open-ended
                training.
        """
        trained = {name.removeprefix("net."): p for name, p in module.named_parameters() if p.requires_grad}
        decayed = self._decayed(trained)

        rates = self._rates(trained)

        def groups(names: Sequence[str]) -> list[dict[str, Any]]:
            return [
                {
                    "params": [trained[n] for n in names if rates[n] == rate and (n in decayed) == decays],
                    "weight_decay": self.weight_decay if decays else 0.0,
                    "lr": rate,
                }
                for rate in sorted({self.lr, *rates.values()}, reverse=True)
                for decays in (True, False)
            ]

        if _function(self.optimizer) is torch.optim.Muon:
            matrices = [name for name, parameter in trained.items() if parameter.dim() == 2]
            rest = [name for name in trained if name not in matrices]
            optimizer: Optimizer = Joint(
                self.optimizer(groups(matrices), lr=self.lr), torch.optim.AdamW(groups(rest), lr=self.lr, fused=True)
            )
        else:
            optimizer = self.optimizer(groups(list(trained)), lr=self.lr)
        return {"optimizer": optimizer, "lr_scheduler": self._schedule(optimizer, steps, criterion)}

    def _rates(self, trained: Mapping[str, nn.Parameter]) -> dict[str, float]:
        """The peak learning rate of each parameter, by name."""
        blocks = {name: int(match[1]) for name in trained if (match := re.match(r"blocks\.(\d+)\.", name))}
        depth = max(blocks.values(), default=-1) + 1
        distance = {name: depth + 1 if name.startswith(EMBEDDING) else 0 for name in trained}  # from the head
        distance |= {name: depth - block for name, block in blocks.items()}
        return {name: self.lr * self.layer_decay**steps for name, steps in distance.items()}

    def _decayed(self, trained: Mapping[str, nn.Parameter]) -> set[str]:
        """The names of the parameters subject to weight decay.

        Raises:
            UserError: a pattern matches none.
        """
        if self.decayed is None:
            return {name for name, parameter in trained.items() if parameter.dim() >= 2}
        selected: set[str] = set()
        for pattern in self.decayed:
            matches = {name for name in trained if fnmatchcase(name, pattern)}
            if not matches:
                parts = {f"{name.partition('.')[0]}.*" for name in trained}
                raise UserError(f"optim.decayed: no parameter is called '{pattern}': {nearest(pattern, parts)}")
            selected |= matches
        return selected

    def _schedule(self, optimizer: Optimizer, steps: int, criterion: Criterion) -> dict[str, Any]:
        """Lightning's scheduler configuration for a training of ``steps`` optimiser steps.

        Raises:
            UserError: the schedule needs the length of an open-ended training.
        """
        fixed = getattr(self.schedule, "keywords", {})
        accepted = inspect.signature(_function(self.schedule)).parameters
        total = steps if steps >= 0 else NEVER
        if steps < 0:
            relative = [f"optim.warmup={self.warmup}"] * (0 < self.warmup < 1)
            if _function(self.schedule) is not ConstantLR and any(
                n in accepted and n not in fixed for n in LENGTH_ARGUMENTS
            ):
                relative.append(f"optim.schedule ({_function(self.schedule).__name__})")
            if relative:
                raise UserError(
                    f"{' and '.join(relative)}: this training has no fixed length: set trainer.max_epochs or "
                    "trainer.max_steps, or choose optim/schedule=constant and optim.warmup in steps"
                )
        warm = int(self.warmup if self.warmup >= 1 else self.warmup * total)
        warm = max(0, min(max(warm, 1 if self.warmup else 0), total - 1))
        arguments = {
            **dict.fromkeys(LENGTH_ARGUMENTS, total - warm),
            "max_lr": self.lr,
            "eta_min": self.lr * self.final,
            "final": self.final,
            "mode": criterion.mode,
        }
        schedule = partial(self.schedule, **{k: v for k, v in arguments.items() if k in accepted and k not in fixed})
        if _function(self.schedule) is ReduceLROnPlateau:
            # Lightning would step it per epoch, not per validation: `gt.train.task.Task._log_metrics` does that instead
            monitor = f"valid/{criterion.name}"
            return {"scheduler": schedule(optimizer), "interval": "epoch", "frequency": NEVER, "monitor": monitor}
        return {"scheduler": WarmUp(optimizer, schedule, warm, total), "interval": "step"}


def _function(make: Callable[..., Any]) -> Callable[..., Any]:
    """The function that a partial wraps."""
    return make.func if isinstance(make, partial) else make

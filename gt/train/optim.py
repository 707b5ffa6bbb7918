"""Optimisers with their schedule: any of ``torch.optim``, under any of ``torch.optim.lr_scheduler``."""

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
ENDS = ("total_steps", "T_max", "total_iters")  # what schedules call the number of all steps
LOSS = Criterion("loss", "min")
EMBEDDING = ("nodes.", "edges.", "encodings.", "embedding_norm.", "virtual")  # what names of its parameters begin with


def stable_then_decay(optimizer: Optimizer, total_steps: int, decay: float = 0.2, final: float = 0.0) -> LambdaLR:
    """A constant rate, then a line down to its end: the "WSD" schedule (Hu et al. 2024) after the warm-up.

    Args:
        total_steps: optimiser steps of the whole schedule.
        decay: share of them over which the rate falls.
        final: the last rate, as a share of the first.

    Raises:
        ValueError: no such share.
    """
    up_to_one(decay, "decay")
    start = (1 - decay) * total_steps

    def share(step: int) -> float:
        return 1 - (1 - final) * max(0.0, min(1.0, (step - start) / max(1.0, total_steps - start)))

    return LambdaLR(optimizer, share)


class WarmUp(LRScheduler):
    """A learning rate that is a function of the step alone: a linear warm-up, then what another schedule says.

    The other schedule moves an optimiser that trains nothing. A checkpoint holds the step and nothing else: what the
    optimiser is told, its rates too, is what it was made with. A run that goes on under other settings does what one
    would that had them from the start.

    Args:
        optimizer: fresh, as configured: the largest rate of its groups is the learning rate, others are shares of it.
        schedule: makes the other schedule, of the learning rate alone, for an optimiser.
        warm: steps of the warm-up.
        steps: of the whole training, beyond which the rate stays as it is; `NEVER` where it has no end.
    """

    def __init__(
        self, optimizer: Optimizer, schedule: Callable[[Optimizer], LRScheduler], warm: int, steps: int
    ) -> None:
        self.settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        self.lr, self.warm, self.steps = max(group["lr"] for group in optimizer.param_groups), warm, steps
        self.shares = [group["lr"] / self.lr for group in optimizer.param_groups]
        idle = SGD([nn.Parameter(torch.zeros(()))], self.lr)
        self.schedule = schedule(idle)
        idle.step()  # which PyTorch expects before the first step of a schedule
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rate of each group at the present step."""
        if self.last_epoch < self.warm:
            return self._shared(self.lr * ((self.last_epoch + 1) / (self.warm + 1)))
        while self.schedule.last_epoch < min(self.last_epoch, self.steps) - self.warm:
            self.schedule.step()
        return self._shared(self.schedule.get_last_lr()[0])

    def _shared(self, rate: float | torch.Tensor) -> list[float | torch.Tensor]:
        return [rate * share for share in self.shares]

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch}  # PyTorch's word for the step

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a step; the optimiser has been given its state before."""
        self.last_epoch = state_dict["last_epoch"]
        self._last_lr = self.get_lr()
        for group, settings, rate in zip(self.optimizer.param_groups, self.settings, self._last_lr, strict=True):
            group.update(settings | {"initial_lr": settings["lr"], "lr": rate})


class Joint(Optimizer):
    """Several optimisers as one: each steps its own parameters."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts hold the very groups and state that this optimiser shows, saves and loads."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups, part.state = [next(groups) for _ in part.param_groups], self.state

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss


@dataclass(frozen=True)
class Optimisation:
    """An optimiser and its schedule, with a linear warm-up before it.

    Attributes:
        lr: the highest learning rate.
        weight_decay: of the parameters that ``decayed`` names.
        decayed: patterns of parameters' names, such as ``nodes.*`` (the embedding) or ``blocks.0.*``; None means
            matrices and tables: vectors (biases, norms, blend weights) are not decayed.
        layer_decay: of a learned network that is adapted: the head learns at ``lr``, each block before it at so many
            times the rate of the next, the embedding at the lowest; 1: all at the same.
        warmup: optimiser steps of the warm-up; below 1 a share of all steps; 0 for none.
        final: the last learning rate, as a share of ``lr``, of schedules that have one.
        optimizer: makes the optimiser of parameter groups and ``lr``. ``torch.optim.Muon`` takes matrices alone (tables
            of embeddings and the head's are some): all else is then AdamW's, at the same rate.
        schedule: makes the schedule of an optimiser. Of what it takes and is not given ``total_steps``, ``T_max`` and
            ``total_iters`` are the steps after the warm-up, ``max_lr`` is ``lr``, ``eta_min`` is ``final`` of it, and
            ``mode`` that of the criterion. It is stepped at every optimiser step and moves the learning rate alone;
            ``ReduceLROnPlateau`` is stepped after each validated epoch by the criterion, without a warm-up.
        skip: so many steps whose loss or gradients are not finite are left out; the next one ends the run. On a GPU
            each step is then waited for.
        loss_limit: a larger loss counts as one that is not finite; None sets no limit.
        base_batch: samples in a global batch for which ``lr`` is meant, see `scaled`; None leaves ``lr`` as it is.
        scaling: how the rate follows the batch: "linear" (Goyal et al. 2017, for SGD), or "sqrt", by its square root
            (Malladi et al. 2022, for Adam).
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
                raise ValueError(f"optimizer.{name} does not count: give optim.{name}")
        if self.warmup and _function(self.schedule) is ReduceLROnPlateau:
            raise ValueError("warmup must be 0 with ReduceLROnPlateau, which has none")
        # what the parts refuse is said now
        self._schedule(self.optimizer([nn.Parameter(torch.zeros(1, 1))], lr=self.lr), 2, LOSS)

    def scaled(self, trainer: Any) -> "Optimisation":
        """The same for the global batches of a trainer, whose rate is ``lr`` times their samples over ``base_batch``.

        The schedule, which is made of the rate, follows.

        Raises:
            UserError: the number of samples differs from step to step.
        """
        if self.base_batch is None:
            return self
        data = trainer.datamodule and trainer.datamodule.data
        if not hasattr(data, "batch_size") or getattr(data, "batch_nodes", None):
            raise UserError("optim.base_batch: these batches have no fixed number of samples: set optim.lr itself")
        samples = data.batch_size * data.world * trainer.accumulate_grad_batches
        factor = samples / self.base_batch
        return replace(self, lr=self.lr * (factor if self.scaling == "linear" else math.sqrt(factor)), base_batch=None)

    def configure(self, module: nn.Module, steps: int, criterion: Criterion = LOSS) -> dict[str, Any]:
        """What ``LightningModule.configure_optimizers`` returns, for a training of ``steps`` optimiser steps.

        Args:
            module: what is trained: a network, or a task, whose network's parameters go by their names in the network.
            steps: -1 where there is no end, of which neither the schedule nor the warm-up may then be a share.

        Raises:
            UserError: a pattern of ``decayed`` names no parameter; a share of a training without an end.
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
        """The highest learning rate of each parameter, by its name."""
        blocks = {name: int(match[1]) for name in trained if (match := re.match(r"blocks\.(\d+)\.", name))}
        depth = max(blocks.values(), default=-1) + 1
        below = {name: depth + 1 if name.startswith(EMBEDDING) else 0 for name in trained}
        below |= {name: depth - block for name, block in blocks.items()}
        return {name: self.lr * self.layer_decay**steps for name, steps in below.items()}

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

    def _schedule(self, optimizer: Optimizer, steps: int, criterion: Criterion) -> dict[str, Any]:
        """What Lightning is told of the learning rate over a training of so many steps.

        Raises:
            UserError: there is no end to these, of which it would be a share.
        """
        fixed = getattr(self.schedule, "keywords", {})
        known = inspect.signature(_function(self.schedule)).parameters
        total = steps if steps >= 0 else NEVER
        if steps < 0:
            shares = [f"optim.warmup={self.warmup}"] * (0 < self.warmup < 1)
            if _function(self.schedule) is not ConstantLR and any(name in known and name not in fixed for name in ENDS):
                shares.append(f"optim.schedule ({_function(self.schedule).__name__})")
            if shares:
                raise UserError(
                    f"{' and '.join(shares)}: this training has no end to go by: set trainer.max_epochs or "
                    "trainer.max_steps, or choose optim/schedule=constant and optim.warmup in steps"
                )
        warm = int(self.warmup if self.warmup >= 1 else self.warmup * total)
        warm = max(0, min(max(warm, 1 if self.warmup else 0), total - 1))
        facts = {
            **dict.fromkeys(ENDS, total - warm),
            "max_lr": self.lr,
            "eta_min": self.lr * self.final,
            "final": self.final,
            "mode": criterion.mode,
        }
        schedule = partial(self.schedule, **{k: v for k, v in facts.items() if k in known and k not in fixed})
        if _function(self.schedule) is ReduceLROnPlateau:
            # Lightning would step it between epochs, which validations need not go by: see `gt.train.task.Task._log`
            monitor = f"valid/{criterion.name}"
            return {"scheduler": schedule(optimizer), "interval": "epoch", "frequency": NEVER, "monitor": monitor}
        return {"scheduler": WarmUp(optimizer, schedule, warm, total), "interval": "step"}


def _function(make: Callable[..., Any]) -> Callable[..., Any]:
    """What a partial calls."""
    return make.func if isinstance(make, partial) else make

"""What a model that ignores its input would score, on the very samples that a run was scored on; and where it wins."""

import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics import Metric

from gt.data.datamodule import DataModule
from gt.data.graphs import Stored
from gt.data.numbers import DECADES, decades
from gt.metrics import Criterion, constant_prediction, total_loss, undefined

CELLS = 20_000_000  # numbers of a prediction that are held at once
FEW_STEPS = 200  # of an optimiser, in which little is learned
FEW_SAMPLES = 100
LARGE = 20.0  # of a feature, which PyTorch's initial weights expect to be about 1
ROWS = 100_000  # of features that are looked at


class Evaluated:
    """The samples that an evaluation looks at: a split, or the first batches of it.

    Args:
        data: open.
        split: which split.
        limit: batches of each process, or the share of them, as in Lightning's ``limit_test_batches``; None is all.
        world: processes.

    Attributes:
        batches, total: how many batches of all processes are looked at, and how many there are.
    """

    def __init__(self, data: DataModule, split: str, limit: float | None = None, world: int = 1) -> None:
        self.data, self.split = data, split
        places = [data.batches(split, rank=rank, world=world) for rank in range(world)]
        self._counts = [_limited(len(place), limit) for place in places]
        self._places = places
        self.batches, self.total = sum(self._counts), sum(map(len, places))

    def targets(self) -> Tensor:
        """Every target of these samples, in any order."""
        if self.batches == self.total:
            return self.data.targets(self.split)
        dataset = self.data.dataset(self.split)
        parts = [
            dataset[request].y
            for place, count in zip(self._places, self._counts, strict=True)
            for request in islice(place, count)
        ]
        labelled = [part for part in parts if part is not None]
        return torch.cat(labelled) if labelled else self.data.targets(self.split)[:0]


def _limited(batches: int, limit: float | None) -> int:
    if limit is None:
        return batches
    return max(0, min(batches, limit if isinstance(limit, int) else int(batches * limit)))


@torch.no_grad()
def baseline(data: DataModule, target: Tensor, task: Any = None) -> dict[str, float]:
    """Loss and metrics of the best constant answer, learned on the training targets, for some targets.

    Args:
        task: whose loss and metrics they are; None: the data's own.
    """
    measures = data.measures()[0] if task is None else task.measures["test"].clone()
    measures.reset()
    every: list[Any] = [module for module in measures.modules() if isinstance(module, Metric)]
    for measure in every:
        measure.distributed_available_fn = lambda: False  # this process knows every target, others may be gone
    constant = constant_prediction(data.schema, data.targets("train"))
    losses = []
    for part in target.split(max(1, CELLS // constant.numel())):
        prediction = constant.expand(len(part), -1)
        measures.update(prediction, part)
        losses.append(torch.stack(total_loss(data.schema, prediction, part, task and task.loss)))
    total, weight = torch.stack(losses).sum(0)
    return {"loss": float(total / weight.clamp(min=1e-30))} | {
        name.removeprefix("test/"): float(value) for name, value in measures.compute().items()
    }


def decidable(criterion: Criterion, validated: Evaluated) -> Criterion:
    """The criterion; or the loss where what is validated does not define it, which would call every model alike."""
    schema = validated.data.schema
    if criterion.name == "loss" or schema.kind != "binary" or schema.level == "link":
        return criterion
    return Criterion("loss", "min") if undefined(schema, validated.targets()) else criterion


def beaten(result: Mapping[str, Any]) -> str:
    """The metric by which a run is no better than the trivial baseline: the criterion, or the loss; '' where it is."""
    names = [(result["criterion"], result["mode"]), ("loss", "min")]
    for name, mode in names:
        score, constant = (result[which].get(name, math.nan) for which in ("scores", "baseline"))
        if not (math.isnan(score) or math.isnan(constant)):
            worse = score <= constant if mode == "max" else score >= constant
            return name if worse else ""
    return ""


def reasons(data: DataModule, steps: int, log: pd.DataFrame) -> list[str]:
    """Why a run may have learned nothing, and what to change: only what applies to it.

    Args:
        data: what it was trained on.
        steps: of its optimiser.
        log: what it logged, see `gt.train.report.history`.
    """
    schema, train, likely = data.schema, data.targets("train"), []
    losses = log["valid/loss"].dropna().to_numpy() if "valid/loss" in log else np.empty(0)
    if steps < FEW_STEPS:
        likely.append(f"{steps} steps are few: raise trainer.max_epochs, or lower data.batch_size")
    elif len(losses) > 2 and losses.argmin() == len(losses) - 1:
        likely.append("the validation loss was still falling at the end: raise trainer.max_epochs")
    if len(losses) > 2 and losses.argmin() == 0:
        likely.append("the validation loss only rose after the first validation: lower optim.lr")
    if schema.kind != "multiclass" and undefined(schema, train):
        likely.append(f"the training split has {undefined(schema, train)}: choose another split")
    if len(data.dataset("train")) < FEW_SAMPLES:
        likely.append(f"{len(data.dataset('train'))} training samples are few")
    if getattr(data.source, "numbers", None) is None:
        return likely
    if schema.kind == "regression":
        if not schema.scale:
            likely.append("targets are learned as they are: set data.normalise=true")
        span = 0.0 if schema.log else decades(train.view(len(train), -1).numpy())
        if span >= DECADES:
            likely.append(f"targets span {span:.1f} decades: set data.log=true")
    if schema.node_floats and not schema.node_scale and isinstance(data, Stored):
        largest = float(np.abs(data.graphs.nodes["x"][:ROWS]).max(initial=0))
        if largest > LARGE:
            likely.append(
                f"features of nodes reach {largest:,.0f}, and are read as they are: set data.standardise=true"
            )
    return likely

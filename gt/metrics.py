"""Losses and metrics by the kind of target, and what a model that knows nothing would score."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection, classification, regression

from gt.schema import Schema


@dataclass(frozen=True)
class Criterion:
    """The metric that decides which checkpoint is best."""

    name: str
    mode: Literal["min", "max"]


def loss(schema: Schema, prediction: Tensor, target: Tensor) -> Tensor:
    """Mean loss over labelled targets: cross-entropy in nats, or the mean absolute error of numbers.

    Args:
        prediction: (rows, outputs).
        target: (rows,) classes, or (rows, outputs) where NaN stands for no label.
    """
    if schema.kind == "multiclass":
        return F.cross_entropy(prediction, target.view(-1))
    target = target.view_as(prediction).to(prediction.dtype)
    labelled = ~target.isnan()
    known = target.nan_to_num()
    if schema.kind == "binary":
        each = F.binary_cross_entropy_with_logits(prediction, known, reduction="none")
    else:
        each = F.l1_loss(prediction, known, reduction="none")
    return (each * labelled).sum() / labelled.sum().clamp(min=1)


class _Labelled(Metric):
    """A binary metric over the pairs that have a label."""

    full_state_update = False

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def update(self, prediction: Tensor, target: Tensor) -> None:
        target = target.view_as(prediction)
        labelled = ~target.isnan()
        self.metric.update(prediction[labelled], target[labelled].long())

    def compute(self) -> Any:
        return self.metric.compute()

    def reset(self) -> None:
        super().reset()
        self.metric.reset()


def metrics(schema: Schema) -> tuple[MetricCollection, Criterion]:
    """What to measure for a kind of target, and which of it counts."""
    if schema.kind == "multiclass":
        found: dict[str, Metric] = {"accuracy": classification.MulticlassAccuracy(schema.outputs, average="micro")}
        if schema.level == "graph":
            found["f1"] = classification.MulticlassF1Score(schema.outputs, average="macro")
        return MetricCollection(found), Criterion("accuracy", "max")
    if schema.kind == "binary":
        return MetricCollection({"auroc": _Labelled(classification.BinaryAUROC())}), Criterion("auroc", "max")
    errors = {"mae": regression.MeanAbsoluteError(schema.outputs), "rmse": regression.MeanSquaredError(squared=False)}
    return MetricCollection(errors), Criterion("mae", "min")  # type: ignore[arg-type]


def constant_prediction(schema: Schema, target: Tensor) -> Tensor:
    """(outputs,) the best answer that ignores its input, learned from the training targets: the trivial baseline."""
    if schema.kind == "multiclass":
        counts = torch.bincount(target.view(-1), minlength=schema.outputs).float()
        return ((counts + 1) / (counts + 1).sum()).log()
    target = target.view(-1, schema.outputs).float()
    if schema.kind == "binary":
        return target.nanmean(0).clamp(1e-6, 1 - 1e-6).logit()
    return target.nanmedian(0).values

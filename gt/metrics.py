"""Losses and metrics by the kind of target, and what a model that knows nothing would score."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection, classification, regression
from torchmetrics.utilities import dim_zero_cat

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
    """A metric over the single numbers that have a label, whichever output they belong to."""

    full_state_update = False

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def update(self, prediction: Tensor, target: Tensor) -> None:
        target = target.view_as(prediction)
        labelled = ~target.isnan()
        self.metric.update(prediction[labelled], target[labelled])

    def compute(self) -> Any:
        return self.metric.compute()

    def reset(self) -> None:
        super().reset()
        self.metric.reset()


class _AUROC(classification.BinaryAUROC):
    """The area under the ROC curve of log-odds; NaN where there was no label."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        # the base class would decide batch by batch whether it was given log-odds
        super().update(preds.sigmoid(), target.long())

    def compute(self) -> Tensor:  # type: ignore[override]
        answers = dim_zero_cat(self.target)
        return super().compute() if len(answers) else self.target[0].new_full((), torch.nan, dtype=torch.float)


def metrics(schema: Schema) -> tuple[MetricCollection, Criterion]:
    """What to measure for a kind of target, and which of it counts; unlabelled targets count for nothing."""
    found: dict[str, Metric | MetricCollection]
    if schema.kind == "multiclass":
        found = {"accuracy": classification.MulticlassAccuracy(schema.outputs, average="micro")}
        if schema.level == "graph":
            found["f1"] = classification.MulticlassF1Score(schema.outputs, average="macro")
        return MetricCollection(found), Criterion("accuracy", "max")
    if schema.kind == "binary":
        return MetricCollection({"auroc": _Labelled(_AUROC())}), Criterion("auroc", "max")
    found = {
        "mae": _Labelled(regression.MeanAbsoluteError()),
        "rmse": _Labelled(regression.MeanSquaredError(squared=False)),
    }
    return MetricCollection(found), Criterion("mae", "min")


def constant_prediction(schema: Schema, target: Tensor) -> Tensor:
    """(outputs,) the best answer that ignores its input, learned from the training targets: the trivial baseline.

    An output without any label is answered with even odds, or with 0.
    """
    if schema.kind == "multiclass":
        counts = torch.bincount(target.view(-1), minlength=schema.outputs).float()
        return ((counts + 1) / (counts + 1).sum()).log()
    target = target.view(-1, schema.outputs).float()
    if schema.kind == "binary":
        return target.nanmean(0).nan_to_num(0.5).clamp(1e-6, 1 - 1e-6).logit()
    return target.nanmedian(0).values.nan_to_num()

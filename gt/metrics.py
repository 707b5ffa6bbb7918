"""Losses and metrics by the kind of target, and what a model that knows nothing would score."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection, classification, regression
from torchmetrics.utilities import dim_zero_cat

from gt.schema import UNLABELLED, Schema


@dataclass(frozen=True)
class Criterion:
    """The metric that decides which checkpoint is best."""

    name: str
    mode: Literal["min", "max"]


def total_loss(schema: Schema, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the losses of labelled targets, and what these weigh together.

    Cross-entropy in nats, or the absolute or squared error of numbers in units of the schema's scale.

    Args:
        prediction: (rows, outputs), of several positions (rows, positions * outputs).
        target: (rows,) or (rows, positions) classes, `UNLABELLED` for none; or (rows, outputs), NaN for none.
    """
    if schema.kind == "multiclass":
        target, prediction = target.reshape(-1), prediction.reshape(-1, schema.outputs)
        weights = prediction.new_tensor(schema.weights) if schema.weights else None
        total = F.cross_entropy(prediction, target, weights, ignore_index=UNLABELLED, reduction="sum")
        labelled = target != UNLABELLED
        if weights is None:
            return total, labelled.sum()
        return total, (weights[target.clamp(min=0)] * labelled).sum()
    target = target.view_as(prediction).to(prediction.dtype)
    labelled = ~target.isnan()
    known = target.nan_to_num()
    if schema.kind == "binary":
        weights = prediction.new_tensor(schema.weights) if schema.weights else None
        each = F.binary_cross_entropy_with_logits(prediction, known, reduction="none", pos_weight=weights)
    else:
        error = prediction - known
        if schema.scale:
            error = error / prediction.new_tensor(schema.scale)
        each = error.square() if schema.squared else error.abs()
    return (each * labelled).sum(), labelled.sum()


def loss(schema: Schema, prediction: Tensor, target: Tensor) -> Tensor:
    """Mean loss over labelled targets, 0 where there are none; the rest as in `total_loss`."""
    total, weight = total_loss(schema, prediction, target)
    return total / weight.clamp(min=1e-30)


class _Rearranged(Metric):
    """A metric that is given predictions and targets in another form than they come in."""

    full_state_update = False

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self.metric = metric

    def compute(self) -> Any:
        return self.metric.compute()

    def reset(self) -> None:
        super().reset()
        self.metric.reset()


class _Labelled(_Rearranged):
    """A metric over the single numbers that have a label, whichever output they belong to."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        target = target.view_as(prediction)
        labelled = ~target.isnan()
        self.metric.update(prediction[labelled], target[labelled])


class _AtPositions(_Rearranged):
    """A metric of classes over all the positions of a target, one as good as another."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        self.metric.update(prediction.reshape(-1, self.metric.num_classes), target.reshape(-1))


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
        of_classes: dict[str, Any] = {"num_classes": schema.outputs, "ignore_index": UNLABELLED}
        found = {"accuracy": _AtPositions(classification.MulticlassAccuracy(average="micro", **of_classes))}
        if schema.level == "graph" and schema.positions == 1:
            found["f1"] = _AtPositions(classification.MulticlassF1Score(average="macro", **of_classes))
        return MetricCollection(found), Criterion("accuracy", "max")
    if schema.kind == "binary":
        return MetricCollection({"auroc": _Labelled(_AUROC())}), Criterion("auroc", "max")
    found = {
        "mae": _Labelled(regression.MeanAbsoluteError()),
        "rmse": _Labelled(regression.MeanSquaredError(squared=False)),
    }
    return MetricCollection(found), Criterion("rmse" if schema.squared else "mae", "min")


def constant_prediction(schema: Schema, target: Tensor) -> Tensor:
    """(positions * outputs,) the best answer that ignores its input, the trivial baseline.

    It is learned from the training targets. An output without any label is answered with even odds, or with 0.
    """
    if schema.kind == "multiclass":
        place = torch.arange(schema.positions) * schema.outputs
        target = target.reshape(-1, schema.positions)
        counts = torch.bincount((target + place)[target != UNLABELLED], minlength=schema.positions * schema.outputs)
        smoothed = counts.view(schema.positions, schema.outputs) + 1.0
        return (smoothed / smoothed.sum(1, keepdim=True)).log().flatten()
    target = target.view(-1, schema.outputs).float()
    if schema.kind == "binary":
        return target.nanmean(0).nan_to_num(0.5).clamp(1e-6, 1 - 1e-6).logit()
    return (target.nanmean(0) if schema.squared else target.nanmedian(0).values).nan_to_num()

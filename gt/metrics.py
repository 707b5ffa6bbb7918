"""Losses and metrics by the kind of target, and what a model that knows nothing would score."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, MetricCollection, classification

from gt.errors import UserError, nearest
from gt.schema import UNLABELLED, Schema, number
from gt.task_metrics import Errors, Ranking, both_answers

SMALLEST = 1e-37  # of what float32 holds in full, so that there is a logarithm


@dataclass(frozen=True)
class Criterion:
    """The metric that decides which checkpoint is best."""

    name: str
    mode: Literal["min", "max"]


Loss = Callable[[Tensor, Tensor], Tensor]  # of predictions and targets, such as torch.nn.SmoothL1Loss(), a mean


def total_loss(schema: Schema, prediction: Tensor, target: Tensor, loss: Loss | None = None) -> tuple[Tensor, Tensor]:
    """The sum of the losses of labelled targets, and what these weigh together, in float32 at least.

    Cross-entropy in nats, or the absolute or squared error of numbers, or of their logarithms, in units of the schema's
    scale.

    Args:
        prediction: (rows, outputs), of several positions (rows, positions * outputs).
        target: (rows,) or (rows, positions) classes, `UNLABELLED` for none, or (rows, outputs), NaN for none; either
            may be followed by columns that are not looked at.
        loss: takes the place of these, see `labelled` for what it is given. Numbers, predicted and true, are those that
            the network learns: of ``schema.log`` logarithms, less the schema's mean and in units of its scale. Class
            weights of the schema do not count.
    """
    prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))  # 16 bits do not hold a sum
    if loss is not None:
        if schema.kind == "regression":
            prediction, target = (learned(schema, numbers.view_as(prediction)) for numbers in (prediction, target))
        prediction, target = labelled(schema, prediction, target)
        weight = prediction.new_tensor(len(target))
        return (loss(prediction, target) * weight if len(target) else nothing(prediction, loss)), weight
    prediction, target = aligned(schema, prediction, target)
    weights = prediction.new_tensor(schema.weights) if schema.weights else None
    if schema.kind == "multiclass":
        total = F.cross_entropy(prediction, target, weights, ignore_index=UNLABELLED, reduction="sum")
        is_labelled = target != UNLABELLED
        if weights is None:
            return total, is_labelled.sum()
        return total, (weights[target.clamp(min=0)] * is_labelled).sum()
    is_labelled = ~target.isnan()
    known = target.nan_to_num()
    if schema.kind == "binary":
        each = F.binary_cross_entropy_with_logits(prediction, known, reduction="none", pos_weight=weights)
    else:
        if schema.log:
            prediction, known = prediction.clamp(min=SMALLEST).log(), known.where(is_labelled, 1).log()
        error = prediction - known
        if schema.scale:
            error = error / prediction.new_tensor(schema.scale)
        each = error.square() if schema.squared else error.abs()
    return (each * is_labelled).sum(), is_labelled.sum()


def nothing(prediction: Tensor, loss: Loss | None) -> Tensor:
    """A loss of 0 that has a gradient, 0, for all that a loss has: processes that share gradients wait for each."""
    parameters = loss.parameters() if isinstance(loss, nn.Module) else ()
    return 0.0 * sum((parameter.sum() for parameter in parameters), prediction.sum())


def learned(schema: Schema, numbers: Tensor) -> Tensor:
    """(rows, outputs) numbers in the data's unit to the same as the network learns them, see `Schema`."""
    if schema.log:
        numbers = numbers.clamp(min=SMALLEST).log()
    if schema.scale:
        numbers = (numbers - numbers.new_tensor(schema.mean)) / numbers.new_tensor(schema.scale)
    return numbers


def labelled(schema: Schema, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The labelled entries: log-odds (K, classes) and classes (K,), or (K,) log-odds or numbers and (K,) targets."""
    prediction, target = aligned(schema, prediction, target)
    known = target != UNLABELLED if schema.kind == "multiclass" else ~target.isnan()
    return prediction[known], target[known]


def aligned(schema: Schema, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-odds (rows * positions, classes) and classes (rows * positions,), or numbers or answers (rows, outputs)."""
    if schema.kind == "multiclass":
        return prediction.reshape(-1, schema.outputs), classes(schema, target)
    return prediction, of_outputs(schema, target).view_as(prediction).to(prediction.dtype)


def classes(schema: Schema, target: Tensor) -> Tensor:
    """(rows * positions,) the class at every position; a dataset may keep more columns, for its own metrics only."""
    return target.reshape(-1) if schema.positions == 1 else target[:, : schema.positions].reshape(-1)


def of_outputs(schema: Schema, target: Tensor) -> Tensor:
    """(rows, outputs) numbers or answers of yes and no, likewise."""
    return target[:, : schema.outputs] if target.ndim == 2 else target.view(-1, schema.outputs)


def loss(schema: Schema, prediction: Tensor, target: Tensor) -> Tensor:
    """Mean loss over labelled targets, 0 where there are none; the rest as in `total_loss`."""
    total, weight = total_loss(schema, prediction, target)
    return total / weight.clamp(min=1e-30)


class MeanLosses(nn.ModuleDict):
    """The means of losses, each by its name, over the batches of a split."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__({name: MeanMetric() for name in names})

    def add(self, sums: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """The sum of each loss over a batch, and what its terms weigh together."""
        for name, (total, weight) in sums.items():
            mean: Any = self[name]
            mean.update(total / weight.clamp(min=1e-30), weight=weight)

    def means(self) -> dict[str, Tensor]:
        """What was added since the last time, as means."""
        measures: list[tuple[str, Any]] = list(self.items())
        values = {name: mean.compute() for name, mean in measures}
        for _, mean in measures:
            mean.reset()
        return values


class Around(Metric):
    """Another metric, which a subclass shows a part of each batch."""

    full_state_update = False

    def __init__(self, metric: Any, schema: Schema) -> None:
        super().__init__()
        self.metric, self.schema = metric, schema

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        return self.metric.higher_is_better

    def compute(self) -> Any:
        return self.metric.compute()

    def reset(self) -> None:
        super().reset()
        self.metric.reset()


class OfLabelled(Around):
    """A metric over all labelled entries, see `labelled`; yes and no are the classes 1 and 0."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        prediction, target = labelled(self.schema, prediction, target)
        if len(target):
            self.metric.update(prediction, target.long() if self.schema.kind == "binary" else target)


class OfTasks(Around):
    """A ranking of yes/no tasks, each by itself; of two classes the second is yes.

    Raises:
        ValueError: numbers, or more classes.
    """

    def update(self, prediction: Tensor, target: Tensor) -> None:
        if self.schema.kind == "multiclass" and self.schema.outputs == 2:
            target, prediction = classes(self.schema, target)[:, None], prediction.reshape(-1, 2)
            prediction = prediction[:, 1:] - prediction[:, :1]
            target = target.float().masked_fill(target == UNLABELLED, torch.nan)
        elif self.schema.kind != "binary":
            raise ValueError("it ranks answers of yes and no")
        else:
            target = of_outputs(self.schema, target)
        self.metric.update(prediction, target)


def own_metrics(schema: Schema, own: Mapping[str, Metric]) -> tuple[MetricCollection, Criterion]:
    """Metrics of one's own by their names, the first of which decides.

    Raises:
        UserError: it does not say whether higher is better, or one is called ``loss``.
    """
    if "loss" in own:
        raise UserError("metrics.loss: the loss is measured anyway; call the metric by another name")
    around: dict[str, Any] = {
        name: OfTasks(each, schema) if isinstance(each, Ranking) else OfLabelled(each, schema)
        for name, each in own.items()
    }
    return MetricCollection(around), decided(own, next(iter(own)))


def decided(measures: Mapping[str, Any], name: str) -> Criterion:
    """The metric of a name as the criterion, or the loss.

    Raises:
        UserError: there is none of this name, or it does not say whether higher is better.
    """
    if name == "loss":
        return Criterion("loss", "min")
    better: dict[str, bool | None] = {}
    for key, metric in measures.items():
        better |= dict.fromkeys(getattr(metric, "scores", (key,)), metric.higher_is_better)
    if name not in better:
        raise UserError(f"criterion={name}: {nearest(name, [*better, 'loss'])}")
    if better[name] is None:
        raise UserError(f"criterion={name}: its metric does not say whether higher is better; choose another")
    return Criterion(name, "max" if better[name] else "min")


def metrics(schema: Schema) -> tuple[MetricCollection, Criterion]:
    """What to measure for a kind of target, and which of it counts; unlabelled targets count for nothing."""
    collection: dict[str, Metric | MetricCollection]
    if schema.kind == "multiclass":
        of_classes: dict[str, Any] = {"num_classes": schema.outputs, "ignore_index": UNLABELLED}
        collection = {"accuracy": OfLabelled(classification.MulticlassAccuracy(average="micro", **of_classes), schema)}
        if schema.level == "graph" and schema.positions == 1 and not schema.pointer:
            collection["f1"] = OfLabelled(classification.MulticlassF1Score(average="macro", **of_classes), schema)
        return MetricCollection(collection), Criterion("accuracy", "max")
    if schema.kind == "binary":
        return MetricCollection({"ranking": Ranking(schema.outputs)}), Criterion("auroc", "max")
    # of numbers over many decades the largest one would decide alone: their logarithms go by the loss
    name = "loss" if schema.log else "rmse" if schema.squared else "mae"
    return MetricCollection({"errors": Errors(schema.outputs)}), Criterion(name, "min")


def undefined(schema: Schema, target: Tensor) -> str:
    """Why the targets of yes/no tasks cannot be ranked: ``one class`` in each of them, or ``no label``; else ''."""
    if schema.kind != "binary":
        return ""
    target = of_outputs(schema, target)
    if both_answers(target).any():
        return ""
    return "no label" if target.isnan().all() else "one class"


def shown(value: float, why: str = "") -> str:
    """A score for a reader, or that there is none, and why."""
    return f"undefined{f' ({why})' if why else ''}" if math.isnan(value) else number(value)


def constant_prediction(schema: Schema, target: Tensor) -> Tensor:
    """(positions * outputs,) the best answer that ignores its input, the trivial baseline.

    It is learned from the training targets. An output without any label is answered with even odds, or with 0.
    """
    if schema.kind == "multiclass":
        place = torch.arange(schema.positions) * schema.outputs
        target = classes(schema, target).view(-1, schema.positions)
        counts = torch.bincount((target + place)[target != UNLABELLED], minlength=schema.positions * schema.outputs)
        smoothed = counts.view(schema.positions, schema.outputs) + 1.0
        return (smoothed / smoothed.sum(1, keepdim=True)).log().flatten()
    target = of_outputs(schema, target).float()
    if schema.kind == "binary":
        return target.nanmean(0).nan_to_num(0.5).clamp(1e-6, 1 - 1e-6).logit()
    return (target.nanmean(0) if schema.squared else target.nanmedian(0).values).nan_to_num()

"""Losses by the kind of target, what can be measured of its labels, and the best answer that knows nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.schema import UNLABELLED, Kind, Schema, number
from gt.transforms import outside

SMALLEST = 1e-37  # of what float32 holds in full, so that there is a logarithm


@dataclass(frozen=True)
class Criterion:
    """The metric that decides which checkpoint is best."""

    name: str
    mode: Literal["min", "max"]


Loss = Callable[[Tensor, Tensor], Tensor]  # of predictions and targets, such as torch.nn.SmoothL1Loss(), a mean
# PyTorch's that score one kind of target, though some would take another and come to a number
KINDS: dict[Kind, tuple[type[nn.Module], ...]] = {
    "multiclass": (nn.CrossEntropyLoss,),
    "binary": (nn.BCEWithLogitsLoss,),
    "regression": (nn.L1Loss, nn.MSELoss, nn.SmoothL1Loss, nn.HuberLoss),
}


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
        weight = prediction.new_full((), len(target))
        return (loss(prediction, target) * weight if len(target) else nothing(prediction, loss)), weight
    prediction, target = aligned(schema, prediction, target)
    weights = constant(schema.weights, prediction.dtype, prediction.device) if schema.weights else None
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
            error = error / constant(schema.scale, prediction.dtype, prediction.device)
        each = error.square() if schema.squared else error.abs()
    return (each * is_labelled).sum(), is_labelled.sum()


def balanced(schema: Schema, target: Tensor) -> tuple[float, ...]:
    """The `Schema.weights` by which classes count alike in the loss, however rare; 1 where one has no examples.

    Of K classes each weighs as many labels as there are, by K times its own; a yes of a task its noes by its yeses.

    Args:
        target: of the training samples, as in `total_loss`.
    """
    if schema.kind == "multiclass":
        target = classes(schema, target)
        counts = torch.bincount(target[target != UNLABELLED], minlength=schema.outputs).double()
        weights, known = counts.sum() / (schema.outputs * counts), counts > 0
    else:
        target = of_outputs(schema, target)
        yes, no = (target == 1).sum(0).double(), (target == 0).sum(0).double()
        weights, known = no / yes, (yes > 0) & (no > 0)
    return tuple(weights.where(known, 1.0).tolist())


def nothing(prediction: Tensor, loss: Loss | None) -> Tensor:
    """A loss of 0 that has a gradient, 0, for all that a loss has: processes that share gradients wait for each."""
    parameters = loss.parameters() if isinstance(loss, nn.Module) else ()
    return 0.0 * sum((parameter.sum() for parameter in parameters), prediction.sum())


def learned(schema: Schema, numbers: Tensor) -> Tensor:
    """(rows, outputs) numbers in the data's unit to the same as the network learns them, see `Schema`."""
    if schema.log:
        numbers = numbers.clamp(min=SMALLEST).log()
    if schema.scale:
        mean, scale = (constant(each, numbers.dtype, numbers.device) for each in (schema.mean, schema.scale))
        numbers = (numbers - mean) / scale
    return numbers


@lru_cache
def constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of a schema as a tensor, copied to a device once: for each copy a step would wait for a GPU."""
    return outside(lambda: torch.tensor(numbers, dtype=dtype, device=device))


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


def both_answers(target: Tensor) -> Tensor:
    """(tasks,) whether a task of targets (B, tasks) has a yes and a no, without which nothing can be ranked."""
    return (target == 0).any(0) & (target == 1).any(0)


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


def suits(loss: Loss, kind: Kind) -> bool:
    """Whether a loss is not known to be for another kind of target."""
    return not any(isinstance(loss, losses) for other, losses in KINDS.items() if other != kind)


def constant_prediction(schema: Schema, target: Tensor, loss: Loss | None = None) -> Tensor:
    """(positions * outputs,) the best answer that ignores its input, the trivial baseline.

    It is learned from the training targets. An output without any label is answered with even odds, or with 0.

    Args:
        loss: by which it is the best; of one's own, of numbers, the better of their mean and their median, which the
            absolute and the squared error are least at. None: the schema's, class weights included.
    """
    if loss is not None:
        schema = replace(schema, weights=())
    if loss is not None and schema.kind == "regression":
        both = [constant_prediction(replace(schema, squared=squared), target) for squared in (False, True)]
        return min(both, key=lambda constant: total_loss(schema, constant.expand(len(target), -1), target, loss)[0])
    weights = torch.tensor(schema.weights or 1.0)
    if schema.kind == "multiclass":
        place = torch.arange(schema.positions) * schema.outputs
        target = classes(schema, target).view(-1, schema.positions)
        counts = torch.bincount((target + place)[target != UNLABELLED], minlength=schema.positions * schema.outputs)
        smoothed = (counts.view(schema.positions, schema.outputs) + 1.0) * weights
        return (smoothed / smoothed.sum(1, keepdim=True)).log().flatten()
    target = of_outputs(schema, target).float()
    if schema.kind == "binary":
        return target.nanmean(0).nan_to_num(0.5).clamp(1e-6, 1 - 1e-6).logit() + weights.log()
    if schema.squared and schema.log:
        return target.clamp(min=SMALLEST).log().nanmean(0).exp().nan_to_num()
    return (target.nanmean(0) if schema.squared else target.nanmedian(0).values).nan_to_num()

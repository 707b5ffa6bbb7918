"""Losses by the kind of target, class weights, and the best constant prediction as a trivial baseline."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.schema import UNLABELLED, Kind, Schema, format_number
from gt.transforms import outside_transforms

MIN_POSITIVE = 1e-37  # about the smallest normal float32, whose logarithm is finite


@dataclass(frozen=True)
class Criterion:
    """The metric that decides which checkpoint is best."""

    name: str
    mode: Literal["min", "max"]


Loss = Callable[[Tensor, Tensor], Tensor]  # mean over predictions and targets, such as torch.nn.SmoothL1Loss()
# PyTorch's losses for one kind of target only, although some also run on other kinds
KINDS: dict[Kind, tuple[type[nn.Module], ...]] = {
    "multiclass": (nn.CrossEntropyLoss,),
    "binary": (nn.BCEWithLogitsLoss,),
    "regression": (nn.L1Loss, nn.MSELoss, nn.SmoothL1Loss, nn.HuberLoss),
}


def total_loss(schema: Schema, prediction: Tensor, target: Tensor, loss: Loss | None = None) -> tuple[Tensor, Tensor]:
    """The summed loss of labelled targets and their total weight, in at least float32.

    The loss is the cross-entropy in nats, or the absolute or squared error of numbers or their logarithms, in units of
    the schema's scale.

    Args:
        prediction: (rows, outputs), or (rows, positions * outputs) with several positions.
        target: (rows,) or (rows, positions) classes, `UNLABELLED` where missing, or (rows, outputs), NaN where missing;
            further columns are ignored.
        loss: replaces the default loss, see `select_labelled` for its arguments. Predicted and true numbers are passed
            as the network learns them: standardised by the schema's mean and scale, after a logarithm with
            ``schema.log``. Class weights of the schema are ignored.
    """
    prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))  # 16 bits are too few for a sum
    if loss is not None:
        if schema.kind == "regression":
            prediction, target = (
                to_network_units(schema, numbers.view_as(prediction)) for numbers in (prediction, target)
            )
        prediction, target = select_labelled(schema, prediction, target)
        weight = prediction.new_full((), len(target))
        return (loss(prediction, target) * weight if len(target) else zero_loss(prediction, loss)), weight
    prediction, target = align(schema, prediction, target)
    weights = constant(schema.weights, prediction.dtype, prediction.device) if schema.weights else None
    if schema.kind == "multiclass":
        total = F.cross_entropy(prediction, target, weights, ignore_index=UNLABELLED, reduction="sum")
        is_labelled = target != UNLABELLED
        if weights is None:
            return total, is_labelled.sum()
        return total, (weights[target.clamp(min=0)] * is_labelled).sum()
    is_labelled = ~target.isnan()
    label = target.nan_to_num()
    if schema.kind == "binary":
        losses = F.binary_cross_entropy_with_logits(prediction, label, reduction="none", pos_weight=weights)
    else:
        if schema.log:
            prediction, label = prediction.clamp(min=MIN_POSITIVE).log(), label.where(is_labelled, 1).log()
        error = prediction - label
        if schema.scale:
            error = error / constant(schema.scale, prediction.dtype, prediction.device)
        losses = error.square() if schema.squared else error.abs()
    return (losses * is_labelled).sum(), is_labelled.sum()


def balanced(schema: Schema, target: Tensor) -> tuple[float, ...]:
    """The `Schema.weights` that balance classes in the loss; 1 where a class has no examples.

    With K classes, the weight of one is the number of labels divided by K times its own; that of the positives of a
    binary task is its negatives divided by its positives.

    Args:
        target: targets of the training samples, as in `total_loss`.
    """
    if schema.kind == "multiclass":
        target = classes(schema, target)
        counts = torch.bincount(target[target != UNLABELLED], minlength=schema.outputs).double()
        weights, has_labels = counts.sum() / (schema.outputs * counts), counts > 0
    else:
        target = output_targets(schema, target)
        positives, negatives = (target == 1).sum(0).double(), (target == 0).sum(0).double()
        weights, has_labels = negatives / positives, (positives > 0) & (negatives > 0)
    return tuple(weights.where(has_labels, 1.0).tolist())


def zero_loss(prediction: Tensor, loss: Loss | None) -> Tensor:
    """A loss of 0 with zero gradients for the prediction and the loss's parameters: DDP waits for each of them."""
    parameters = loss.parameters() if isinstance(loss, nn.Module) else ()
    return 0.0 * sum((parameter.sum() for parameter in parameters), prediction.sum())


def to_network_units(schema: Schema, numbers: Tensor) -> Tensor:
    """Convert numbers (rows, outputs) from the data's units to those that the network learns, see `Schema`."""
    if schema.log:
        numbers = numbers.clamp(min=MIN_POSITIVE).log()
    if schema.scale:
        mean, scale = (constant(moments, numbers.dtype, numbers.device) for moments in (schema.mean, schema.scale))
        numbers = (numbers - mean) / scale
    return numbers


@lru_cache
def constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of a schema as a tensor, cached by device: every copy to a GPU would synchronise."""
    return outside_transforms(lambda: torch.tensor(numbers, dtype=dtype, device=device))


def select_labelled(schema: Schema, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Select labelled entries: log-odds (K, classes) and classes (K,), or log-odds or numbers (K,) and targets (K,)."""
    prediction, target = align(schema, prediction, target)
    has_label = target != UNLABELLED if schema.kind == "multiclass" else ~target.isnan()
    return prediction[has_label], target[has_label]


def align(schema: Schema, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Reshape to log-odds (rows * positions, classes) and classes (rows * positions,), or both to (rows, outputs)."""
    if schema.kind == "multiclass":
        return prediction.reshape(-1, schema.outputs), classes(schema, target)
    return prediction, output_targets(schema, target).view_as(prediction).to(prediction.dtype)


def classes(schema: Schema, target: Tensor) -> Tensor:
    """(rows * positions,) the class at every position; drops further columns, which only a dataset's metrics use."""
    return target.reshape(-1) if schema.positions == 1 else target[:, : schema.positions].reshape(-1)


def output_targets(schema: Schema, target: Tensor) -> Tensor:
    """(rows, outputs) numbers or binary labels; drops further columns likewise."""
    return target[:, : schema.outputs] if target.ndim == 2 else target.view(-1, schema.outputs)


def loss(schema: Schema, prediction: Tensor, target: Tensor) -> Tensor:
    """Mean loss over labelled targets, 0 if there are none; arguments as in `total_loss`."""
    total, weight = total_loss(schema, prediction, target)
    return total / weight.clamp(min=1e-30)


def both_answers(target: Tensor) -> Tensor:
    """(tasks,) whether each task of targets (B, tasks) has both labels, as rankings require."""
    return (target == 0).any(0) & (target == 1).any(0)


def undefined_reason(schema: Schema, target: Tensor) -> str:
    """Why targets of yes/no tasks cannot be ranked: ``one class`` per task, or ``no label``; '' if they can."""
    if schema.kind != "binary":
        return ""
    target = output_targets(schema, target)
    if both_answers(target).any():
        return ""
    return "no label" if target.isnan().all() else "one class"


def format_score(value: float, reason: str = "") -> str:
    """Format a score; NaN becomes ``undefined``, with the reason if there is one."""
    return f"undefined{f' ({reason})' if reason else ''}" if math.isnan(value) else format_number(value)


def suits(loss: Loss, kind: Kind) -> bool:
    """Whether a loss fits a kind of target; only PyTorch's losses for other kinds are rejected."""
    return not any(isinstance(loss, losses) for other, losses in KINDS.items() if other != kind)


def constant_prediction(schema: Schema, target: Tensor, loss: Loss | None = None) -> Tensor:
    """(positions * outputs,) the best prediction that ignores the input: the trivial baseline.

    It is fitted to the training targets. An output without any label gets even odds, or 0.

    Args:
        loss: the loss to minimise; for a custom loss of numbers, the better of their mean and median, the minimisers of
            the squared and the absolute error. None: the schema's loss, class weights included.
    """
    if loss is not None:
        schema = replace(schema, weights=())
    if loss is not None and schema.kind == "regression":
        candidates = [constant_prediction(replace(schema, squared=squared), target) for squared in (False, True)]
        return min(
            candidates, key=lambda candidate: total_loss(schema, candidate.expand(len(target), -1), target, loss)[0]
        )
    weights = torch.tensor(schema.weights or 1.0)
    if schema.kind == "multiclass":
        offsets = torch.arange(schema.positions) * schema.outputs
        target = classes(schema, target).view(-1, schema.positions)
        counts = torch.bincount((target + offsets)[target != UNLABELLED], minlength=schema.positions * schema.outputs)
        smoothed = (counts.view(schema.positions, schema.outputs) + 1.0) * weights
        return (smoothed / smoothed.sum(1, keepdim=True)).log().flatten()
    target = output_targets(schema, target).float()
    if schema.kind == "binary":
        return target.nanmean(0).nan_to_num(0.5).clamp(1e-6, 1 - 1e-6).logit() + weights.log()
    if schema.squared and schema.log:
        return target.clamp(min=MIN_POSITIVE).log().nanmean(0).exp().nan_to_num()
    return (target.nanmean(0) if schema.squared else target.nanmedian(0).values).nan_to_num()

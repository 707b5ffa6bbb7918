"""Calibration on the validation split: temperature scaling, and conformal intervals and sets.

Conformal prediction (Vovk et al. 2005; split: Lei et al. 2018; sets of classes: Sadinle et al. 2019) only assumes that
new data come from the same distribution as the validation data: an interval or set at a level of 0.9 then contains the
target in nine of ten cases.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gt.errors import UserError
from gt.schema import UNLABELLED, Schema, format_number, pluralise

BINS = 15  # of confidence, for the calibration error
MIN_TARGETS = 100  # determine a temperature to about 15 percent; 30 to about 30 percent, 10 not at all


@dataclass(frozen=True)
class Calibration:
    """The calibration of a model.

    Attributes:
        temperature: divisor of logits (Guo et al. 2017).
        level: coverage of intervals or sets; None if there are none.
        margin: (outputs,) half-width of intervals (in logarithms, if the model predicts these); (positions or tasks,)
            how far below 1 the probability of a class in the set may be.
    """

    temperature: float = 1.0
    level: float | None = None
    margin: Tensor | None = None

    def scaled(self, schema: Schema, prediction: Tensor) -> Tensor:
        """Apply the temperature to a prediction."""
        return prediction if schema.kind == "regression" else prediction / self.temperature

    def interval(self, schema: Schema, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and upper ends, each (rows, outputs)."""
        assert self.margin is not None
        if schema.log:
            return prediction * (-self.margin).exp(), prediction * self.margin.exp()
        return prediction - self.margin, prediction + self.margin

    def sets(self, schema: Schema, prediction: Tensor) -> Tensor:
        """(rows, positions or tasks, classes), True for classes in the set; those of a binary task are no and yes."""
        assert self.margin is not None
        return 1 - log_probabilities(schema, prediction).exp() <= self.margin[:, None]


def log_probabilities(schema: Schema, prediction: Tensor) -> Tensor:
    """(rows, positions or tasks, classes) of a prediction; the classes of a binary task are no and yes."""
    if schema.kind == "binary":
        return torch.stack([-prediction, prediction], dim=-1).float().mul(0.5).log_softmax(-1)
    return prediction.view(-1, schema.positions, schema.outputs).float().log_softmax(-1)


def classes(schema: Schema, target: Tensor) -> Tensor:
    """(rows, positions or tasks) the classes of targets, `UNLABELLED` for missing labels."""
    if schema.kind == "binary":
        return torch.where(target.isnan(), UNLABELLED, target.nan_to_num().long())
    return target.view(len(target), -1)[:, : schema.positions]


def fit(
    schema: Schema, prediction: Tensor, target: Tensor, level: float | None = None, temperature: bool = False
) -> Calibration:
    """Fit a calibration to the predictions and targets of validation.

    Args:
        level: coverage of intervals or sets; None for none.
        temperature: whether to fit one.

    Raises:
        UserError: the level is not between 0 and 1, a temperature is requested for regression, there are too few
            targets for the level, or no temperature fits the targets.
    """
    if level is not None and not 0 < level < 1:
        raise UserError(f"level {level:g}: it must be between 0 and 1, such as 0.9")
    if temperature and schema.kind == "regression":
        raise UserError("--calibrate: a temperature scales probabilities, but this model predicts numbers: try --level")
    result = Calibration(best_temperature(schema, prediction, target) if temperature else 1.0, level)
    if level is None:
        return result
    prediction = result.scaled(schema, prediction)
    if schema.kind == "regression":
        errors = (prediction.log() - target.log() if schema.log else prediction - target).abs()
    else:
        labels = classes(schema, target)
        true_probabilities = (
            log_probabilities(schema, prediction).exp().gather(2, labels.clamp(min=0)[..., None])[..., 0]
        )
        errors = torch.where(labels == UNLABELLED, torch.nan, 1 - true_probabilities)
    return replace(result, margin=torch.stack([quantile(column, level) for column in errors.T]))


def quantile(scores: Tensor, level: float) -> Tensor:
    """The conformal quantile: the ceil((n + 1) level)-th smallest of n scores; NaN is ignored.

    Raises:
        UserError: n is too small.
    """
    valid = scores[~scores.isnan()].double().sort().values
    rank = math.ceil((len(valid) + 1) * level - 1e-9)  # tolerates a product rounded up past a whole number
    if rank > len(valid):
        needed = math.ceil(level / (1 - level) - 1e-9)
        raise UserError(
            f"level {level:g} needs {pluralise(needed, 'validation target')} or more, there are {len(valid)}"
        )
    return valid[rank - 1].to(scores.dtype)


def best_temperature(schema: Schema, prediction: Tensor, target: Tensor) -> float:
    """The temperature that maximises the likelihood of the targets.

    Raises:
        UserError: there are no targets, or the model is right about all of them.
    """
    labels = classes(schema, target).flatten()
    is_labelled = labels != UNLABELLED
    if not is_labelled.any():
        raise UserError("--calibrate: the validation has no targets")
    scores = log_probabilities(schema, prediction).flatten(0, 1)[is_labelled].double()
    if bool((scores.argmax(1) == labels[is_labelled]).all()):  # the likelihood then grows as the temperature falls
        all_right = f"the model is right about all of the {pluralise(len(scores), 'validation target')}"
        raise UserError(f"--calibrate: {all_right}, so no temperature fits: validate on more, or leave this out")
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(scores / log_temperature.exp(), labels[is_labelled])
        value.backward()
        return value

    optimizer.step(loss)
    return float(log_temperature.detach().clamp(-5, 5).exp())


def calibration_error(schema: Schema, prediction: Tensor, target: Tensor) -> float:
    """The expected calibration error with `BINS` bins of confidence (Guo et al. 2017)."""
    labels = classes(schema, target).flatten()
    is_labelled = labels != UNLABELLED
    confidence = log_probabilities(schema, prediction).flatten(0, 1)[is_labelled].exp().max(1)
    gaps = (confidence.indices == labels[is_labelled]).double() - confidence.values.double()
    bins = (confidence.values * BINS).long().clamp(max=BINS - 1)
    return float(gaps.new_zeros(BINS).index_add(0, bins, gaps).abs().sum() / max(1, len(gaps)))


def summary(schema: Schema, calibration: Calibration, prediction: Tensor, target: Tensor) -> str:
    """A line on the fit, and a warning for each reason to doubt it: few targets, or a single class."""
    parts, warnings = [], []
    if schema.kind != "regression":
        labels = classes(schema, target).flatten()
        labels = labels[labels != UNLABELLED]
        if len(labels.unique()) == 1:
            warnings.append("warning: all validation targets are of one class: this says nothing about others")
        if calibration.temperature != 1.0 and len(labels) < MIN_TARGETS:
            warnings.append(
                f"warning: too few validation targets ({len(labels)}) for a reliable temperature: "
                f"use {MIN_TARGETS} or more"
            )
    if calibration.temperature != 1.0:
        before, after = (
            calibration_error(schema, logits, target) for logits in (prediction, calibration.scaled(schema, prediction))
        )
        parts.append(f"temperature {calibration.temperature:.3g}: calibration error {before:.4f}, now {after:.4f}")
    if calibration.margin is not None and schema.kind == "regression":
        margin = calibration.margin[:4]
        factors, widths = (f"{float(m.exp()):.3g}" for m in margin), (format_number(float(m)) for m in margin)
        extent = f"within a factor of {', '.join(factors)}" if schema.log else f"± {', '.join(widths)}"
        parts.append(f"intervals at {calibration.level:g}: {extent}")
    elif calibration.margin is not None:
        sets = calibration.sets(schema, calibration.scaled(schema, prediction))
        parts.append(f"sets at {calibration.level:g}: {float(sets.sum(2).double().mean()):.2f} classes on average")
    is_labelled = target != UNLABELLED if schema.kind == "multiclass" else ~target.isnan()
    rows = int(is_labelled.reshape(len(target), -1).any(1).sum()) if len(target) else 0
    return "\n".join([f"from {pluralise(rows, 'labelled row')} of validation: {'; '.join(parts)}", *warnings])

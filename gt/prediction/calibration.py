"""How sure a model may be, learned from validation: a temperature for its probabilities, intervals and sets that hold.

Conformal prediction (Vovk et al. 2005; split: Lei et al. 2018; sets of classes: Sadinle et al. 2019) needs nothing of
the model but that new data are drawn as the validation's were: an interval or set at a level of 0.9 then holds the
target of nine in ten.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gt.errors import UserError
from gt.schema import UNLABELLED, Schema, many, number

BINS = 15  # of confidence, by which the calibration error is measured
FEW = 100  # targets by which a temperature is known to about 15 percent; by 30 of them to 30, by 10 not at all


@dataclass(frozen=True)
class Calibration:
    """What validation says of a model's certainty.

    Attributes:
        temperature: what log-odds are divided by (Guo et al. 2017).
        level: share of targets that intervals, or sets, hold; None: there are none.
        margin: (outputs,) how far an interval reaches to either side (of logarithms, where the model's own numbers are
            such); (positions or tasks,) how far below 1 the probability of a class in the set may be.
    """

    temperature: float = 1.0
    level: float | None = None
    margin: Tensor | None = None

    def scaled(self, schema: Schema, prediction: Tensor) -> Tensor:
        """The same prediction at the temperature."""
        return prediction if schema.kind == "regression" else prediction / self.temperature

    def interval(self, schema: Schema, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and the upper ends (rows, outputs)."""
        assert self.margin is not None
        if schema.log:
            return prediction * (-self.margin).exp(), prediction * self.margin.exp()
        return prediction - self.margin, prediction + self.margin

    def sets(self, schema: Schema, prediction: Tensor) -> Tensor:
        """(rows, positions or tasks, classes), True for a class of the set; of yes/no the classes are no and yes."""
        assert self.margin is not None
        return 1 - log_probabilities(schema, prediction).exp() <= self.margin[:, None]


def log_probabilities(schema: Schema, prediction: Tensor) -> Tensor:
    """(rows, positions or tasks, classes) of a prediction; of yes/no the classes are no and yes."""
    if schema.kind == "binary":
        return torch.stack([-prediction, prediction], dim=-1).float().mul(0.5).log_softmax(-1)
    return prediction.view(-1, schema.positions, schema.outputs).float().log_softmax(-1)


def classes(schema: Schema, target: Tensor) -> Tensor:
    """(rows, positions or tasks) the classes of targets, `UNLABELLED` where there is none."""
    if schema.kind == "binary":
        return torch.where(target.isnan(), UNLABELLED, target.nan_to_num().long())
    return target.view(len(target), -1)[:, : schema.positions]


def fit(
    schema: Schema, prediction: Tensor, target: Tensor, level: float | None = None, temperature: bool = False
) -> Calibration:
    """What the validation's predictions and targets say.

    Args:
        level: of intervals or sets; None wants none.
        temperature: whether to fit one.

    Raises:
        UserError: a level that is no share, a temperature of numbers, too few targets for the level, or none that a
            temperature could be fitted to.
    """
    if level is not None and not 0 < level < 1:
        raise UserError(f"level {level:g}: it must be between 0 and 1, such as 0.9")
    if temperature and schema.kind == "regression":
        raise UserError("--calibrate: a temperature is of probabilities, and this model predicts numbers: try --level")
    result = Calibration(best_temperature(schema, prediction, target) if temperature else 1.0, level)
    if level is None:
        return result
    prediction = result.scaled(schema, prediction)
    if schema.kind == "regression":
        off = (prediction.log() - target.log() if schema.log else prediction - target).abs()
    else:
        answers = classes(schema, target)
        right = log_probabilities(schema, prediction).exp().gather(2, answers.clamp(min=0)[..., None])[..., 0]
        off = torch.where(answers == UNLABELLED, torch.nan, 1 - right)
    return replace(result, margin=torch.stack([quantile(column, level) for column in off.T]))


def quantile(off: Tensor, level: float) -> Tensor:
    """What a share of new scores stays at or below: of n the ceil((n + 1) level) smallest; NaN is none.

    Raises:
        UserError: n is too small.
    """
    known = off[~off.isnan()].double().sort().values
    place = math.ceil((len(known) + 1) * level - 1e-9)  # a product that rounding has put above a whole number
    if place > len(known):
        needed = math.ceil(level / (1 - level) - 1e-9)
        raise UserError(f"level {level:g} needs {many(needed, 'validation target')} or more, there are {len(known)}")
    return known[place - 1].to(off.dtype)


def best_temperature(schema: Schema, prediction: Tensor, target: Tensor) -> float:
    """The temperature at which targets are likeliest."""
    answers = classes(schema, target).flatten()
    known = answers != UNLABELLED
    if not known.any():
        raise UserError("--calibrate: the validation has no targets")
    scores = log_probabilities(schema, prediction).flatten(0, 1)[known].double()
    if bool((scores.argmax(1) == answers[known]).all()):  # the lower a temperature, the likelier they are
        right = f"the model is right about all of the {many(len(scores), 'validation target')}"
        raise UserError(f"--calibrate: {right}, which no temperature fits: validate it on more, or leave this out")
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = torch.nn.functional.cross_entropy(scores / log_temperature.exp(), answers[known])
        value.backward()
        return value

    search.step(loss)
    return float(log_temperature.detach().clamp(-5, 5).exp())


def calibration_error(schema: Schema, prediction: Tensor, target: Tensor) -> float:
    """How far confidence and accuracy are apart on average, in `BINS` bins of confidence (Guo et al. 2017)."""
    answers = classes(schema, target).flatten()
    known = answers != UNLABELLED
    sure = log_probabilities(schema, prediction).flatten(0, 1)[known].exp().max(1)
    off = (sure.indices == answers[known]).double() - sure.values.double()
    place = (sure.values * BINS).long().clamp(max=BINS - 1)
    return float(off.new_zeros(BINS).index_add(0, place, off).abs().sum() / max(1, len(off)))


def summary(schema: Schema, calibration: Calibration, prediction: Tensor, target: Tensor) -> str:
    """A line on what was fitted, and one for what makes it doubtful: few targets, or a single class."""
    parts, doubts = [], []
    if schema.kind != "regression":
        answers = classes(schema, target).flatten()
        answers = answers[answers != UNLABELLED]
        if len(answers.unique()) == 1:
            doubts.append("warning: every validation target is of one class: of another this says nothing")
        if calibration.temperature != 1.0 and len(answers) < FEW:
            doubts.append(
                f"warning: {many(len(answers), 'validation target')} hardly tell a temperature: it takes {FEW} or more"
            )
    if calibration.temperature != 1.0:
        before, after = (
            calibration_error(schema, each, target) for each in (prediction, calibration.scaled(schema, prediction))
        )
        parts.append(f"temperature {calibration.temperature:.3g}: calibration error {before:.4f}, now {after:.4f}")
    if calibration.margin is not None and schema.kind == "regression":
        margin = calibration.margin[:4]
        factors, widths = (f"{float(m.exp()):.3g}" for m in margin), (number(float(m)) for m in margin)
        reach = f"within a factor of {', '.join(factors)}" if schema.log else f"± {', '.join(widths)}"
        parts.append(f"intervals at {calibration.level:g}: {reach}")
    elif calibration.margin is not None:
        sets = calibration.sets(schema, calibration.scaled(schema, prediction))
        parts.append(f"sets at {calibration.level:g}: {float(sets.sum(2).double().mean()):.2f} classes on average")
    known = target != UNLABELLED if schema.kind == "multiclass" else ~target.isnan()
    rows = int(known.reshape(len(target), -1).any(1).sum()) if len(target) else 0
    return "\n".join([f"of {many(rows, 'labelled row')} of validation: {'; '.join(parts)}", *doubts])

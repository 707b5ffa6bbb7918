"""Temperature, intervals and sets: held against a search by brute force and against how often they hold."""

import numpy as np
import pytest
import torch

from gt.errors import UserError
from gt.prediction.calibration import (
    MIN_TARGETS,
    Calibration,
    calibration_error,
    fit,
    log_probabilities,
    quantile,
    summary,
)
from gt.schema import UNLABELLED, Schema

CLASSES = Schema(kind="multiclass", outputs=4)
YES_NO = Schema(kind="binary", outputs=2)
NUMBERS = Schema(kind="regression", outputs=2)
LOGS = Schema(kind="regression", outputs=1, log=True)


def drawn(schema: Schema, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions of a model that is twice as sure as it should be, and targets, one in ten of which is missing."""
    torch.manual_seed(seed)
    if schema.kind == "regression":
        prediction = torch.randn(rows, schema.outputs).exp()
        off = torch.randn(rows, schema.outputs) * torch.tensor([1.0, 5.0])[: schema.outputs]
        target = prediction * off.exp() if schema.log else prediction + off
    else:
        prediction = 2 * torch.randn(rows, schema.outputs)
        probabilities = log_probabilities(schema, prediction).exp()
        target = torch.distributions.Categorical(probabilities).sample()
        prediction = 2 * prediction
        target = target[:, 0] if schema.kind == "multiclass" else target.float()
    missing = torch.rand(target.shape) < 0.1
    return prediction, target.masked_fill(missing, UNLABELLED if schema.kind == "multiclass" else torch.nan)


@pytest.mark.parametrize("schema", [CLASSES, YES_NO, NUMBERS, LOGS], ids=["classes", "yes or no", "numbers", "logs"])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_and_sets_hold_what_they_say_of_data_that_were_not_seen(schema: Schema, level: float) -> None:
    calibration = fit(schema, *drawn(schema, 4000, 0), level=level, temperature=schema.kind != "regression")
    prediction, target = drawn(schema, 20_000, 1)
    if schema.kind == "regression":
        low, high = calibration.interval(schema, prediction)
        holds, known = (low <= target) & (target <= high), ~target.isnan()
    else:
        sets = calibration.sets(schema, calibration.scaled(schema, prediction))
        target = target.view(len(target), -1)
        known = ~(target.isnan() | (target == UNLABELLED))
        holds = sets.gather(2, torch.where(known, target, 0).long()[..., None])[..., 0]
    for column, there in zip(holds.T, known.T, strict=True):
        assert abs(float(column[there].float().mean()) - level) < 0.02


@pytest.mark.parametrize("schema", [CLASSES, YES_NO], ids=["classes", "yes or no"])
def test_the_temperature_is_that_at_which_targets_are_likeliest(schema: Schema) -> None:
    prediction, target = drawn(schema, 5000, 0)
    fitted = fit(schema, prediction, target, temperature=True).temperature

    def loss(temperature: float) -> float:
        scores = prediction / temperature
        if schema.kind == "multiclass":
            return float(torch.nn.functional.cross_entropy(scores, target))
        each = torch.nn.functional.binary_cross_entropy_with_logits(scores, target.nan_to_num(), reduction="none")
        return float(each[~target.isnan()].mean())

    tried = np.linspace(1, 4, 301)
    assert fitted == pytest.approx(tried[np.argmin([loss(t) for t in tried])], abs=0.02)
    before, after = (calibration_error(schema, prediction / t, target) for t in (1.0, fitted))
    assert after < 0.02 < before


def test_the_calibration_error_of_a_model_that_is_always_sure_and_right_half_of_the_time() -> None:
    schema, target = Schema(kind="multiclass", outputs=2), torch.arange(1000) % 2
    assert calibration_error(schema, torch.tensor([[50.0, 0.0]]).expand(1000, 2), target) == pytest.approx(0.5)
    assert calibration_error(schema, torch.zeros(1000, 2), target) == pytest.approx(0.0)


def test_the_quantile_of_few_scores_leaves_room_for_the_next_one() -> None:
    off = torch.tensor([5.0, torch.nan, 1.0, 3.0, 2.0, 4.0, 9.0, 8.0, 7.0, 6.0])
    assert float(quantile(off, 0.8)) == 8.0  # the ceil(10 * 0.8)th of nine
    with pytest.raises(UserError, match="19 validation targets"):
        quantile(off, 0.95)
    assert float(quantile(torch.arange(99.0), 0.07)) == 6.0  # the 7th of 99, though 100 * 0.07 is a little more than 7
    with pytest.raises(UserError, match="9 validation targets"):
        quantile(torch.arange(8.0), 0.9)


@pytest.mark.parametrize(("level", "temperature"), [(1.0, False), (90, False), (None, True)])
def test_what_cannot_be_fitted_is_refused(level: float | None, temperature: bool) -> None:
    with pytest.raises(UserError, match="level" if level else "--level"):
        fit(NUMBERS, *drawn(NUMBERS, 10, 0), level, temperature)


@pytest.mark.parametrize("schema", [CLASSES, YES_NO], ids=["classes", "yes or no"])
def test_few_targets_and_one_class_are_warned_of(schema: Schema) -> None:
    def doubts(rows: int, one_class: bool) -> list[str]:
        prediction, target = drawn(schema, rows, 0)
        target = torch.where(target > 0, 0, target) if one_class else target
        calibration = fit(schema, prediction, target, temperature=True)
        return summary(schema, calibration, prediction, target).splitlines()[1:]

    assert doubts(2 * MIN_TARGETS, False) == []
    assert ["few" not in line and "one class" in line for line in doubts(2 * MIN_TARGETS, True)] == [True]
    few, both = doubts(9, False), doubts(9, True)
    assert [f"{MIN_TARGETS} or more" in line for line in few] == [True]
    assert ["one class" in both[0], both[1:]] == [True, few]


@pytest.mark.parametrize("schema", [CLASSES, YES_NO], ids=["classes", "yes or no"])
def test_no_temperature_fits_a_model_that_is_always_right(schema: Schema) -> None:
    prediction = torch.zeros(9, schema.outputs).index_fill(1, torch.tensor([0]), 1.0)
    target = torch.zeros(9, dtype=torch.long) if schema.kind == "multiclass" else torch.full((9, 2), torch.nan)
    if schema.kind == "binary":
        target[:, 0] = 1.0
    with pytest.raises(UserError, match="all of the 9 validation targets"):
        fit(schema, prediction, target, temperature=True)
    target[0] = 1 - target[0]
    fit(schema, prediction, target, temperature=True)


@pytest.mark.parametrize(("log", "reach"), [(True, "within a factor of 2.41, 10"), (False, "± 0.8796, 2.3026")])
def test_how_far_intervals_reach_is_said_in_the_unit_of_the_data(log: bool, reach: str) -> None:
    schema = Schema(kind="regression", outputs=2, log=log)
    calibration = Calibration(level=0.9, margin=torch.tensor([2.41, 10.0]).log())
    assert summary(schema, calibration, *drawn(NUMBERS, 9, 0)).endswith(f"intervals at 0.9: {reach}")


def test_without_calibration_nothing_changes() -> None:
    prediction, _ = drawn(CLASSES, 10, 0)
    assert torch.equal(Calibration().scaled(CLASSES, prediction), prediction)

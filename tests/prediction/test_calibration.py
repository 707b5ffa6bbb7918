"""Temperature scaling against a brute-force search, intervals and sets against their empirical coverage."""

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
BINARY = Schema(kind="binary", outputs=2)
REGRESSION = Schema(kind="regression", outputs=2)
LOG_REGRESSION = Schema(kind="regression", outputs=1, log=True)


def draw(schema: Schema, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions of a model that is twice as confident as it should be, and targets, one in ten of them missing."""
    torch.manual_seed(seed)
    if schema.kind == "regression":
        prediction = torch.randn(rows, schema.outputs).exp()
        noise = torch.randn(rows, schema.outputs) * torch.tensor([1.0, 5.0])[: schema.outputs]
        target = prediction * noise.exp() if schema.log else prediction + noise
    else:
        prediction = 2 * torch.randn(rows, schema.outputs)
        probabilities = log_probabilities(schema, prediction).exp()
        target = torch.distributions.Categorical(probabilities).sample()
        prediction = 2 * prediction
        target = target[:, 0] if schema.kind == "multiclass" else target.float()
    missing = torch.rand(target.shape) < 0.1
    return prediction, target.masked_fill(missing, UNLABELLED if schema.kind == "multiclass" else torch.nan)


@pytest.mark.parametrize(
    "schema", [CLASSES, BINARY, REGRESSION, LOG_REGRESSION], ids=["classes", "yes or no", "numbers", "logs"]
)
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_coverage_on_unseen_data_matches_level(schema: Schema, level: float) -> None:
    calibration = fit(schema, *draw(schema, 4000, 0), level=level, temperature=schema.kind != "regression")
    prediction, target = draw(schema, 20_000, 1)
    if schema.kind == "regression":
        low, high = calibration.interval(schema, prediction)
        covered, labelled = (low <= target) & (target <= high), ~target.isnan()
    else:
        sets = calibration.sets(schema, calibration.scaled(schema, prediction))
        target = target.view(len(target), -1)
        labelled = ~(target.isnan() | (target == UNLABELLED))
        covered = sets.gather(2, torch.where(labelled, target, 0).long()[..., None])[..., 0]
    for column, known in zip(covered.T, labelled.T, strict=True):
        assert abs(float(column[known].float().mean()) - level) < 0.02


@pytest.mark.parametrize("schema", [CLASSES, BINARY], ids=["classes", "yes or no"])
def test_temperature_maximises_likelihood(schema: Schema) -> None:
    prediction, target = draw(schema, 5000, 0)
    fitted = fit(schema, prediction, target, temperature=True).temperature

    def loss(temperature: float) -> float:
        scores = prediction / temperature
        if schema.kind == "multiclass":
            return float(torch.nn.functional.cross_entropy(scores, target))
        each = torch.nn.functional.binary_cross_entropy_with_logits(scores, target.nan_to_num(), reduction="none")
        return float(each[~target.isnan()].mean())

    temperatures = np.linspace(1, 4, 301)
    assert fitted == pytest.approx(temperatures[np.argmin([loss(t) for t in temperatures])], abs=0.02)
    before, after = (calibration_error(schema, prediction / t, target) for t in (1.0, fitted))
    assert after < 0.02 < before


def test_calibration_error_of_overconfident_and_uncertain_models() -> None:
    schema, target = Schema(kind="multiclass", outputs=2), torch.arange(1000) % 2
    assert calibration_error(schema, torch.tensor([[50.0, 0.0]]).expand(1000, 2), target) == pytest.approx(0.5)
    assert calibration_error(schema, torch.zeros(1000, 2), target) == pytest.approx(0.0)


def test_quantile_corrects_for_few_scores() -> None:
    scores = torch.tensor([5.0, torch.nan, 1.0, 3.0, 2.0, 4.0, 9.0, 8.0, 7.0, 6.0])
    assert float(quantile(scores, 0.8)) == 8.0  # the ceil(10 * 0.8)th of nine
    with pytest.raises(UserError, match="19 validation targets"):
        quantile(scores, 0.95)
    assert float(quantile(torch.arange(99.0), 0.07)) == 6.0  # the 7th of 99, though 100 * 0.07 is a little more than 7
    with pytest.raises(UserError, match="9 validation targets"):
        quantile(torch.arange(8.0), 0.9)


@pytest.mark.parametrize(("level", "temperature"), [(1.0, False), (90, False), (None, True)])
def test_invalid_calibration_is_rejected(level: float | None, temperature: bool) -> None:
    with pytest.raises(UserError, match="level" if level else "--level"):
        fit(REGRESSION, *draw(REGRESSION, 10, 0), level, temperature)


@pytest.mark.parametrize("schema", [CLASSES, BINARY], ids=["classes", "yes or no"])
def test_summary_warns_of_few_targets_and_single_class(schema: Schema) -> None:
    def warnings_of(rows: int, one_class: bool) -> list[str]:
        prediction, target = draw(schema, rows, 0)
        target = torch.where(target > 0, 0, target) if one_class else target
        calibration = fit(schema, prediction, target, temperature=True)
        return summary(schema, calibration, prediction, target).splitlines()[1:]

    assert warnings_of(2 * MIN_TARGETS, False) == []
    assert ["few" not in line and "one class" in line for line in warnings_of(2 * MIN_TARGETS, True)] == [True]
    few, both = warnings_of(9, False), warnings_of(9, True)
    assert [f"{MIN_TARGETS} or more" in line for line in few] == [True]
    assert ["one class" in both[0], both[1:]] == [True, few]


@pytest.mark.parametrize("schema", [CLASSES, BINARY], ids=["classes", "yes or no"])
def test_temperature_of_perfect_model_is_rejected(schema: Schema) -> None:
    prediction = torch.zeros(9, schema.outputs).index_fill(1, torch.tensor([0]), 1.0)
    target = torch.zeros(9, dtype=torch.long) if schema.kind == "multiclass" else torch.full((9, 2), torch.nan)
    if schema.kind == "binary":
        target[:, 0] = 1.0
    with pytest.raises(UserError, match="all of the 9 validation targets"):
        fit(schema, prediction, target, temperature=True)
    target[0] = 1 - target[0]
    fit(schema, prediction, target, temperature=True)


@pytest.mark.parametrize(("log", "width"), [(True, "within a factor of 2.41, 10"), (False, "± 0.8796, 2.3026")])
def test_interval_widths_are_in_units_of_data(log: bool, width: str) -> None:
    schema = Schema(kind="regression", outputs=2, log=log)
    calibration = Calibration(level=0.9, margin=torch.tensor([2.41, 10.0]).log())
    assert summary(schema, calibration, *draw(REGRESSION, 9, 0)).endswith(f"intervals at 0.9: {width}")


def test_default_calibration_changes_nothing() -> None:
    prediction, _ = draw(CLASSES, 10, 0)
    assert torch.equal(Calibration().scaled(CLASSES, prediction), prediction)

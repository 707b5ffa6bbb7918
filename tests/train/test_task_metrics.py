"""Metrics of several tasks against scikit-learn, task by task, whatever the precision of the predictions."""

import math

import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from torch import nn
from torchmetrics import MetricCollection

from gt.losses import Criterion, loss
from gt.metrics import custom_metrics, metrics
from gt.schema import UNLABELLED, Schema
from gt.task_metrics import AUROC, R2, AveragePrecision, Errors, Pearson, Ranking
from gt.train.task import Task

NAN = math.nan


def table(tasks: int = 4, rows: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds, whose level differs from task to task, and answers of tasks, some of them missing."""
    draw = torch.Generator().manual_seed(0)
    target = (torch.rand(rows, tasks, generator=draw) < torch.linspace(0.1, 0.8, tasks)).float()
    logits = torch.randn(rows, tasks, generator=draw) + target + torch.linspace(-3, 30, tasks)
    return logits, target.masked_fill(torch.rand(rows, tasks, generator=draw) < 0.3, NAN)


def scores(
    metric: Ranking | Errors | MetricCollection, prediction: torch.Tensor, target: torch.Tensor
) -> dict[str, float]:
    """What a metric says of samples that come in three batches, one of them empty."""
    for rows in torch.arange(len(target)).tensor_split([1, 1]):
        metric.update(prediction[rows], target[rows])
    return {name: float(value) for name, value in metric.compute().items()}


def by_sklearn(score: object, prediction: torch.Tensor, target: torch.Tensor, tasks: range) -> float:
    known = ~target.isnan()
    return float(np.mean([score(target[known[:, n], n], prediction[known[:, n], n]) for n in tasks]))


def test_ranking_is_the_mean_over_tasks_of_sklearns_scores() -> None:
    logits, target = table()
    found = scores(Ranking(4), logits, target)
    assert found["auroc"] == pytest.approx(by_sklearn(roc_auc_score, logits, target, range(4)), abs=1e-6)
    assert found["ap"] == pytest.approx(by_sklearn(average_precision_score, logits, target, range(4)), abs=1e-6)
    known = ~target.isnan()
    pooled = roc_auc_score(target[known], logits[known])
    assert abs(found["auroc"] - pooled) > 0.05  # the levels of the tasks alone would make it another number


def test_rankings_of_ones_own_are_those_of_tasks_and_of_two_classes_by_their_log_odds() -> None:
    """Also far out, where probabilities in float32 are all 1."""
    logits, target = table()
    named = {"auroc": AUROC(4), "ap": AveragePrecision(4)}
    measures, criterion = custom_metrics(Schema(kind="binary", outputs=4), named)
    assert scores(measures, logits, target) == scores(Ranking(4), logits, target)
    assert (criterion.name, criterion.mode) == ("auroc", "max")

    logits = torch.stack([-40 * torch.rand(120), torch.randn(120)], 1)
    classes = torch.randint(2, (120,)).index_fill(0, torch.arange(10), UNLABELLED)
    two, _ = custom_metrics(Schema(outputs=2), {"auroc": AUROC(1), "ap": AveragePrecision(1)})
    found = scores(two, logits, classes)
    odds, known = logits[:, 1] - logits[:, 0], classes != UNLABELLED
    assert found["auroc"] == pytest.approx(roc_auc_score(classes[known], odds[known]), abs=1e-6)
    assert found["ap"] == pytest.approx(average_precision_score(classes[known], odds[known]), abs=1e-6)

    for schema in (Schema(outputs=3), Schema(kind="regression")):
        measures, _ = custom_metrics(schema, {"auroc": AUROC(1)})
        with pytest.raises(ValueError, match="binary tasks only"):
            measures.update(torch.randn(5, schema.outputs), torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize("tasks", [1, 3])
def test_metrics_of_classes_score_each_yes_or_no_task(tasks: int) -> None:
    prediction, target = table(tasks)
    prediction = prediction - prediction.mean(0)
    own = {
        "f1": torchmetrics.classification.MulticlassF1Score(2, average="macro"),
        "mcc": torchmetrics.classification.BinaryMatthewsCorrCoef(),
    }
    measures, _ = custom_metrics(Schema(kind="binary", outputs=tasks), own)
    measures.update(prediction, target)
    answers = [
        ((p > 0).numpy()[~y.isnan()], y.numpy()[~y.isnan()]) for p, y in zip(prediction.T, target.T, strict=True)
    ]
    scores = measures.compute()
    assert float(scores["f1"]) == pytest.approx(np.mean([f1_score(y, p, average="macro") for p, y in answers]))
    assert float(scores["mcc"]) == pytest.approx(np.mean([matthews_corrcoef(y, p) for p, y in answers]))


def test_a_task_without_a_label_or_with_too_few_is_left_out() -> None:
    target = torch.tensor([[1.0, NAN, NAN], [2.0, NAN, 3.0], [4.0, NAN, NAN]])
    prediction = torch.tensor([[1.5, 0.0, 0.0], [2.0, 0.0, 5.0], [3.0, 0.0, 0.0]])
    own = {"pearson": Pearson(3), "r2": R2(3), "mae": torchmetrics.MeanAbsoluteError(), "other": torchmetrics.R2Score()}
    measures, criterion = custom_metrics(Schema(kind="regression", outputs=3), own)
    assert criterion == Criterion("pearson", "max")
    measures.update(prediction, target)
    scores = measures.compute()
    assert float(scores["r2"]) == pytest.approx(r2_score([1, 2, 4], [1.5, 2, 3]))
    assert float(scores["other"]) == pytest.approx(r2_score([1, 2, 4], [1.5, 2, 3]))
    assert float(scores["mae"]) == pytest.approx((2.0 / 3 * 0.75 + 2.0) / 2)
    assert float(scores["pearson"]) == pytest.approx(np.corrcoef([1, 2, 4], [1.5, 2, 3])[0, 1], abs=1e-6)
    measures.reset()
    assert all(value.isnan() for value in measures.compute().values())


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_fits_are_those_of_sklearn_and_numpy_in_any_unit(unit: float) -> None:
    draw = np.random.default_rng(0)
    target = unit * (5 + draw.standard_normal((80, 2)))
    prediction = target + unit * draw.standard_normal((80, 2))
    measures, _ = custom_metrics(Schema(kind="regression", outputs=2), {"r2": R2(2), "pearson": Pearson(2)})
    for rows in (slice(0, 30), slice(30, 80)):
        measures.update(torch.tensor(prediction[rows]), torch.tensor(target[rows]))
    scores = measures.compute()
    columns = range(2)
    assert float(scores["r2"]) == pytest.approx(r2_score(target, prediction), rel=1e-4)
    expected = np.mean([np.corrcoef(target[:, column], prediction[:, column])[0, 1] for column in columns])
    assert float(scores["pearson"]) == pytest.approx(expected, rel=1e-4)
    measures.reset()
    measures.update(torch.full((80, 2), unit), torch.tensor(target))
    assert measures.compute()["pearson"].isnan()


def test_a_task_with_one_answer_or_none_counts_for_nothing() -> None:
    logits, target = table()
    target[:, 0], target[:, 3] = 1.0, NAN
    found = scores(Ranking(4), logits, target)
    assert found["auroc"] == pytest.approx(by_sklearn(roc_auc_score, logits, target, range(1, 3)), abs=1e-6)


@pytest.mark.parametrize("level", [0, 12, 30])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_ranks_are_those_of_the_logits_at_any_level_and_in_any_precision(level: int, precision: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(1)
    target = (torch.rand(200, 1, generator=draw) < 0.4).float()
    logits = (level + 2 * torch.randn(200, 1, generator=draw) + target).to(precision)
    found = scores(Ranking(1), logits, target)
    assert found["auroc"] == pytest.approx(roc_auc_score(target, logits.float()), abs=1e-6)
    assert found["ap"] == pytest.approx(average_precision_score(target, logits.float()), abs=1e-6)


@pytest.mark.parametrize(
    ("rated", "target"),
    [
        ([0.1, 0.2], [0.0, 0.0]),
        ([0.1, 0.2], [1.0, NAN]),
        ([0.1, 0.2], [NAN, NAN]),
        ([], []),
        ([math.inf, 0.2], [1.0, 0.0]),
        ([NAN, 0.2], [1.0, 0.0]),
    ],
)
def test_a_ranking_that_is_not_defined_is_nan(rated: list[float], target: list[float]) -> None:
    found = scores(Ranking(1), torch.tensor(rated).view(-1, 1), torch.tensor(target).view(-1, 1))
    assert math.isnan(found["auroc"])
    assert math.isnan(found["ap"])


def test_errors_are_the_mean_over_tasks_of_sklearns() -> None:
    _, missing = table()
    draw = torch.Generator().manual_seed(2)
    unit = torch.tensor([1.0, 10.0, 0.1, 1000.0])
    target = torch.randn(120, 4, generator=draw) * unit + 0 * missing
    prediction = torch.randn(120, 4, generator=draw) * unit
    found = scores(Errors(4), prediction, target)
    assert found["mae"] == pytest.approx(by_sklearn(mean_absolute_error, prediction, target, range(4)), rel=1e-5)
    assert found["rmse"] == pytest.approx(by_sklearn(root_mean_squared_error, prediction, target, range(4)), rel=1e-5)
    target[:, 2] = NAN
    three = [0, 1, 3]
    found = scores(Errors(4), prediction, target)
    assert found["mae"] == pytest.approx(by_sklearn(mean_absolute_error, prediction, target, three), rel=1e-5)


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e20, 1e30])
def test_errors_of_any_unit_are_those_of_another_times_the_unit(unit) -> None:
    draw = torch.Generator().manual_seed(3)
    target, prediction = torch.randn(2, 90, 3, generator=draw).unbind()
    target[::7, 1] = NAN
    metric, expected = Errors(3), scores(Errors(3), prediction, target)
    for rows in (slice(0, 50), slice(50, 50), slice(50, 90)):
        metric.update(prediction[rows] * unit, target[rows] * unit)
    found = metric.compute()
    for name in ("mae", "rmse"):
        assert float(found[name]) / unit == pytest.approx(float(expected[name]), rel=1e-5)


def test_errors_without_end_are_inf_and_without_any_error_0() -> None:
    found = scores(Errors(1), torch.tensor([[math.inf], [1.0]]), torch.tensor([[1.0], [1.0]]))
    assert found["rmse"] == found["mae"] == math.inf
    found = scores(Errors(1), torch.ones(2, 1), torch.ones(2, 1))
    assert found["rmse"] == found["mae"] == 0


def test_a_prediction_that_is_no_number_is_not_taken_for_a_missing_label() -> None:
    found = scores(Errors(1), torch.tensor([[NAN], [1.0]]), torch.tensor([[1.0], [1.0]]))
    assert math.isnan(found["mae"])


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_a_run_in_16_bits_adds_up_its_scores_in_32(kind: str) -> None:
    schema = Schema(node_floats=1, kind=kind, outputs=2 if kind == "multiclass" else 1)
    task = Task(nn.Identity(), schema, *metrics(schema)).to(torch.bfloat16)  # as Lightning casts a task in bf16-true
    draw = torch.Generator().manual_seed(0)
    # a score of 16 bits would not grow beyond 256 by steps of 1
    parts = [(2 * torch.randn(1, schema.outputs, generator=draw)).bfloat16() for _ in range(700)]
    target = torch.randint(2, (700, 1), generator=draw)
    target = target.flatten() if kind == "multiclass" else target.float()
    measures, _ = metrics(schema)
    task.on_validation_epoch_start()
    for part, y in zip(parts, target.split(1), strict=True):
        task.losses["valid"].add({"loss": (loss(schema, part, y), torch.ones(()))})
        task.measures["valid"].update(part, y)
        measures.update(part.float(), y)
    mean = task.losses["valid"].means()["loss"]
    assert float(mean) == pytest.approx(float(loss(schema, torch.cat(parts).float(), target)))
    found = {name.removeprefix("valid/"): float(value) for name, value in task.measures["valid"].compute().items()}
    assert found == pytest.approx({name: float(value) for name, value in measures.compute().items()})

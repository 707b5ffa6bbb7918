"""Multitask metrics against scikit-learn, task by task, in any precision of the predictions."""

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


def make_table(tasks: int = 4, rows: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds, whose level differs from task to task, and binary targets, some of them missing."""
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(rows, tasks, generator=generator) < torch.linspace(0.1, 0.8, tasks)).float()
    logits = torch.randn(rows, tasks, generator=generator) + target + torch.linspace(-3, 30, tasks)
    return logits, target.masked_fill(torch.rand(rows, tasks, generator=generator) < 0.3, NAN)


def compute_scores(
    metric: Ranking | Errors | MetricCollection, prediction: torch.Tensor, target: torch.Tensor
) -> dict[str, float]:
    """A metric of samples that come in three batches, one of them empty."""
    for rows in torch.arange(len(target)).tensor_split([1, 1]):
        metric.update(prediction[rows], target[rows])
    return {name: float(value) for name, value in metric.compute().items()}


def sklearn_mean(score: object, prediction: torch.Tensor, target: torch.Tensor, tasks: range) -> float:
    known = ~target.isnan()
    return float(np.mean([score(target[known[:, n], n], prediction[known[:, n], n]) for n in tasks]))


def test_ranking_is_mean_of_sklearn_scores() -> None:
    logits, target = make_table()
    actual = compute_scores(Ranking(4), logits, target)
    assert actual["auroc"] == pytest.approx(sklearn_mean(roc_auc_score, logits, target, range(4)), abs=1e-6)
    assert actual["ap"] == pytest.approx(sklearn_mean(average_precision_score, logits, target, range(4)), abs=1e-6)
    known = ~target.isnan()
    pooled = roc_auc_score(target[known], logits[known])
    assert abs(actual["auroc"] - pooled) > 0.05  # pooled scores depend on the levels of the tasks


def test_custom_ranking_metrics_match_references() -> None:
    """Of several tasks and of two classes, by log-odds: also far out, where probabilities in float32 are all 1."""
    logits, target = make_table()
    custom = {"auroc": AUROC(4), "ap": AveragePrecision(4)}
    measures, criterion = custom_metrics(Schema(kind="binary", outputs=4), custom)
    assert compute_scores(measures, logits, target) == compute_scores(Ranking(4), logits, target)
    assert (criterion.name, criterion.mode) == ("auroc", "max")

    logits = torch.stack([-40 * torch.rand(120), torch.randn(120)], 1)
    classes = torch.randint(2, (120,)).index_fill(0, torch.arange(10), UNLABELLED)
    two_classes, _ = custom_metrics(Schema(outputs=2), {"auroc": AUROC(1), "ap": AveragePrecision(1)})
    actual = compute_scores(two_classes, logits, classes)
    log_odds, known = logits[:, 1] - logits[:, 0], classes != UNLABELLED
    assert actual["auroc"] == pytest.approx(roc_auc_score(classes[known], log_odds[known]), abs=1e-6)
    assert actual["ap"] == pytest.approx(average_precision_score(classes[known], log_odds[known]), abs=1e-6)

    for schema in (Schema(outputs=3), Schema(kind="regression")):
        measures, _ = custom_metrics(schema, {"auroc": AUROC(1)})
        with pytest.raises(ValueError, match="binary tasks only"):
            measures.update(torch.randn(5, schema.outputs), torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize("tasks", [1, 3])
def test_class_metrics_score_each_binary_task(tasks: int) -> None:
    prediction, target = make_table(tasks)
    prediction = prediction - prediction.mean(0)
    custom = {
        "f1": torchmetrics.classification.MulticlassF1Score(2, average="macro"),
        "mcc": torchmetrics.classification.BinaryMatthewsCorrCoef(),
    }
    measures, _ = custom_metrics(Schema(kind="binary", outputs=tasks), custom)
    measures.update(prediction, target)
    answers = [
        ((p > 0).numpy()[~y.isnan()], y.numpy()[~y.isnan()]) for p, y in zip(prediction.T, target.T, strict=True)
    ]
    scores = measures.compute()
    assert float(scores["f1"]) == pytest.approx(np.mean([f1_score(y, p, average="macro") for p, y in answers]))
    assert float(scores["mcc"]) == pytest.approx(np.mean([matthews_corrcoef(y, p) for p, y in answers]))


def test_tasks_with_too_few_labels_are_left_out() -> None:
    target = torch.tensor([[1.0, NAN, NAN], [2.0, NAN, 3.0], [4.0, NAN, NAN]])
    prediction = torch.tensor([[1.5, 0.0, 0.0], [2.0, 0.0, 5.0], [3.0, 0.0, 0.0]])
    custom = {
        "pearson": Pearson(3),
        "r2": R2(3),
        "mae": torchmetrics.MeanAbsoluteError(),
        "other": torchmetrics.R2Score(),
    }
    measures, criterion = custom_metrics(Schema(kind="regression", outputs=3), custom)
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
def test_r2_and_pearson_match_references_in_any_unit(unit: float) -> None:
    rng = np.random.default_rng(0)
    target = unit * (5 + rng.standard_normal((80, 2)))
    prediction = target + unit * rng.standard_normal((80, 2))
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


def test_ranking_skips_tasks_without_both_classes() -> None:
    logits, target = make_table()
    target[:, 0], target[:, 3] = 1.0, NAN
    actual = compute_scores(Ranking(4), logits, target)
    assert actual["auroc"] == pytest.approx(sklearn_mean(roc_auc_score, logits, target, range(1, 3)), abs=1e-6)


@pytest.mark.parametrize("level", [0, 12, 30])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_ranking_is_exact_at_any_level_and_precision(level: int, precision: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    target = (torch.rand(200, 1, generator=generator) < 0.4).float()
    logits = (level + 2 * torch.randn(200, 1, generator=generator) + target).to(precision)
    actual = compute_scores(Ranking(1), logits, target)
    assert actual["auroc"] == pytest.approx(roc_auc_score(target, logits.float()), abs=1e-6)
    assert actual["ap"] == pytest.approx(average_precision_score(target, logits.float()), abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        ([0.1, 0.2], [0.0, 0.0]),
        ([0.1, 0.2], [1.0, NAN]),
        ([0.1, 0.2], [NAN, NAN]),
        ([], []),
        ([math.inf, 0.2], [1.0, 0.0]),
        ([NAN, 0.2], [1.0, 0.0]),
    ],
)
def test_undefined_ranking_is_nan(logits: list[float], target: list[float]) -> None:
    actual = compute_scores(Ranking(1), torch.tensor(logits).view(-1, 1), torch.tensor(target).view(-1, 1))
    assert math.isnan(actual["auroc"])
    assert math.isnan(actual["ap"])


def test_errors_are_mean_of_sklearn_scores() -> None:
    _, with_missing = make_table()
    generator = torch.Generator().manual_seed(2)
    unit = torch.tensor([1.0, 10.0, 0.1, 1000.0])
    target = torch.randn(120, 4, generator=generator) * unit + 0 * with_missing
    prediction = torch.randn(120, 4, generator=generator) * unit
    actual = compute_scores(Errors(4), prediction, target)
    assert actual["mae"] == pytest.approx(sklearn_mean(mean_absolute_error, prediction, target, range(4)), rel=1e-5)
    assert actual["rmse"] == pytest.approx(
        sklearn_mean(root_mean_squared_error, prediction, target, range(4)), rel=1e-5
    )
    target[:, 2] = NAN
    three = [0, 1, 3]
    actual = compute_scores(Errors(4), prediction, target)
    assert actual["mae"] == pytest.approx(sklearn_mean(mean_absolute_error, prediction, target, three), rel=1e-5)


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e20, 1e30])
def test_errors_scale_with_the_unit(unit) -> None:
    generator = torch.Generator().manual_seed(3)
    target, prediction = torch.randn(2, 90, 3, generator=generator).unbind()
    target[::7, 1] = NAN
    metric, expected = Errors(3), compute_scores(Errors(3), prediction, target)
    for rows in (slice(0, 50), slice(50, 50), slice(50, 90)):
        metric.update(prediction[rows] * unit, target[rows] * unit)
    actual = metric.compute()
    for name in ("mae", "rmse"):
        assert float(actual[name]) / unit == pytest.approx(float(expected[name]), rel=1e-5)


def test_errors_of_infinite_and_perfect_predictions() -> None:
    actual = compute_scores(Errors(1), torch.tensor([[math.inf], [1.0]]), torch.tensor([[1.0], [1.0]]))
    assert actual["rmse"] == actual["mae"] == math.inf
    actual = compute_scores(Errors(1), torch.ones(2, 1), torch.ones(2, 1))
    assert actual["rmse"] == actual["mae"] == 0


def test_nan_prediction_is_not_a_missing_label() -> None:
    actual = compute_scores(Errors(1), torch.tensor([[NAN], [1.0]]), torch.tensor([[1.0], [1.0]]))
    assert math.isnan(actual["mae"])


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_16_bit_run_accumulates_scores_in_float32(kind: str) -> None:
    schema = Schema(node_floats=1, kind=kind, outputs=2 if kind == "multiclass" else 1)
    task = Task(nn.Identity(), schema, *metrics(schema)).to(torch.bfloat16)  # as Lightning casts a task in bf16-true
    generator = torch.Generator().manual_seed(0)
    # in 16 bits, a sum would not grow beyond 256 in steps of 1
    parts = [(2 * torch.randn(1, schema.outputs, generator=generator)).bfloat16() for _ in range(700)]
    target = torch.randint(2, (700, 1), generator=generator)
    target = target.flatten() if kind == "multiclass" else target.float()
    measures, _ = metrics(schema)
    task.on_validation_epoch_start()
    for part, y in zip(parts, target.split(1), strict=True):
        task.losses["valid"].add({"loss": (loss(schema, part, y), torch.ones(()))})
        task.measures["valid"].update(part, y)
        measures.update(part.float(), y)
    mean = task.losses["valid"].means()["loss"]
    assert float(mean) == pytest.approx(float(loss(schema, torch.cat(parts).float(), target)))
    actual = {name.removeprefix("valid/"): float(value) for name, value in task.measures["valid"].compute().items()}
    assert actual == pytest.approx({name: float(value) for name, value in measures.compute().items()})

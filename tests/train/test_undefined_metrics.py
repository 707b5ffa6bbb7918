"""Undefined metrics: predictions of NaN, absent classes and too few labels."""

import math
import warnings
from copy import deepcopy

import pytest
import torchmetrics
from sklearn.metrics import balanced_accuracy_score

from gt.losses import total_loss
from gt.metrics import MeanLosses, custom_metrics
from gt.schema import Schema
from gt.task_metrics import R2, BalancedAccuracy, Pearson
from tests.train.predictions import NAN, evaluate, random_predictions


@pytest.mark.parametrize(
    ("kind", "outputs", "names"),
    [("multiclass", 3, ("accuracy", "f1")), ("binary", 2, ("auroc", "ap")), ("regression", 2, ("mae", "rmse"))],
)
def test_nan_prediction_makes_metrics_and_loss_nan(kind, outputs, names):
    """It counts neither as missing nor as the first class."""
    prediction, target = random_predictions(kind, outputs)
    schema = Schema(kind=kind, outputs=outputs)
    broken = prediction[:8].clone()
    broken[3, outputs - 1] = NAN
    values = evaluate(schema, (broken, target[:8]), (prediction[8:], target[8:]))
    assert set(values) == {*names}
    assert all(math.isnan(value) for value in values.values())
    losses = MeanLosses(["loss"])
    for part, part_target in ((broken, target[:8]), (prediction[8:], target[8:])):
        losses.add({"loss": total_loss(schema, part, part_target)})
    assert losses.means()["loss"].isnan()
    assert losses.means()["loss"].isnan()  # although nothing was added since


@pytest.mark.parametrize(("metric", "kind"), [
    (R2(2), "regression"), (Pearson(2), "regression"), (torchmetrics.MeanAbsoluteError(), "regression"),
    (torchmetrics.classification.BinaryF1Score(), "binary"),
])  # fmt: skip
def test_nan_prediction_counts_only_where_labelled(metric, kind):
    prediction, target = random_predictions(kind, 2)
    prediction[3, 1] = NAN
    schema = Schema(kind=kind, outputs=2)
    for label, undefined in ((NAN, False), (1.0, True)):
        target[3, 1] = label
        measures, _ = custom_metrics(schema, {"own": deepcopy(metric)})
        measures.update(prediction, target)
        assert bool(measures.compute()["own"].isnan()) is undefined


@pytest.mark.parametrize("absent", [(), (1,), (0, 3)])
def test_balanced_accuracy_matches_scikit_learn(absent):
    prediction, target = random_predictions("multiclass", 4, rows=60)
    for label in absent:
        target[target == label] = 2
    measures, _ = custom_metrics(Schema(kind="multiclass", outputs=4), {"own": BalancedAccuracy(4)})
    for rows in (slice(0, 7), slice(7, 60)):
        measures.update(prediction[rows], target[rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without samples
        expected = balanced_accuracy_score(target, prediction.argmax(1))
    assert float(measures.compute()["own"]) == pytest.approx(expected)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(("metric", "labels"), [
    (torchmetrics.R2Score(), 0), (torchmetrics.R2Score(), 1), (torchmetrics.SpearmanCorrCoef(), 0)
])  # fmt: skip
def test_metric_with_too_few_labels_is_undefined(metric, outputs, labels):
    prediction, target = random_predictions("regression", outputs)
    target[labels:] = NAN
    measures, _ = custom_metrics(Schema(kind="regression", outputs=outputs), {"own": deepcopy(metric)})
    measures.update(prediction, target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a metric that was never updated would warn
        assert measures.compute()["own"].isnan()


def test_metric_may_return_named_scores():
    class Extremes(torchmetrics.MaxMetric):
        higher_is_better = True

        def update(self, prediction, target):
            super().update(prediction)

        def compute(self):
            return {"highest": super().compute()}

    prediction, target = random_predictions("regression", 1)
    measures, _ = custom_metrics(Schema(kind="regression"), {"own": Extremes()})
    measures.update(prediction, target)
    assert float(measures.compute()["highest"]) == float(prediction.max())

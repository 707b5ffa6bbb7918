"""Losses and metrics by the kind of target, against torch, scikit-learn and brute force."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from torch.nn import functional as F

from gt.errors import UserError
from gt.losses import Criterion, constant_prediction, loss
from gt.metrics import criterion_of, custom_metrics, metrics
from gt.schema import UNLABELLED, Schema
from tests.train.predictions import NAN, evaluate, random_predictions


def test_multiclass_loss_and_metrics():
    prediction, target = random_predictions("multiclass", 4)
    schema = Schema(kind="multiclass", outputs=4)
    assert loss(schema, prediction, target) == pytest.approx(float(F.cross_entropy(prediction, target)))
    assert loss(schema, prediction, target[:, None]) == pytest.approx(float(F.cross_entropy(prediction, target)))
    found = evaluate(schema, (prediction[:9], target[:9]), (prediction[9:], target[9:]))
    predicted = prediction.argmax(1)
    assert found == pytest.approx(
        {"accuracy": accuracy_score(target, predicted), "f1": f1_score(target, predicted, average="macro")}
    )
    assert set(evaluate(Schema(kind="multiclass", level="node", outputs=4), (prediction, target))) == {"accuracy"}


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_binary_loss_and_metrics(outputs, missing):
    prediction, target = random_predictions("binary", outputs, missing=missing)
    schema = Schema(kind="binary", outputs=outputs)
    known = ~target.isnan()
    expected = F.binary_cross_entropy_with_logits(prediction[known], target[known])
    assert loss(schema, prediction, target) == pytest.approx(float(expected))
    found = evaluate(schema, (prediction[:9], target[:9]), (prediction[9:], target[9:]))
    tasks = [(target[known[:, n], n], prediction[known[:, n], n]) for n in range(outputs)]
    assert found == pytest.approx(
        {
            "auroc": np.mean([roc_auc_score(*task) for task in tasks]),
            "ap": np.mean([average_precision_score(*task) for task in tasks]),
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_regression_loss_and_metrics(outputs, missing):
    prediction, target = random_predictions("regression", outputs, missing=missing)
    schema = Schema(kind="regression", outputs=outputs)
    known = ~target.isnan()
    error = mean_absolute_error(target[known], prediction[known])
    assert loss(schema, prediction, target) == pytest.approx(error)
    found = evaluate(schema, (prediction[:9], target[:9]), (prediction[9:], target[9:]))
    tasks = [(target[known[:, n], n], prediction[known[:, n], n]) for n in range(outputs)]
    assert found == pytest.approx(
        {
            "mae": np.mean([mean_absolute_error(*task) for task in tasks]),
            "rmse": np.mean([root_mean_squared_error(*task) for task in tasks]),
        }
    )


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_one_dimensional_targets_of_a_single_output(kind):
    prediction, target = random_predictions(kind, 1)
    schema = Schema(kind=kind, outputs=1)
    assert loss(schema, prediction, target.flatten()) == loss(schema, prediction, target)
    assert evaluate(schema, (prediction, target.flatten())) == evaluate(schema, (prediction, target))


def test_auroc_ranks_logits_across_batches():
    # the logits of the first batch could be taken for probabilities, those of the second could not
    first = torch.tensor([[0.1], [0.9], [0.5]]), torch.tensor([[0.0], [1.0], [1.0]])
    second = torch.tensor([[-3.0], [3.0], [0.2]]), torch.tensor([[0.0], [1.0], [0.0]])
    assert evaluate(Schema(kind="binary"), first, second) == {"auroc": 1.0, "ap": 1.0}


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_unlabelled_entries_have_no_effect(kind):
    schema = Schema(kind=kind, outputs=3)
    prediction, target = random_predictions(kind, 3, missing=0.3)
    known = ~target.isnan()
    prediction.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(schema, prediction, target), prediction)
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).all()
    changed = torch.where(known, prediction.detach(), 100.0)
    assert loss(schema, changed, target) == loss(schema, prediction.detach(), target)
    assert evaluate(schema, (changed, target)) == evaluate(schema, (prediction.detach(), target))


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_batch_without_labels(kind):
    schema = Schema(kind=kind, outputs=2)
    prediction, target = random_predictions(kind, 2, missing=1.0)
    prediction.requires_grad_()
    value = loss(schema, prediction, target)
    assert value == 0
    assert (torch.autograd.grad(value, prediction)[0] == 0).all()
    assert all(math.isnan(score) for score in evaluate(schema, (prediction.detach(), target)).values())
    labelled = random_predictions(kind, 2)
    alone = evaluate(schema, labelled)
    assert evaluate(schema, (prediction.detach(), target), labelled) == alone  # a batch without labels has no effect


def test_reset_and_cloned_metrics_start_empty():
    for kind in ("multiclass", "binary", "regression"):
        schema = Schema(kind=kind, outputs=3)
        measures, _ = metrics(schema)
        copy = measures.clone(prefix="valid/")
        measures.update(*random_predictions(kind, 3, seed=1))
        measures.reset()
        measures.update(*random_predictions(kind, 3, seed=2))
        copy.update(*random_predictions(kind, 3, seed=2))
        expected = evaluate(schema, random_predictions(kind, 3, seed=2))
        assert {name: float(value) for name, value in measures.compute().items()} == expected
        assert {name: float(value) for name, value in copy.compute().items()} == {
            f"valid/{name}": value for name, value in expected.items()
        }


@pytest.mark.parametrize(
    ("kind", "name", "mode"),
    [("multiclass", "accuracy", "max"), ("binary", "auroc", "max"), ("regression", "mae", "min")],
)
def test_default_criterion_prefers_the_better_model(kind, name, mode):
    schema = Schema(kind=kind, outputs=2)
    _, criterion = metrics(schema)
    assert (criterion.name, criterion.mode) == (name, mode)
    prediction, target = random_predictions(kind, 2)
    perfect = 9.0 * F.one_hot(target, 2) if kind == "multiclass" else target
    better, worse = evaluate(schema, (perfect, target))[name], evaluate(schema, (prediction, target))[name]
    assert better > worse if mode == "max" else better < worse


def test_unlabelled_nodes_are_ignored() -> None:
    torch.manual_seed(0)
    schema = Schema(kind="multiclass", outputs=4, level="node")
    prediction, target = torch.randn(30, 4, requires_grad=True), torch.randint(4, (30,))
    known = torch.rand(30) < 0.4
    masked = target.where(known, UNLABELLED)
    masked_loss, expected = loss(schema, prediction, masked), loss(schema, prediction[known], target[known])
    torch.testing.assert_close(masked_loss, expected)
    torch.testing.assert_close(expected, F.cross_entropy(prediction[known], target[known]))
    grads = [torch.autograd.grad(each, prediction)[0] for each in (masked_loss, expected)]
    torch.testing.assert_close(*grads)
    measures, _ = metrics(schema)
    measures.update(prediction, masked)
    accuracy = (prediction[known].argmax(1) == target[known]).float().mean()
    torch.testing.assert_close(measures.compute()["accuracy"], accuracy)
    torch.testing.assert_close(constant_prediction(schema, masked), constant_prediction(schema, target[known]))
    unlabelled_loss = loss(schema, prediction, torch.full_like(target, UNLABELLED))
    assert unlabelled_loss == 0
    assert torch.autograd.grad(unlabelled_loss, prediction)[0].eq(0).all()


def test_target_positions_are_scored_separately() -> None:
    torch.manual_seed(0)
    schema = Schema(kind="multiclass", outputs=3, positions=2)
    prediction, target = torch.randn(5, 6), torch.randint(3, (5, 2))
    parts = [F.cross_entropy(prediction[:, 3 * i : 3 * i + 3], target[:, i]) for i in range(2)]
    torch.testing.assert_close(loss(schema, prediction, target), sum(parts) / 2)
    measures, _ = metrics(schema)
    measures.update(prediction, target)
    torch.testing.assert_close(
        measures.compute()["accuracy"], (prediction.view(5, 2, 3).argmax(2) == target).float().mean()
    )
    constant = constant_prediction(schema, torch.tensor([[0, 2], [0, 2], [1, 2]])).view(2, 3)
    assert constant.argmax(1).tolist() == [0, 2]


def test_scaled_targets_are_measured_in_original_units() -> None:
    torch.manual_seed(0)
    schema = Schema(kind="regression", outputs=2, mean=(5.0, -1.0), scale=(10.0, 0.5), squared=True)
    prediction, target = torch.randn(20, 2), torch.randn(20, 2)
    target[3, 1] = torch.nan
    error = ((prediction - target) / torch.tensor([10.0, 0.5]))[~target.isnan()]
    torch.testing.assert_close(loss(schema, prediction, target), error.square().mean())
    measures, criterion = metrics(schema)
    measures.update(prediction, target)
    rmse = (prediction - target).square().nanmean(0).sqrt()
    torch.testing.assert_close(measures.compute()["rmse"], rmse.mean())
    assert criterion.name == "loss"  # for several targets, which it measures in units of their standard deviations
    torch.testing.assert_close(constant_prediction(schema, target), target.nanmean(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": (1.0,)}, "1 numbers in weights for 3 outputs"),
        ({"kind": "regression", "mean": (0.0,) * 3}, "each mean needs a scale"),
        ({"kind": "regression", "mean": (0.0,) * 3, "scale": (1.0, 0.0, 1.0)}, "above 0"),
        ({"kind": "binary", "positions": 2}, "only a multiclass target"),
    ],
)
def test_inconsistent_schema_is_rejected(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schema(**{"outputs": 3, **options})


@pytest.mark.parametrize(
    ("log", "squared", "name"), [(False, True, "rmse"), (False, False, "mae"), (True, True, "loss")]
)
def test_regression_criterion(log, squared, name) -> None:
    assert metrics(Schema(kind="regression", log=log, squared=squared))[1] == Criterion(name, "min")


def test_criterion_of_targets_in_different_units() -> None:
    in_units = Schema(kind="regression", outputs=2, mean=(0.0, 1000.0), scale=(1.0, 200.0))
    assert metrics(in_units)[1] == Criterion("loss", "min")
    assert metrics(replace(in_units, scale=(30.0, 200.0)))[1] == Criterion("mae", "min")
    assert metrics(Schema(kind="regression", outputs=2))[1] == Criterion("mae", "min")


def test_log_targets_are_measured_in_original_units() -> None:
    schema = Schema(kind="regression", outputs=2, mean=(0.0, 2.0), scale=(3.0, 0.5), log=True)
    draw = torch.Generator().manual_seed(0)
    target = (4 * torch.randn(20, 2, generator=draw)).exp()
    prediction = (4 * torch.randn(20, 2, generator=draw)).exp().requires_grad_()
    target[3, 1] = NAN
    known = ~target.isnan()
    error = ((prediction.log() - target.log()) / torch.tensor([3.0, 0.5]))[known]
    value = loss(schema, prediction, target)
    torch.testing.assert_close(value, error.abs().mean())
    (gradient,) = torch.autograd.grad(value, prediction)
    assert gradient.isfinite().all()
    assert (gradient[known] != 0).all()
    assert loss(schema, torch.zeros(20, 2), target).isfinite()
    found = evaluate(schema, (prediction.detach(), target))
    assert found["mae"] == pytest.approx(float((prediction.detach() - target).abs().nanmean(0).mean()), rel=1e-5)


def test_custom_metrics_and_their_criterion():
    prediction, target = random_predictions("regression", 2, missing=0.4)
    custom = {"error": torchmetrics.MeanSquaredError(), "r2": torchmetrics.R2Score()}
    measures, criterion = custom_metrics(Schema(kind="regression", outputs=2), custom)
    measures.update(prediction[:15], target[:15])
    measures.update(prediction[15:], target[15:])
    tasks = [(p[~y.isnan()], y[~y.isnan()]) for p, y in zip(prediction.T, target.T, strict=True)]
    scores = {name: float(value) for name, value in measures.compute().items()}
    assert scores["error"] == pytest.approx(np.mean([float(F.mse_loss(p, y)) for p, y in tasks]))
    assert scores["r2"] == pytest.approx(np.mean([r2_score(y.numpy(), p.numpy()) for p, y in tasks]))
    assert criterion == Criterion("error", "min")
    assert criterion_of(dict(measures.items(keep_base=True)), "r2") == Criterion("r2", "max")
    with pytest.raises(UserError, match=r"criterion=erorr: .*'error'"):
        criterion_of(dict(measures.items(keep_base=True)), "erorr")


@pytest.mark.parametrize(
    ("kind", "name", "mode"), [("regression", "rmse", "min"), ("binary", "ap", "max"), ("multiclass", "f1", "max")]
)
def test_criterion_can_be_any_metric_of_the_dataset(kind, name, mode):
    measures, _ = metrics(Schema(kind=kind, outputs=3))
    assert criterion_of(dict(measures.items(keep_base=True)), name) == Criterion(name, mode)

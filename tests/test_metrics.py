"""Losses, metrics and baselines by the kind of target, against torch, sklearn and brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, mean_squared_error, roc_auc_score
from torch.nn import functional as F

from gt.metrics import constant_prediction, loss, metrics
from gt.schema import Schema

NAN = float("nan")


def numbers(kind, outputs, rows=40, seed=0, missing=0.0):
    """Predictions (rows, outputs) and targets of a kind, a share of them without a label."""
    draw = torch.Generator().manual_seed(seed)
    prediction = 3 * torch.randn(rows, outputs, generator=draw)
    if kind == "multiclass":
        return prediction, torch.randint(0, outputs, (rows,), generator=draw)
    target = torch.randn(rows, outputs, generator=draw)
    target = (target > 0).float() if kind == "binary" else target
    return prediction, target.masked_fill(torch.rand(rows, outputs, generator=draw) < missing, NAN)


def measured(schema, *batches):
    measures, _ = metrics(schema)
    for prediction, target in batches:
        measures.update(prediction, target)
    return {name: float(value) for name, value in measures.compute().items()}


def test_multiclass_is_cross_entropy_accuracy_and_macro_f1():
    prediction, target = numbers("multiclass", 4)
    schema = Schema(kind="multiclass", outputs=4)
    assert loss(schema, prediction, target) == pytest.approx(float(F.cross_entropy(prediction, target)))
    assert loss(schema, prediction, target[:, None]) == pytest.approx(float(F.cross_entropy(prediction, target)))
    found = measured(schema, (prediction[:9], target[:9]), (prediction[9:], target[9:]))
    answers = prediction.argmax(1)
    assert found == pytest.approx(
        {"accuracy": accuracy_score(target, answers), "f1": f1_score(target, answers, average="macro")}
    )
    assert set(measured(Schema(kind="multiclass", level="node", outputs=4), (prediction, target))) == {"accuracy"}


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_binary_is_bce_and_auroc_over_what_is_labelled(outputs, missing):
    prediction, target = numbers("binary", outputs, missing=missing)
    schema = Schema(kind="binary", outputs=outputs)
    known = ~target.isnan()
    expected = F.binary_cross_entropy_with_logits(prediction[known], target[known])
    assert loss(schema, prediction, target) == pytest.approx(float(expected))
    found = measured(schema, (prediction[:9], target[:9]), (prediction[9:], target[9:]))
    assert found == pytest.approx({"auroc": roc_auc_score(target[known], prediction[known])})


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_regression_is_absolute_error_and_rmse_over_what_is_labelled(outputs, missing):
    prediction, target = numbers("regression", outputs, missing=missing)
    schema = Schema(kind="regression", outputs=outputs)
    known = ~target.isnan()
    error = mean_absolute_error(target[known], prediction[known])
    assert loss(schema, prediction, target) == pytest.approx(error)
    found = measured(schema, (prediction[:9], target[:9]), (prediction[9:], target[9:]))
    assert found == pytest.approx(
        {"mae": error, "rmse": math.sqrt(mean_squared_error(target[known], prediction[known]))}
    )


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_flat_targets_of_a_single_output_are_taken(kind):
    prediction, target = numbers(kind, 1)
    schema = Schema(kind=kind, outputs=1)
    assert loss(schema, prediction, target.flatten()) == loss(schema, prediction, target)
    assert measured(schema, (prediction, target.flatten())) == measured(schema, (prediction, target))


def test_auroc_ranks_log_odds_of_different_batches_alike():
    # one batch has log-odds that could be taken for probabilities, the other has not
    first = torch.tensor([[0.1], [0.9], [0.5]]), torch.tensor([[0.0], [1.0], [1.0]])
    second = torch.tensor([[-3.0], [3.0], [0.2]]), torch.tensor([[0.0], [1.0], [0.0]])
    assert measured(Schema(kind="binary"), first, second) == {"auroc": 1.0}


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_what_has_no_label_gets_no_gradient_and_has_no_effect(kind):
    schema = Schema(kind=kind, outputs=3)
    prediction, target = numbers(kind, 3, missing=0.3)
    known = ~target.isnan()
    prediction.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(schema, prediction, target), prediction)
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).all()
    other = torch.where(known, prediction.detach(), 100.0)
    assert loss(schema, other, target) == loss(schema, prediction.detach(), target)
    assert measured(schema, (other, target)) == measured(schema, (prediction.detach(), target))


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_no_labels_at_all(kind):
    schema = Schema(kind=kind, outputs=2)
    prediction, target = numbers(kind, 2, missing=1.0)
    prediction.requires_grad_()
    value = loss(schema, prediction, target)
    assert value == 0
    assert (torch.autograd.grad(value, prediction)[0] == 0).all()
    assert all(math.isnan(score) for score in measured(schema, (prediction.detach(), target)).values())
    labelled = numbers(kind, 2)
    alone = measured(schema, labelled)
    assert measured(schema, (prediction.detach(), target), labelled) == alone  # a batch without labels changes nothing


def test_metrics_start_anew_after_a_reset_and_in_each_copy():
    for kind in ("multiclass", "binary", "regression"):
        schema = Schema(kind=kind, outputs=3)
        measures, _ = metrics(schema)
        copy = measures.clone(prefix="valid/")
        measures.update(*numbers(kind, 3, seed=1))
        measures.reset()
        measures.update(*numbers(kind, 3, seed=2))
        copy.update(*numbers(kind, 3, seed=2))
        expected = measured(schema, numbers(kind, 3, seed=2))
        assert {name: float(value) for name, value in measures.compute().items()} == expected
        assert {name: float(value) for name, value in copy.compute().items()} == {
            f"valid/{name}": value for name, value in expected.items()
        }


@pytest.mark.parametrize(
    ("kind", "name", "mode"),
    [("multiclass", "accuracy", "max"), ("binary", "auroc", "max"), ("regression", "mae", "min")],
)
def test_the_criterion_is_one_of_the_metrics_and_a_better_model_scores_better(kind, name, mode):
    schema = Schema(kind=kind, outputs=2)
    _, criterion = metrics(schema)
    assert (criterion.name, criterion.mode) == (name, mode)
    prediction, target = numbers(kind, 2)
    perfect = 9.0 * F.one_hot(target, 2) if kind == "multiclass" else target
    better, worse = measured(schema, (perfect, target))[name], measured(schema, (prediction, target))[name]
    assert better > worse if mode == "max" else better < worse


def test_the_constant_of_classes_is_their_frequency():
    schema = Schema(kind="multiclass", outputs=4)
    target = torch.tensor([2] * 500 + [0] * 300 + [1] * 200)  # class 3 does not occur
    constant = constant_prediction(schema, target)
    everywhere = constant.expand(len(target), -1)
    assert constant.exp().sum() == pytest.approx(1)
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    assert entropy < loss(schema, everywhere, target) < entropy + 0.005
    assert torch.isfinite(loss(schema, constant[None], torch.tensor([3])))  # what was never seen is not impossible
    assert measured(schema, (everywhere, target))["accuracy"] == 0.5


def test_the_constant_of_yes_or_no_is_the_log_odds():
    schema = Schema(kind="binary", outputs=2)
    target = torch.tensor([[1.0, 0.0], [0.0, NAN], [0.0, 0.0], [0.0, 1.0], [NAN, NAN]])
    constant = constant_prediction(schema, target)
    assert constant.tolist() == pytest.approx([math.log(1 / 3), math.log(1 / 2)])
    best = loss(schema, constant.expand(5, -1), target)
    for step in itertools.product((-0.1, 0.1), repeat=2):
        assert loss(schema, (constant + torch.tensor(step)).expand(5, -1), target) > best
    assert measured(schema, (constant[:1].expand(5, -1), target[:, :1]))["auroc"] == 0.5


def test_the_constant_of_numbers_is_the_median():
    schema = Schema(kind="regression", outputs=2)
    target = torch.tensor([[1.0, NAN], [2.0, 5.0], [90.0, 7.0], [NAN, -50.0]])
    constant = constant_prediction(schema, target)
    assert constant.tolist() == [2.0, 5.0]
    best = loss(schema, constant.expand(4, -1), target)
    for other in np.linspace(-60, 100, 81):
        for column in (0, 1):
            moved = constant.clone()
            moved[column] = other
            assert loss(schema, moved.expand(4, -1), target) >= best


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_an_output_without_labels_or_with_one_answer_has_a_finite_constant(kind):
    target = torch.tensor([[NAN, 1.0, 0.0], [NAN, 1.0, 0.0]])
    schema = Schema(kind=kind, outputs=3)
    constant = constant_prediction(schema, target)
    assert torch.isfinite(constant).all()
    assert constant[0] == 0
    assert loss(schema, constant.expand(2, -1), target) < 1e-5
    assert torch.isfinite(loss(schema, constant.expand(2, -1), torch.ones(2, 3)))

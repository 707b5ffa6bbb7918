"""The best constant prediction: no other constant has a lower loss, with or without class weights."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gt.losses import constant_prediction, loss
from gt.schema import Schema
from tests.train.predictions import NAN, evaluate, random_predictions


def test_multiclass_constant_is_the_class_frequencies():
    schema = Schema(kind="multiclass", outputs=4)
    target = torch.tensor([2] * 500 + [0] * 300 + [1] * 200)  # class 3 does not occur
    constant = constant_prediction(schema, target)
    predictions = constant.expand(len(target), -1)
    assert constant.exp().sum() == pytest.approx(1)
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    assert entropy < loss(schema, predictions, target) < entropy + 0.005
    assert torch.isfinite(loss(schema, constant[None], torch.tensor([3])))  # an unseen class is not impossible
    assert evaluate(schema, (predictions, target))["accuracy"] == 0.5


def test_binary_constant_is_the_log_odds():
    schema = Schema(kind="binary", outputs=2)
    target = torch.tensor([[1.0, 0.0], [0.0, NAN], [0.0, 0.0], [0.0, 1.0], [NAN, NAN]])
    constant = constant_prediction(schema, target)
    assert constant.tolist() == pytest.approx([math.log(1 / 3), math.log(1 / 2)])
    best = loss(schema, constant.expand(5, -1), target)
    for change in itertools.product((-0.1, 0.1), repeat=2):
        assert loss(schema, (constant + torch.tensor(change)).expand(5, -1), target) > best
    assert evaluate(schema, (constant.expand(5, -1), target))["auroc"] == 0.5


@pytest.mark.parametrize(("kind", "outputs"), [("binary", 2), ("multiclass", 3)])
def test_constant_minimises_the_class_weighted_loss(kind, outputs):
    schema = Schema(kind=kind, outputs=outputs, weights=(0.2, 5.0, 1.5)[:outputs])
    _, target = random_predictions(kind, outputs, rows=2000)
    best = float(loss(schema, constant_prediction(schema, target).expand(2000, -1), target))
    free = constant_prediction(replace(schema, weights=()), target).requires_grad_()
    optimizer = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(schema, free.expand(2000, -1), target)
        value.backward()
        return value

    assert float(closure()) > best + 0.01
    optimizer.step(closure)
    assert best == pytest.approx(float(closure()), abs=1e-4)


def test_constant_under_custom_loss_is_mean_or_median():
    schema, target = Schema(kind="regression"), torch.tensor([[1.0], [2.0], [90.0]])
    assert constant_prediction(schema, target, torch.nn.MSELoss()).tolist() == [31.0]
    assert constant_prediction(replace(schema, squared=True), target, torch.nn.L1Loss()).tolist() == [2.0]
    squares = replace(schema, squared=True, log=True)
    assert constant_prediction(squares, target).tolist() == pytest.approx([180 ** (1 / 3)])


def test_regression_constant_is_the_median():
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
def test_unlabelled_or_single_class_outputs_have_finite_constants(kind):
    target = torch.tensor([[NAN, 1.0, 0.0], [NAN, 1.0, 0.0]])
    schema = Schema(kind=kind, outputs=3)
    constant = constant_prediction(schema, target)
    assert torch.isfinite(constant).all()
    assert constant[0] == 0
    assert loss(schema, constant.expand(2, -1), target) < 1e-5
    assert torch.isfinite(loss(schema, constant.expand(2, -1), torch.ones(2, 3)))

"""Losses, metrics and baselines by the kind of target, against torch, sklearn and brute force."""

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
from gt.losses import Criterion, constant_prediction, format_score, loss, suits, total_loss
from gt.metrics import criterion_of, custom_metrics, metrics
from gt.schema import UNLABELLED, Schema

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
def test_binary_is_bce_of_what_is_labelled_and_the_mean_auroc_and_ap_of_tasks(outputs, missing):
    prediction, target = numbers("binary", outputs, missing=missing)
    schema = Schema(kind="binary", outputs=outputs)
    known = ~target.isnan()
    expected = F.binary_cross_entropy_with_logits(prediction[known], target[known])
    assert loss(schema, prediction, target) == pytest.approx(float(expected))
    found = measured(schema, (prediction[:9], target[:9]), (prediction[9:], target[9:]))
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
def test_regression_is_the_absolute_error_and_the_mean_mae_and_rmse_of_tasks(outputs, missing):
    prediction, target = numbers("regression", outputs, missing=missing)
    schema = Schema(kind="regression", outputs=outputs)
    known = ~target.isnan()
    error = mean_absolute_error(target[known], prediction[known])
    assert loss(schema, prediction, target) == pytest.approx(error)
    found = measured(schema, (prediction[:9], target[:9]), (prediction[9:], target[9:]))
    tasks = [(target[known[:, n], n], prediction[known[:, n], n]) for n in range(outputs)]
    assert found == pytest.approx(
        {
            "mae": np.mean([mean_absolute_error(*task) for task in tasks]),
            "rmse": np.mean([root_mean_squared_error(*task) for task in tasks]),
        }
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
    assert measured(Schema(kind="binary"), first, second) == {"auroc": 1.0, "ap": 1.0}


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


def test_unlabelled_classes_count_for_nothing_in_loss_metrics_and_baseline() -> None:
    torch.manual_seed(0)
    schema = Schema(kind="multiclass", outputs=4, level="node")
    prediction, target = torch.randn(30, 4, requires_grad=True), torch.randint(4, (30,))
    known = torch.rand(30) < 0.4
    masked = target.where(known, UNLABELLED)
    found, wanted = loss(schema, prediction, masked), loss(schema, prediction[known], target[known])
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(wanted, F.cross_entropy(prediction[known], target[known]))
    grads = [torch.autograd.grad(each, prediction)[0] for each in (found, wanted)]
    torch.testing.assert_close(*grads)
    measures, _ = metrics(schema)
    measures.update(prediction, masked)
    right = (prediction[known].argmax(1) == target[known]).float().mean()
    torch.testing.assert_close(measures.compute()["accuracy"], right)
    torch.testing.assert_close(constant_prediction(schema, masked), constant_prediction(schema, target[known]))
    nothing = loss(schema, prediction, torch.full_like(target, UNLABELLED))
    assert nothing == 0
    assert torch.autograd.grad(nothing, prediction)[0].eq(0).all()


def test_a_target_of_several_positions_is_scored_position_by_position() -> None:
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


def test_weights_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    prediction, target = torch.randn(20, 3), torch.randint(3, (20,))
    weights = (0.5, 1.0, 4.0)
    found = loss(Schema(kind="multiclass", outputs=3, weights=weights), prediction, target)
    torch.testing.assert_close(found, F.cross_entropy(prediction, target, torch.tensor(weights)))
    answers = torch.randint(2, (20, 3)).float()
    found = loss(Schema(kind="binary", outputs=3, weights=weights), prediction, answers)
    wanted = F.binary_cross_entropy_with_logits(prediction, answers, pos_weight=torch.tensor(weights))
    torch.testing.assert_close(found, wanted)


def test_a_scaled_regression_is_measured_in_its_own_unit() -> None:
    torch.manual_seed(0)
    schema = Schema(kind="regression", outputs=2, mean=(5.0, -1.0), scale=(10.0, 0.5), squared=True)
    prediction, target = torch.randn(20, 2), torch.randn(20, 2)
    target[3, 1] = torch.nan
    error = ((prediction - target) / torch.tensor([10.0, 0.5]))[~target.isnan()]
    torch.testing.assert_close(loss(schema, prediction, target), error.square().mean())
    measures, criterion = metrics(schema)
    measures.update(prediction, target)
    of_tasks = (prediction - target).square().nanmean(0).sqrt()
    torch.testing.assert_close(measures.compute()["rmse"], of_tasks.mean())
    assert criterion.name == "loss"  # of several numbers, in units of their deviations
    torch.testing.assert_close(constant_prediction(schema, target), target.nanmean(0))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"weights": (1.0,)}, "1 numbers in weights for 3 outputs"),
        ({"kind": "regression", "mean": (0.0,) * 3}, "each mean needs a scale"),
        ({"kind": "regression", "mean": (0.0,) * 3, "scale": (1.0, 0.0, 1.0)}, "above 0"),
        ({"kind": "binary", "positions": 2}, "only a multiclass target"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Schema(**{"outputs": 3, **wrong})


@pytest.mark.parametrize(
    ("log", "squared", "name"), [(False, True, "rmse"), (False, False, "mae"), (True, True, "loss")]
)
def test_what_decides_of_numbers(log, squared, name) -> None:
    assert metrics(Schema(kind="regression", log=log, squared=squared))[1] == Criterion(name, "min")


def test_of_numbers_in_several_units_the_loss_decides() -> None:
    in_units = Schema(kind="regression", outputs=2, mean=(0.0, 1000.0), scale=(1.0, 200.0))
    assert metrics(in_units)[1] == Criterion("loss", "min")
    assert metrics(replace(in_units, scale=(30.0, 200.0)))[1] == Criterion("mae", "min")
    assert metrics(Schema(kind="regression", outputs=2))[1] == Criterion("mae", "min")


def test_the_logarithms_of_numbers_are_learned_and_the_numbers_measured() -> None:
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
    found = measured(schema, (prediction.detach(), target))
    assert found["mae"] == pytest.approx(float((prediction.detach() - target).abs().nanmean(0).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_the_loss_of_predictions_in_16_bits_is_a_sum_in_32(kind) -> None:
    schema = Schema(kind=kind, outputs=3)
    prediction, target = numbers(kind, 3, rows=5000)
    if kind == "regression":
        target = target + 1801  # which bfloat16 takes for 1800
        prediction = prediction + 1800
    half = prediction.bfloat16()
    torch.testing.assert_close(loss(schema, half, target), loss(schema, half.float(), target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_a_loss_of_one_s_own_sees_labelled_entries_alone(kind):
    prediction, target = numbers(kind, 3, missing=0.4)
    known = ~target.isnan()
    total, weight = total_loss(Schema(kind=kind, outputs=3), prediction, target, torch.nn.SmoothL1Loss())
    assert float(total / weight) == pytest.approx(float(F.smooth_l1_loss(prediction[known], target[known])))
    assert total_loss(Schema(kind=kind, outputs=3), prediction, target * NAN, torch.nn.SmoothL1Loss())[0] == 0


def test_a_loss_of_one_s_own_sees_numbers_as_the_network_learns_them():
    prediction, target = (numbers.abs() + 0.1 for numbers in numbers("regression", 2, missing=0.4))
    schema = Schema(kind="regression", outputs=2, mean=(0.5, -1.0), scale=(2.0, 3.0), log=True)
    known = ~target.isnan()
    mine, theirs = (
        (each.log() - torch.tensor(schema.mean)) / torch.tensor(schema.scale) for each in (prediction, target)
    )
    total, weight = total_loss(schema, prediction, target, torch.nn.MSELoss())
    assert float(total / weight) == pytest.approx(float((mine - theirs)[known].square().mean()))
    plain = total_loss(schema, prediction, target)
    torch.testing.assert_close(total_loss(schema, prediction, target, torch.nn.L1Loss()), plain, check_dtype=False)


def test_a_loss_without_targets_has_gradients_of_zero_for_all_that_it_learns():
    loss = torch.nn.Bilinear(1, 1, 1)
    prediction = torch.zeros(3, 1, requires_grad=True)
    total, _ = total_loss(Schema(kind="regression"), prediction, torch.full((3, 1), NAN), loss)
    total.backward()
    assert all((each.grad == 0).all() for each in (prediction, *loss.parameters()))


def test_metrics_of_one_s_own_see_labelled_entries_alone_and_the_first_decides():
    prediction, target = numbers("regression", 2, missing=0.4)
    own = {"error": torchmetrics.MeanSquaredError(), "r2": torchmetrics.R2Score()}
    measures, criterion = custom_metrics(Schema(kind="regression", outputs=2), own)
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
def test_the_dataset_s_metrics_can_be_named(kind, name, mode):
    measures, _ = metrics(Schema(kind=kind, outputs=3))
    assert criterion_of(dict(measures.items(keep_base=True)), name) == Criterion(name, mode)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0000"), (0.65, "0.6500"), (-9.87654, "-9.8765"), (18.72304, "18.723"), (1666.1234, "1666.1"),
     (-123456.7, "-123457"), (0.00004321, "4.32e-05"), (math.inf, "inf"), (math.nan, "undefined (one class)")],
)  # fmt: skip
def test_scores_are_shown_in_as_many_digits_as_tell_something(value, text):
    assert format_score(value, "one class") == text


def test_a_loss_of_another_kind_of_target_is_known():
    cases = {
        "multiclass": torch.nn.CrossEntropyLoss,
        "binary": torch.nn.BCEWithLogitsLoss,
        "regression": torch.nn.L1Loss,
    }
    for kind in cases:
        assert [suits(make(), kind) for make in cases.values()] == [kind == other for other in cases]
        assert suits(torch.nn.PoissonNLLLoss(), kind)  # of which nothing is known

"""Losses: class weights, custom losses, precision, no copies to the device in a training step; formatted scores."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gt.losses import format_score, loss, suits, total_loss
from gt.schema import Schema
from tests.train.predictions import NAN, random_predictions


def test_class_weights_match_pytorch() -> None:
    torch.manual_seed(0)
    prediction, target = torch.randn(20, 3), torch.randint(3, (20,))
    weights = (0.5, 1.0, 4.0)
    found = loss(Schema(kind="multiclass", outputs=3, weights=weights), prediction, target)
    torch.testing.assert_close(found, F.cross_entropy(prediction, target, torch.tensor(weights)))
    labels = torch.randint(2, (20, 3)).float()
    found = loss(Schema(kind="binary", outputs=3, weights=weights), prediction, labels)
    expected = F.binary_cross_entropy_with_logits(prediction, labels, pos_weight=torch.tensor(weights))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_loss_of_bfloat16_predictions_is_computed_in_float32(kind) -> None:
    schema = Schema(kind=kind, outputs=3)
    prediction, target = random_predictions(kind, 3, rows=5000)
    if kind == "regression":
        target = target + 1801  # which bfloat16 rounds to 1800
        prediction = prediction + 1800
    half = prediction.bfloat16()
    torch.testing.assert_close(loss(schema, half, target), loss(schema, half.float(), target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_custom_loss_receives_only_labelled_entries(kind):
    prediction, target = random_predictions(kind, 3, missing=0.4)
    known = ~target.isnan()
    total, weight = total_loss(Schema(kind=kind, outputs=3), prediction, target, torch.nn.SmoothL1Loss())
    assert float(total / weight) == pytest.approx(float(F.smooth_l1_loss(prediction[known], target[known])))
    assert total_loss(Schema(kind=kind, outputs=3), prediction, target * NAN, torch.nn.SmoothL1Loss())[0] == 0


def test_custom_loss_receives_normalised_log_targets():
    prediction, target = (values.abs() + 0.1 for values in random_predictions("regression", 2, missing=0.4))
    schema = Schema(kind="regression", outputs=2, mean=(0.5, -1.0), scale=(2.0, 3.0), log=True)
    known = ~target.isnan()
    scaled_prediction, scaled_target = (
        (each.log() - torch.tensor(schema.mean)) / torch.tensor(schema.scale) for each in (prediction, target)
    )
    total, weight = total_loss(schema, prediction, target, torch.nn.MSELoss())
    assert float(total / weight) == pytest.approx(float((scaled_prediction - scaled_target)[known].square().mean()))
    plain = total_loss(schema, prediction, target)
    torch.testing.assert_close(total_loss(schema, prediction, target, torch.nn.L1Loss()), plain, check_dtype=False)


def test_custom_loss_without_labels_has_zero_gradients():
    custom_loss = torch.nn.Bilinear(1, 1, 1)
    prediction = torch.zeros(3, 1, requires_grad=True)
    total, _ = total_loss(Schema(kind="regression"), prediction, torch.full((3, 1), NAN), custom_loss)
    total.backward()
    assert all((each.grad == 0).all() for each in (prediction, *custom_loss.parameters()))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0000"), (0.65, "0.6500"), (-9.87654, "-9.8765"), (18.72304, "18.723"), (1666.1234, "1666.1"),
     (-123456.7, "-123457"), (0.00004321, "4.32e-05"), (math.inf, "inf"), (math.nan, "undefined (one class)")],
)  # fmt: skip
def test_format_score(value, text):
    assert format_score(value, "one class") == text


def test_suits_detects_losses_for_other_targets():
    cases = {
        "multiclass": torch.nn.CrossEntropyLoss,
        "binary": torch.nn.BCEWithLogitsLoss,
        "regression": torch.nn.L1Loss,
    }
    for kind in cases:
        assert [suits(make(), kind) for make in cases.values()] == [kind == other for other in cases]
        assert suits(torch.nn.PoissonNLLLoss(), kind)  # an unknown loss is accepted


class CountCopies(TorchDispatchMode):
    """Counts the tensors made from Python numbers; copying them to a GPU makes the CPU wait."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.lift_fresh.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("options", "custom_loss"),
    [
        ({"kind": "regression", "mean": (1.0, 2.0), "scale": (3.0, 5.0)}, None),
        ({"kind": "regression", "mean": (1.0, 2.0), "scale": (3.0, 6.0)}, torch.nn.SmoothL1Loss()),
        ({"kind": "multiclass", "weights": (1.0, 7.0)}, None),
        ({"kind": "binary", "weights": (1.0, 9.0)}, None),
    ],
    ids=["regression", "own loss", "multiclass", "binary"],
)
def test_loss_copies_no_schema_values_to_its_device(options, custom_loss):
    schema = Schema(outputs=2, **options)
    prediction = torch.randn(5, 2, requires_grad=True)
    target = torch.arange(5) % 2 if schema.kind == "multiclass" else torch.ones(5, 2)
    with torch.inference_mode():  # a validation may be the first to need them
        total_loss(schema, prediction, target, custom_loss)
    with CountCopies() as copies:
        total, _ = total_loss(schema, prediction, target, custom_loss)
    total.backward()
    assert copies.count == 0

"""Loss of a training step: no copies to its device."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gt.losses import total_loss
from gt.schema import Schema


class CountCopies(TorchDispatchMode):
    """Counts the tensors made from Python numbers; copying them to a GPU makes the CPU wait."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.lift_fresh.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({"kind": "regression", "mean": (1.0, 2.0), "scale": (3.0, 5.0)}, None),
        ({"kind": "regression", "mean": (1.0, 2.0), "scale": (3.0, 6.0)}, torch.nn.SmoothL1Loss()),
        ({"kind": "multiclass", "weights": (1.0, 7.0)}, None),
        ({"kind": "binary", "weights": (1.0, 9.0)}, None),
    ],
    ids=["regression", "own loss", "multiclass", "binary"],
)
def test_loss_copies_no_schema_values_to_its_device(options, loss):
    schema = Schema(outputs=2, **options)
    prediction = torch.randn(5, 2, requires_grad=True)
    target = torch.arange(5) % 2 if schema.kind == "multiclass" else torch.ones(5, 2)
    with torch.inference_mode():  # a validation may be the first to need them
        total_loss(schema, prediction, target, loss)
    with CountCopies() as copies:
        total, _ = total_loss(schema, prediction, target, loss)
    total.backward()
    assert copies.count == 0

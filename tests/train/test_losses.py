"""What the loss of a step asks of its device."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gt.losses import total_loss
from gt.schema import Schema


class Made(TorchDispatchMode):
    """Counts the tensors that are made of Python's numbers; a GPU is waited for until it has a copy of them."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.lift_fresh.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("numbers", "loss"),
    [
        ({"kind": "regression", "mean": (1.0, 2.0), "scale": (3.0, 5.0)}, None),
        ({"kind": "regression", "mean": (1.0, 2.0), "scale": (3.0, 6.0)}, torch.nn.SmoothL1Loss()),
        ({"kind": "multiclass", "weights": (1.0, 7.0)}, None),
        ({"kind": "binary", "weights": (1.0, 9.0)}, None),
    ],
    ids=["regression", "own loss", "multiclass", "binary"],
)
def test_a_step_copies_no_numbers_of_the_schema_to_its_device(numbers, loss):
    schema = Schema(outputs=2, **numbers)
    prediction = torch.randn(5, 2, requires_grad=True)
    target = torch.arange(5) % 2 if schema.kind == "multiclass" else torch.ones(5, 2)
    with torch.inference_mode():  # a validation may be the first that asks for them
        total_loss(schema, prediction, target, loss)
    with Made() as made:
        total, _ = total_loss(schema, prediction, target, loss)
    total.backward()
    assert made.count == 0

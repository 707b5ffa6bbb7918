"""The columns of a table of predictions, against a formula."""

import numpy as np
import pytest
import torch

from gt.prediction.models import Answer
from gt.prediction.table import Columns
from gt.schema import Schema


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        (Schema(kind="binary"), ["probability_0", "probability_1"]),
        (Schema(kind="binary", answers=(("inactive", "active"),)), ["probability_inactive", "probability_active"]),
        (
            Schema(kind="binary", outputs=2, names=("a", "b"), answers=(("n", "y"), ("-1", "1"))),
            ["probability_a_n", "probability_a_y", "probability_b_-1", "probability_b_1"],
        ),
    ],
)
def test_binary_probabilities_are_sigmoids_of_logits(schema: Schema, names: list[str]) -> None:
    logits = 3 * torch.randn(7, schema.outputs, generator=torch.Generator().manual_seed(0))
    columns = Columns(schema, every=True)(Answer(logits), None, lambda answers: None)
    assert [name for name in columns if name.startswith("probability")] == names
    for task in range(schema.outputs):
        yes = 1 / (1 + np.exp(-logits[:, task].double().numpy()))
        np.testing.assert_allclose(columns[names[2 * task]], 1 - yes, atol=1e-6)
        np.testing.assert_allclose(columns[names[2 * task + 1]], yes, atol=1e-6)
    assert not any(name.startswith("probability") for name in Columns(schema)(Answer(logits), None, lambda a: None))

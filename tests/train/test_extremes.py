"""The samples with the worst and the best predictions: their losses, text and HTML."""

import pytest
import torch

from gt.losses import loss
from gt.schema import UNLABELLED, Schema
from gt.train.extremes import Sample, format_prediction, format_target, page, sample_losses

SCHEMAS = [Schema(outputs=3), Schema(kind="binary", outputs=2), Schema(kind="regression", outputs=2)]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.kind)
def test_sample_loss_equals_loss_of_single_sample_batch(schema):
    draw = torch.Generator().manual_seed(0)
    prediction = torch.randn(6, schema.outputs, generator=draw)
    if schema.kind == "multiclass":
        target = torch.tensor([0, 1, 2, UNLABELLED, 1, 0])
    else:
        target = torch.randint(2, (6, 2), generator=draw).float()
        target[3], target[4, 0] = torch.nan, torch.nan
    losses = sample_losses(schema, prediction, target)
    assert losses.isnan().tolist() == [False] * 3 + [True] + [False] * 2
    for row in (0, 1, 2, 4, 5):
        assert losses[row] == pytest.approx(float(loss(schema, prediction[row : row + 1], target[row : row + 1])))


def test_format_of_predictions_and_targets():
    assert format_prediction(Schema(outputs=2, names=("a", "b")), torch.tensor([0.0, 0.0])) == "a (0.50)"
    assert format_prediction(Schema(kind="binary"), torch.tensor([0.0])) == "0.50"
    assert format_target(Schema(kind="binary"), torch.tensor([1.0])) == "yes"
    assert format_target(Schema(kind="binary", answers=(("dead", "alive"),)), torch.tensor([0.0])) == "dead"
    several = Schema(kind="binary", outputs=3, names=("x", "y", "z"))
    assert format_target(several, torch.tensor([1.0, torch.nan, 0.0])) == "x yes, z no"


def test_page_escapes_html():
    assert "&lt;script&gt;" in page([Sample("1", "<script>", None, "a", "b", 0.5)])
    assert 'alt="C&quot;&gt;"' in page([Sample("1", 'C">', b"png", "a", "b", 0.5)])

"""Random predictions with targets, and their metrics."""

import torch

from gt.metrics import metrics

NAN = float("nan")


def random_predictions(kind, outputs, rows=40, seed=0, missing=0.0):
    """Predictions (rows, outputs) and targets of a kind, a share ``missing`` of them without a label."""
    draw = torch.Generator().manual_seed(seed)
    prediction = 3 * torch.randn(rows, outputs, generator=draw)
    if kind == "multiclass":
        return prediction, torch.randint(0, outputs, (rows,), generator=draw)
    target = torch.randn(rows, outputs, generator=draw)
    target = (target > 0).float() if kind == "binary" else target
    return prediction, target.masked_fill(torch.rand(rows, outputs, generator=draw) < missing, NAN)


def evaluate(schema, *batches):
    """The metrics of some batches of predictions and targets."""
    measures, _ = metrics(schema)
    for prediction, target in batches:
        measures.update(prediction, target)
    return {name: float(value) for name, value in measures.compute().items()}

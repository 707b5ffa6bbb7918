"""Metrics computed over several processes, OGB's official evaluators included, against one process."""

import torch
from torchmetrics import MeanSquaredError, SpearmanCorrCoef
from torchmetrics.classification import BinaryAUROC

from gt.data.ogb.link_metric import Hits, ReciprocalRank
from gt.data.ogb.metric import OGBAccuracy, OGBMetric
from gt.metrics import LabelledMetric, metrics
from gt.schema import Schema
from tests.parallel.ranks import run_on_ranks

BOUNDS = (0, 38, 38, 60)  # of the shares of three processes, one of which is empty


def cases():
    """Each metric with the predictions and targets of 60 samples."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def labels(count, *shape):
        return torch.randint(count, shape, generator=generator)

    partly_labelled = labels(2, 60, 128).float().where(labels(3, 60, 128) > 0, torch.nan)
    yield "ogbg-molhiv", OGBMetric("ogbg-molhiv"), normal(60, 1), labels(2, 60, 1)
    yield "ogbg-molpcba", OGBMetric("ogbg-molpcba"), normal(60, 128), partly_labelled
    yield "ogbg-ppa", OGBAccuracy("ogbg-ppa"), normal(60, 37), labels(37, 60, 1)
    yield "ogbl-ddi", Hits("ogbl-ddi"), normal(60, 1), labels(2, 60, 1)
    yield "ogbl-citation2", ReciprocalRank("ogbl-citation2"), normal(60, 1), torch.tensor([1, 0]).repeat(30)[:, None]
    for kind, target in (("binary", labels(2, 60, 3).float()), ("regression", normal(60, 3)),
                         ("multiclass", labels(3, 60))):  # fmt: skip
        yield kind, metrics(Schema((5,), kind=kind, outputs=3))[0], normal(60, 3), target
    sparse = labels(2, 60, 3).float()
    sparse[:58, 1] = torch.nan  # only one process has labels for this task
    custom = {"binary": [BinaryAUROC()], "regression": [SpearmanCorrCoef(), MeanSquaredError()]}
    for kind, metric in ((kind, metric) for kind, group in custom.items() for metric in group):
        target = sparse if kind == "binary" else normal(60, 3).where(~sparse.isnan(), torch.nan)
        yield type(metric).__name__, LabelledMetric(metric, Schema((5,), kind=kind, outputs=3)), normal(60, 3), target


def compute_on_rank(rank, world):
    """The metrics when each process has seen only its own share, in two parts."""
    values = {}
    for name, metric, prediction, target in cases():
        low, high = BOUNDS[rank : rank + 2]
        for part in (slice(low, low + 4), slice(low + 4, high)) if low < high else ():
            metric.update(prediction[part], target[part])
        values[name] = metric.compute()
    return values


def test_ranks_agree_with_single_process(tmp_path):
    ranks = run_on_ranks(3, tmp_path, compute_on_rank)
    for name, metric, prediction, target in cases():
        metric.update(prediction, target)
        for rank in ranks:
            torch.testing.assert_close(rank[name], metric.compute(), rtol=0, atol=1e-6, msg=name)


def test_reciprocal_rank_of_nan_is_nan():
    metric = ReciprocalRank("ogbl-citation2")
    scores, target = torch.randn(20, 1), torch.tensor([1, 0, 0, 0] * 5)[:, None]
    metric.update(scores, target)
    assert metric.compute() > 0
    scores[7] = torch.nan
    metric.update(scores, target)
    assert metric.compute().isnan()

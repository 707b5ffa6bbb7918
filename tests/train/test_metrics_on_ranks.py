"""Metrics, official evaluators among them, are over several processes what they are in one."""

import torch
from torchmetrics import MeanSquaredError, SpearmanCorrCoef
from torchmetrics.classification import BinaryAUROC

from gt.data.ogb.link_metric import Hits, ReciprocalRank
from gt.data.ogb.metric import OGBAccuracy, OGBMetric
from gt.metrics import LabelledMetric, metrics
from gt.schema import Schema
from tests.parallel.ranks import on_ranks

ENDS = (0, 38, 38, 60)  # of the shares of three processes, of which one has no sample


def cases():
    """Each metric, with predictions and targets of 60 samples."""
    draw = torch.Generator().manual_seed(0)

    def numbers(*shape):
        return torch.randn(*shape, generator=draw)

    def answers(count, *shape):
        return torch.randint(count, shape, generator=draw)

    some = answers(2, 60, 128).float().where(answers(3, 60, 128) > 0, torch.nan)
    yield "ogbg-molhiv", OGBMetric("ogbg-molhiv"), numbers(60, 1), answers(2, 60, 1)
    yield "ogbg-molpcba", OGBMetric("ogbg-molpcba"), numbers(60, 128), some
    yield "ogbg-ppa", OGBAccuracy("ogbg-ppa"), numbers(60, 37), answers(37, 60, 1)
    yield "ogbl-ddi", Hits("ogbl-ddi"), numbers(60, 1), answers(2, 60, 1)
    yield "ogbl-citation2", ReciprocalRank("ogbl-citation2"), numbers(60, 1), torch.tensor([1, 0]).repeat(30)[:, None]
    for kind, target in (("binary", answers(2, 60, 3).float()), ("regression", numbers(60, 3)),
                         ("multiclass", answers(3, 60))):  # fmt: skip
        yield kind, metrics(Schema((5,), kind=kind, outputs=3))[0], numbers(60, 3), target
    few = answers(2, 60, 3).float()
    few[:58, 1] = torch.nan  # one process alone has labels of this task
    own = {"binary": [BinaryAUROC()], "regression": [SpearmanCorrCoef(), MeanSquaredError()]}
    for kind, metric in ((kind, metric) for kind, each in own.items() for metric in each):
        target = few if kind == "binary" else numbers(60, 3).where(~few.isnan(), torch.nan)
        yield type(metric).__name__, LabelledMetric(metric, Schema((5,), kind=kind, outputs=3)), numbers(60, 3), target


def over_ranks(rank, world):
    """What the metrics are when each process has seen its share alone, in two parts."""
    found = {}
    for name, metric, prediction, target in cases():
        low, high = ENDS[rank : rank + 2]
        for part in (slice(low, low + 4), slice(low + 4, high)) if low < high else ():
            metric.update(prediction[part], target[part])
        found[name] = metric.compute()
    return found


def test_metrics_of_processes_are_those_of_one(tmp_path):
    ranks = on_ranks(3, tmp_path, over_ranks)
    for name, metric, prediction, target in cases():
        metric.update(prediction, target)
        for rank in ranks:
            torch.testing.assert_close(rank[name], metric.compute(), rtol=0, atol=1e-6, msg=name)


def test_ratings_of_nan_have_no_rank():
    metric = ReciprocalRank("ogbl-citation2")
    ratings, target = torch.randn(20, 1), torch.tensor([1, 0, 0, 0] * 5)[:, None]
    metric.update(ratings, target)
    assert metric.compute() > 0
    ratings[7] = torch.nan
    metric.update(ratings, target)
    assert metric.compute().isnan()

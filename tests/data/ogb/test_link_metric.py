"""Hits@k and mean reciprocal rank, against OGB's Evaluator and ranks counted one by one."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from gt.data.ogb.link_metric import Hits, ReciprocalRank

sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.linkproppred import Evaluator  # noqa: E402

HITS = {"ogbl-ddi": 20, "ogbl-collab": 50, "ogbl-ppa": 100}


def tied_scores(links: int, negatives: int, levels: int = 40) -> tuple[Tensor, Tensor]:
    """Scores with many ties and their targets, in groups of a link and its negatives."""
    generator = torch.Generator().manual_seed(links)
    preds = torch.randint(levels, (links * (1 + negatives), 1), generator=generator).float()
    target = torch.zeros(links, 1 + negatives)
    target[:, 0] = 1
    return preds + target.view(-1, 1) * 8, target.view(-1, 1)


def updated(metric: Metric, *parts: tuple[Tensor, Tensor]) -> Metric:
    for preds, target in parts:
        metric.update(preds, target)
    return metric


@pytest.mark.parametrize(("name", "k"), HITS.items())
def test_hits_match_definition_and_evaluator(name: str, k: int) -> None:
    preds, target = tied_scores(60, 3)
    metric = updated(Hits(name), (preds, target))
    positive, negative = preds[target == 1], preds[target == 0]
    assert metric.measure == f"hits@{k}"
    value = float(metric.compute())
    assert value == pytest.approx(np.mean([(negative >= score).sum() < k for score in positive.tolist()]))
    expected = Evaluator(name).eval({"y_pred_pos": positive.numpy(), "y_pred_neg": negative.numpy()})[metric.measure]
    assert value == pytest.approx(expected)
    assert 0 < value < 1
    order = torch.randperm(len(preds), generator=torch.Generator().manual_seed(0))
    pieces = [(preds[rows], target[rows]) for rows in order.split([1, 30, 0, 100, 109])]
    assert float(updated(Hits(name), *pieces).compute()) == value


def test_reciprocal_rank_matches_definition_and_evaluator() -> None:
    preds, target = tied_scores(30, 9)
    metric = updated(ReciprocalRank("ogbl-citation2"), (preds, target))
    groups = preds.view(30, 10)
    ranks = [
        1 + sum(score > link for score in negatives) + 0.5 * sum(score == link for score in negatives)
        for link, *negatives in groups.tolist()
    ]
    assert metric.measure == "mrr"
    assert float(metric.compute()) == pytest.approx(np.mean(1 / np.array(ranks)))
    expected = Evaluator("ogbl-citation2").eval({"y_pred_pos": groups[:, 0], "y_pred_neg": groups[:, 1:]})["mrr_list"]
    assert float(metric.compute()) == pytest.approx(float(expected.mean()))
    pieces = [(preds[low:high], target[low:high]) for low, high in ((0, 10), (10, 120), (120, 120), (120, 300))]
    assert float(updated(ReciprocalRank("ogbl-citation2"), *pieces).compute()) == pytest.approx(float(metric.compute()))


@pytest.mark.parametrize("metric", [Hits("ogbl-ddi"), ReciprocalRank("ogbl-citation2")])
def test_merged_states_equal_single_process(metric: Metric) -> None:
    preds, target = tied_scores(10, 5)
    parts = [(preds[:12], target[:12]), (preds[12:], target[12:]), (preds[:0], target[:0])]
    first, *others = (updated(metric.clone(), part) for part in parts)
    for other in others:
        first.merge_state(other)
    assert float(first.compute()) == pytest.approx(float(updated(metric.clone(), (preds, target)).compute()))


@pytest.mark.parametrize("negatives", [1, 4, 1000])
def test_constant_prediction_is_not_rewarded(negatives: int) -> None:
    _, target = tied_scores(70, negatives)
    constant = torch.zeros_like(target)
    assert float(updated(Hits("ogbl-collab"), (constant, target)).compute()) == 0
    expected = 1 / (1 + negatives / 2)
    assert float(updated(ReciprocalRank("ogbl-citation2"), (constant, target)).compute()) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_undefined_metric_is_nan() -> None:
    preds, target = tied_scores(1, 19)
    for part in [(preds, target), (preds[:0], target[:0]), (preds[1:], target[1:])]:
        assert updated(Hits("ogbl-ddi"), part).compute().isnan()
    assert Hits("ogbl-ddi").compute().isnan()
    preds, target = tied_scores(60, 3)
    for row in (0, 1):  # the score of a link, of a negative
        broken = preds.index_fill(0, torch.tensor([row]), torch.nan)
        assert updated(Hits("ogbl-ddi"), (broken, target)).compute().isnan()
    assert ReciprocalRank("ogbl-citation2").compute().isnan()


@pytest.mark.parametrize("labels", [[0, 1, 0], [1, 0, 0, 1], [0, 0], [1, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1, 0, 1]])
def test_rows_not_grouped_by_link_are_rejected(labels: list[int]) -> None:
    target = torch.tensor(labels)[:, None].float()
    with pytest.raises(ValueError, match="each link must come first"):
        ReciprocalRank("ogbl-citation2").update(torch.zeros_like(target), target)


def test_bfloat16_scores() -> None:
    preds, target = tied_scores(40, 3, levels=10_000)
    for metric in (Hits("ogbl-ddi"), ReciprocalRank("ogbl-citation2")):
        half = updated(metric.clone(), (preds.bfloat16().requires_grad_(), target))
        assert float(half.compute()) == float(updated(metric.clone(), (preds.bfloat16().float(), target)).compute())

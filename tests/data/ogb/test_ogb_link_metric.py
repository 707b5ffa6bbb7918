"""The metrics of link sets against OGB's Evaluator and against ranks counted one by one."""

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


def rated(links: int, others: int, levels: int = 40) -> tuple[Tensor, Tensor]:
    """Ratings with many ties, in groups of a link and its others."""
    draw = torch.Generator().manual_seed(links)
    preds = torch.randint(levels, (links * (1 + others), 1), generator=draw).float()
    target = torch.zeros(links, 1 + others)
    target[:, 0] = 1
    return preds + target.view(-1, 1) * 8, target.view(-1, 1)


def updated(metric: Metric, *parts: tuple[Tensor, Tensor]) -> Metric:
    for preds, target in parts:
        metric.update(preds, target)
    return metric


@pytest.mark.parametrize(("name", "k"), HITS.items())
def test_hits(name: str, k: int) -> None:
    preds, target = rated(60, 3)
    metric = updated(Hits(name), (preds, target))
    linked, apart = preds[target == 1], preds[target == 0]
    assert metric.measure == f"hits@{k}"
    found = float(metric.compute())
    assert found == pytest.approx(np.mean([(apart >= rating).sum() < k for rating in linked.tolist()]))
    expected = Evaluator(name).eval({"y_pred_pos": linked.numpy(), "y_pred_neg": apart.numpy()})[metric.measure]
    assert found == pytest.approx(expected)
    assert 0 < found < 1
    order = torch.randperm(len(preds), generator=torch.Generator().manual_seed(0))
    pieces = [(preds[some], target[some]) for some in order.split([1, 30, 0, 100, 109])]
    assert float(updated(Hits(name), *pieces).compute()) == found


def test_reciprocal_rank() -> None:
    preds, target = rated(30, 9)
    metric = updated(ReciprocalRank("ogbl-citation2"), (preds, target))
    groups = preds.view(30, 10)
    ranks = [
        1 + sum(o > link for o in others) + 0.5 * sum(o == link for o in others) for link, *others in groups.tolist()
    ]
    assert metric.measure == "mrr"
    assert float(metric.compute()) == pytest.approx(np.mean(1 / np.array(ranks)))
    theirs = Evaluator("ogbl-citation2").eval({"y_pred_pos": groups[:, 0], "y_pred_neg": groups[:, 1:]})["mrr_list"]
    assert float(metric.compute()) == pytest.approx(float(theirs.mean()))
    pieces = [(preds[low:high], target[low:high]) for low, high in ((0, 10), (10, 120), (120, 120), (120, 300))]
    assert float(updated(ReciprocalRank("ogbl-citation2"), *pieces).compute()) == pytest.approx(float(metric.compute()))


@pytest.mark.parametrize("metric", [Hits("ogbl-ddi"), ReciprocalRank("ogbl-citation2")])
def test_processes_together_see_what_one_sees(metric: Metric) -> None:
    preds, target = rated(10, 5)
    parts = [(preds[:12], target[:12]), (preds[12:], target[12:]), (preds[:0], target[:0])]
    first, *others = (updated(metric.clone(), part) for part in parts)
    for other in others:
        first.merge_state(other)
    assert float(first.compute()) == pytest.approx(float(updated(metric.clone(), (preds, target)).compute()))


@pytest.mark.parametrize("others", [1, 4, 1000])
def test_an_answer_that_ignores_its_input(others: int) -> None:
    _, target = rated(70, others)
    constant = torch.zeros_like(target)
    assert float(updated(Hits("ogbl-collab"), (constant, target)).compute()) == 0
    expected = 1 / (1 + others / 2)
    assert float(updated(ReciprocalRank("ogbl-citation2"), (constant, target)).compute()) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_not_defined() -> None:
    preds, target = rated(1, 19)
    for part in [(preds, target), (preds[:0], target[:0]), (preds[1:], target[1:])]:
        assert updated(Hits("ogbl-ddi"), part).compute().isnan()
    assert Hits("ogbl-ddi").compute().isnan()
    preds, target = rated(60, 3)
    for row in (0, 1):  # of a link, of a pair that is none
        broken = preds.index_fill(0, torch.tensor([row]), torch.nan)
        assert updated(Hits("ogbl-ddi"), (broken, target)).compute().isnan()
    assert ReciprocalRank("ogbl-citation2").compute().isnan()


@pytest.mark.parametrize("answers", [[0, 1, 0], [1, 0, 0, 1], [0, 0], [1, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1, 0, 1]])
def test_rows_that_are_no_groups(answers: list[int]) -> None:
    target = torch.tensor(answers)[:, None].float()
    with pytest.raises(ValueError, match="each link must come first"):
        ReciprocalRank("ogbl-citation2").update(torch.zeros_like(target), target)


def test_low_precision() -> None:
    preds, target = rated(40, 3, levels=10_000)
    for metric in (Hits("ogbl-ddi"), ReciprocalRank("ogbl-citation2")):
        half = updated(metric.clone(), (preds.bfloat16().requires_grad_(), target))
        assert float(half.compute()) == float(updated(metric.clone(), (preds.bfloat16().float(), target)).compute())

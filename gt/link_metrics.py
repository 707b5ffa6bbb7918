"""How links are ranked within the graphs they belong to."""

import torch
from torch import Tensor
from torchmetrics import Metric

from gt.link_targets import COLUMNS, Role

KS = (1, 3, 10)


class LinkRanks(Metric):
    """How high a link (u, v) is rated among the pairs of u and every node of its graph: mean reciprocal ranks.

    ``mrr`` ranks v among all nodes, ``mrr_filtered`` leaves the others that u is linked to out, ``mrr_extended`` leaves
    u itself out too (Tönshoff et al. 2023); ``hits@k`` is the share of links whose rank among all nodes is k or better.
    Each is the mean over the links of a graph, and then over the graphs that have any, as the Long Range Graph
    Benchmark (Dwivedi et al. 2022) takes it. A tie has the mean of its best and its worst rank, as in OGB's Evaluator.
    NaN where there is no link to rank, or a rating is NaN.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    higher_is_better: bool = True
    scores = ("mrr", "mrr_filtered", "mrr_extended", *(f"hits@{k}" for k in KS))
    totals: Tensor
    graphs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("totals", default=torch.zeros(len(self.scores)), dist_reduce_fx="sum")
        self.add_state("graphs", default=torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take ratings (K, 1) and targets (K, `COLUMNS`), each link's row before those of its rivals.

        Of targets (K, 1), as batches for training have them, nothing is ranked.

        Raises:
            ValueError: targets of another shape, or rivals without their link.
        """
        if target.ndim != 2 or target.shape[1] not in (1, COLUMNS) or len(preds) != len(target):
            raise ValueError(f"{tuple(target.shape)} targets of {len(preds)} pairs: expected (K, {COLUMNS})")
        if target.shape[1] == 1:
            return
        rating, role, weight = preds.detach().float().flatten(), target[:, 1], target[:, 2].float()
        asked = role == Role.ASKED
        question = asked.cumsum(0) - 1
        own, weight = rating[asked], weight[asked]
        if len(question) and not asked[0]:
            raise ValueError("rivals come after the link that they are told from")
        against = own[question]
        ahead = (rating > against).float() + 0.5 * (rating == against).float()
        ahead = ahead.masked_fill(rating.isnan() | against.isnan(), torch.nan)
        left_out = ((asked,), (asked, role == Role.LINKED), (asked, role >= Role.LINKED))
        ranks = [
            1 + torch.zeros_like(own).index_add(0, question, ahead.masked_fill(torch.stack(out).any(0), 0.0))
            for out in left_out
        ]
        values = [rank.reciprocal() for rank in ranks]
        values += [(ranks[0] <= k).float().masked_fill(ranks[0].isnan(), torch.nan) for k in KS]
        counts = weight > 0
        self.totals += (torch.stack(values)[:, counts] * weight[counts]).sum(1)
        self.graphs += weight.sum()

    def compute(self) -> dict[str, Tensor]:
        """Each score, a scalar."""
        return dict(zip(self.scores, (self.totals / self.graphs).unbind(), strict=True))

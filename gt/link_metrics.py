"""Ranking metrics of links within their graphs."""

import torch
from torch import Tensor
from torchmetrics import Metric

from gt.link_targets import COLUMNS, Role

KS = (1, 3, 10)


class LinkRanks(Metric):
    """Mean reciprocal ranks of links (u, v) among the pairs of u and every node of its graph.

    ``mrr`` ranks v among all nodes; ``mrr_filtered`` excludes the other nodes linked to u, ``mrr_extended`` also u
    itself (Tönshoff et al. 2023); ``hits@k`` is the share of links ranked k or better among all nodes. Each is averaged
    over the links of a graph, then over graphs with links, as in the Long Range Graph Benchmark (Dwivedi et al. 2022).
    Ties get the mean of their best and worst rank, as in OGB's Evaluator. NaN if there is no link to rank or a score is
    NaN.
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
        """Add scores (K, 1) and targets (K, `COLUMNS`), in which rivals follow their link.

        Targets (K, 1), as in training batches, are ignored.

        Raises:
            ValueError: targets of another shape, or rivals without a link.
        """
        if target.ndim != 2 or target.shape[1] not in (1, COLUMNS) or len(preds) != len(target):
            raise ValueError(f"{tuple(target.shape)} targets of {len(preds)} pairs: expected (K, {COLUMNS})")
        if target.shape[1] == 1:
            return
        score, role, weight = preds.detach().float().flatten(), target[:, 1], target[:, 2].float()
        is_link = role == Role.ASKED
        question = is_link.cumsum(0) - 1
        link_score, weight = score[is_link], weight[is_link]
        if len(question) and not is_link[0]:
            raise ValueError("rivals must follow the link that they are ranked against")
        own_link_score = link_score[question]  # of the link that each row is ranked against
        ahead = (score > own_link_score).float() + 0.5 * (score == own_link_score).float()
        ahead = ahead.masked_fill(score.isnan() | own_link_score.isnan(), torch.nan)
        exclusions = ((is_link,), (is_link, role == Role.LINKED), (is_link, role >= Role.LINKED))
        ranks = [
            1
            + torch.zeros_like(link_score).index_add(0, question, ahead.masked_fill(torch.stack(excluded).any(0), 0.0))
            for excluded in exclusions
        ]
        values = [rank.reciprocal() for rank in ranks]
        values += [(ranks[0] <= k).float().masked_fill(ranks[0].isnan(), torch.nan) for k in KS]
        counts = weight > 0
        self.totals += (torch.stack(values)[:, counts] * weight[counts]).sum(1)
        self.graphs += weight.sum()

    def compute(self) -> dict[str, Tensor]:
        """Each metric by name, a scalar."""
        return dict(zip(self.scores, (self.totals / self.graphs).unbind(), strict=True))

"""The metrics of OGB's link leaderboards (Hu et al. 2020), by OGB's own Evaluator."""

import torch
from ogb.linkproppred import Evaluator
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Hits(Metric):
    """The share of links that are rated above the k-th best of all pairs that are none.

    It is NaN where there are no links, or fewer than k other pairs, which OGB's Evaluator would call perfect, and where
    a rating is no number.

    Args:
        name: the dataset, such as ``ogbl-collab``, which says what k is.

    Attributes:
        measure: ``hits@50`` and the like.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    higher_is_better: bool = True
    linked: list[Tensor]
    apart: list[Tensor]

    def __init__(self, name: str) -> None:
        super().__init__()
        self.evaluator = Evaluator(name)
        self.measure: str = self.evaluator.eval_metric
        self.set_dtype(torch.float32)  # whatever the precision of the run: a process without samples joins in with this
        self.add_state("linked", default=[], dist_reduce_fx="cat")
        self.add_state("apart", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take ratings (K, 1) and (K, 1) 1 where there is a link, 0 where there is none."""
        preds, answer = preds.detach().float().flatten(), target.flatten() == 1
        self.linked.append(preds[answer])
        self.apart.append(preds[~answer])

    def compute(self) -> Tensor:
        """The metric, a scalar."""
        value = torch.tensor(torch.nan, device=self.device)
        linked, apart = (dim_zero_cat(state) if len(state) else value[None][:0] for state in (self.linked, self.apart))
        # the Evaluator takes what is no number for a link that was missed, or for the best of the other pairs
        rated = not torch.cat([linked, apart]).isnan().any()
        if rated and len(linked) and len(apart) >= self.evaluator.K:
            value.fill_(self.evaluator.eval({"y_pred_pos": linked, "y_pred_neg": apart})[self.measure])
        return value


class ReciprocalRank(Metric):
    """The mean of one over the rank of each link among its own other pairs; ties count half.

    Rows come in groups of one size: a link, then the pairs that it is told from. A group is in one batch, so that only
    a sum is kept of it.

    Args:
        name: the dataset, such as ``ogbl-citation2``.

    Attributes:
        measure: ``mrr``.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    higher_is_better: bool = True
    total: Tensor
    links: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.evaluator = Evaluator(name)
        self.measure: str = self.evaluator.eval_metric
        self.add_state("total", default=torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("links", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take ratings (K, 1) and (K, 1) 1 where there is a link, 0 where there is none.

        Raises:
            ValueError: rows that are no groups of one size, each with its link first.
        """
        answer = target.flatten() == 1
        links = int(answer.sum())
        if not len(answer):
            return
        groups = answer.view(links, -1) if links and len(answer) % links == 0 else answer[None]
        if not groups[:, 0].all() or groups[:, 1:].any():
            raise ValueError("each link should come first, before as many pairs that are none as any other has")
        ratings = preds.detach().float().view_as(groups)
        ranks = self.evaluator.eval({"y_pred_pos": ratings[:, 0], "y_pred_neg": ratings[:, 1:]})["mrr_list"]
        self.total += torch.where(ratings.isnan().any(), torch.nan, ranks.sum())  # else no pair would be rated higher
        self.links += links

    def compute(self) -> Tensor:
        """The metric, a scalar; NaN where there was no link, or a rating that is no number."""
        return self.total / self.links

"""The metrics of OGB's link leaderboards (Hu et al. 2020), computed by OGB's own Evaluator."""

import torch
from ogb.linkproppred import Evaluator
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Hits(Metric):
    """Hits@k: the share of links that score above the k-th best of all negatives.

    It is NaN if there are no links, fewer than k negatives, which OGB's Evaluator would count as perfect, or NaN
    scores.

    Args:
        name: the dataset, such as ``ogbl-collab``, which determines k.

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
        self.set_dtype(torch.float32)  # in any precision of the run, so that states match on a process without samples
        self.add_state("linked", default=[], dist_reduce_fx="cat")
        self.add_state("apart", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add scores (K, 1) and targets (K, 1), 1 for links and 0 for negatives."""
        preds, is_link = preds.detach().float().flatten(), target.flatten() == 1
        self.linked.append(preds[is_link])
        self.apart.append(preds[~is_link])

    def compute(self) -> Tensor:
        """The metric, a scalar."""
        value = torch.tensor(torch.nan, device=self.device)
        linked, apart = (dim_zero_cat(state) if len(state) else value[None][:0] for state in (self.linked, self.apart))
        # the Evaluator would count NaN as a missed link, or as the best of the negatives
        valid = not torch.cat([linked, apart]).isnan().any()
        if valid and len(linked) and len(apart) >= self.evaluator.K:
            value.fill_(self.evaluator.eval({"y_pred_pos": linked, "y_pred_neg": apart})[self.measure])
        return value


class ReciprocalRank(Metric):
    """Mean reciprocal rank of each link among its own negatives; ties count half.

    Rows come in groups of equal size: a link, then its negatives. A group is never split across batches, so that a
    running sum suffices.

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
        """Add scores (K, 1) and targets (K, 1), 1 for links and 0 for negatives.

        Raises:
            ValueError: rows are not in groups of equal size, each starting with its link.
        """
        is_link = target.flatten() == 1
        links = int(is_link.sum())
        if not len(is_link):
            return
        groups = is_link.view(links, -1) if links and len(is_link) % links == 0 else is_link[None]
        if not groups[:, 0].all() or groups[:, 1:].any():
            raise ValueError("each link must come first in its group, followed by the same number of negatives")
        scores = preds.detach().float().view_as(groups)
        reciprocal_ranks = self.evaluator.eval({"y_pred_pos": scores[:, 0], "y_pred_neg": scores[:, 1:]})["mrr_list"]
        self.total += torch.where(scores.isnan().any(), torch.nan, reciprocal_ranks.sum())  # NaN would rank first
        self.links += links

    def compute(self) -> Tensor:
        """The metric, a scalar; NaN if there was no link, or a score was NaN."""
        return self.total / self.links

"""The metrics of OGB's leaderboards (Hu et al. 2020), by OGB's own Evaluator."""

import sys
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from gt.data.ogb_catalogue import facts

# importing ogb starts a thread that asks PyPI for a newer release, without a time-out; lacking `outdated` it does not
sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.graphproppred import Evaluator  # noqa: E402


class OGBMetric(Metric):
    """The metric of a dataset's leaderboard, computed by OGB's own Evaluator over all samples seen.

    It is NaN, and nothing fails, where it is not defined: no task with both classes, no label of some task of a
    regression, or a prediction that is not finite.

    Args:
        name: the dataset, such as ``ogbg-molhiv``.

    Attributes:
        measure: ``rocauc``, ``ap`` or ``rmse``.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, name: str) -> None:
        super().__init__()
        facts(name, "graph")  # raises where the name is unknown
        self.evaluator = Evaluator(name)
        self.measure: Literal["rocauc", "ap", "rmse"] = self.evaluator.eval_metric
        # flat, and float32 whatever the precision of the run: a process without samples joins in with an empty vector
        self.set_dtype(torch.float32)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        return self.measure != "rmse"

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take logits or values (B, tasks) and labels (B, tasks), NaN where there is none."""
        tasks = self.evaluator.num_tasks
        if preds.shape != target.shape or preds.shape[1:] != (tasks,):
            raise ValueError(f"{tuple(preds.shape)} predictions, {tuple(target.shape)} targets: expected (B, {tasks})")
        self.preds.append(preds.detach().float().flatten())
        self.target.append(target.detach().float().flatten())

    def compute(self) -> Tensor:
        """The metric, a scalar."""
        value = torch.tensor(torch.nan, device=self.device)
        if not len(self.preds):
            return value
        preds, target = (dim_zero_cat(state).view(-1, self.evaluator.num_tasks) for state in (self.preds, self.target))
        labelled = ~target.isnan()
        if self.measure == "rmse":
            defined = labelled.any(0).all()
        else:
            defined = ((target == 0).any(0) & (target == 1).any(0)).any()
        if defined and preds[labelled].isfinite().all():
            value.fill_(self.evaluator.eval({"y_true": target, "y_pred": preds})[self.measure])
        return value

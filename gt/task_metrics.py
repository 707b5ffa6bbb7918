"""Metrics of several targets at once: each task (column) by itself, then the mean over those that have one."""

import math
from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.utilities import dim_zero_cat

from gt.losses import both_answers


class SampleMetric(Metric):
    """A metric that looks at all samples of all processes at once.

    Args:
        columns: numbers that are kept of the prediction of a sample, and of its target.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, columns: tuple[int, int]) -> None:
        super().__init__()
        self.columns = columns
        # flat, and float32 whatever the precision of the run: a process without samples joins in with an empty vector
        self.set_dtype(torch.float32)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def answers(self, preds: Tensor) -> Tensor:
        """(B, columns of a prediction) what is kept of predictions (B, ...) as the network makes them."""
        return preds

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take predictions (B, ...) and targets (B, columns of a target).

        Raises:
            ValueError: another shape.
        """
        kept = self.answers(preds.detach())
        for values, columns, what in ((kept, self.columns[0], "predictions"), (target, self.columns[1], "targets")):
            if values.ndim != 2 or values.shape[1] != columns or len(values) != len(target):
                raise ValueError(f"{tuple(values.shape)} {what} of {len(target)} samples: expected (B, {columns})")
        self.preds.append(kept.float().flatten())
        self.target.append(target.detach().float().flatten())

    def samples(self) -> tuple[Tensor, Tensor]:
        """(samples, columns) all that was kept of predictions, and of targets."""
        none = torch.empty(0, device=self.device)
        kept = (dim_zero_cat(state) if len(state) else none for state in (self.preds, self.target))
        preds, target = (state.view(-1, columns) for state, columns in zip(kept, self.columns, strict=True))
        return preds, target


class Ranking(SampleMetric):
    """How well log-odds (B, tasks) rank the samples of each task: ``auroc`` and ``ap``, both a mean over tasks.

    ``auroc`` is the area under the ROC curve, ``ap`` the average precision. A task counts where it has both answers; an
    answer of NaN is no label. Without such a task, or with a prediction that is not finite, both are NaN. The log-odds
    themselves are ranked: as probabilities those beyond 17 would all be 1.

    Args:
        tasks: yes/no tasks.
    """

    higher_is_better = True
    scores: tuple[str, ...] = ("auroc", "ap")

    def __init__(self, tasks: int) -> None:
        super().__init__((tasks, tasks))

    def update(self, preds: Tensor, target: Tensor) -> None:
        target = target.view_as(preds)
        labelled = ~target.isnan().all(1)  # of a large graph, most nodes are of another split
        super().update(preds[labelled], target[labelled])

    def compute(self) -> dict[str, Tensor]:
        """The two scores, each a scalar."""
        from sklearn.metrics import average_precision_score, roc_auc_score  # half a second, which few runs need

        preds, target = (values.cpu() for values in self.samples())
        by_task: list[tuple[float, float]] = []
        for task in both_answers(target).nonzero().flatten().tolist():
            labelled = ~target[:, task].isnan()
            answer, rating = target[labelled, task].numpy(), preds[labelled, task].numpy()
            if not np.isfinite(rating).all():
                by_task = []
                break
            by_task.append((roc_auc_score(answer, rating), average_precision_score(answer, rating)))
        scores = torch.tensor(by_task or [(math.nan, math.nan)], dtype=torch.float64).mean(0)
        return dict(zip(("auroc", "ap"), scores.float().to(self.device), strict=True))


class AUROC(Ranking):
    """The first of the scores of a `Ranking` alone."""

    scores = ("auroc",)

    def compute(self) -> Tensor:  # type: ignore[override]
        return super().compute()["auroc"]


class AveragePrecision(Ranking):
    """The second of them alone."""

    scores = ("ap",)

    def compute(self) -> Tensor:  # type: ignore[override]
        return super().compute()["ap"]


class Fit(SampleMetric):
    """How well numbers (B, tasks) follow their targets, whatever their unit: a mean over tasks.

    A task counts where it has two labels or more, and the score is defined; without such a task, or with a prediction
    that is no number, it is NaN. In 64 bits, from all samples: torchmetrics takes a variance below 1e-4 for none, in
    whatever unit.

    Args:
        tasks: numbers that are predicted of a sample.
    """

    higher_is_better = True

    def __init__(self, tasks: int) -> None:
        super().__init__((tasks, tasks))

    @abstractmethod
    def score(self, preds: np.ndarray, target: np.ndarray) -> float:
        """That of one task, of which all (samples,) have a label and not all labels are the same."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        target = target.view_as(preds)
        labelled = ~target.isnan().all(1)
        super().update(preds[labelled], target[labelled])

    def compute(self) -> Tensor:
        """A scalar."""
        preds, target = (values.cpu().double().numpy() for values in self.samples())
        scores: list[float] = []
        for said, right in zip(preds.T, target.T, strict=True):
            known = ~np.isnan(right)
            if np.isnan(said[known]).any():
                scores = []
                break
            if known.any() and np.ptp(right[known]) > 0:
                scores.append(self.score(said[known], right[known]))
        return torch.tensor(scores or [math.nan], dtype=torch.float32, device=self.device).nanmean()


class R2(Fit):
    """The share of the targets' variance that is explained."""

    def score(self, preds: np.ndarray, target: np.ndarray) -> float:
        return float(1 - np.square(target - preds).sum() / np.square(target - target.mean()).sum())


class Pearson(Fit):
    """Pearson's correlation; of a constant answer it is not defined."""

    def score(self, preds: np.ndarray, target: np.ndarray) -> float:
        return float(np.corrcoef(preds, target)[0, 1]) if np.ptp(preds) > 0 else math.nan


class BalancedAccuracy(MulticlassConfusionMatrix):
    """The mean over classes of the share of its samples that are answered right; a class without any counts for none.

    Torchmetrics' accuracy with ``average=macro`` counts a class without samples as 0 once it is predicted.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """A scalar; NaN without samples."""
        matrix = super().compute()
        samples = matrix.sum(1)
        return (matrix.diagonal() / samples)[samples > 0].mean()


def lengths(rows: Tensor) -> Tensor:
    """(R, tasks) to (tasks,): the root of each column's sum of squares, none of which is too large for 32 bits."""
    largest = rows.abs().amax(0)
    ratio = torch.where(largest > 0, rows / largest, 0.0)
    length = largest * ratio.square().sum(0).sqrt()
    return torch.where(largest.isinf() | largest.isnan(), largest, length)


class Errors(Metric):
    """The mean absolute error ``mae`` and the root mean squared error ``rmse`` of numbers, both a mean over tasks.

    A task counts where it has a label (which is not NaN); without any, or with a prediction of NaN, both are NaN.

    Args:
        tasks: numbers that are predicted of a sample.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    higher_is_better = False
    scores = ("mae", "rmse")
    absolute: Tensor
    length: Tensor
    labels: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.add_state("absolute", torch.zeros(tasks), dist_reduce_fx="sum")
        self.add_state("length", torch.zeros(tasks), dist_reduce_fx=lengths)  # of the vector of errors
        self.add_state("labels", torch.zeros(tasks), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take predictions (B, tasks) and targets of as many numbers."""
        target = target.view_as(preds).float()
        labelled = ~target.isnan()
        error = torch.where(labelled, preds.detach().float() - target, 0.0)
        self.labels += labelled.sum(0)
        self.absolute += error.abs().sum(0)
        self.length = lengths(torch.cat([self.length[None], error]))

    def compute(self) -> dict[str, Tensor]:
        """The two scores, each a scalar."""
        return {
            "mae": (self.absolute / self.labels)[self.labels > 0].mean(),
            "rmse": (self.length / self.labels.sqrt())[self.labels > 0].mean(),
        }

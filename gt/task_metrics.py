"""Metrics of several tasks at once: computed for each task (column), then averaged over those with labels."""

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
    """A metric computed from all samples of all ranks at once.

    Args:
        columns: how many numbers to store of each sample's prediction, and of its target.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, columns: tuple[int, int]) -> None:
        super().__init__()
        self.columns = columns
        # flat, and float32 whatever the precision of the run, so that a rank without samples can gather an empty vector
        self.set_dtype(torch.float32)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def answers(self, preds: Tensor) -> Tensor:
        """Convert raw predictions (B, ...) to those that are stored (B, columns)."""
        return preds

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions (B, ...) and targets (B, columns).

        Raises:
            ValueError: the shapes do not fit.
        """
        stored = self.answers(preds.detach())
        for values, columns, name in ((stored, self.columns[0], "predictions"), (target, self.columns[1], "targets")):
            if values.ndim != 2 or values.shape[1] != columns or len(values) != len(target):
                raise ValueError(f"{tuple(values.shape)} {name} of {len(target)} samples: expected (B, {columns})")
        self.preds.append(stored.float().flatten())
        self.target.append(target.detach().float().flatten())

    def samples(self) -> tuple[Tensor, Tensor]:
        """All stored predictions and targets, each (samples, columns)."""
        empty = torch.empty(0, device=self.device)
        stored = (dim_zero_cat(state) if len(state) else empty for state in (self.preds, self.target))
        preds, target = (state.view(-1, columns) for state, columns in zip(stored, self.columns, strict=True))
        return preds, target


class Ranking(SampleMetric):
    """How well log-odds (B, tasks) rank the samples of each task: ``auroc`` and ``ap``, averaged over tasks.

    ``auroc`` is the area under the ROC curve, ``ap`` the average precision. A task counts if it has both labels; NaN is
    no label. Without such a task, or with a non-finite prediction, both are NaN. The log-odds themselves are ranked, as
    probabilities would saturate at 1 for log-odds above 17.

    Args:
        tasks: number of yes/no tasks.
    """

    higher_is_better = True
    scores: tuple[str, ...] = ("auroc", "ap")

    def __init__(self, tasks: int) -> None:
        super().__init__((tasks, tasks))

    def update(self, preds: Tensor, target: Tensor) -> None:
        target = target.view_as(preds)
        labelled = ~target.isnan().all(1)  # most nodes of a large graph belong to another split
        super().update(preds[labelled], target[labelled])

    def compute(self) -> dict[str, Tensor]:
        """Both metrics by name, each a scalar."""
        from sklearn.metrics import (
            average_precision_score,
            roc_auc_score,
        )  # takes half a second to import, and few runs need it

        preds, target = (values.cpu() for values in self.samples())
        task_scores: list[tuple[float, float]] = []
        for task in both_answers(target).nonzero().flatten().tolist():
            labelled = ~target[:, task].isnan()
            answer, prediction = target[labelled, task].numpy(), preds[labelled, task].numpy()
            if not np.isfinite(prediction).all():
                task_scores = []
                break
            task_scores.append((roc_auc_score(answer, prediction), average_precision_score(answer, prediction)))
        scores = torch.tensor(task_scores or [(math.nan, math.nan)], dtype=torch.float64).mean(0)
        return dict(zip(("auroc", "ap"), scores.float().to(self.device), strict=True))


class AUROC(Ranking):
    """The ``auroc`` of a `Ranking`."""

    scores = ("auroc",)

    def compute(self) -> Tensor:  # type: ignore[override]
        return super().compute()["auroc"]


class AveragePrecision(Ranking):
    """The ``ap`` of a `Ranking`."""

    scores = ("ap",)

    def compute(self) -> Tensor:  # type: ignore[override]
        return super().compute()["ap"]


class Fit(SampleMetric):
    """How well numbers (B, tasks) fit their targets, independent of units: a mean over tasks.

    A task counts if it has at least two labels and the score is defined; without such a task, or with a prediction of
    NaN, the result is NaN. Computed in float64 from all samples: torchmetrics treats any variance below 1e-4 as zero,
    whatever the unit.

    Args:
        tasks: how many numbers are predicted per sample.
    """

    higher_is_better = True

    def __init__(self, tasks: int) -> None:
        super().__init__((tasks, tasks))

    @abstractmethod
    def score(self, preds: np.ndarray, target: np.ndarray) -> float:
        """The score of one task, given labelled samples (samples,) whose labels are not all equal."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        target = target.view_as(preds)
        labelled = ~target.isnan().all(1)
        super().update(preds[labelled], target[labelled])

    def compute(self) -> Tensor:
        """A scalar."""
        preds, target = (values.cpu().double().numpy() for values in self.samples())
        scores: list[float] = []
        for prediction, label in zip(preds.T, target.T, strict=True):
            labelled = ~np.isnan(label)
            if np.isnan(prediction[labelled]).any():
                scores = []
                break
            if labelled.any() and np.ptp(label[labelled]) > 0:
                scores.append(self.score(prediction[labelled], label[labelled]))
        return torch.tensor(scores or [math.nan], dtype=torch.float32, device=self.device).nanmean()


class R2(Fit):
    """The coefficient of determination: the explained share of the targets' variance."""

    def score(self, preds: np.ndarray, target: np.ndarray) -> float:
        return float(1 - np.square(target - preds).sum() / np.square(target - target.mean()).sum())


class Pearson(Fit):
    """Pearson's correlation coefficient; undefined for constant predictions."""

    def score(self, preds: np.ndarray, target: np.ndarray) -> float:
        return float(np.corrcoef(preds, target)[0, 1]) if np.ptp(preds) > 0 else math.nan


class BalancedAccuracy(MulticlassConfusionMatrix):
    """The recall averaged over classes; classes without samples are ignored.

    Torchmetrics' accuracy with ``average=macro`` counts a class without samples as 0 as soon as it is predicted.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """A scalar; NaN without samples."""
        matrix = super().compute()
        samples = matrix.sum(1)
        return (matrix.diagonal() / samples)[samples > 0].mean()


def column_norms(rows: Tensor) -> Tensor:
    """The L2 norm of each column, (R, tasks) to (tasks,), without overflow of the squares in float32."""
    largest = rows.abs().amax(0)
    ratio = torch.where(largest > 0, rows / largest, 0.0)
    length = largest * ratio.square().sum(0).sqrt()
    return torch.where(largest.isinf() | largest.isnan(), largest, length)


class Errors(Metric):
    """The mean absolute error ``mae`` and the root mean squared error ``rmse``, both averaged over tasks.

    A task counts if it has a label that is not NaN; without any, or with a prediction of NaN, both are NaN.

    Args:
        tasks: how many numbers are predicted per sample.
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
        self.add_state("length", torch.zeros(tasks), dist_reduce_fx=column_norms)  # L2 norm of the errors
        self.add_state("labels", torch.zeros(tasks), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions (B, tasks) and as many targets, in any shape."""
        target = target.view_as(preds).float()
        labelled = ~target.isnan()
        error = torch.where(labelled, preds.detach().float() - target, 0.0)
        self.labels += labelled.sum(0)
        self.absolute += error.abs().sum(0)
        self.length = column_norms(torch.cat([self.length[None], error]))

    def compute(self) -> dict[str, Tensor]:
        """Both metrics by name, each a scalar."""
        return {
            "mae": (self.absolute / self.labels)[self.labels > 0].mean(),
            "rmse": (self.length / self.labels.sqrt())[self.labels > 0].mean(),
        }

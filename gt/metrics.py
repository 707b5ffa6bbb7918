"""Metrics by the kind of target, or of one's own."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection, classification

from gt.errors import UserError, nearest
from gt.losses import Criterion, aligned, classes, of_outputs
from gt.schema import UNLABELLED, Kind, Schema
from gt.task_metrics import Errors, Fit, Ranking


class WeightedMean(Metric):
    """What sums of terms come to over what these weigh together; NaN where one is, or there were none."""

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, total: Tensor, weight: Tensor) -> None:
        self.total += total
        self.weight += weight

    def compute(self) -> Tensor:
        return self.total / self.weight


class MeanLosses(nn.ModuleDict):
    """The means of losses, each by its name, over the batches of a split."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__({name: WeightedMean() for name in names})

    def add(self, sums: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """The sum of each loss over a batch, and what its terms weigh together."""
        for name, each in sums.items():
            mean: Any = self[name]
            mean.update(*each)

    def means(self) -> dict[str, Tensor]:
        """What was added since the last time, as means."""
        measures: list[tuple[str, Any]] = list(self.items())
        values = {name: mean.compute() for name, mean in measures}
        for _, mean in measures:
            mean.reset()
        return values


class Around(Metric):
    """Another metric, which a subclass shows a part of each batch."""

    full_state_update = False

    def __init__(self, metric: Any, schema: Schema) -> None:
        super().__init__()
        self.metric, self.schema = metric, schema

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        return self.metric.higher_is_better

    def compute(self) -> Any:
        return self.metric.compute()

    def reset(self) -> None:
        super().reset()
        self.metric.reset()


class Labels(Metric):
    """(tasks,) how many labels each task has, in all processes; NaN where a prediction of one is no number."""

    full_state_update = False
    counts: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(tasks), dist_reduce_fx="sum")

    def update(self, known: Tensor, prediction: Tensor) -> None:
        """Take which entries (B, tasks) have a label, and predictions (B, tasks, ...)."""
        nan = prediction.isnan()
        broken = known & (nan if nan.ndim == known.ndim else nan.any(-1))
        self.counts += torch.where(broken.any(0), torch.nan, known.sum(0))

    def compute(self) -> Tensor:
        return self.counts


class OfLabelled(Around):
    """A metric of the labelled entries, see `labelled`; of several numbers or yes/no answers the mean over these tasks.

    A task counts where it has a label, and the metric is defined; without such a task, or with a prediction that is no
    number, it is NaN. Yes and no are the classes 1 and 0, by the log-odds of yes, or for a metric of several classes by
    those of both.
    """

    def __init__(self, metric: Any, schema: Schema) -> None:
        super().__init__(metric, schema)
        tasks = 1 if schema.kind == "multiclass" else schema.outputs
        self.others = nn.ModuleList(deepcopy(metric) for _ in range(tasks - 1))
        # a metric, not a state: a collection takes metrics whose states are equal for the same one
        self.labels: Any = Labels(tasks)

    @property
    def _of_tasks(self) -> list[Any]:
        return [self.metric, *self.others]

    def update(self, prediction: Tensor, target: Tensor) -> None:
        prediction, target = aligned(self.schema, prediction, target)
        if self.schema.kind == "multiclass":
            prediction, target = prediction[:, None], target[:, None]
        known = target != UNLABELLED if self.schema.kind == "multiclass" else ~target.isnan()
        self.labels.update(known, prediction)
        for task, rows in enumerate(known.unbind(1)):
            self._update(task, prediction[rows, task], target[rows, task])

    def _update(self, task: int, prediction: Tensor, target: Tensor) -> None:
        if not len(target):
            return
        metric = self._of_tasks[task]
        if self.schema.kind == "binary":
            target = target.long()
            if hasattr(metric, "num_classes"):
                prediction = torch.stack([torch.zeros_like(prediction), prediction], dim=1)
        metric.update(prediction, target)

    def compute(self) -> Any:
        for metric in self._of_tasks:
            join_gathering(metric)
        counts = self.labels.compute().reshape(-1)  # which torchmetrics makes a scalar of a single task
        if counts.isnan().any():
            return counts.new_tensor(torch.nan)
        values = [_defined(metric) for metric, count in zip(self._of_tasks, counts.tolist(), strict=True) if count]
        if not values:
            return counts.new_tensor(torch.nan)
        return torch.stack([value.float() for value in values]).nanmean() if self.others else values[0]

    def reset(self) -> None:
        super().reset()
        each: Any
        for each in (self.labels, *self.others):
            each.reset()


def join_gathering(metric: Metric) -> None:
    """Let a process without a label of its own join in where lists of all processes are gathered: by empty tensors.

    Torchmetrics gathers what there is: a process that has nothing would take no part, and the others would fail.
    """
    if not (metric._to_sync and metric.distributed_available_fn()):
        return
    lists = {name: state for name in metric._defaults if isinstance(state := getattr(metric, name), list)}
    here = {name: (state[0].dtype, state[0].shape[1:]) for name, state in lists.items() if len(state)}
    kinds: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(kinds, here)
    for name in lists.keys() - here.keys():
        if kind := next((each[name] for each in kinds if name in each), None):
            setattr(metric, name, [torch.empty((0, *kind[1]), dtype=kind[0], device=metric.device)])


def _defined(metric: Any) -> Any:
    """What a metric comes to, or NaN."""
    try:
        return metric.compute()
    except ValueError:  # such as R2 of a single label
        return torch.tensor(torch.nan, device=metric.device)


class OfTasks(Around):
    """A metric of several tasks at once: a ranking of yes/no tasks, of two classes the second is yes; or of numbers.

    Raises:
        ValueError: other targets.
    """

    def update(self, prediction: Tensor, target: Tensor) -> None:
        if isinstance(self.metric, Fit):
            if self.schema.kind != "regression":
                raise ValueError("it scores numbers")
            target = of_outputs(self.schema, target)
        elif self.schema.kind == "multiclass" and self.schema.outputs == 2:
            target, prediction = classes(self.schema, target)[:, None], prediction.reshape(-1, 2)
            prediction = prediction[:, 1:] - prediction[:, :1]
            target = target.float().masked_fill(target == UNLABELLED, torch.nan)
        elif self.schema.kind != "binary":
            raise ValueError("it ranks answers of yes and no")
        else:
            target = of_outputs(self.schema, target)
        self.metric.update(prediction, target)


def own_metrics(schema: Schema, own: Mapping[str, Metric]) -> tuple[MetricCollection, Criterion]:
    """Metrics of one's own by their names, the first of which decides.

    Raises:
        UserError: it does not say whether higher is better, or one is called ``loss``.
    """
    if "loss" in own:
        raise UserError("metrics.loss: the loss is measured anyway; call the metric by another name")
    around: dict[str, Any] = {
        name: OfTasks(each, schema) if isinstance(each, Ranking | Fit) else OfLabelled(each, schema)
        for name, each in own.items()
    }
    return MetricCollection(around), decided(own, next(iter(own)))


def scores_kind(metric: Metric, kind: Kind) -> bool:
    """Whether a metric is not known to be for another kind of target: some of torchmetrics' compute all the same."""
    others = "classification" if kind == "regression" else "regression"
    return not type(metric).__module__.startswith(f"torchmetrics.{others}.")


def decided(measures: Mapping[str, Any], name: str) -> Criterion:
    """The metric of a name as the criterion, or the loss.

    Raises:
        UserError: there is none of this name, or it does not say whether higher is better.
    """
    if name == "loss":
        return Criterion("loss", "min")
    better: dict[str, bool | None] = {}
    for key, metric in measures.items():
        better |= dict.fromkeys(getattr(metric, "scores", (key,)), metric.higher_is_better)
    if name not in better:
        raise UserError(f"criterion={name}: {nearest(name, [*better, 'loss'])}")
    if better[name] is None:
        raise UserError(
            f"criterion={name}: its metric does not say whether higher is better: set higher_is_better in it, or "
            "choose another"
        )
    return Criterion(name, "max" if better[name] else "min")


def metrics(schema: Schema) -> tuple[MetricCollection, Criterion]:
    """What to measure for a kind of target, and which of it counts; unlabelled targets count for nothing.

    Raises:
        UserError: a target of a single class.
    """
    collection: dict[str, Metric | MetricCollection]
    if schema.kind == "multiclass":
        if schema.outputs < 2:
            target, only = schema.target[0] if schema.target else "y", f", '{schema.names[0]}'" if schema.names else ""
            raise UserError(f"'{target}' has one class only{only}: there is nothing to tell apart")
        of_classes: dict[str, Any] = {"num_classes": schema.outputs, "ignore_index": UNLABELLED}
        collection = {"accuracy": OfLabelled(classification.MulticlassAccuracy(average="micro", **of_classes), schema)}
        if schema.level == "graph" and schema.positions == 1 and not schema.pointer:
            collection["f1"] = OfLabelled(classification.MulticlassF1Score(average="macro", **of_classes), schema)
        return MetricCollection(collection), Criterion("accuracy", "max")
    if schema.kind == "binary":
        return MetricCollection({"ranking": Ranking(schema.outputs)}), Criterion("auroc", "max")
    # of numbers over many decades, or in several units, the largest would decide alone: the loss weighs them alike
    several_units = bool(schema.scale) and max(schema.scale) > 10 * min(schema.scale)
    name = "loss" if schema.log or several_units else "rmse" if schema.squared else "mae"
    return MetricCollection({"errors": Errors(schema.outputs)}), Criterion(name, "min")

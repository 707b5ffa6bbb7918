"""Metrics by the kind of target, and custom ones."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection, classification

from gt.errors import UserError, nearest
from gt.losses import Criterion, align, classes, output_targets
from gt.schema import UNLABELLED, Kind, Schema
from gt.task_metrics import Errors, Fit, Ranking


class WeightedMean(Metric):
    """The sum of all terms over their total weight; NaN if any term is, or if there are none."""

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
    """Mean losses by name over the batches of a split."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__({name: WeightedMean() for name in names})

    def add(self, sums: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add the sum of each loss over a batch and its total weight."""
        for name, sum_and_weight in sums.items():
            mean: Any = self[name]
            mean.update(*sum_and_weight)

    def means(self) -> dict[str, Tensor]:
        """Return the means since the last call, and reset them."""
        measures: list[tuple[str, Any]] = list(self.items())
        values = {name: mean.compute() for name, mean in measures}
        for _, mean in measures:
            mean.reset()
        return values


class MetricWrapper(Metric):
    """Wraps another metric; a subclass selects what part of each batch the metric sees."""

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
    """(tasks,) number of labels of each task over all processes; NaN where a prediction of a labelled entry is NaN."""

    full_state_update = False
    counts: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(tasks), dist_reduce_fx="sum")

    def update(self, labelled: Tensor, prediction: Tensor) -> None:
        """Add a mask of labelled entries (B, tasks) and predictions (B, tasks, ...)."""
        nan = prediction.isnan()
        invalid = labelled & (nan if nan.ndim == labelled.ndim else nan.any(-1))
        self.counts += torch.where(invalid.any(0), torch.nan, labelled.sum(0))

    def compute(self) -> Tensor:
        return self.counts


class LabelledMetric(MetricWrapper):
    """A metric of the labelled entries, see `gt.losses.select_labelled`; the mean over several numbers or binary tasks.

    A task counts if it has a label and the metric is defined for it; without such a task, or with a prediction of NaN,
    the result is NaN. Binary tasks have the classes 0 and 1 and are passed as the log-odds of 1 or, to a metric with
    ``num_classes``, as those of both.
    """

    def __init__(self, metric: Any, schema: Schema) -> None:
        super().__init__(metric, schema)
        tasks = 1 if schema.kind == "multiclass" else schema.outputs
        self.others = nn.ModuleList(deepcopy(metric) for _ in range(tasks - 1))
        # a metric, not a state: a MetricCollection merges metrics that have equal states
        self.labels: Any = Labels(tasks)

    @property
    def _task_metrics(self) -> list[Any]:
        return [self.metric, *self.others]

    def update(self, prediction: Tensor, target: Tensor) -> None:
        prediction, target = align(self.schema, prediction, target)
        if self.schema.kind == "multiclass":
            prediction, target = prediction[:, None], target[:, None]
        labelled = target != UNLABELLED if self.schema.kind == "multiclass" else ~target.isnan()
        self.labels.update(labelled, prediction)
        for task, rows in enumerate(labelled.unbind(1)):
            self._update(task, prediction[rows, task], target[rows, task])

    def _update(self, task: int, prediction: Tensor, target: Tensor) -> None:
        if not len(target):
            return
        metric = self._task_metrics[task]
        if self.schema.kind == "binary":
            target = target.long()
            if hasattr(metric, "num_classes"):
                prediction = torch.stack([torch.zeros_like(prediction), prediction], dim=1)
        metric.update(prediction, target)

    def compute(self) -> Any:
        for metric in self._task_metrics:
            fill_empty_states(metric)
        counts = self.labels.compute().reshape(-1)  # torchmetrics squeezes a single task to a scalar
        if counts.isnan().any():
            return counts.new_tensor(torch.nan)
        values = [
            _value_or_nan(metric) for metric, count in zip(self._task_metrics, counts.tolist(), strict=True) if count
        ]
        if not values:
            return counts.new_tensor(torch.nan)
        return torch.stack([value.float() for value in values]).nanmean() if self.others else values[0]

    def reset(self) -> None:
        super().reset()
        metric: Any
        for metric in (self.labels, *self.others):
            metric.reset()


def fill_empty_states(metric: Metric) -> None:
    """Give a rank without labels empty tensors, so that it takes part when list states are gathered.

    Torchmetrics gathers only non-empty lists: a rank without any would skip the collective, and the others would fail.
    """
    if not (metric._to_sync and metric.distributed_available_fn()):
        return
    lists = {name: state for name in metric._defaults if isinstance(state := getattr(metric, name), list)}
    local = {name: (state[0].dtype, state[0].shape[1:]) for name, state in lists.items() if len(state)}
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, local)
    for name in lists.keys() - local.keys():
        if layout := next((entry[name] for entry in gathered if name in entry), None):
            setattr(metric, name, [torch.empty((0, *layout[1]), dtype=layout[0], device=metric.device)])


def _value_or_nan(metric: Any) -> Any:
    """The value of a metric, or NaN if it is undefined."""
    try:
        return metric.compute()
    except ValueError:  # such as R2 of a single label
        return torch.tensor(torch.nan, device=metric.device)


class MultitaskMetric(MetricWrapper):
    """A metric of all tasks at once: a ranking of binary tasks (or of two classes, as one task), or a fit of numbers.

    Raises:
        ValueError: the metric does not apply to this kind of target.
    """

    def update(self, prediction: Tensor, target: Tensor) -> None:
        if isinstance(self.metric, Fit):
            if self.schema.kind != "regression":
                raise ValueError("it scores numbers only")
            target = output_targets(self.schema, target)
        elif self.schema.kind == "multiclass" and self.schema.outputs == 2:
            target, prediction = classes(self.schema, target)[:, None], prediction.reshape(-1, 2)
            prediction = prediction[:, 1:] - prediction[:, :1]
            target = target.float().masked_fill(target == UNLABELLED, torch.nan)
        elif self.schema.kind != "binary":
            raise ValueError("it ranks binary tasks only")
        else:
            target = output_targets(self.schema, target)
        self.metric.update(prediction, target)


def custom_metrics(schema: Schema, custom: Mapping[str, Metric]) -> tuple[MetricCollection, Criterion]:
    """Wrap custom metrics, by name; the first one is the criterion.

    Raises:
        UserError: the first metric does not set ``higher_is_better``, or one is called ``loss``.
    """
    if "loss" in custom:
        raise UserError("metrics.loss: the loss is measured anyway; choose another name for the metric")
    wrapped: dict[str, Any] = {
        name: MultitaskMetric(metric, schema) if isinstance(metric, Ranking | Fit) else LabelledMetric(metric, schema)
        for name, metric in custom.items()
    }
    return MetricCollection(wrapped), criterion_of(custom, next(iter(custom)))


def scores_kind(metric: Metric, kind: Kind) -> bool:
    """Whether a metric fits a kind of target; rejects only torchmetrics' own for others, some of which would run."""
    other = "classification" if kind == "regression" else "regression"
    return not type(metric).__module__.startswith(f"torchmetrics.{other}.")


def criterion_of(measures: Mapping[str, Any], name: str) -> Criterion:
    """The criterion of this name: a metric or the loss.

    Raises:
        UserError: there is no metric of this name, or it does not set ``higher_is_better``.
    """
    if name == "loss":
        return Criterion("loss", "min")
    higher_is_better: dict[str, bool | None] = {}
    for key, metric in measures.items():
        higher_is_better |= dict.fromkeys(getattr(metric, "scores", (key,)), metric.higher_is_better)
    if name not in higher_is_better:
        raise UserError(f"criterion={name}: {nearest(name, [*higher_is_better, 'loss'])}")
    if higher_is_better[name] is None:
        raise UserError(
            f"criterion={name}: the metric does not say whether higher is better: set its higher_is_better, or "
            "choose another criterion"
        )
    return Criterion(name, "max" if higher_is_better[name] else "min")


def metrics(schema: Schema) -> tuple[MetricCollection, Criterion]:
    """The default metrics for a kind of target, and the criterion; unlabelled targets are ignored.

    Raises:
        UserError: the target has a single class.
    """
    collection: dict[str, Metric | MetricCollection]
    if schema.kind == "multiclass":
        if schema.outputs < 2:
            target, label = schema.target[0] if schema.target else "y", f", '{schema.names[0]}'" if schema.names else ""
            raise UserError(f"'{target}' has one class only{label}: there is nothing to tell apart")
        options: dict[str, Any] = {"num_classes": schema.outputs, "ignore_index": UNLABELLED}
        collection = {"accuracy": LabelledMetric(classification.MulticlassAccuracy(average="micro", **options), schema)}
        if schema.level == "graph" and schema.positions == 1 and not schema.pointer:
            collection["f1"] = LabelledMetric(classification.MulticlassF1Score(average="macro", **options), schema)
        return MetricCollection(collection), Criterion("accuracy", "max")
    if schema.kind == "binary":
        return MetricCollection({"ranking": Ranking(schema.outputs)}), Criterion("auroc", "max")
    # over several decades or units, the largest numbers would dominate an error; the loss weighs all alike
    several_units = bool(schema.scale) and max(schema.scale) > 10 * min(schema.scale)
    name = "loss" if schema.log or several_units else "rmse" if schema.squared else "mae"
    return MetricCollection({"errors": Errors(schema.outputs)}), Criterion(name, "min")

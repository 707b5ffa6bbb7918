"""Losses and metrics of a run, from its configuration or else from its dataset."""

from copy import deepcopy

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from gt.data.datamodule import DataModule
from gt.data.notices import check_varied
from gt.errors import UserError, first_line
from gt.losses import Criterion, Loss, constant_prediction, suits, total_loss
from gt.metrics import MetricWrapper, criterion_of, custom_metrics, scores_kind
from gt.objectives import Objective
from gt.schema import Schema
from gt.train.construct import constructing

TRIAL_SIZE = 1000  # training targets on which a loss and metrics are tried out


def named_metrics(cfg: DictConfig, schema: Schema | None = None) -> dict[str, Metric]:
    """The metrics listed in a configuration.

    Args:
        schema: determines ``num_classes`` (2 for yes/no answers) and ``tasks`` of metrics that leave them null; None
            if there are no data yet.

    Raises:
        UserError: a metric rejects its arguments.
    """
    own = {}
    kind, outputs = (schema.kind, schema.outputs) if schema is not None else ("binary", 1)
    defaults = {"num_classes": 2, "tasks": outputs} if kind != "multiclass" else {"num_classes": outputs, "tasks": 1}
    with constructing(cfg):
        for name, section in (cfg.get("metrics") or {}).items():
            if section is not None:
                filled = {key: value for key, value in defaults.items() if section.get(key, 0) is None}
                own[str(name)] = instantiate(section, **filled, _convert_="all")
    for name, metric in own.items():
        if not isinstance(metric, Metric):
            raise UserError(
                f"metrics.{name}: a {type(metric).__name__} is not a torchmetrics.Metric: derive it from it"
            )
    return own


def measures_of(cfg: DictConfig, data: DataModule) -> tuple[MetricCollection, Criterion]:
    """The metrics of a run on opened data, and the criterion.

    Raises:
        UserError: the criterion does not exist, or all labels are the same, so that there is nothing to learn.
    """
    if not cfg.get("supervised", 1.0):
        return MetricCollection({}), Criterion("loss", "min")
    check_varied(data)
    own = named_metrics(cfg, data.schema)
    measures, criterion = custom_metrics(data.schema, own) if own else data.measures()
    if cfg.get("criterion"):
        criterion = criterion_of(dict(measures.items(keep_base=True)), cfg.criterion)
    return measures, criterion


def objectives_of(cfg: DictConfig) -> dict[str, Objective]:
    """The label-free losses of a configuration by name, not yet built.

    Raises:
        UserError: one rejects its arguments or has a reserved name, or there is nothing to learn.
    """
    with constructing(cfg):
        entries = (cfg.get("objective") or {}).items()
        objectives = {str(name): instantiate(entry, _convert_="all") for name, entry in entries if entry is not None}
    if cfg.get("supervised", 1.0) < 0:
        raise UserError(f"supervised={cfg.supervised} must be 0 or more")
    if not (objectives or cfg.get("supervised", 1.0)):
        raise UserError("supervised=0 leaves nothing to learn: name an objective, such as objective=[mask_nodes]")
    if "loss" in objectives:
        raise UserError("objective.loss: this name is reserved for the loss; rename the objective")
    return objectives


def try_out(loss: Loss | None, measures: MetricCollection, data: DataModule) -> None:
    """Evaluate a custom loss and custom metrics once, on the best constant prediction.

    Raises:
        UserError: one does not support these targets or does not return a single number, or a loss is combined with
            class weights.
    """
    if loss is not None and not suits(loss, data.schema.kind):
        raise UserError(
            f"loss: {type(loss).__name__} does not suit a target that is {data.schema.answer()}: leave loss out"
        )
    if loss is not None and data.schema.weights:
        raise UserError("data.weights=balanced applies to the dataset's own loss, which loss replaces: leave one out")
    target, tested = data.targets("train"), {} if loss is None else {"loss": loss}
    prediction = constant_prediction(data.schema, target).expand(min(len(target), TRIAL_SIZE), -1)
    tested |= {f"metrics.{name}": metric for name, metric in measures.items() if isinstance(metric, MetricWrapper)}
    for key, function in deepcopy(tested).items():
        if isinstance(function, MetricWrapper) and not scores_kind(function.metric, data.schema.kind):
            raise UserError(f"{key}: it cannot score a target that is {data.schema.answer()}: choose another metric")
        try:
            if isinstance(function, MetricWrapper):
                with torch.no_grad():
                    function.update(prediction, target[:TRIAL_SIZE])
                    value = function.compute()
            else:
                value = total_loss(data.schema, prediction.clone().requires_grad_(), target[:TRIAL_SIZE], function)[0]
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = first_line(error)
            raise UserError(f"{key}: it cannot score a target that is {data.schema.answer()}: {reason}") from error
        if not isinstance(value, Tensor):
            raise UserError(f"{key}: it returns a {type(value).__name__}; it must return a tensor of one number")
        if value.numel() != 1:
            raise UserError(f"{key}: it returns {value.numel()} numbers; it must return one")
        if not isinstance(function, MetricWrapper) and not value.requires_grad:
            raise UserError(
                f"{key}: no gradient flows through it to the predictions, so nothing can be learned: leave out "
                "float(), .item(), .detach() and the like"
            )

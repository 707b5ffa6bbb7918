"""What a run minimises and is measured by: as its configuration says, and else as its dataset does."""

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

TRIED = 1000  # training targets that show whether a loss and metrics can do with them


def named_metrics(cfg: DictConfig, schema: Schema | None = None) -> dict[str, Metric]:
    """The metrics that a configuration names.

    Args:
        schema: says what ``num_classes`` (2 of yes/no answers) and ``tasks`` of a metric are where they are null;
            None: of no data yet.

    Raises:
        UserError: one refuses its arguments.
    """
    own = {}
    kind, outputs = (schema.kind, schema.outputs) if schema is not None else ("binary", 1)
    known = {"num_classes": 2, "tasks": outputs} if kind != "multiclass" else {"num_classes": outputs, "tasks": 1}
    with constructing(cfg):
        for name, section in (cfg.get("metrics") or {}).items():
            if section is not None:
                filled = {key: value for key, value in known.items() if section.get(key, 0) is None}
                own[str(name)] = instantiate(section, **filled, _convert_="all")
    for name, metric in own.items():
        if not isinstance(metric, Metric):
            raise UserError(f"metrics.{name}: a {type(metric).__name__} is no torchmetrics.Metric: derive it from that")
    return own


def measures_of(cfg: DictConfig, data: DataModule) -> tuple[MetricCollection, Criterion]:
    """The metrics of a run on data that are open, and which of them decides.

    Raises:
        UserError: there is no such criterion, or nothing to learn from the labels, which are all the same.
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
    """The losses that need no labels, by their names in a configuration; not built.

    Raises:
        UserError: one refuses its arguments, has the name of something else that is measured, or nothing is learned.
    """
    with constructing(cfg):
        entries = (cfg.get("objective") or {}).items()
        objectives = {str(name): instantiate(each, _convert_="all") for name, each in entries if each is not None}
    if cfg.get("supervised", 1.0) < 0:
        raise UserError(f"supervised={cfg.supervised} must be 0 or more")
    if not (objectives or cfg.get("supervised", 1.0)):
        raise UserError("supervised=0 leaves nothing to learn: name an objective, such as objective=[mask_nodes]")
    if "loss" in objectives:
        raise UserError("objective.loss: the loss is measured anyway; call the objective by another name")
    return objectives


def try_out(loss: Loss | None, measures: MetricCollection, data: DataModule) -> None:
    """Compute a loss and metrics that are not the dataset's once, by its best constant answer.

    Raises:
        UserError: one can do nothing with these targets, or comes to more than one number; a loss beside class weights.
    """
    if loss is not None and not suits(loss, data.schema.kind):
        raise UserError(
            f"loss: {type(loss).__name__} does not suit a target that is {data.schema.answer()}: leave loss out"
        )
    if loss is not None and data.schema.weights:
        raise UserError("data.weights=balanced weighs the dataset's own loss, and loss takes its place: leave one out")
    target, tried = data.targets("train"), {} if loss is None else {"loss": loss}
    prediction = constant_prediction(data.schema, target).expand(min(len(target), TRIED), -1)
    tried |= {f"metrics.{name}": each for name, each in measures.items() if isinstance(each, MetricWrapper)}
    for key, each in deepcopy(tried).items():
        if isinstance(each, MetricWrapper) and not scores_kind(each.metric, data.schema.kind):
            raise UserError(f"{key}: it cannot score a target that is {data.schema.answer()}: choose another metric")
        try:
            if isinstance(each, MetricWrapper):
                with torch.no_grad():
                    each.update(prediction, target[:TRIED])
                    value = each.compute()
            else:
                value = total_loss(data.schema, prediction.clone().requires_grad_(), target[:TRIED], each)[0]
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            why = first_line(error)
            raise UserError(f"{key}: it cannot score a target that is {data.schema.answer()}: {why}") from error
        if not isinstance(value, Tensor):
            raise UserError(f"{key}: it comes to a {type(value).__name__} and must come to a tensor of one number")
        if value.numel() != 1:
            raise UserError(f"{key}: it comes to {value.numel()} numbers and must come to one")
        if not isinstance(each, MetricWrapper) and not value.requires_grad:
            raise UserError(
                f"{key}: no gradient flows through it to the predictions, so that nothing can be learned: leave out "
                "float(), .item(), .detach() and the like"
            )

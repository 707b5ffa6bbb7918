"""Scores of the trivial and the classical baseline on a run's own test samples, and advice if they beat it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics import Metric

from gt.data.datamodule import DataModule
from gt.data.graphs import Stored
from gt.data.notices import decades_of
from gt.losses import Criterion, constant_prediction, format_score, total_loss, undefined_reason
from gt.ranks import rank_zero_only
from gt.schema import pluralise

MAX_CELLS = 20_000_000  # numbers of a prediction held in memory at once
MIN_STEPS = 200  # optimiser steps below which a network learns little
MIN_SAMPLES = 100
LARGE_FEATURE = 20.0  # PyTorch's initial weights expect features of about 1
MAX_ROWS = 100_000  # rows of features checked


class Evaluated:
    """The samples that an evaluation covers: a split, or its first batches.

    Args:
        data: an opened data module.
        split: name of the split.
        limit: number or fraction of batches per rank, as in Lightning's ``limit_test_batches``; None for all.
        world: number of ranks.

    Attributes:
        batches, total: number of batches evaluated and in the split, over all ranks.
    """

    def __init__(self, data: DataModule, split: str, limit: float | None = None, world: int = 1) -> None:
        self.data, self.split = data, split
        samplers = [data.batches(split, rank=rank, world=world) for rank in range(world)]
        self._counts = [_limit(len(sampler), limit) for sampler in samplers]
        self._samplers = samplers
        self.batches, self.total = sum(self._counts), sum(map(len, samplers))

    def targets(self) -> Tensor:
        """The targets of all these samples, in any order."""
        if self.batches == self.total:
            return self.data.targets(self.split)
        dataset = self.data.dataset(self.split)
        parts = [
            dataset[request].y
            for sampler, count in zip(self._samplers, self._counts, strict=True)
            for request in islice(sampler, count)
        ]
        labelled = [part for part in parts if part is not None]
        return torch.cat(labelled) if labelled else self.data.targets(self.split)[:0]


def _limit(batches: int, limit: float | None) -> int:
    if limit is None:
        return batches
    return max(0, min(batches, limit if isinstance(limit, int) else int(batches * limit)))


@torch.no_grad()
def score_predictions(data: DataModule, prediction: Tensor, target: Tensor, task: Any = None) -> dict[str, float]:
    """Loss and metrics of predictions (rows, outputs) for targets in the same order.

    Args:
        task: the task whose loss and metrics to use; None for the defaults of the data.
    """
    measures = data.measures()[0] if task is None else task.measures["test"].clone()
    measures.reset()
    metrics: list[Any] = [module for module in measures.modules() if isinstance(module, Metric)]
    for metric in metrics:
        metric.distributed_available_fn = lambda: False  # this rank has all targets, and others may be gone
    losses, rows = [], max(1, MAX_CELLS // max(1, prediction.shape[1]))
    for part, answers in zip(target.split(rows), prediction.split(rows), strict=True):
        measures.update(answers, part)
        losses.append(torch.stack(total_loss(data.schema, answers, part, task and task.loss)))
    total, weight = torch.stack(losses).sum(0)
    return {"loss": float(total / weight.clamp(min=1e-30))} | {
        name.removeprefix("test/"): float(value) for name, value in measures.compute().items()
    }


def baseline(data: DataModule, target: Tensor, task: Any = None) -> dict[str, float]:
    """Scores of the best constant prediction, fitted to the training targets, see `score_predictions`.

    The loss is that of the prediction which minimises it, with class weights; metrics, which are unweighted, are those
    of the best prediction without.
    """
    train = data.targets("train")
    unweighted = constant_prediction(replace(data.schema, weights=()), train)
    scores = score_predictions(data, unweighted.expand(len(target), -1), target, task)
    best = constant_prediction(data.schema, train, task and task.loss)
    if not torch.equal(best, unweighted):
        scores["loss"] = score_predictions(data, best.expand(len(target), -1), target, task)["loss"]
    return scores


def defined_criterion(criterion: Criterion, validated: Evaluated) -> Criterion:
    """The criterion, or the loss if the validation targets leave it undefined and it could not rank models."""
    schema = validated.data.schema
    if criterion.name == "loss" or schema.kind != "binary" or schema.level == "link":
        return criterion
    return Criterion("loss", "min") if undefined_reason(schema, validated.targets()) else criterion


def losing_metric(result: Mapping[str, Any], by: Mapping[str, float]) -> str:
    """The metric, criterion or else loss, by which a run is no better than a baseline; '' if it is better."""
    names = [(result["criterion"], result["mode"]), ("loss", "min")]
    for name, mode in names:
        score, other = (scores.get(name, math.nan) for scores in (result["scores"], by))
        if not (math.isnan(score) or math.isnan(other)):
            worse = score <= other if mode == "max" else score >= other
            return name if worse else ""
    return ""


@rank_zero_only
def classical_baseline(reference: Any, data: DataModule, task: Any) -> dict[str, Any] | None:
    """Scores of a classical model on the split of the final test; None if no such model suits the data.

    Args:
        reference: such as `gt.baselines.classical.Classical`.
        task: provides loss, metrics and criterion.
    """
    split = data.last_split()
    answers = reference.answers(data, split)
    if answers is None:
        return None
    scores = score_predictions(data, answers.prediction, data.targets(split), task)
    name = task.criterion.name
    print(f"classical baseline: {split} {name} {format_score(scores[name])} after {answers.seconds:.0f} s", flush=True)
    return {"model": answers.model, "seconds": answers.seconds, "samples": answers.samples, "scores": scores}


def score_columns(result: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The scores of a run, if any, and of its baselines, by column of a table."""
    run = {"this run": result["scores"]} if "scores" in result else {}
    classical = {"classical baseline": result["classical"]["scores"]} if result["classical"] else {}
    trivial = {"trivial baseline": result["baseline"]} if result["baseline"] else {}
    return run | trivial | classical


def score_table(result: Mapping[str, Any]) -> list[str]:
    """The lines of a text table: a row for each metric, a column for each model of `score_columns`."""
    models = score_columns(result)
    rows = [(f"{result['split']} metric", *models)]
    for name in next(iter(models.values())):
        cells = (format_score(row[name], result["undefined"]) if name in row else "-" for row in models.values())
        rows.append((name, *cells))
    first, *rest = (max(map(len, column)) for column in zip(*rows, strict=True))
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], rest)]) for row in rows]


@rank_zero_only
def show_baselines(data: DataModule, task: Any, classical: Mapping[str, Any] | None) -> None:
    """Print the baselines' scores on the split of the final test."""
    split = data.last_split()
    target = data.targets(split)
    result = {"split": split, "undefined": undefined_reason(data.schema, target), "classical": classical}
    print("\n".join(score_table(result | {"baseline": baseline(data, target, task)})), flush=True)


def classical_verdict(result: Mapping[str, Any]) -> str:
    """A line if a run is no better than the classical baseline; '' if it is better, or there is none."""
    classical = result["classical"]
    name = classical and losing_metric(result, classical["scores"])
    model = f"{classical['model']}, {classical['seconds']:.0f} s" if name else ""
    return f"loses to the classical baseline by {name}: {model}" if name else ""


def reasons(data: DataModule, steps: int, log: pd.DataFrame, length: str = "trainer.max_epochs") -> list[str]:
    """Likely reasons why a run learned nothing, and what to change.

    Args:
        data: the training data.
        steps: optimiser steps.
        log: the logged values, see `gt.train.report.history`.
        length: the option that ended the training, see `gt.train.length.stopping_option`.
    """
    schema, train, advice = data.schema, data.targets("train"), []
    losses = log["valid/loss"].dropna().to_numpy() if "valid/loss" in log else np.empty(0)
    more = f"{'change' if length.endswith(('_threshold', '_finite')) else 'raise'} {length}"
    if steps < MIN_STEPS:
        size = next((key for key in ("batch_nodes", "batch_size") if getattr(data, key, None)), None)
        smaller = f", or lower data.{size}" if length == "trainer.max_epochs" and size else ""
        advice.append(f"only {pluralise(steps, 'step')}: {more}{smaller}")
    elif len(losses) > 2 and losses.argmin() == len(losses) - 1:
        advice.append(f"the validation loss was still falling at the end: {more}")
    if len(losses) > 2 and losses.argmin() == 0:
        advice.append("the validation loss only rose after the first validation: lower optim.lr")
    if schema.kind != "multiclass" and undefined_reason(schema, train):
        advice.append(f"the training split has {undefined_reason(schema, train)}: choose another split")
    if (samples := len(data.dataset("train"))) < MIN_SAMPLES:
        advice.append(f"only {pluralise(samples, 'training sample')}")
    if getattr(data.source, "numbers", None) is None:
        return advice
    if schema.kind == "regression":
        if not schema.scale:
            advice.append("targets are not normalised: set data.normalise=true")
        if span := decades_of(data):
            advice.append(f"targets span {span:.1f} decades: set data.log=true")
    if schema.node_floats and not schema.node_scale and isinstance(data, Stored):
        largest = float(np.abs(data.graphs.nodes["x"][:MAX_ROWS]).max(initial=0))
        if largest > LARGE_FEATURE:
            advice.append(f"node features reach {largest:,.0f} and are not standardised: set data.standardise=true")
    return advice

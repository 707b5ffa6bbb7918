"""What a model that ignores its input would score, on the very samples that a run was scored on; and where it wins."""

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
from gt.losses import Criterion, constant_prediction, shown, total_loss, undefined
from gt.ranks import rank_zero_only
from gt.schema import many

CELLS = 20_000_000  # numbers of a prediction that are held at once
FEW_STEPS = 200  # of an optimiser, in which little is learned
FEW_SAMPLES = 100
LARGE = 20.0  # of a feature, which PyTorch's initial weights expect to be about 1
ROWS = 100_000  # of features that are looked at


class Evaluated:
    """The samples that an evaluation looks at: a split, or the first batches of it.

    Args:
        data: open.
        split: which split.
        limit: batches of each process, or the share of them, as in Lightning's ``limit_test_batches``; None is all.
        world: processes.

    Attributes:
        batches, total: how many batches of all processes are looked at, and how many there are.
    """

    def __init__(self, data: DataModule, split: str, limit: float | None = None, world: int = 1) -> None:
        self.data, self.split = data, split
        places = [data.batches(split, rank=rank, world=world) for rank in range(world)]
        self._counts = [_limited(len(place), limit) for place in places]
        self._places = places
        self.batches, self.total = sum(self._counts), sum(map(len, places))

    def targets(self) -> Tensor:
        """Every target of these samples, in any order."""
        if self.batches == self.total:
            return self.data.targets(self.split)
        dataset = self.data.dataset(self.split)
        parts = [
            dataset[request].y
            for place, count in zip(self._places, self._counts, strict=True)
            for request in islice(place, count)
        ]
        labelled = [part for part in parts if part is not None]
        return torch.cat(labelled) if labelled else self.data.targets(self.split)[:0]


def _limited(batches: int, limit: float | None) -> int:
    if limit is None:
        return batches
    return max(0, min(batches, limit if isinstance(limit, int) else int(batches * limit)))


@torch.no_grad()
def scored(data: DataModule, prediction: Tensor, target: Tensor, task: Any = None) -> dict[str, float]:
    """Loss and metrics of predictions (rows, outputs) for targets in the same order.

    Args:
        task: whose loss and metrics they are; None: the data's own.
    """
    measures = data.measures()[0] if task is None else task.measures["test"].clone()
    measures.reset()
    every: list[Any] = [module for module in measures.modules() if isinstance(module, Metric)]
    for measure in every:
        measure.distributed_available_fn = lambda: False  # this process knows every target, others may be gone
    losses, rows = [], max(1, CELLS // max(1, prediction.shape[1]))
    for part, answers in zip(target.split(rows), prediction.split(rows), strict=True):
        measures.update(answers, part)
        losses.append(torch.stack(total_loss(data.schema, answers, part, task and task.loss)))
    total, weight = torch.stack(losses).sum(0)
    return {"loss": float(total / weight.clamp(min=1e-30))} | {
        name.removeprefix("test/"): float(value) for name, value in measures.compute().items()
    }


def baseline(data: DataModule, target: Tensor, task: Any = None) -> dict[str, float]:
    """What the best constant answer, learned on the training targets, scores, see `scored`.

    The loss is that of the answer which is best by it, with the weights of classes; metrics, which know no weights, are
    those of the answer without.
    """
    train = data.targets("train")
    plain = constant_prediction(replace(data.schema, weights=()), train)
    scores = scored(data, plain.expand(len(target), -1), target, task)
    best = constant_prediction(data.schema, train, task and task.loss)
    if not torch.equal(best, plain):
        scores["loss"] = scored(data, best.expand(len(target), -1), target, task)["loss"]
    return scores


def decidable(criterion: Criterion, validated: Evaluated) -> Criterion:
    """The criterion; or the loss where what is validated does not define it, which would call every model alike."""
    schema = validated.data.schema
    if criterion.name == "loss" or schema.kind != "binary" or schema.level == "link":
        return criterion
    return Criterion("loss", "min") if undefined(schema, validated.targets()) else criterion


def beaten(result: Mapping[str, Any], by: Mapping[str, float]) -> str:
    """The metric by which a run is no better than a baseline's scores: the criterion, or the loss; '' where it is."""
    names = [(result["criterion"], result["mode"]), ("loss", "min")]
    for name, mode in names:
        score, other = (scores.get(name, math.nan) for scores in (result["scores"], by))
        if not (math.isnan(score) or math.isnan(other)):
            worse = score <= other if mode == "max" else score >= other
            return name if worse else ""
    return ""


@rank_zero_only
def classical_baseline(reference: Any, data: DataModule, task: Any) -> dict[str, Any] | None:
    """What a model without a network scores on the split of the final test; None where none suits the data.

    Args:
        reference: such as `gt.baselines.classical.Classical`.
        task: whose loss, metrics and criterion count.
    """
    split = data.last_split()
    answers = reference.answers(data, split)
    if answers is None:
        return None
    scores = scored(data, answers.prediction, data.targets(split), task)
    name = task.criterion.name
    print(f"classical baseline: {split} {name} {shown(scores[name])} after {answers.seconds:.0f} s", flush=True)
    return {"model": answers.model, "seconds": answers.seconds, "samples": answers.samples, "scores": scores}


def columns(result: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The scores of a run, where there is one, and of its baselines, as tables show them."""
    run = {"this run": result["scores"]} if "scores" in result else {}
    classical = {"classical baseline": result["classical"]["scores"]} if result["classical"] else {}
    trivial = {"trivial baseline": result["baseline"]} if result["baseline"] else {}
    return run | trivial | classical


def score_table(result: Mapping[str, Any]) -> list[str]:
    """Lines for a reader: a metric in each, and a column for each model of `columns`."""
    models = columns(result)
    rows = [(f"{result['split']} metric", *models)]
    for name in next(iter(models.values())):
        said = (shown(of[name], result["undefined"]) if name in of else "-" for of in models.values())
        rows.append((name, *said))
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]) for row in rows]


@rank_zero_only
def show_baselines(data: DataModule, task: Any, classical: Mapping[str, Any] | None) -> None:
    """Print what the baselines score on the split of the final test."""
    split = data.last_split()
    target = data.targets(split)
    result = {"split": split, "undefined": undefined(data.schema, target), "classical": classical}
    print("\n".join(score_table(result | {"baseline": baseline(data, target, task)})), flush=True)


def loses(result: Mapping[str, Any]) -> str:
    """That a run is no better than the classical baseline, in a line; '' where it is, or there is none."""
    classical = result["classical"]
    name = classical and beaten(result, classical["scores"])
    how = f"{classical['model']}, {classical['seconds']:.0f} s" if name else ""
    return f"loses to the classical baseline by {name}: {how}" if name else ""


def reasons(data: DataModule, steps: int, log: pd.DataFrame, length: str = "trainer.max_epochs") -> list[str]:
    """Why a run may have learned nothing, and what to change: only what applies to it.

    Args:
        data: what it was trained on.
        steps: of its optimiser.
        log: what it logged, see `gt.train.report.history`.
        length: the option that said when it ended, see `gt.train.length.decides`.
    """
    schema, train, likely = data.schema, data.targets("train"), []
    losses = log["valid/loss"].dropna().to_numpy() if "valid/loss" in log else np.empty(0)
    more = f"{'change' if length.endswith(('_threshold', '_finite')) else 'raise'} {length}"
    if steps < FEW_STEPS:
        size = next((key for key in ("batch_nodes", "batch_size") if getattr(data, key, None)), None)
        smaller = f", or lower data.{size}" if length == "trainer.max_epochs" and size else ""
        likely.append(f"only {many(steps, 'step')}: {more}{smaller}")
    elif len(losses) > 2 and losses.argmin() == len(losses) - 1:
        likely.append(f"the validation loss was still falling at the end: {more}")
    if len(losses) > 2 and losses.argmin() == 0:
        likely.append("the validation loss only rose after the first validation: lower optim.lr")
    if schema.kind != "multiclass" and undefined(schema, train):
        likely.append(f"the training split has {undefined(schema, train)}: choose another split")
    if (samples := len(data.dataset("train"))) < FEW_SAMPLES:
        likely.append(f"only {many(samples, 'training sample')}")
    if getattr(data.source, "numbers", None) is None:
        return likely
    if schema.kind == "regression":
        if not schema.scale:
            likely.append("targets are learned as they are: set data.normalise=true")
        if span := decades_of(data):
            likely.append(f"targets span {span:.1f} decades: set data.log=true")
    if schema.node_floats and not schema.node_scale and isinstance(data, Stored):
        largest = float(np.abs(data.graphs.nodes["x"][:ROWS]).max(initial=0))
        if largest > LARGE:
            likely.append(
                f"features of nodes reach {largest:,.0f}, and are read as they are: set data.standardise=true"
            )
    return likely

"""Every sample of a split asked, and what is said of it as a table."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from gt.data.batch_sampler import Batches, Epochs, Request
from gt.data.batching import GraphDataset
from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData, Stored
from gt.data.link_pairs import asked
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.losses import output_targets
from gt.prediction.calibration import Calibration, fit, summary
from gt.prediction.models import Answer, Models
from gt.prediction.table import Columns, Predictions, beside, located, named
from gt.schema import UNLABELLED, Schema

MOST = 1 << 26  # numbers that calibration keeps, 256 MB


def plan(data: DataModule, split: str, left_out: np.ndarray) -> Iterator[Request]:
    """The batches of a split, every sample once, but for (S,) those to be left out.

    Raises:
        UserError: there is no such split, or its batches leave samples out.
    """
    data.check_split(split)
    dataset = data.dataset(split)
    batches: Epochs
    if isinstance(data, GraphData) and (split == "train" or left_out.any()):
        kept = np.flatnonzero(~left_out) if len(left_out) else np.arange(len(dataset))
        batches = Batches(dataset.sizes[kept], **data.measure("valid"))
        batches.readings = data.readings
        return (replace(request, samples=tuple(kept.take(request.samples))) for request in batches)
    if split == "train":
        raise UserError("training batches of these data are drawn at random: choose --split valid or test")
    batches = data.batches(split)
    batches.readings = data.readings
    return iter(batches)


def left_out_of(models: Models, data: DataModule, split: str) -> np.ndarray:
    """(S,) which samples of new data have more nodes than the models have positions for; (0,) where none may."""
    dataset = data.dataset(split) if data.has(split) else None
    if not isinstance(data, Stored) or data.source.records is None or not isinstance(dataset, GraphDataset):
        return np.zeros(0, bool)
    return dataset.sizes > (models.largest or np.inf)


@torch.inference_mode()
def predict(
    models: Models,
    data: DataModule,
    measures: MetricCollection | None,
    split: str,
    device: torch.device,
    calibration: Calibration = Calibration(),  # noqa: B008  a frozen value
    every: bool = False,
) -> Predictions:
    """Predictions for every sample of a split.

    Args:
        models: what is asked.
        data: open.
        measures: what scores samples with a target; None scores none.
        split: which samples.
        device: where the networks run.
        calibration: what is known of the models' certainty.
        every: whether each class has a column of its probabilities.
    """
    schema, left_out = models.schema, left_out_of(models, data, split)
    dataset: Any = data.dataset(split) if data.has(split) else None
    records = data.source.records if isinstance(data, Stored) else None
    measures = measures.to(device) if measures is not None else None
    columns = Columns(schema, calibration, every)
    nothing = torch.empty(0, schema.outputs * schema.positions)
    several = nothing if models.members > 1 else None
    parts = [pd.DataFrame(columns(Answer(nothing, several), None, lambda answers: None))]
    order: list[np.ndarray] = []
    known = False
    none = records is not None and (dataset is None or (len(left_out) > 0 and left_out.all()))
    for request, batch, answer in () if none else answers(models, data, split, device, left_out):
        samples, target = np.array(request.samples), batch.y
        where = located(schema, dataset, samples, batch)
        answer = replace(answer, prediction=calibration.scaled(schema, answer.prediction))
        rows = pd.DataFrame(where | columns(answer, target, speller(data, dataset, samples, batch)))
        if target is not None and is_labelled(schema, target):
            known = True
            if measures is not None:
                measures.update(answer.prediction.to(device), target.to(device))
        if hasattr(dataset, "roots"):  # of one graph's nodes those that the split names
            rows = rows.take(dataset.roots)
        elif isinstance(dataset, GraphDataset) and schema.level == "link":
            assert batch.links is not None
            named_by_data = asked(batch).numpy()
            rows = rows.take(named_by_data)
            order.append(samples[batch.batch[batch.links[0]].numpy()[named_by_data]])
        elif schema.level != "link":
            rows_each = len(rows) // len(samples) if schema.level == "graph" else batch.sizes.numpy()
            order.append(np.repeat(samples, rows_each))
        parts.append(rows)
    table = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    if order:
        table = table.iloc[np.argsort(np.concatenate(order), kind="stable")].reset_index(drop=True)
    if not models.supervised:  # a head that has learned nothing says nothing
        table = table.drop(columns=parts[0].columns)
    if not known:
        table = table.drop(columns=[name for name in table if str(name).startswith("target")])
    own = [str(name) for name in parts[0] if name in table]
    scores = {name: float(value) for name, value in measures.compute().items()} if known and measures else {}
    if records is not None:
        of_sample = np.repeat(left_out, dataset.sizes) if schema.level == "node" and len(left_out) else left_out
        why = f"more nodes than the {models.largest} positions of the model"
        predictions = beside(records, table, of_sample, why, schema, scores)
        return replace(predictions, answers=own).parted()
    if isinstance(data, Stored):
        table = named(table, data)
    return Predictions(table, scores, {}, answers=own).parted()


def is_labelled(schema: Schema, target: Tensor) -> bool:
    """Whether any of the targets of a batch is known."""
    if schema.kind == "multiclass":
        return bool((target != UNLABELLED).any())
    return not bool(output_targets(schema, target).isnan().all())


def speller(
    data: DataModule, dataset: Any, samples: np.ndarray, batch: GraphBatch
) -> Callable[[Tensor], list[str] | None]:
    """What says classes (rows, positions) of a batch of these samples in the source's words, None where it has none."""
    if not isinstance(data, Stored) or not isinstance(dataset, GraphDataset):
        return lambda answers: None
    return partial(data.source.spelled, data.graphs, dataset.ids[samples], batch=batch)


def answers(
    models: Models, data: DataModule, split: str, device: torch.device, left_out: np.ndarray
) -> Iterator[tuple[Request, GraphBatch, Answer]]:
    """Every batch of a split, with the answer to it, all on the CPU; (S,) samples are left out."""
    data.readings = partial(models.readings, device.type)
    models.to(device)
    requests, dataset = plan(data, split, left_out), data.dataset(split)
    for request in requests:
        batch: GraphBatch = dataset[request]
        yield request, batch, models(batch.to(device)).cpu()


def single_graphs(data: DataModule, most: int) -> list[GraphBatch]:
    """The first graphs of the last split that a run is scored on, each a batch without targets."""
    split, batches = data.last_split(), []
    dataset = data.dataset(split)
    for request in plan(data, split, np.zeros(0, bool)):
        for sample in request.samples:
            batch = dataset[replace(request, samples=(sample,), readings=())]
            batch.y = None
            batches.append(batch)
            if len(batches) == most:
                return batches
    return batches


def calibrate(
    models: Models, data: DataModule, device: torch.device, level: float | None, temperature: bool
) -> tuple[Calibration, str]:
    """What the validation of some data says of models' certainty, and a line on it; of many rows the first suffice.

    Args:
        data: of the training, open.
        level: of intervals or sets; None: there are none.
        temperature: whether to fit one.

    Raises:
        UserError: see `gt.prediction.calibration.fit`; targets of several positions.
    """
    schema = models.schema
    if schema.positions > 1:
        raise UserError("a target of several words has neither a temperature nor sets here")
    predictions, targets, size = [], [], 0
    with torch.inference_mode():
        for _, batch, answer in answers(models, data, "valid", device, np.zeros(0, bool)):
            assert batch.y is not None
            predictions.append(answer.prediction)
            targets.append(batch.y if schema.kind == "multiclass" else output_targets(schema, batch.y))
            size += answer.prediction.numel()
            if size > MOST:
                break
    prediction, target = torch.cat(predictions), torch.cat(targets)
    calibration = fit(schema, prediction, target, level, temperature)
    return calibration, summary(schema, calibration, prediction, target)

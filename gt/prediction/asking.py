"""Predict every sample of a split and return the predictions as a table."""

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
from gt.data.link_pairs import query_rows
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.losses import output_targets
from gt.prediction.calibration import Calibration, fit, summary
from gt.prediction.models import Answer, Models
from gt.prediction.table import Columns, Predictions, merge_records, row_columns, with_names
from gt.schema import UNLABELLED, Schema

MAX_CALIBRATION = 1 << 26  # predicted numbers kept for calibration, 256 MB


def plan(data: DataModule, split: str, left_out: np.ndarray) -> Iterator[Request]:
    """The batches of a split, with every sample once, except for those where ``left_out`` (S,) is True.

    Raises:
        UserError: there is no such split, or its batches are random.
    """
    data.check_split(split)
    dataset = data.dataset(split)
    batches: Epochs
    if isinstance(data, GraphData) and (split == "train" or left_out.any()):
        included = np.flatnonzero(~left_out) if len(left_out) else np.arange(len(dataset))
        batches = Batches(dataset.sizes[included], **data.measure("valid"))
        batches.readings = data.readings
        return (replace(request, samples=tuple(included.take(request.samples))) for request in batches)
    if split == "train":
        raise UserError("training batches of these data are drawn at random: choose --split valid or test")
    batches = data.batches(split)
    batches.readings = data.readings
    return iter(batches)


def too_large(models: Models, data: DataModule, split: str) -> np.ndarray:
    """(S,) which samples of new data have more nodes than the models can read; (0,) if that is impossible."""
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
    """Predict every sample of a split.

    Args:
        models: the models.
        data: opened data.
        measures: metrics for samples with a target; None computes none.
        split: name of the split.
        device: where the networks run.
        calibration: temperature, intervals and sets.
        every: add a column with the probability of each class.
    """
    schema, left_out = models.schema, too_large(models, data, split)
    dataset: Any = data.dataset(split) if data.has(split) else None
    records = data.source.records if isinstance(data, Stored) else None
    measures = measures.to(device) if measures is not None else None
    columns = Columns(schema, calibration, every)
    no_rows = torch.empty(0, schema.outputs * schema.positions)
    no_deviation = no_rows if models.members > 1 else None
    parts = [pd.DataFrame(columns(Answer(no_rows, no_deviation), None, lambda answers: None))]
    order: list[np.ndarray] = []
    labelled = False
    no_samples = records is not None and (dataset is None or (len(left_out) > 0 and left_out.all()))
    for request, batch, answer in () if no_samples else answers(models, data, split, device, left_out):
        samples, target = np.array(request.samples), batch.y
        location = row_columns(schema, dataset, samples, batch)
        answer = replace(answer, prediction=calibration.scaled(schema, answer.prediction))
        rows = pd.DataFrame(location | columns(answer, target, speller(data, dataset, samples, batch)))
        if target is not None and is_labelled(schema, target):
            labelled = True
            if measures is not None:
                measures.update(answer.prediction.to(device), target.to(device))
        if hasattr(dataset, "roots"):  # keep the nodes of the split, out of the whole graph
            rows = rows.take(dataset.roots)
        elif isinstance(dataset, GraphDataset) and schema.level == "link":
            assert batch.links is not None
            selected = query_rows(batch).numpy()
            rows = rows.take(selected)
            order.append(samples[batch.batch[batch.links[0]].numpy()[selected]])
        elif schema.level != "link":
            rows_each = len(rows) // len(samples) if schema.level == "graph" else batch.sizes.numpy()
            order.append(np.repeat(samples, rows_each))
        parts.append(rows)
    table = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    if order:
        table = table.iloc[np.argsort(np.concatenate(order), kind="stable")].reset_index(drop=True)
    if not models.supervised:  # the head is untrained
        table = table.drop(columns=parts[0].columns)
    if not labelled:
        table = table.drop(columns=[name for name in table if str(name).startswith("target")])
    answer_columns = [str(name) for name in parts[0] if name in table]
    scores = {name: float(value) for name, value in measures.compute().items()} if labelled and measures else {}
    if records is not None:
        left_out_rows = np.repeat(left_out, dataset.sizes) if schema.level == "node" and len(left_out) else left_out
        reason = f"more nodes than the {models.largest} positions of the model"
        predictions = merge_records(records, table, left_out_rows, reason, schema, scores)
        return replace(predictions, answers=answer_columns).split_embeddings()
    if isinstance(data, Stored):
        table = with_names(table, data)
    return Predictions(table, scores, {}, answers=answer_columns).split_embeddings()


def is_labelled(schema: Schema, target: Tensor) -> bool:
    """Whether a batch has at least one label."""
    if schema.kind == "multiclass":
        return bool((target != UNLABELLED).any())
    return not bool(output_targets(schema, target).isnan().all())


def speller(
    data: DataModule, dataset: Any, samples: np.ndarray, batch: GraphBatch
) -> Callable[[Tensor], list[str] | None]:
    """A function that spells classes (rows, positions) of a batch as the source names them; None if it has no names."""
    if not isinstance(data, Stored) or not isinstance(dataset, GraphDataset):
        return lambda answers: None
    return partial(data.source.spelled, data.graphs, dataset.ids[samples], batch=batch)


def answers(
    models: Models, data: DataModule, split: str, device: torch.device, left_out: np.ndarray
) -> Iterator[tuple[Request, GraphBatch, Answer]]:
    """Every batch of a split with its predictions, on the CPU, without the samples where ``left_out`` (S,) is True."""
    data.readings = partial(models.readings, device.type)
    models.to(device)
    requests, dataset = plan(data, split, left_out), data.dataset(split)
    for request in requests:
        batch: GraphBatch = dataset[request]
        yield request, batch, models(batch.to(device)).cpu()


def single_graphs(data: DataModule, limit: int) -> list[GraphBatch]:
    """The first graphs of the last split that a run is scored on, each as a batch without targets."""
    split, batches = data.last_split(), []
    dataset = data.dataset(split)
    for request in plan(data, split, np.zeros(0, bool)):
        for sample in request.samples:
            batch = dataset[replace(request, samples=(sample,), readings=())]
            batch.y = None
            batches.append(batch)
            if len(batches) == limit:
                return batches
    return batches


def calibrate(
    models: Models, data: DataModule, device: torch.device, level: float | None, temperature: bool
) -> tuple[Calibration, str]:
    """Calibrate models on the validation split, up to `MAX_CALIBRATION` numbers; returns a summary line, too.

    Args:
        data: the training data, opened.
        level: coverage of intervals or sets; None for none.
        temperature: whether to fit one.

    Raises:
        UserError: see `gt.prediction.calibration.fit`; the targets are sequences.
    """
    schema = models.schema
    if schema.positions > 1:
        raise UserError("targets of several positions cannot be calibrated: leave out --calibrate and --level")
    predictions, targets, size = [], [], 0
    with torch.inference_mode():
        for _, batch, answer in answers(models, data, "valid", device, np.zeros(0, bool)):
            assert batch.y is not None
            predictions.append(answer.prediction)
            targets.append(batch.y if schema.kind == "multiclass" else output_targets(schema, batch.y))
            size += answer.prediction.numel()
            if size > MAX_CALIBRATION:
                break
    prediction, target = torch.cat(predictions), torch.cat(targets)
    calibration = fit(schema, prediction, target, level, temperature)
    return calibration, summary(schema, calibration, prediction, target)

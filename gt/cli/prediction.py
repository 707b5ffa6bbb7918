"""Predictions of a trained model as a table: a row for each graph, node, token or link, or for each row of a file."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from gt.data.batch_sampler import Batches, Epochs, Request
from gt.data.batching import GraphDataset
from gt.data.datamodule import ALL, DataModule
from gt.data.graphs import GraphData, Stored
from gt.data.source import Records
from gt.encodings import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.model import GraphTransformer
from gt.schema import UNLABELLED, Schema
from gt.train.task import Task


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split.

    Attributes:
        table: a row for each sample in the order of the split; of new data for each row of their source.
        scores: the metrics of the samples with a target; none where no sample has one.
        unreadable: by number of a row without a prediction, where it stands and why.
    """

    table: pd.DataFrame
    scores: dict[str, float]
    unreadable: dict[int, str]


def plan(data: DataModule, split: str, left_out: np.ndarray) -> Iterator[Request]:
    """The batches of a split, every sample once, but for (S,) those to be left out.

    Raises:
        UserError: there is no such split, or its batches leave samples out.
    """
    if not data.has(split):
        known = [name for name in ("train", "valid", "test", ALL) if data.has(name)]
        known += [name for name in data.graphs.splits if name not in known] if isinstance(data, Stored) else []
        raise UserError(f"these data have no split '{split}': there are {', '.join(known)}")
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


def located(schema: Schema, dataset: Any, samples: np.ndarray, batch: GraphBatch) -> dict[str, np.ndarray]:
    """What each row of a batch's predictions is about, by columns.

    Raises:
        UserError: the batch is a sample of a graph, whose nodes have lost their numbers.
    """
    if schema.level == "link" and batch.links is not None:
        return {"from_node": batch.links[0].numpy(), "to_node": batch.links[1].numpy()}
    if schema.level == "node" and hasattr(dataset, "roots"):
        if batch.num_nodes != int(dataset.graphs.node_ptr[-1]):
            raise UserError("predictions for nodes are made on the whole graph: set data.evaluate=full")
        return {"node": np.arange(batch.num_nodes)}
    numbers = dataset.ids[samples] if isinstance(dataset, GraphDataset) else samples
    if schema.level == "graph":
        return {"graph": numbers}
    if not isinstance(dataset, GraphDataset):  # an item of a text is where its block begins
        return {"token": numbers[batch.batch.numpy()] + batch.position.numpy()}
    return {"graph": numbers[batch.batch.numpy()], "node": batch.position.numpy()}


def named(table: pd.DataFrame, data: Stored) -> pd.DataFrame:
    """The same table, with what the source calls each graph or node instead of, or beside, its number."""
    rows = data.graphs.node_ptr[table["graph"]] if "graph" in table and "node" in table else 0
    rows = rows + table["node" if "node" in table else "graph"].to_numpy()
    about: dict[Any, Any] = {name: table[name] for name in ("graph", "node") if name in table}
    about |= {name: values[rows] for name, values in data.source.names(data.graphs).items()}
    return pd.DataFrame(about | {name: table[name] for name in table if name not in about})


def columns(
    schema: Schema, prediction: Tensor, target: Tensor | None, spell: Callable[[Tensor], list[str] | None]
) -> dict[str, Any]:
    """Predictions as a person reads them, by columns: classes and probabilities, or numbers; then targets."""
    if schema.kind == "multiclass":
        scores = prediction.view(len(prediction), schema.positions, schema.outputs)
        best = scores.softmax(2).max(2)
        rows: dict[str, Any] = {"prediction": _classes(schema, best.indices, spell)}
        if schema.positions == 1:
            rows["probability"] = best.values[:, 0].numpy()
        if target is not None:
            rows["target"] = _classes(schema, target.view(len(prediction), -1)[:, : schema.positions], spell)
        return rows
    values = {"prediction": prediction.sigmoid() if schema.kind == "binary" else prediction}
    if target is not None:
        values["target"] = target.view_as(prediction)
    names = schema.names or [str(number) for number in range(schema.outputs)]
    ends = [""] if schema.outputs == 1 else [f"_{name}" for name in names]
    return {f"{what}{end}": rows[:, n].numpy() for what, rows in values.items() for n, end in enumerate(ends)}


def _classes(schema: Schema, answers: Tensor, spell: Callable[[Tensor], list[str] | None]) -> list[Any]:
    """Rows of classes (rows, positions) by their names, empty where there is none."""
    if (words := spell(answers)) is not None:
        return words
    named = [
        ["" if n == UNLABELLED else schema.names[n] if schema.names else n for n in row] for row in answers.tolist()
    ]
    return [row[0] if schema.positions == 1 else " ".join(map(str, row)) for row in named]


def largest_graph(net: torch.nn.Module) -> int | None:
    """Nodes of the largest graph that a network reads: a table of positions has an end. None where it reads any."""
    ends = [module.longest for module in net.modules() if isinstance(module, Encoding) and module.longest]
    return min(ends, default=None)


@torch.inference_mode()
def predict(task: Task, data: DataModule, measures: MetricCollection, split: str, device: torch.device) -> Predictions:
    """Predictions for every sample of a split.

    Args:
        task: a trained one, in eval mode.
        data: open.
        measures: what scores samples with a target.
        device: where the network runs.
    """
    if isinstance(task.net, GraphTransformer):
        data.readings = partial(task.net.readings, device.type, False)
    task.to(device)
    schema = task.schema
    most = largest_graph(task.net)
    dataset: Any = data.dataset(split) if data.has(split) else None
    records = data.source.records if isinstance(data, Stored) else None
    sizes = dataset.sizes if isinstance(dataset, GraphDataset) and records is not None else np.empty(0, np.int64)
    left_out = sizes > most if most is not None else np.zeros(len(sizes), bool)
    spell: Any = partial(data.source.spelled, data.graphs) if isinstance(data, Stored) else lambda *_, **__: None
    measures = measures.to(device)
    nothing = torch.empty(0, schema.outputs * schema.positions)
    parts: list[pd.DataFrame] = [pd.DataFrame(columns(schema, nothing, None, lambda answers: None))]
    order: list[np.ndarray] = []
    known = False
    none = records is not None and (dataset is None or (len(sizes) > 0 and left_out.all()))
    batches = iter(()) if none else plan(data, split, left_out)
    for request in batches:
        batch: GraphBatch = dataset[request]
        samples = np.array(request.samples)
        where = located(schema, dataset, samples, batch)
        prediction, target = task(batch.to(device)).float(), None if batch.y is None else batch.y.to(device)
        rows = pd.DataFrame(where | columns(schema, prediction.cpu(), batch.y, partial(spell, batch=batch)))
        if target is not None and not (target.isnan() | (target == UNLABELLED)).all():
            known = True
            measures.update(prediction, target)
        if hasattr(dataset, "roots"):  # of one graph's nodes those that the split names
            rows = rows.take(dataset.roots)
        elif schema.level != "link":
            rows_each = len(rows) // len(samples) if schema.level == "graph" else batch.sizes.numpy()
            order.append(np.repeat(samples, rows_each))
        parts.append(rows)
    table = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    if order:
        table = table.iloc[np.argsort(np.concatenate(order), kind="stable")].reset_index(drop=True)
    if not known:
        table = table.drop(columns=[name for name in table if str(name).startswith("target")])
    scores = {name: float(value) for name, value in measures.compute().items()} if known else {}
    if records is not None:
        of_sample = np.repeat(left_out, sizes) if schema.level == "node" and len(sizes) else left_out
        return _beside(records, table, of_sample, f"more nodes than the {most} positions of the model", schema, scores)
    if isinstance(data, Stored) and schema.level != "link":
        table = named(table, data)
    return Predictions(table, scores, {})


def _beside(
    records: Records, predicted: pd.DataFrame, left_out: np.ndarray, why: str, schema: Schema, scores: dict[str, float]
) -> Predictions:
    """The rows of a source, each with its prediction after its own columns, empty where there is none.

    Args:
        predicted: predictions of the samples that are not left out, in order.
        left_out: (S,) of all samples; none where none is.
        why: that is so.
    """
    rows, unreadable = records.row, dict(records.unreadable)
    if len(left_out):
        unreadable |= {int(row): f"row {row}: {why}" for row in rows[left_out]}
        rows = rows[~left_out]
    own = set(map(str, records.table.columns))
    told = {"graph", "node"} | (
        {name for name in predicted if str(name).startswith("target")} if {*schema.target} <= own else set()
    )
    predicted = predicted.drop(columns=[name for name in predicted if name in told])
    predicted.index = pd.Index(rows)
    table = records.table.rename(columns={name: f"{name} of the file" for name in predicted if name in own})
    return Predictions(
        pd.concat([table, predicted.reindex(range(len(table)))], axis=1), scores, dict(sorted(unreadable.items()))
    )


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all; each number in the fewest digits that say it exactly.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.part-") as part:
            table.to_csv(Path(part) / path.name, index=False)
            os.replace(Path(part) / path.name, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another place by --out FILE") from None

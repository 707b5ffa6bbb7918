"""The attention weights of a model for each sample of a split, as arrays."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gt.data.batch_sampler import Request
from gt.data.datamodule import DataModule
from gt.data.files import atomic_file
from gt.data.graphs import GraphData, Stored
from gt.data.text.language import LanguageData
from gt.errors import UserError
from gt.inference.attribution import attention_weights
from gt.layers import attention_layers
from gt.prediction.asking import too_large
from gt.prediction.labels import labels_of
from gt.prediction.models import Models
from gt.schema import pluralise

MAX_WEIGHTS = 1 << 26  # of a sample, over all layers and heads: 256 MB


@dataclass(frozen=True)
class Attended:
    """The attention of a model within one sample.

    Attributes:
        sample: its number in the split, as for ``gt.explain --sample``.
        rows: its row in the table of predictions (1,), or those of its nodes (n,) if predictions are for nodes.
        labels: a label for each node: an atom, a token, a category, or its number.
        weights: by layer, (heads, n, n) float32; [h, i, j] is the share of j in what i reads: rows sum to 1, or to 0
            if i reads no node. Virtual nodes follow after the labelled ones. Empty if the graph is too large.
    """

    sample: int
    rows: np.ndarray
    labels: list[str]
    weights: dict[str, np.ndarray]


def max_nodes(models: Models) -> int:
    """The number of nodes up to which the weights of a graph are within `MAX_WEIGHTS`."""
    return isqrt(MAX_WEIGHTS // sum(layer.heads for _, layer in attention_layers(models.tasks[0].net)))


def check_attended(models: Models, data: DataModule) -> None:
    """Check that attention weights can be computed.

    Raises:
        UserError: there are several models, the model has no attention layers, predictions are for links, or the data
            are a single graph.
    """
    if len(models.tasks) > 1:
        raise UserError("attention weights are those of one model: give one run")
    if not attention_layers(models.tasks[0].net):
        raise UserError("this model has no layer with pairwise attention weights (gt.layers.Attention)")
    if models.schema.level == "link" or not isinstance(data, GraphData | LanguageData):
        raise UserError("attention weights need data of many graphs or texts, not links or a single graph")


def attention_of(models: Models, data: DataModule, split: str, device: torch.device) -> Iterator[Attended]:
    """Yield the attention of a model within each readable sample of a split.

    Raises:
        UserError: see `check_attended`.
    """
    check_attended(models, data)
    task, limit = models.to(device).tasks[0], max_nodes(models)
    dataset: Any = data.dataset(split) if data.has(split) else ()  # no row is readable
    left_out, row_offset = too_large(models, data, split), 0
    records: Any = data.source.records if isinstance(data, Stored) else None
    for sample in range(len(dataset)):
        batch = dataset[Request((sample,))]
        rows = row_offset + np.arange(batch.num_nodes if task.schema.level == "node" else 1)
        row_offset += len(rows)
        if len(left_out) and left_out[sample]:
            continue
        labels = labels_of(data, dataset, sample, batch)[0]
        layers = attention_weights(task.net, batch.to(device)) if batch.num_nodes <= limit else []
        weights = {name: values.float().numpy() for name, values in layers}
        yield Attended(sample, rows if records is None else records.row[rows], labels, weights)


def write_attended(models: Models, data: DataModule, split: str, device: torch.device, path: Path) -> str:
    """Write attention weights as ``.npz``, atomically and one sample at a time; returns a line with path and size.

    The arrays are ``samples`` (S,), ``layers`` (L,) their names, and for each sample ``SAMPLE/rows``,
    ``SAMPLE/labels`` and, for the layers from 0, ``SAMPLE/LAYER``, see `Attended`.

    Raises:
        UserError: see `check_attended`; the file cannot be written.
    """
    path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
    samples, names, skipped = [], [name for name, _ in attention_layers(models.tasks[0].net)], 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for attention in attention_of(models, data, split, device):
                if not attention.weights:
                    skipped += 1
                    continue
                samples.append(attention.sample)
                arrays: dict[str, Any] = {"rows": attention.rows, "labels": np.array(attention.labels, dtype=str)}
                arrays |= {str(index): attention.weights[name] for index, name in enumerate(names)}
                for name, values in arrays.items():
                    _write_array(archive, f"{attention.sample}/{name}", values)
            _write_array(archive, "samples", np.array(samples, np.int64))
            _write_array(archive, "layers", np.array(names, dtype=str))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another path") from None
    size = f"{path.stat().st_size / 1e6:,.1f} MB"
    omitted = f"; {pluralise(skipped, 'sample')} of more than {max_nodes(models):,} nodes left out" if skipped else ""
    return f"of {pluralise(len(samples), 'sample')} in {pluralise(len(names), 'layer')}, {size}: {path}{omitted}"


def _write_array(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, values, allow_pickle=False)

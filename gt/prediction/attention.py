"""Which node reads which by how much in each sample of a split: the weights of a model's attention, as arrays."""

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
from gt.data.files import whole
from gt.data.graphs import GraphData, Stored
from gt.data.text.language import LanguageData
from gt.errors import UserError
from gt.inference.attribution import attention_weights
from gt.layers import attention_layers
from gt.prediction.asking import left_out_of
from gt.prediction.labels import labels_of
from gt.prediction.models import Models
from gt.schema import many

LARGEST = 1 << 26  # weights of a sample, of all layers and heads together: 256 MB


@dataclass(frozen=True)
class Attended:
    """How a model attends within one sample.

    Attributes:
        sample: its number in the split, as ``gt.explain --sample`` takes it.
        rows: of the table of predictions, its row (1,), or where nodes have answers that of each (n,).
        labels: a word for each node: an atom, a token, a category, or its number.
        weights: by layer (heads, n, n) float32, [h, i, j] the share of j in what i reads: rows sum to 1, or to 0 where
            i may read nobody. Virtual nodes follow after those of the labels. Nothing of a graph that is too large.
    """

    sample: int
    rows: np.ndarray
    labels: list[str]
    weights: dict[str, np.ndarray]


def most_nodes(models: Models) -> int:
    """Of how many nodes a graph may be for its weights to fit into `LARGEST`."""
    return isqrt(LARGEST // sum(layer.heads for _, layer in attention_layers(models.tasks[0].net)))


def check_attended(models: Models, data: DataModule) -> None:
    """Whether there are weights to tell.

    Raises:
        UserError: several models, one without such layers, links, or data that are a single graph.
    """
    if len(models.tasks) > 1:
        raise UserError("attention is that of one model: name one run")
    if not attention_layers(models.tasks[0].net):
        raise UserError("this model has no layer whose attention is a weight for each pair (gt.layers.Attention)")
    if models.schema.level == "link" or not isinstance(data, GraphData | LanguageData):
        raise UserError("attention is told of many graphs or texts, not of links and not of a single graph")


def attended(models: Models, data: DataModule, split: str, device: torch.device) -> Iterator[Attended]:
    """How a model attends within each sample of a split that it reads, one after the other.

    Raises:
        UserError: see `check_attended`.
    """
    check_attended(models, data)
    task, most = models.to(device).tasks[0], most_nodes(models)
    dataset: Any = data.dataset(split) if data.has(split) else ()  # none of the rows can be read
    left_out, first = left_out_of(models, data, split), 0
    records: Any = data.source.records if isinstance(data, Stored) else None
    for sample in range(len(dataset)):
        one = dataset[Request((sample,))]
        rows = first + np.arange(one.num_nodes if task.schema.level == "node" else 1)
        first += len(rows)
        if len(left_out) and left_out[sample]:
            continue
        labels = labels_of(data, dataset, sample, one)[0]
        layers = attention_weights(task.net, one.to(device)) if one.num_nodes <= most else []
        weights = {name: values.float().numpy() for name, values in layers}
        yield Attended(sample, rows if records is None else records.row[rows], labels, weights)


def write_attended(models: Models, data: DataModule, split: str, device: torch.device, path: Path) -> str:
    """Write the same as ``.npz``, one sample at a time, whole or not at all; returns a line with its place and size.

    The arrays are ``samples`` (S,), ``layers`` (L,) their names, and for each sample ``SAMPLE/rows``,
    ``SAMPLE/labels`` and, for the layers from 0, ``SAMPLE/LAYER``, see `Attended`.

    Raises:
        UserError: see `check_attended`; the file cannot be written.
    """
    path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
    samples, names, too_large = [], [name for name, _ in attention_layers(models.tasks[0].net)], 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for one in attended(models, data, split, device):
                if not one.weights:
                    too_large += 1
                    continue
                samples.append(one.sample)
                arrays: dict[str, Any] = {"rows": one.rows, "labels": np.array(one.labels, dtype=str)}
                arrays |= {str(place): one.weights[name] for place, name in enumerate(names)}
                for name, values in arrays.items():
                    _put(archive, f"{one.sample}/{name}", values)
            _put(archive, "samples", np.array(samples, np.int64))
            _put(archive, "layers", np.array(names, dtype=str))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another place") from None
    size = f"{path.stat().st_size / 1e6:,.1f} MB"
    rest = f"; {many(too_large, 'sample')} of more than {most_nodes(models):,} nodes left out" if too_large else ""
    return f"of {many(len(samples), 'sample')} in {many(len(names), 'layer')}, {size}: {path}{rest}"


def _put(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, values, allow_pickle=False)

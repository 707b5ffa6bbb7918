"""A trained model from Python: ``gt.load("runs/...").predict(["CCO", ...])``."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from gt.data.datamodule import ALL, DataModule
from gt.data.graphs import GraphData
from gt.data.large.links import LinkData
from gt.data.large.nodes import NodeData
from gt.data.objects import Objects
from gt.errors import UserError
from gt.prediction.asking import predict
from gt.prediction.attention import Attended, attended, check_attended
from gt.prediction.calibration import Calibration
from gt.prediction.models import Models
from gt.prediction.table import Predictions
from gt.train import checkpoint
from gt.train.task import Task


class Trained(Task):
    """A trained task, in eval mode: ``task(batch)`` is its prediction of a `GraphBatch`, `predict` reads anything."""

    def predict(
        self,
        items: Sequence[Any],
        beside: Sequence[Task] = (),
        dropout: int = 0,
        calibration: Calibration = Calibration(),  # noqa: B008  a frozen value
        probabilities: bool = False,
        batch_size: int = 128,
    ) -> pd.DataFrame:
        """What the model says of each item, a row for each graph, node, token or link, as ``python -m gt.predict``.

        Encodings are computed on the way, on the CPU; the network runs where its parameters are.

        Args:
            items: SMILES or texts, PyG's ``Data`` or NetworkX graphs, see `gt.data.objects.Objects`.
            beside: other trained tasks: the prediction is the mean, ``deviation`` says how far they disagree.
            dropout: ask each so often with its dropout on; 0: once, without.
            calibration: temperature, intervals and sets, see `gt.prediction.calibration.fit`.
            probabilities: give each class a column.
            batch_size: graphs that are read together.

        Returns:
            The items' own columns and the predictions. A row that cannot be read has none, which a warning says;
            ``table.attrs["unreadable"]`` says by number why; ``table.attrs["answers"]`` names the columns that are the
            model's, not the items' own.

        Raises:
            UserError: items that the model cannot read, or it has learned without labels; ``beside`` is no list.
        """
        if isinstance(beside, Task):
            raise UserError("beside are further trained tasks, in a list: [gt.load(...)]")
        models = Models([self, *beside], dropout)
        predictions = self._predictions(items, models, calibration, probabilities, batch_size)
        if predictions.unreadable:
            first = next(iter(predictions.unreadable.values()))
            rest = f", and {len(predictions.unreadable) - 1:,} more" if len(predictions.unreadable) > 1 else ""
            warnings.warn(f"{first}{rest}: without a prediction", stacklevel=2)
        predictions.table.attrs |= {"unreadable": predictions.unreadable, "answers": [*predictions.answers]}
        return predictions.table

    def embed(self, items: Sequence[Any], batch_size: int = 128) -> np.ndarray:
        """(rows of `predict`, d) what the head predicts from; NaN for what cannot be read."""
        embeddings = self._predictions(
            items, Models([self], embed=True, answers=False), Calibration(), False, batch_size
        ).embeddings
        assert embeddings is not None
        return embeddings

    def attention(self, items: Sequence[Any]) -> list[Attended]:
        """How the model attends within each item that it can read, in order.

        Raises:
            UserError: items that the model cannot read, a model without attention, or one for links.
        """
        models, data = Models([self], answers=False), GraphData(Objects(items))
        check_attended(models, data)
        data.open(models.encodings, self.schema)
        return list(attended(models, data, ALL, next(self.parameters()).device))

    def _predictions(
        self, items: Sequence[Any], models: Models, calibration: Calibration, every: bool, batch_size: int
    ) -> Predictions:
        source, device = Objects(items), next(self.parameters()).device
        data: DataModule
        one = len(source.items) == 1
        if self.schema.level == "link" and one and not any(encoding.key() for encoding in models.encodings):
            data = LinkData(source)
        elif self.schema.level == "node" and one and source.kind is not str:
            data = NodeData(source)
        else:
            data = GraphData(source, batch_size=batch_size)
        data.open(models.encodings, self.schema)
        return predict(models, data, None, ALL, torch.device(device), calibration, every)


def load(path: str | Path, trust: bool = False) -> Trained:
    """A trained task, see `gt.train.checkpoint.load`, that predicts whatever it is handed."""
    return checkpoint.restored(Trained, *checkpoint.contents(path, trust))

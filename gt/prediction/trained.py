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
from gt.prediction.attention import Attended, attention_of, check_attended
from gt.prediction.calibration import Calibration
from gt.prediction.models import Models
from gt.prediction.table import Predictions
from gt.train import checkpoint
from gt.train.task import Task


class Trained(Task):
    """A trained task in eval mode: ``task(batch)`` predicts a `GraphBatch`, `predict` also reads raw items."""

    def predict(
        self,
        items: Sequence[Any],
        beside: Sequence[Task] = (),
        dropout: int = 0,
        calibration: Calibration = Calibration(),  # noqa: B008  a frozen value
        probabilities: bool = False,
        batch_size: int = 128,
    ) -> pd.DataFrame:
        """Predict each item: a row for each graph, node, token or link, as ``python -m gt.predict`` does.

        Encodings are computed on the CPU; the network runs where its parameters are.

        Args:
            items: SMILES or texts, PyG's ``Data`` or NetworkX graphs, see `gt.data.objects.Objects`.
            beside: other trained tasks for an ensemble: the prediction is the mean, ``deviation`` their spread.
            dropout: passes of each task with dropout on; 0: one pass without.
            calibration: temperature, intervals and sets, see `gt.prediction.calibration.fit`.
            probabilities: add a column for each class.
            batch_size: graphs per batch.

        Returns:
            The items' own columns and the predictions. Unreadable rows have none and cause a warning;
            ``table.attrs["unreadable"]`` gives the reasons by row, ``table.attrs["answers"]`` the names of the columns
            that are predictions.

        Raises:
            UserError: the model cannot read the items or was trained without labels; ``beside`` is not a list.
        """
        if isinstance(beside, Task):
            raise UserError("beside must be a list of trained tasks: [gt.load(...)]")
        models = Models([self, *beside], dropout)
        predictions = self._predictions(items, models, calibration, probabilities, batch_size)
        if predictions.unreadable:
            first = next(iter(predictions.unreadable.values()))
            more = f", and {len(predictions.unreadable) - 1:,} more" if len(predictions.unreadable) > 1 else ""
            warnings.warn(f"{first}{more}: no prediction", stacklevel=2)
        predictions.table.attrs |= {"unreadable": predictions.unreadable, "answers": [*predictions.answers]}
        return predictions.table

    def embed(self, items: Sequence[Any], batch_size: int = 128) -> np.ndarray:
        """The embeddings that the head predicts from, (rows of `predict`, d); NaN for unreadable rows."""
        embeddings = self._predictions(
            items, Models([self], embed=True, answers=False), Calibration(), False, batch_size
        ).embeddings
        assert embeddings is not None
        return embeddings

    def attention(self, items: Sequence[Any]) -> list[Attended]:
        """The attention of the model within each readable item, in order.

        Raises:
            UserError: the model cannot read the items, has no attention, or predicts links.
        """
        models, data = Models([self], answers=False), GraphData(Objects(items))
        check_attended(models, data)
        data.open(models.encodings, self.schema)
        return list(attention_of(models, data, ALL, next(self.parameters()).device))

    def _predictions(
        self, items: Sequence[Any], models: Models, calibration: Calibration, every: bool, batch_size: int
    ) -> Predictions:
        source, device = Objects(items), next(self.parameters()).device
        data: DataModule
        single = len(source.items) == 1
        if self.schema.level == "link" and single and not any(encoding.key() for encoding in models.encodings):
            data = LinkData(source)
        elif self.schema.level == "node" and single and source.kind is not str:
            data = NodeData(source)
        else:
            data = GraphData(source, batch_size=batch_size)
        data.open(models.encodings, self.schema)
        return predict(models, data, None, ALL, torch.device(device), calibration, every)


def load(path: str | Path, trust: bool = False) -> Trained:
    """Load a trained task, see `gt.train.checkpoint.load`, that predicts raw items."""
    return checkpoint.restored(Trained, *checkpoint.contents(path, trust))

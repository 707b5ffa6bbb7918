"""Errors of a trained network by class, target and graph size, accumulated during the test."""

from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from gt.data.text.tokenizer import loads
from gt.graph import GraphBatch
from gt.losses import align
from gt.parallel import Share
from gt.schema import UNLABELLED, Schema
from gt.train.extremes import sample_losses

# lower bounds of the size bins: 1, 2, 3, 4, 6, 8, 12, 16, ...
BIN_STARTS = np.unique([size for power in range(32) for size in (2**power, 3 * 2**power // 2)])


def sizes_of(schema: Schema, batch: GraphBatch) -> Tensor | None:
    """The input size (rows,) for each target of a batch; None for links.

    This is the number of nodes of its graph, or for a language model the number of tokens up to the predicted one.
    """
    if schema.is_language_model:
        return batch.position + 1
    if schema.level == "graph":
        return (batch.readout.batch if isinstance(batch, Share) and batch.readout else batch).sizes
    if schema.level == "link":
        return None
    if isinstance(batch, Share):
        return batch.whole.sizes[batch.whole.batch[batch.partition.own]]
    return batch.sizes[batch.batch]


class Breakdown(Callback):
    """Accumulates the results of the final test by class, target and size, over all ranks.

    Args:
        by_size: whether samples are whole graphs or texts, rather than nodes sampled from one graph.

    Attributes:
        of_class: (3, C) number of targets, predictions and correct predictions of each class. A single yes/no task has
            the classes no and yes; with several tasks, the yes of each is a class.
        of_target: (3, T) for several regression targets: number of targets, sum of absolute and of squared errors.
        of_size: (3, bins) for each of `BIN_STARTS` the number of targets, the number of correct predictions, and the
            sum of losses, see `gt.train.extremes.sample_losses`. A graph with several tasks or numbers counts once,
            by the mean over them; each position of a sequence of classes counts separately.
    """

    def __init__(self, schema: Schema, by_size: bool = True) -> None:
        self.schema, self.by_size = schema, by_size
        of_classes = 0 if schema.kind == "regression" or schema.pointer else max(schema.outputs, 2)
        if schema.kind == "binary" and schema.outputs > 1:
            of_classes = schema.outputs
        self.of_class = torch.zeros(3, of_classes, dtype=torch.long)
        self.of_target = torch.zeros(3, schema.outputs if schema.kind == "regression" and schema.outputs > 1 else 0)
        self.of_size = torch.zeros(3, len(BIN_STARTS))

    def add(self, prediction: Tensor, target: Tensor, sizes: Tensor | None) -> None:
        """Accumulate a batch.

        Args:
            prediction, target: as `gt.losses.total_loss` takes them.
            sizes: (rows,) see `sizes_of`.
        """
        schema, prediction = self.schema, prediction.detach().float()
        loss = sample_losses(schema, prediction, target)
        prediction, target = align(schema, prediction, target)
        if schema.kind == "multiclass":
            predicted, is_labelled = prediction.argmax(1), target != UNLABELLED
            truth = target.where(is_labelled, 0)
            correct = (predicted == truth).float()
        else:
            is_labelled, truth = ~target.isnan(), target.nan_to_num().long()
            predicted = (prediction > 0).long()
            correct = (predicted == truth).float().where(is_labelled, torch.nan).nanmean(1)
        if self.of_class.shape[1]:
            if schema.kind == "binary" and schema.outputs > 1:
                yes = torch.stack([truth, predicted, truth * predicted])  # (3, rows, outputs)
                self.of_class += (yes * is_labelled).sum(1)
            else:
                truth, predicted, ones = truth.reshape(-1), predicted.reshape(-1), is_labelled.reshape(-1).long()
                for row, (index, count) in enumerate(
                    ((truth, ones), (predicted, ones), (truth, ones * (predicted == truth)))
                ):
                    self.of_class[row].scatter_add_(0, index, count)
        if self.of_target.shape[1]:
            error = (prediction - target).where(is_labelled, 0.0)
            self.of_target += torch.stack([is_labelled, error.abs(), error.square()]).sum(1)
        if sizes is None:
            return
        sizes = sizes.to(prediction.device).repeat_interleave(schema.positions)
        bins = torch.bucketize(sizes, torch.as_tensor(BIN_STARTS, device=sizes.device), right=True) - 1
        counted = ~loss.isnan() & (bins >= 0)
        for row, values in enumerate((torch.ones_like(loss), correct, loss)):
            self.of_size[row].scatter_add_(0, bins.clamp(min=0), values.where(counted, 0.0))

    def classes(self) -> pd.DataFrame:
        """A row per class: ``class``, ``targets``, ``recall``, ``precision``; NaN if the denominator is 0."""
        true, predicted, correct = self.of_class
        names: Any = self.schema.names or [str(n) for n in range(self.of_class.shape[1])]
        if self.schema.is_language_model and not self.schema.names:
            tokenizer = loads(self.schema.tokenizer)
            names = [repr(text) if "\ufffd" not in (text := tokenizer.decode([int(n)])) else n for n in names]
        if self.schema.kind == "binary" and self.schema.outputs == 1:
            names = self.schema.answers[0] if self.schema.answers else ("no", "yes")
        rates = {"recall": (correct / true).tolist(), "precision": (correct / predicted).tolist()}
        return pd.DataFrame({"class": [str(name) for name in names][: len(true)], "targets": true.tolist(), **rates})

    def targets(self) -> pd.DataFrame:
        """A row per regression target: ``target``, ``targets``, and ``mae`` and ``rmse`` in the unit of the data; NaN
        without targets."""
        count, absolute, squared = self.of_target
        names = self.schema.names or [str(n) for n in range(len(count))]
        scores = {"mae": (absolute / count).tolist(), "rmse": (squared / count).sqrt().tolist()}
        return pd.DataFrame({"target": names[: len(count)], "targets": count.long().tolist(), **scores})

    def sizes(self) -> pd.DataFrame:
        """A row per non-empty size bin: ``from``, ``to``, ``targets``, and ``accuracy`` and ``loss`` in nats, or for
        regression ``error``, the mean of `gt.train.extremes.sample_losses`."""
        count, correct, loss = self.of_size.double()
        ranges = {
            "from": BIN_STARTS,
            "to": np.append(BIN_STARTS[1:] - 1, np.iinfo(np.int64).max),
            "targets": count.long(),
        }
        scores = {"accuracy": correct / count, "loss": loss / count}
        rates = {"error": scores["loss"]} if self.schema.kind == "regression" else scores
        table = pd.DataFrame(ranges | {name: rate.numpy() for name, rate in rates.items()})
        return table[table["targets"] > 0].reset_index(drop=True)

    def _reset(self, pl_module: pl.LightningModule) -> None:
        self.of_class, self.of_target, self.of_size = (
            torch.zeros_like(t, device=pl_module.device) for t in (self.of_class, self.of_target, self.of_size)
        )

    def _reduce(self, trainer: pl.Trainer) -> None:
        parts = (self.of_class, self.of_target, self.of_size)
        sums: Any = [trainer.strategy.reduce(part, reduce_op="sum") for part in parts]
        self.of_class, self.of_target, self.of_size = (part.cpu() for part in sums)

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset(pl_module)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: GraphBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch.y is not None and outputs is not None:  # None with supervised=0
            self.add(outputs, batch.y, sizes_of(self.schema, batch) if self.by_size else None)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reduce(trainer)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._reset(pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: GraphBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn == "validate":
            self.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._reduce(trainer)

"""How far attention looks while a network learns."""

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import nn

from gt.data.batch_sampler import Request
from gt.data.datamodule import DataModule, Sized
from gt.data.large.link_questions import EvaluationLinks
from gt.graph import GraphBatch
from gt.inference.analysis import LONGEST, attention_reach
from gt.layers import attention_layers
from gt.ranges import at_least
from gt.train.sharding import Sharded

FEW = 8  # graphs that are looked at
USUAL = 128  # nodes of the largest of them, unless all have more


class AttentionByHop(Callback):
    """Logs ``attention/layer_0/hop_2`` and the like: the share of attention, over all heads, that goes so many hops.

    Looked at in the same few graphs of the validation split, see `few`, at validations that are at least ``steps``
    optimiser steps apart: a look takes about as long as a step. Of the nodes of one large graph, of networks that are
    compiled and of such as are spread over processes nothing is logged.

    Args:
        steps: of the optimiser between two looks, at least.
    """

    def __init__(self, steps: int = 100) -> None:
        at_least(1, steps, "steps")
        self.steps = steps
        self._next = 0
        self._few: GraphBatch | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._few = None
        data = trainer.datamodule.data  # type: ignore[attr-defined]
        if not isinstance(data, Sized) or data.spread or isinstance(trainer.strategy, Sharded):
            return
        layers = attention_layers(pl_module.net)  # type: ignore[arg-type]
        if trainer.is_global_zero and layers and not any(layer.compiled for _, layer in layers):
            self._few = few(data)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: GraphBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._few is None or batch_idx or trainer.state.fn != "fit" or trainer.global_step < self._next:
            return
        self._next = trainer.global_step + self.steps
        net: nn.Module = pl_module.net  # type: ignore[assignment]
        used = [(layer, layer.used.copy()) for _, layer in attention_layers(net)]
        reach = attention_reach(net, [self._few])
        for layer, before in used:  # what computed a look is not what computes the run
            layer.used = before
        for name, share in (reach.by_name() if reach else {}).items():
            pl_module.log(name, share, on_epoch=True, batch_size=1, rank_zero_only=True)


def few(data: DataModule) -> GraphBatch | None:
    """`FEW` graphs of the validation split, from the smallest to those of `USUAL` nodes; None without any.

    Where all have more, those of the smallest size, so few that they have no more pairs of nodes together. Of links of
    one graph it is that graph.
    """
    if not data.has("valid"):
        return None
    dataset = data.dataset("valid")
    if isinstance(dataset, EvaluationLinks):
        return dataset[Request((0,))]  # each of its blocks asks about all of the graph
    largest = max(USUAL, int(dataset.sizes.min()))
    if largest > LONGEST:
        return None
    order = np.argsort(dataset.sizes, kind="stable")
    order = order[dataset.sizes[order] <= largest]
    count = max(1, FEW * USUAL**2 // largest**2)
    places = np.linspace(0, len(order) - 1, count).round().astype(int)
    return dataset[Request(tuple(order[np.unique(places)].tolist()))]

"""Logs the reach of attention during training."""

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

NUM_GRAPHS = 8  # analysed
MAX_NODES = 128  # of the largest of them, unless all have more


class AttentionByHop(Callback):
    """Logs the share of attention, over all heads, by distance in hops, such as ``attention/layer_0/hop_2``.

    It is measured on the same few graphs of the validation split, see `sample_graphs`, at validations that are at least
    ``steps`` optimiser steps apart; a measurement takes about as long as a step. Nothing is logged for the nodes of one
    large graph, or for networks that are compiled or distributed over processes.

    Args:
        steps: minimum number of optimiser steps between two measurements.
    """

    def __init__(self, steps: int = 100) -> None:
        at_least(1, steps, "steps")
        self.steps = steps
        self._next = 0
        self._graphs: GraphBatch | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._graphs = None
        data = trainer.datamodule.data  # type: ignore[attr-defined]
        if not isinstance(data, Sized) or data.spread or isinstance(trainer.strategy, Sharded):
            return
        layers = attention_layers(pl_module.net)  # type: ignore[arg-type]
        if trainer.is_global_zero and layers and not any(layer.compiled for _, layer in layers):
            self._graphs = sample_graphs(data)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: GraphBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._graphs is None or batch_idx or trainer.state.fn != "fit" or trainer.global_step < self._next:
            return
        self._next = trainer.global_step + self.steps
        net: nn.Module = pl_module.net  # type: ignore[assignment]
        used = [(layer, layer.used.copy()) for _, layer in attention_layers(net)]
        reach = attention_reach(net, [self._graphs])
        for layer, counts in used:  # do not count this measurement
            layer.used = counts
        for name, share in (reach.by_name() if reach else {}).items():
            pl_module.log(name, share, on_epoch=True, batch_size=1, rank_zero_only=True)


def sample_graphs(data: DataModule) -> GraphBatch | None:
    """`NUM_GRAPHS` graphs of the validation split, from the smallest to those of `MAX_NODES` nodes.

    If all have more nodes, fewer of the smallest graphs, with no more node pairs in total. For links of a single graph,
    that graph. None without such a split, or if all graphs are too large.
    """
    if not data.has("valid"):
        return None
    dataset = data.dataset("valid")
    if isinstance(dataset, EvaluationLinks):
        return dataset[Request((0,))]  # every block of links reads the whole graph
    largest = max(MAX_NODES, int(dataset.sizes.min()))
    if largest > LONGEST:
        return None
    order = np.argsort(dataset.sizes, kind="stable")
    order = order[dataset.sizes[order] <= largest]
    count = max(1, NUM_GRAPHS * MAX_NODES**2 // largest**2)
    positions = np.linspace(0, len(order) - 1, count).round().astype(int)
    return dataset[Request(tuple(order[np.unique(positions)].tolist()))]

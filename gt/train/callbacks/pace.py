"""Logs the speed of training, its memory, gradient norms and update sizes."""

import resource
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from gt.parallel import Share
from gt.schema import Schema

GIB = 2**30


def _is_due(trainer: pl.Trainer) -> bool:
    """Whether this step is logged, see ``trainer.log_every_n_steps``."""
    return bool(trainer._logger_connector.should_update_logs)


class Pace(Callback):
    """Logs ``speed/graphs_per_s``, ``speed/nodes_per_s`` (``tokens_per_s`` for texts) and ``speed/edges_per_s``.

    They cover all ranks, without padding, since the last logged step, excluding validation. Also logs
    ``memory/peak_gib``, the peak memory of this process: on a GPU what it allocated there, else that of the host.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._graphs = self._nodes = self._edges = 0
        self._seconds, self._start = 0.0, time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self._seconds, self._start = self._seconds + now - self._start, now
        whole, world = (batch.whole, 1) if isinstance(batch, Share) else (batch, trainer.world_size)
        self._graphs += (whole.num_graphs - whole.padding[0]) * world
        self._nodes += (whole.num_nodes - whole.padding[1]) * world
        self._edges += whole.num_edges * world
        if not _is_due(trainer):
            return
        schema: Schema = pl_module.schema  # type: ignore[assignment]
        nodes = "tokens" if schema.is_language_model else "nodes"
        for name, count in (("graphs", self._graphs), (nodes, self._nodes), ("edges", self._edges)):
            pl_module.log(f"speed/{name}_per_s", count / max(self._seconds, 1e-9), rank_zero_only=True)
        pl_module.log("memory/peak_gib", _peak_memory(pl_module.device) / GIB, rank_zero_only=True)
        self._reset()


def _peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Updates(Callback):
    """Logs ``optim/gradient_norm``, before clipping, and ``optim/update_to_weight``, the norm of an update relative to
    that of the weights, which is about 1e-3 for a suitable learning rate.

    Computed for logged steps only, as it copies the weights.
    """

    def __init__(self) -> None:
        self._weights: list[nn.Parameter] = []
        self._before: list[Tensor] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if not _is_due(trainer):
            return
        weights = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        scaler: Any = getattr(trainer.precision_plugin, "scaler", None)
        # for an optimiser that unscales inside its step, the gradients still include the loss scale
        scaled = scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        norm = _total_norm([p.grad for p in weights]) / (scaler.get_scale() if scaled else 1.0)
        pl_module.log("optim/gradient_norm", norm, rank_zero_only=True)
        self._weights, self._before = weights, [p.detach().clone() for p in weights]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._before:
            return
        steps = [p.detach() - before for p, before in zip(self._weights, self._before, strict=True)]
        ratio = _total_norm(steps) / _total_norm(self._before).clamp(min=1e-12)
        pl_module.log("optim/update_to_weight", ratio, rank_zero_only=True)
        self._weights, self._before = [], []


def _total_norm(parts: list[Any]) -> Tensor:
    """The Euclidean norm of all tensors together, gathered if they are sharded."""
    norm: Any = nn.utils.get_total_norm(parts)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

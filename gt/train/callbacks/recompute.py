"""Activation checkpointing: trades time for memory by recomputing activations in the backward pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.distributed._composable import checkpoint

from gt.errors import UserError
from gt.train.context_parallel import ContextParallel


class ActivationCheckpointing(Callback):
    """Only saves the inputs of each block (Chen et al. 2016): a step takes a third longer, with the same results.

    The recomputation draws the same random numbers, and does not update running statistics again.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        blocks = getattr(pl_module.net, "blocks", None)
        if not isinstance(blocks, nn.ModuleList):
            raise UserError("callbacks=activation_checkpointing: this model has no blocks to recompute")
        if isinstance(trainer.strategy, ContextParallel):
            raise UserError(
                "callbacks=activation_checkpointing does not work with trainer=context_parallel: leave it out"
            )
        for block in blocks:
            checkpoint(block, context_fn=_contexts_of(block))


def _contexts_of(block: nn.Module) -> Any:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        gpus = {parameter.device for parameter in block.parameters() if parameter.is_cuda}
        # PyTorch looks for devices among the tensor arguments of a block, which has none
        return nullcontext(), _recomputing(block, [(gpu, torch.cuda.get_rng_state(gpu)) for gpu in gpus])

    return contexts


@contextmanager
def _recomputing(block: nn.Module, rng_states: list[tuple[torch.device, Tensor]]) -> Iterator[None]:
    """Context manager for recomputing a block with the given random states of its GPUs, preserving its buffers."""
    buffers = [(buffer, buffer.clone()) for buffer in block.buffers()]
    with torch.random.fork_rng([gpu for gpu, _ in rng_states]):
        for gpu, state in rng_states:
            torch.cuda.set_rng_state(state, gpu)
        try:
            yield
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)

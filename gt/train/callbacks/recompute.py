"""Memory for time: what a block computes is computed again when the gradients need it, rather than kept."""

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
    """Keeps of each block only what goes into it (Chen et al. 2016): a step takes a third longer, values are the same.

    What was drawn at random is drawn alike the second time, and running statistics move once.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        blocks = getattr(pl_module.net, "blocks", None)
        if not isinstance(blocks, nn.ModuleList):
            raise UserError("callbacks=activation_checkpointing: this model has no blocks that it could compute again")
        if isinstance(trainer.strategy, ContextParallel):
            raise UserError(
                "callbacks=activation_checkpointing: trainer=context_parallel runs blocks in parts: leave it out"
            )
        for block in blocks:
            checkpoint(block, context_fn=_contexts_of(block))


def _contexts_of(block: nn.Module) -> Any:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        gpus = {parameter.device for parameter in block.parameters() if parameter.is_cuda}
        # PyTorch looks for the devices among the tensors that a block is called with: it is called with none
        return nullcontext(), _again(block, [(gpu, torch.cuda.get_rng_state(gpu)) for gpu in gpus])

    return contexts


@contextmanager
def _again(block: nn.Module, drawn: list[tuple[torch.device, Tensor]]) -> Iterator[None]:
    """Within, a block computes what it did when the random state of its devices was ``drawn``, and leaves no trace."""
    buffers = [(buffer, buffer.clone()) for buffer in block.buffers()]
    with torch.random.fork_rng([gpu for gpu, _ in drawn]):
        for gpu, state in drawn:
            torch.cuda.set_rng_state(state, gpu)
        try:
            yield
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)

"""One training on several processes, each with a share of the nodes of every batch."""

from typing import Any

from pytorch_lightning.strategies import DDPStrategy

from gt.train.processes import some_are_unread


class ContextParallel(DDPStrategy):
    """Processes share every batch, by `gt.parallel`, rather than each having batches of its own.

    Gradients of parameters are summed over processes as `DDPStrategy` does it.
    """

    def configure_ddp(self) -> None:
        task: Any = self.lightning_module
        batch = next(iter(task.trainer.datamodule.data.loader("train"))).to(self.root_device)
        self._ddp_kwargs.setdefault("find_unused_parameters", some_are_unread(task, batch))
        super().configure_ddp()

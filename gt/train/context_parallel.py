"""Context parallelism: training on several processes, each with a share of the nodes of every batch."""

from typing import Any

from pytorch_lightning.strategies import DDPStrategy

from gt.train.processes import has_unused_parameters


class ContextParallel(DDPStrategy):
    """Splits every batch over the processes, by `gt.parallel`, instead of giving each process its own batches.

    Parameter gradients are reduced over processes by `DDPStrategy`.
    """

    def configure_ddp(self) -> None:
        task: Any = self.lightning_module
        batch = next(iter(task.trainer.datamodule.data.loader("train"))).to(self.root_device)
        self._ddp_kwargs.setdefault("find_unused_parameters", has_unused_parameters(task, batch))
        super().configure_ddp()

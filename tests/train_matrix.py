"""Two optimiser steps in every precision, with and without clipping and accumulation, on one or more processes.

``python -m tests.train_matrix FILE PROCESSES`` prints a line of JSON for each combination.
"""

import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from gt.cli.config_files import CONFIGS
from gt.errors import UserError
from gt.train.feed import Feed
from gt.train.logging import quiet
from gt.train.network import build, network_config
from gt.train.task import Task
from gt.train.trainer import make_trainer

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true")
CLIP = 0.01  # far below any gradient norm here
SMALL = ("data=text", "data.context=8", "data.batch_size=4", "model.width=16", "model.depth=1", "logger=csv",
         "model.block.attention.heads=2", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_val_batches=1",
         "optim.warmup=1", "+trainer.enable_progress_bar=false")  # fmt: skip


class Recorded(Task):
    """Writes the number of steps and their gradient norms to a file, as they run in other processes."""

    def on_train_start(self) -> None:
        super().on_train_start()
        self.norms: list[float] = []

    def on_before_zero_grad(self, optimizer: Any) -> None:
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        if gradients and self.trainer.global_step > len(self.norms):
            self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    def on_train_end(self) -> None:
        if self.global_rank == 0:
            record = {"steps": self.trainer.global_step, "norms": self.norms, "processes": self.trainer.world_size}
            Path(self.trainer.default_root_dir, "said.json").write_text(json.dumps(record))


def outcome(path: str, processes: int, precision: str, clip: float | None, accumulate: int) -> dict[str, Any]:
    """What a run of two steps did: steps, norms, whether weights changed and are finite; or why it was rejected."""
    overrides = [*SMALL, f"data.source.path={path}", f"trainer.precision={precision}", "trainer.max_steps=2",
                 f"trainer.gradient_clip_val={clip or 'null'}", f"trainer.accumulate_grad_batches={accumulate}",
                 f"trainer.devices={processes}"]  # fmt: skip
    if processes > 1:
        overrides.append("trainer.strategy=ddp_fork")  # like ddp, except for how processes are started
    with initialize_config_dir(str(CONFIGS.resolve()), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    torch.manual_seed(0)
    data = instantiate(cfg.data)
    data.open([])
    config = network_config(cfg)
    net = build(config, data.schema)
    measures, criterion = data.measures()
    task = Recorded(net, data.schema, measures, criterion, instantiate(cfg.optim, _convert_="all"), config)
    before = [p.detach().clone() for p in net.parameters()]
    with tempfile.TemporaryDirectory() as folder:
        try:
            trainer = make_trainer(cfg.trainer, [], [], Path(folder))
        except UserError as error:
            return {"refused": str(error)}
        data.readings = partial(net.readings, "cpu", "16" in precision)
        trainer.fit(task, datamodule=Feed(data))
        record = json.loads(Path(folder, "said.json").read_text())
    after = [p.detach().float() for p in net.parameters()]
    return record | {
        "moved": any(not torch.equal(a, b.float()) for a, b in zip(after, before, strict=True)),
        "finite": all(bool(p.isfinite().all()) for p in after),
    }


def outcomes(path: str, processes: int) -> Iterator[dict[str, Any]]:
    for precision, clip, accumulate in itertools.product(PRECISIONS, (None, CLIP), (1, 4)):
        case = {"precision": precision, "clip": clip, "accumulate": accumulate}
        yield case | outcome(path, processes, precision, clip, accumulate)


if __name__ == "__main__":
    quiet()
    for result in outcomes(sys.argv[1], int(sys.argv[2])):
        print(json.dumps(result), flush=True)

"""Timing of training steps and their parts, for several networks in turn, and with the trainer."""

import statistics
import time
import warnings
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from gt.bench.shapes import Shape
from gt.graph import GraphBatch
from gt.losses import total_loss
from gt.lottery.compare import Peaks, peak_memory
from gt.lottery.flops import matrix_flops
from gt.lottery.timing import once, wait
from gt.metrics import metrics
from gt.schema import Schema
from gt.train.compile import Compiled
from gt.train.cuda_graphs import Replayed
from gt.train.optim import Optimisation
from gt.train.task import Task

PARTS = ("forward", "backward", "optimiser")
TRAINER = "gt, by its trainer"
COMPILED = "gt, compiled"
WARM_UP = 3  # steps: a compiled network compiles, records CUDA graphs, replays them


class Loop:
    """A minimal training loop over batches in memory, one step at a time."""

    def __init__(self, net: nn.Module, schema: Schema, batches: list[GraphBatch], half: bool) -> None:
        self.net, self.schema, self.batches = net, schema, cycle(batches)
        self.device = batches[0].device
        self.optimizer = torch.optim.AdamW(net.parameters(), fused=True)
        self.context = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=half)
        self.parts: dict[str, list[float]] = {part: [] for part in PARTS}

    def forward(self) -> None:
        batch = next(self.batches)
        with self.context():
            prediction = self.net(batch)
        total, weight = total_loss(self.schema, prediction, _target(batch))
        self.loss = total / weight

    def backward(self) -> None:
        self.loss.backward()

    def optimise(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Run one step; on a CPU, where it needs no synchronisation, also time its parts."""
        for part, run in zip(PARTS, (self.forward, self.backward, self.optimise), strict=True):
            if self.device.type == "cpu":
                self.parts[part].append(once(run, "cpu"))
            else:
                run()


def _target(batch: GraphBatch) -> Tensor:
    assert batch.y is not None
    return batch.y


@dataclass
class Row:
    """The cost of a program's training step.

    Attributes:
        times: seconds of each repeat; parts: median seconds of the step's parts, on a CPU.
        count: mean number of units per batch; unit: graphs, tokens or nodes.
        memory: peak bytes beyond what is held between steps.
        flops: operations of the matrix products of a step; reached: achieved share of the machine's measured peak.
    """

    shape: str
    program: str
    times: list[float]
    count: float
    unit: str
    parts: dict[str, float] = field(default_factory=dict)
    memory: int | None = None
    flops: int | None = None
    reached: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.times)


def measure(
    shape: Shape, device: torch.device, half: bool, rounds: int, peak: Peaks, mode: str | None = None
) -> list[Row]:
    """Time the network of a shape in a bare loop and with the trainer, and its rival, in turn.

    Args:
        mode: of ``trainer.compile``, to also time the network compiled, on batches of a static shape; None: do not.
    """
    net, (name, make_rival) = shape.network().to(device), shape.rival
    batches = shape.batches(net, device, half)
    count = statistics.fmean(map(shape.count, batches))
    loops = {"gt": Loop(net, shape.schema, batches, half)}
    if mode is not None and shape.unit != "nodes":  # compiled, a CPU would compute all pairs of the large graph
        twin = shape.network().to(device)
        Replayed(twin) if mode == "cuda-graphs" else Compiled(twin, mode)
        loops[COMPILED] = Loop(twin, shape.schema, shape.batches(twin, device, half, static=True), half)
    loops[name] = Loop(make_rival().to(device), shape.schema, batches, half)
    times: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        for _ in range(WARM_UP):
            loop.step()
        loop.parts = {part: [] for part in PARTS}
    for _ in range(rounds):
        for program, loop in loops.items():
            times[program].append(once(loop.step, device.type))
    rows = []
    for program, loop in loops.items():
        row = Row(shape.about, program, times[program], count, shape.unit)
        row.parts = {part: statistics.median(seconds) for part, seconds in loop.parts.items() if seconds}
        row.memory = peak_memory(loop.step, device.type)
        if program != COMPILED:  # its products are not seen one by one
            row.flops = matrix_flops(loop.step)
            row.reached = row.flops / row.median / peak.operations
        rows.append(row)
    trainer_times = trainer_steps(shape, net, batches, half, rounds)
    return [rows[0], Row(shape.about, TRAINER, trainer_times, count, shape.unit), *rows[1:]]


class _StepTimer(pl.Callback):
    """Measures the seconds from the start of each step to the start of the next."""

    def __init__(self, device: str) -> None:
        self.device, self.started, self.times = device, 0.0, list[float]()

    def on_train_batch_start(self, *_: Any) -> None:
        wait(self.device)
        now = time.perf_counter()
        if self.started:
            self.times.append(now - self.started)
        self.started = now


def trainer_steps(shape: Shape, net: nn.Module, batches: list[GraphBatch], half: bool, steps: int) -> list[float]:
    """Seconds of each step when trained by Lightning on the same batches."""
    clock = _StepTimer(batches[0].device.type)
    measures, criterion = metrics(shape.schema)
    optim = Optimisation(warmup=0, weight_decay=0.01)
    task = Task(net, shape.schema, measures, criterion, optim, {}, 0)
    trainer = pl.Trainer(
        accelerator="gpu" if clock.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if half else "32-true",
        max_steps=steps + 3,
        limit_val_batches=0,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    repeated = [batch for batch, _ in zip(cycle(batches), range(steps + 3), strict=False)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*no `val_dataloader`.*")
        trainer.fit(task, torch.utils.data.DataLoader(repeated, batch_size=None))  # type: ignore[arg-type]
    return clock.times[2:]

"""What a training would take, measured and estimated before anything is spent: ``stage=plan``.

The model of many devices is as simple as it is said to be: see docs/reference/scaling.md.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gt.data.datamodule import DataModule
from gt.data.machine import memory
from gt.graph import GraphBatch
from gt.lottery.flops import matrix_flops
from gt.lottery.timing import once
from gt.train.launch import check_alone
from gt.train.length import epoch_batches

BATCHES = 8  # of an epoch: a step is timed on each, memory is that of the one with the most nodes
FULL = 0.9  # share of a device's memory that may be used
WIDE = 160  # columns of a file or a pipe
DEVICES = tuple(2**n for n in range(10))  # 1 to 512
TOGETHER = 8  # devices of a machine
INSIDE, BETWEEN = 100e9, 25e9  # bytes a second: of a device within its machine, of a machine to the others
LATENCY = 20e-6  # seconds of each round of an all-reduce
BACKWARD = 2 / 3  # share of a step during which gradients come, and can be on their way


@dataclass(frozen=True)
class Step:
    """What one step on one device takes.

    Attributes:
        parameters: that are trained, tied ones once.
        weights, gradients, optimiser, activations: bytes; the last are those that are kept for the gradients of one
            batch, on a GPU all that a step takes beyond the others.
        flops: floating point operations of the matrix products of a step, on average.
        seconds: mean over a few batches, which are at hand.
        size: what the batch holds, in the unit in which `unit` counts.
    """

    parameters: int
    weights: int
    gradients: int
    optimiser: int
    activations: int
    flops: int
    seconds: float
    size: int

    @property
    def state(self) -> int:
        """Bytes that a step takes whatever the batch."""
        return self.weights + self.gradients + self.optimiser

    def fitting(self, memory: int) -> int:
        """The size of the largest batch for a device of so many bytes: activations grow with the batch."""
        return max(0, int((FULL * memory - self.state) * self.size / max(1, self.activations)))


def all_reduce(size: int, devices: int) -> float:
    """Seconds in which devices add up ``size`` bytes: around a ring in each machine, then around one of machines."""
    inside, machines = min(devices, TOGETHER), -(-devices // TOGETHER)
    moved = [(2 * (n - 1) / n * size / speed) for n, speed in ((inside, INSIDE), (machines, BETWEEN))]
    return sum(moved) + LATENCY * 2 * (devices.bit_length() - 1)


def step_seconds(step: Step, devices: int) -> float:
    """Seconds of a step on several devices, each with a batch as large as the one that was measured."""
    return step.seconds + max(0.0, all_reduce(step.gradients, devices) - BACKWARD * step.seconds)


def unit(data: DataModule) -> str | None:
    """The key of the data that says how much is in a batch; None where no single one does."""
    if getattr(data, "batch_nodes", None):
        return "batch_nodes"
    return "batch_size" if hasattr(data, "batch_size") else None


def measured(task: Any, data: DataModule, trainer: pl.Trainer) -> Step:
    """Take a few steps on one device, by the trainer's precision and the task's optimiser, and measure them."""
    device, precision = trainer.strategy.root_device, trainer.precision_plugin
    batches = list(islice(data.loader("train"), BATCHES))
    batch = max(batches, key=lambda batch: batch.num_nodes).to(device)
    precision.convert_module(task).to(device).train()
    optimizer = task.optim.configure(task, BATCHES, task.criterion)["optimizer"]

    def loss_of(batch: GraphBatch) -> Tensor:
        with precision.forward_context():
            parts = task.parts(batch)
        return sum(weight * (total / count.clamp(min=1e-30)) for weight, total, count in parts)

    def step(batch: GraphBatch) -> None:
        optimizer.zero_grad()
        loss_of(batch).backward()
        optimizer.step()

    step(batch)
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    weights = sum(tensor.nbytes for tensor in (*task.parameters(), *task.buffers()))
    gradients = sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None)
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    optimizer.zero_grad()
    with kept(task) as sizes:
        loss = loss_of(batch)
    activations = sum(sizes.values())
    del loss
    flops = round(fmean(matrix_flops(partial(step, batch.to(device))) for batch in batches))
    optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step(batch)
        activations = torch.cuda.max_memory_allocated(device) - before - gradients
    seconds = fmean(once(partial(step, batch.to(device)), device.type) for batch in batches)
    size = batch.num_nodes - batch.padding[1] if unit(data) == "batch_nodes" else batch.num_graphs - batch.padding[0]
    return Step(
        sum(parameter.numel() for parameter in parameters), weights, gradients,
        sum(value.nbytes for value in state), activations, flops, seconds, size,
    )  # fmt: skip


@contextmanager
def kept(module: torch.nn.Module) -> Iterator[dict[int, int]]:
    """The bytes of each storage that autograd keeps within, but for those of the module's parameters and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        parts = [tensor]
        if tensor.layout is torch.sparse_csr:
            parts = [tensor.values(), tensor.crow_indices(), tensor.col_indices()]
        for part in parts if tensor.layout in (torch.strided, torch.sparse_csr) else ():
            storage = part.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def memory_of(device: torch.device) -> int:
    """Bytes that a device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory()


def on_one(cfg: DictConfig) -> DictConfig:
    """The configuration of a run, but for one of the trainer's devices; data are prepared where there may be no GPU.

    Raises:
        UserError: several processes were started.
    """
    check_alone(cfg.stage)
    one = cfg.copy()
    one.trainer.update({"strategy": "auto", "devices": 1} | ({"num_nodes": 1} if "num_nodes" in one.trainer else {}))
    if cfg.get("stage") == "prepare":
        one.trainer.update({"accelerator": "cpu", "precision": "32-true"})
    return one


def amount(value: float, unit: str, step: int = 1000) -> str:
    """A number with its unit, such as 12.3 MB."""
    power = min(4, max(0, int(math.log(max(value, 1), step))))
    return f"{value / step**power:.3g} {('', 'k', 'M', 'G', 'T')[power]}{unit}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{1000 * seconds:.3g} ms"


def lines(step: Step, data: DataModule, device: torch.device) -> list[str]:
    """What was measured, for a reader."""
    key, memory = unit(data), memory_of(device)
    what = {"batch_size": "samples", "batch_nodes": "nodes", None: "graphs"}[key]
    name = "this CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    parts = {"weights": step.weights, "gradients": step.gradients, "optimiser": step.optimiser,
             f"activations of {step.size:,} {what}": step.activations}  # fmt: skip
    rate = f"{amount(step.flops / step.seconds, 'FLOP/s')}, matrix products alone"
    said = [
        f"parameters  {step.parameters:,}",
        "memory      " + ", ".join(f"{part} {amount(size, 'B')}" for part, size in parts.items()),
        f"step        {duration(step.seconds)} on {name}, batches at hand; {amount(step.flops, 'FLOP')} ({rate})",
    ]
    if key is not None:
        most = f"data.{key}={step.fitting(memory):,}" if step.fitting(memory) else "not one of them"
        said.append(f"fits        {most} in {FULL:.0%} of {amount(memory, 'B')}, if activations grow with the batch")
    return said


def table(step: Step, data: DataModule, trainer: pl.Trainer) -> Table:
    """What 1 to 512 such devices would take."""
    batches, samples = len(data.loader("train")), len(data.dataset("train"))
    together = trainer.accumulate_grad_batches
    shown = Table(title="by the model of docs/reference/scaling.md: each device takes a batch as large as this one's")
    for column in ("devices", "global batch", "all-reduce", "step", "an epoch", "samples/s", "efficiency",
                   "state a device: ddp", "fsdp"):  # fmt: skip
        shown.add_column(column, justify="right")
    for devices in DEVICES:
        waiting = step_seconds(step, devices) - step.seconds
        each = max(1, epoch_batches(trainer, -(-batches // devices)))  # a share of few is none
        taken, epoch = min(batches, devices * each), each * step.seconds + -(-each // together) * waiting
        row = [f"{devices}", f"{devices * together * step.size:,}",
               duration(all_reduce(step.gradients, devices)), duration(together * step.seconds + waiting),
               duration(epoch), f"{samples * taken / batches / epoch:,.0f}",
               f"{taken * step.seconds / (devices * epoch):.0%}",
               amount(step.state, "B"), amount(step.state / devices, "B")]  # fmt: skip
        shown.add_row(*row)
    return shown


def show_plan(task: Any, data: DataModule, trainer: pl.Trainer) -> None:
    """Print what a training would take on this device, and on 1 to 512 such devices."""
    step = measured(task, data, trainer)
    print("\n".join(lines(step, data, trainer.strategy.root_device)), flush=True)
    if unit(data) is None:
        print("a batch is a part of one graph, or all of it: other sizes, and more devices, are not estimated")
    else:
        Console(width=None if sys.stdout.isatty() else WIDE, markup=False).print(table(step, data, trainer))

"""Measures and estimates the time and memory of a training in advance: ``stage=plan``.

The simple model for several devices is described in docs/reference/scaling.md.
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

BATCHES = 8  # timed batches; memory is measured on the one with the most nodes
USABLE = 0.9  # fraction of a device's memory that may be used
WIDTH = 160  # columns of output to a file or pipe
DEVICES = tuple(2**n for n in range(10))  # 1 to 512
DEVICES_PER_MACHINE = 8
INSIDE, BETWEEN = 100e9, 25e9  # bandwidth in bytes per second: of a device within its machine, and between machines
LATENCY = 20e-6  # seconds of each round of an all-reduce
BACKWARD = 2 / 3  # fraction of a step during which gradients can be communicated


@dataclass(frozen=True)
class Step:
    """The cost of a step on one device.

    Attributes:
        parameters: number of trained parameters, tied ones once.
        weights, gradients, optimiser, activations: bytes; activations are those saved for the backward pass of one
            batch, or on a GPU all further memory of a step.
        flops: floating point operations of the matrix products of a step, on average.
        seconds: mean over a few preloaded batches.
        size: batch size, in the unit of `unit`.
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
        """Bytes that a step needs for any batch."""
        return self.weights + self.gradients + self.optimiser

    def fitting(self, memory: int) -> int:
        """The largest batch size for a device with ``memory`` bytes, if activations are proportional to it."""
        return max(0, int((USABLE * memory - self.state) * self.size / max(1, self.activations)))


def all_reduce(size: int, devices: int) -> float:
    """Seconds of an all-reduce of ``size`` bytes: a ring within each machine, then one between machines."""
    inside, machines = min(devices, DEVICES_PER_MACHINE), -(-devices // DEVICES_PER_MACHINE)
    transfers = [(2 * (n - 1) / n * size / speed) for n, speed in ((inside, INSIDE), (machines, BETWEEN))]
    return sum(transfers) + LATENCY * 2 * (devices.bit_length() - 1)


def step_seconds(step: Step, devices: int) -> float:
    """Seconds of a step on several devices, each with a batch of the measured size."""
    return step.seconds + max(0.0, all_reduce(step.gradients, devices) - BACKWARD * step.seconds)


def unit(data: DataModule) -> str | None:
    """The data's key for the batch size; None if there is no single one."""
    if getattr(data, "batch_nodes", None):
        return "batch_nodes"
    return "batch_size" if hasattr(data, "batch_size") else None


def measure_steps(task: Any, data: DataModule, trainer: pl.Trainer) -> Step:
    """Measure a few steps on one device, with the trainer's precision and the task's optimiser."""
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
    with saved_activations(task) as sizes:
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
def saved_activations(module: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Context manager that yields the bytes of each storage saved by autograd, except parameters and buffers."""
    persistent = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        parts = [tensor]
        if tensor.layout is torch.sparse_csr:
            parts = [tensor.values(), tensor.crow_indices(), tensor.col_indices()]
        for part in parts if tensor.layout in (torch.strided, torch.sparse_csr) else ():
            storage = part.untyped_storage()
            if storage.data_ptr() not in persistent:
                sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def memory_of(device: torch.device) -> int:
    """Total memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory()


def on_single_device(cfg: DictConfig) -> DictConfig:
    """The configuration of a run changed to a single device, or for ``stage=prepare`` to the CPU.

    Raises:
        UserError: several processes were started.
    """
    check_alone(cfg.stage)
    single = cfg.copy()
    single.trainer.update(
        {"strategy": "auto", "devices": 1} | ({"num_nodes": 1} if "num_nodes" in single.trainer else {})
    )
    if cfg.get("stage") == "prepare":
        single.trainer.update({"accelerator": "cpu", "precision": "32-true"})
    return single


def amount(value: float, unit: str, step: int = 1000) -> str:
    """Format a number with its unit, such as 12.3 MB."""
    power = min(4, max(0, int(math.log(max(value, 1), step))))
    return f"{value / step**power:.3g} {('', 'k', 'M', 'G', 'T')[power]}{unit}"


def duration(seconds: float) -> str:
    """Format seconds for display."""
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{1000 * seconds:.3g} ms"


def lines(step: Step, data: DataModule, device: torch.device) -> list[str]:
    """The measurements as lines of text."""
    key, memory = unit(data), memory_of(device)
    units = {"batch_size": "samples", "batch_nodes": "nodes", None: "graphs"}[key]
    name = "this CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    parts = {"weights": step.weights, "gradients": step.gradients, "optimiser": step.optimiser,
             f"activations of {step.size:,} {units}": step.activations}  # fmt: skip
    rate = f"{amount(step.flops / step.seconds, 'FLOP/s')}, matrix products only"
    rows = [
        f"parameters  {step.parameters:,}",
        "memory      " + ", ".join(f"{part} {amount(size, 'B')}" for part, size in parts.items()),
        f"step        {duration(step.seconds)} on {name}, preloaded batches; {amount(step.flops, 'FLOP')} ({rate})",
    ]
    if key is not None:
        largest = f"data.{key}={step.fitting(memory):,}" if step.fitting(memory) else "no batch at all"
        rows.append(
            f"fits        {largest} in {USABLE:.0%} of {amount(memory, 'B')}, if activations grow with the batch"
        )
    return rows


def table(step: Step, data: DataModule, trainer: pl.Trainer) -> Table:
    """A table of estimates for 1 to 512 such devices."""
    batches, samples = len(data.loader("train")), len(data.dataset("train"))
    accumulation = trainer.accumulate_grad_batches
    out = Table(title="by the model of docs/reference/scaling.md: each device takes a batch as large as this one's")
    for column in ("devices", "global batch", "all-reduce", "step", "epoch", "samples/s", "efficiency",
                   "state per device: ddp", "fsdp"):  # fmt: skip
        out.add_column(column, justify="right")
    for devices in DEVICES:
        overhead = step_seconds(step, devices) - step.seconds
        per_device = max(1, epoch_batches(trainer, -(-batches // devices)))  # a fraction of few batches may be none
        used, epoch = (
            min(batches, devices * per_device),
            per_device * step.seconds + -(-per_device // accumulation) * overhead,
        )
        row = [f"{devices}", f"{devices * accumulation * step.size:,}",
               duration(all_reduce(step.gradients, devices)), duration(accumulation * step.seconds + overhead),
               duration(epoch), f"{samples * used / batches / epoch:,.0f}",
               f"{used * step.seconds / (devices * epoch):.0%}",
               amount(step.state, "B"), amount(step.state / devices, "B")]  # fmt: skip
        out.add_row(*row)
    return out


def show_plan(task: Any, data: DataModule, trainer: pl.Trainer) -> None:
    """Print estimates of a training on this device, and on 1 to 512 such devices."""
    step = measure_steps(task, data, trainer)
    print("\n".join(lines(step, data, trainer.strategy.root_device)), flush=True)
    if unit(data) is None:
        print("batches are parts of a single graph, or all of it: no estimates for other sizes or more devices")
    else:
        Console(width=None if sys.stdout.isatty() else WIDTH, markup=False).print(table(step, data, trainer))

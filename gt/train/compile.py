"""Compiles a network (`torch.compile`) block by block, so that identical blocks share the compiled code."""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from gt.attention.dispatch import UNTRACED
from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData
from gt.data.large.sampling import Full
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.schema import pluralise
from gt.train.cuda_graphs import MAX_GRAPHS, Replayed, clone_gradients, use_static_backends
from gt.train.job import write_json
from gt.train.launch import started_outside

Mode = bool | Literal["default", "reduce-overhead", "max-autotune", "cuda-graphs"]
Precision = Literal["highest", "high", "medium"]
TIMINGS = "compile.json"  # in the run folder: whether compiled steps were faster
RECOMPILE_LIMIT = 64  # compilations of a block: one for each static shape, in training and in evaluation
WARM_UP = 2  # steps before them: one compiles or fills caches, one records CUDA graphs
TRIALS = 3  # timed steps per variant, of which the fastest counts
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")  # modes that record CUDA graphs on a GPU, and replay them


class Trainer(pl.Trainer):
    """Lightning's trainer, with options for compilation.

    Args:
        compile: a mode of `torch.compile`; True compiles the network if a measurement shows that it is faster, on a
            GPU with CUDA graphs; ``cuda-graphs`` does not compile, but replays, see `gt.train.cuda_graphs`.
        matmul_precision: of float32, see `torch.set_float32_matmul_precision`.
        options: passed on to Lightning's trainer.

    Attributes:
        compiled: the compiled network, if any.
        passes_on: marks for configuration checks that other options are passed on to the base class.
    """

    passes_on = True
    compiled: "Compiled | Replayed | None"

    def __init__(self, *, compile: Mode = False, matmul_precision: Precision = "highest", **options: Any) -> None:
        super().__init__(**options)
        torch.set_float32_matmul_precision(matmul_precision)
        self.compile, self.compiled = compile, None


class Compiled:
    """A network compiled in place, until `undo`; parameter names are unchanged.

    It is compiled once for each batch shape, see `gt.data.static`.

    Args:
        net: a `gt.model.GraphTransformer`; any other network is compiled as a whole.
        mode: of `torch.compile`.

    Raises:
        UserError: an attention layer requires a backend that cannot be traced.
    """

    def __init__(self, net: nn.Module, mode: str = "default") -> None:
        self.layers = use_static_backends(net)
        torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
        counters.clear()  # an earlier job of a sweep may have run in this process
        self.parts = list(getattr(net, "blocks", [net]))
        self.replays = mode in CUDA_GRAPHS
        for part in self.parts:
            part.compile(mode=mode, dynamic=False)
        self.hook = net.register_forward_pre_hook(self._begin_pass)

    def _begin_pass(self, net: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Compute the cached indices of a batch before tracing, as they take a lock, which cannot be traced."""
        (batch,) = arguments
        batch.finish()
        if self.replays:  # otherwise each block would count as a step, whose replay may overwrite the block before
            torch.compiler.cudagraph_mark_step_begin()

    def hold_gradients(self) -> None:
        """See `clone_gradients`."""
        if self.replays:
            clone_gradients({p for part in self.parts for p in part.parameters()})

    def summary(self) -> str:
        """The number of graphs compiled so far, and of graph breaks."""
        graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        suffix = f", {pluralise(breaks, 'graph break')}" if breaks else ""
        return f"compiled {pluralise(graphs, 'graph')}{suffix}"

    def undo(self) -> None:
        """Restore the uncompiled network."""
        for layer in self.layers:
            layer.compiled = False
        for part in self.parts:
            part._compiled_call_impl = None
        self.hook.remove()


def compile_network(trainer: Trainer, net: nn.Module, data: DataModule, folder: Path) -> str:
    """Compile a network as set by ``trainer.compile``; returns a message that describes the outcome.

    The measurement is saved in the run's folder, so that resumed runs and other ranks make the same decision.

    Raises:
        UserError: batches have no fixed shapes, or several processes would each measure for themselves.
    """
    if not isinstance(sampler := getattr(data, "sampler", None), Full | None):
        raise UserError(
            f"trainer.compile={trainer.compile}: the samples of {type(sampler).__name__} vary in shape, and each shape "
            "would be compiled: choose data/sampler=full, or trainer.compile=false"
        )
    device = trainer.strategy.root_device
    if trainer.compile == "cuda-graphs":
        if device.type != "cuda" or trainer.world_size > 1:
            raise UserError(
                f"trainer.compile=cuda-graphs records on one GPU, but this run trains on "
                f"{pluralise(trainer.world_size, 'device')} of type {device.type}: choose trainer=gpu "
                "trainer.devices=1, or trainer.compile=false"
            )
        trainer.compiled = Replayed(net)
        lists = f" and number of pairs (at most {MAX_GRAPHS} in all)" if trainer.compiled.reads_lists else ""
        return f"training passes are recorded once for each batch shape{lists} and replayed as CUDA graphs"
    note = f"; attention does not use {' and '.join(UNTRACED)}, which cannot be traced"
    if trainer.compile is not True:
        trainer.compiled = Compiled(net, str(trainer.compile))
        return f"blocks are compiled, mode {trainer.compile}{note}"
    path = folder / TIMINGS
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    if not path.exists():
        if started_outside() and trainer.world_size > 1:
            raise UserError(
                "trainer.compile=true measures on one process: choose a mode, such as trainer.compile=default"
            )
        net.to(device)
        context = trainer.precision_plugin.forward_context
        write_json(path, time_steps(net, lambda: next(iter(data.loader("train"))).to(device), context, mode))
    times = json.loads(path.read_text())
    timing = f"a step takes {1e3 * times['compiled']:.1f} ms compiled, {1e3 * times['as it is']:.1f} ms as it is"
    if times["compiled"] < times["as it is"]:
        trainer.compiled = Compiled(net, mode)
        return f"blocks are compiled, mode {mode}: {timing}{note}"
    if isinstance(data, GraphData):
        data.go_by_shapes(False)
    return f"the network is not compiled: {timing}"


def time_steps(
    net: nn.Module, batch: Callable[[], GraphBatch], context: Callable[[], AbstractContextManager[Any]], mode: str
) -> dict[str, float]:
    """Seconds of a forward and backward pass ``as it is`` and ``compiled``; the network itself is left unchanged."""
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    device = next(net.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        times = {"as it is": _fastest(net, batch(), context)}
        compiled = Compiled(net, mode)
        times["compiled"] = _fastest(net, batch(), context)  # a new batch, prepared for compiled layers
        compiled.undo()
    for name, buffer in net.named_buffers():
        buffer.copy_(buffers[name])
    return times


def _fastest(net: nn.Module, batch: GraphBatch, context: Callable[[], AbstractContextManager[Any]]) -> float:
    times = []
    for _ in range(WARM_UP + TRIALS):
        start = time.perf_counter()
        with context():
            out: Tensor = net(batch)
        out.float().sum().backward()
        if out.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        net.zero_grad(set_to_none=True)
    return min(times[WARM_UP:])

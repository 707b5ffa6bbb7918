"""Compiling a network (`torch.compile`): each block by itself, so that blocks that are alike share what is compiled."""

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
from gt.layers import attention_layers
from gt.schema import many
from gt.train.job import write_json
from gt.train.launch import started_outside

Mode = bool | Literal["default", "reduce-overhead", "max-autotune"]
Precision = Literal["highest", "high", "medium"]
DECISION = "compile.json"  # in the run folder: whether compiled steps were faster
MOST = 64  # compilations of one block's code: a static shape each, in training and in evaluation
TRIALS = 3  # timed steps of either kind, of which the quickest counts


class Trainer(pl.Trainer):
    """Lightning's.

    Args:
        compile: a mode of `torch.compile`, in which the network is compiled; True: where that is measured to be faster.
        matmul_precision: of float32, see `torch.set_float32_matmul_precision`.
        options: as Lightning has them.

    Attributes:
        compiled: the network, where it is compiled.
        passes_on: says to who checks a configuration that the base class takes the other options.
    """

    passes_on = True
    compiled: "Compiled | None"

    def __init__(self, *, compile: Mode = False, matmul_precision: Precision = "highest", **options: Any) -> None:
        super().__init__(**options)
        torch.set_float32_matmul_precision(matmul_precision)
        self.compile, self.compiled = compile, None


class Compiled:
    """A network compiled in place, until `undo`; names of parameters stay as they are.

    Batches of the same shape, see `gt.data.static`, are compiled once.

    Args:
        net: a `gt.model.GraphTransformer`; any other network is compiled as a whole.
        mode: of `torch.compile`.

    Raises:
        UserError: an attention layer insists on a backend that cannot be traced.
    """

    def __init__(self, net: nn.Module, mode: str = "default") -> None:
        self.layers = [layer for _, layer in attention_layers(net)]
        for name, layer in attention_layers(net):
            if layer.backend in UNTRACED:
                raise UserError(
                    f"the backend '{layer.backend}' of {name} cannot be compiled: choose another, or "
                    "trainer.compile=false"
                )
            layer.compiled = True
        torch._dynamo.config.recompile_limit = MOST
        counters.clear()  # an earlier job of a sweep may have been in this process
        self.parts = list(getattr(net, "blocks", [net]))
        for part in self.parts:
            part.compile(mode=mode, dynamic=False)
        self.hook = net.register_forward_pre_hook(_finish)

    def summary(self) -> str:
        """How often it has been compiled so far."""
        graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        left = f", {many(breaks, 'break')} between which it runs as it is" if breaks else ""
        return f"compiled {many(graphs, 'graph')}{left}"

    def undo(self) -> None:
        """Have the network run as it is again."""
        for layer in self.layers:
            layer.compiled = False
        for part in self.parts:
            part._compiled_call_impl = None
        self.hook.remove()


def _finish(net: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Work out what is worked out of a batch before it is traced: indices wait for a lock, which cannot be."""
    (batch,) = arguments
    batch.finish()


def compile_network(trainer: Trainer, net: nn.Module, data: DataModule, folder: Path) -> str:
    """Compile a network as ``trainer.compile`` asks, and say what was done.

    What was measured is kept in the run's folder: a run that goes on, or another process of it, does the same.

    Raises:
        UserError: batches have no fixed shapes, or several processes would measure, each for itself.
    """
    if not isinstance(sampler := getattr(data, "sampler", None), Full | None):
        raise UserError(
            f"trainer.compile={trainer.compile}: parts of a graph drawn by {type(sampler).__name__} are of any shape, "
            "each of which would be compiled: choose data/sampler=full, or trainer.compile=false"
        )
    left_out = f"; attention leaves out {' and '.join(UNTRACED)}, which cannot be traced"
    if trainer.compile is not True:
        trainer.compiled = Compiled(net, str(trainer.compile))
        return f"blocks are compiled, mode {trainer.compile}{left_out}"
    path = folder / DECISION
    if not path.exists():
        if started_outside() and trainer.world_size > 1:
            raise UserError(
                "trainer.compile=true measures on one process: choose a mode, such as trainer.compile=default"
            )
        device = trainer.strategy.root_device
        net.to(device)
        context = trainer.precision_plugin.forward_context
        write_json(path, measured(net, lambda: next(iter(data.loader("train"))).to(device), context))
    times = json.loads(path.read_text())
    told = f"a step takes {1e3 * times['compiled']:.1f} ms compiled, {1e3 * times['as it is']:.1f} ms as it is"
    if times["compiled"] < times["as it is"]:
        trainer.compiled = Compiled(net)
        return f"blocks are compiled: {told}{left_out}"
    if isinstance(data, GraphData):
        data.go_by_shapes(False)
    return f"the network is left as it is: {told}"


def measured(
    net: nn.Module, batch: Callable[[], GraphBatch], context: Callable[[], AbstractContextManager[Any]]
) -> dict[str, float]:
    """Seconds of a step, forward and backward, of the network ``as it is`` and ``compiled``; it stays as it was."""
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with torch.random.fork_rng():
        times = {"as it is": _quickest(net, batch(), context)}
        now = Compiled(net)
        times["compiled"] = _quickest(net, batch(), context)  # another one, made ready for what a compiled layer asks
        now.undo()
    for name, buffer in net.named_buffers():
        buffer.copy_(buffers[name])
    return times


def _quickest(net: nn.Module, batch: GraphBatch, context: Callable[[], AbstractContextManager[Any]]) -> float:
    times = []
    for _ in range(1 + TRIALS):  # the first one compiles, or fills caches
        begun = time.perf_counter()
        with context():
            out: Tensor = net(batch)
        out.float().sum().backward()
        if out.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    net.zero_grad(set_to_none=True)
    return min(times[1:])

"""Selects attention backends by timing the close candidates on the first batches of a run, before it starts."""

import json
import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from gt.attention import explain
from gt.attention.costs import cached_path
from gt.attention.settled import case_key, close_calls, demand_key, fastest
from gt.data.files import lock, write_bytes
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.layers import Attention, State, attention_layers
from gt.lottery.timing import SETTLING, Step, side_by_side
from gt.masks import Pairs
from gt.ranges import at_least
from gt.train.compile import Trainer
from gt.train.context_parallel import ContextParallel
from gt.train.length import all_steps
from gt.train.sharding import Sharded

RECORD = "attention.json"  # in the run folder: the selected backends
BATCHES = 4

Cases = dict[str, str]  # the backend for each class of batches, see `gt.attention.settled.case_key`
Times = dict[str, list[float]]  # seconds of each backend; the first is the choice of the cost table
Context = Callable[[], AbstractContextManager[Any]]


class SettleBackends(pl.Callback):
    """Has attention layers with automatic backends use the fastest one on the training data.

    The selection is saved in the run's folder, so that a resumed run computes as before, and in the user's cache
    folder, where the first result for a case is reused by all later runs, which makes commands reproducible. Rank 0
    selects for all. Compiled or sharded networks use the cost table.

    Args:
        steps: length of a training below which the cost table is used, as timing takes a few seconds.
    """

    def __init__(self, steps: int = 1_000) -> None:
        at_least(0, steps, "steps")
        self.steps = steps

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        net: Any = pl_module.net
        layers = automatic_layers(net)
        compiled = isinstance(trainer, Trainer) and trainer.compiled is not None
        if not layers or compiled or isinstance(trainer.strategy, Sharded | ContextParallel):
            return
        cases: Cases = {}
        if trainer.is_global_zero:
            record = Path(trainer.default_root_dir) / RECORD
            if record.exists():
                cases = json.loads(record.read_text())
            elif not trainer.ckpt_path and all_steps(trainer) >= self.steps:
                cases = self._select_backends(trainer, net)
                write_bytes(record, json.dumps(cases, indent=1).encode())
        cases = trainer.strategy.broadcast(cases)
        for layer in layers:
            demand = demand_key(layer.demand(trainer.strategy.root_device.type, _is_half(trainer)))
            layer.settled = frozenset(case for case in cases.items() if case[0].startswith(demand))

    @staticmethod
    def _select_backends(trainer: pl.Trainer, net: nn.Module) -> Cases:
        """The cached selections for the first batches, timing those that are missing."""
        device = trainer.strategy.root_device
        loader = trainer.datamodule.data.loader("train")  # type: ignore[attr-defined]
        batches = (batch.to(device) for batch in islice(loader, BATCHES))
        path = cache_path(device.type)
        cached = read_cases(path)
        timed = dict(
            time_close_calls(net, batches, _is_half(trainer), trainer.precision_plugin.forward_context, cached)
        )
        cases = cache_cases(path, {case: fastest(times) for case, times in timed.items()})
        if line := timing_summary(timed, cases):
            print(line, flush=True)
        return cases


def _is_half(trainer: pl.Trainer) -> bool:
    return "16" in str(trainer.precision)


def automatic_layers(net: nn.Module) -> list[Attention]:
    """The attention layers whose backend is selected automatically."""
    return [layer for _, layer in attention_layers(net) if layer.backend == "auto"]


def timing_summary(timed: dict[str, Times], cases: Cases) -> str:
    """A line on where timing overruled the cost table; empty if it confirmed it."""
    changed = []
    for case, times in timed.items():
        expected, selected = next(iter(times)), cases[case]
        if selected in times and selected != expected:
            ms = {name: 1e3 * statistics.median(times[name]) for name in (selected, expected)}
            changed.append(f"{selected} ({ms[selected]:.2f} ms a layer) rather than {expected} ({ms[expected]:.2f} ms)")
    return f"attention, timed on the first batches: {'; '.join(changed)}" if changed else ""


def time_close_calls(
    net: nn.Module, batches: Iterable[GraphBatch], half: bool, context: Context, cached: Iterable[str] = ()
) -> Iterator[tuple[str, Times]]:
    """Time the backends for each class of batches on which the cost table is inconclusive, except cached ones."""
    done = set(cached)
    for batch in batches:
        for layer, state, inputs, pairs in attention_calls(net, batch, half, context):
            close = close_calls(explain(pairs, demand := layer.demand(batch.device.type, half)))
            if len(close) < 2 or (case := case_key(pairs, demand)) in done:
                continue
            done.add(case)
            buffers = [buffer.clone() for buffer in layer.buffers()]
            with torch.random.fork_rng([batch.device] if batch.device.type == "cuda" else []):
                steps = {name: layer_step(layer, state, inputs, pairs, name, context) for name in close}
                times = side_by_side(steps, batch.device.type, *SETTLING)
            layer.backend = "auto"
            for buffer, value in zip(layer.buffers(), buffers, strict=True):
                buffer.copy_(value)
            yield case, times
    for layer in automatic_layers(net):
        layer.used.clear()  # only count the batches of the run itself


def attention_calls(
    net: nn.Module, batch: GraphBatch, half: bool, context: Context
) -> list[tuple[Attention, State, GraphBatch, Pairs]]:
    """The arguments of automatic attention layers on a batch; only the first among layers with equal demands."""
    calls: dict[Hashable, tuple[Attention, State, GraphBatch, Pairs]] = {}
    training = net.training

    def record(layer: nn.Module, call: tuple[State, GraphBatch, Pairs]) -> None:
        assert isinstance(layer, Attention)
        calls.setdefault((layer.demand(batch.device.type, half), id(call[2])), (layer, *call))

    hooks = [layer.register_forward_pre_hook(record) for layer in automatic_layers(net)]
    try:
        with torch.no_grad(), context():
            net.eval()(batch)  # eval mode: no random numbers, and running statistics are not updated
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return list(calls.values())


def layer_step(layer: Attention, state: State, batch: GraphBatch, pairs: Pairs, backend: str, context: Context) -> Step:
    """A function that runs a layer forward and backward with a given backend."""
    x, e, p = (None if stream is None else stream.detach().requires_grad_() for stream in (state.x, state.e, state.p))
    assert x is not None
    detached = replace(state, x=x, e=e, p=p)
    inputs = [
        *(stream for stream in (x, e, p) if stream is not None),
        *(parameter for parameter in layer.parameters() if parameter.requires_grad),
    ]

    def step() -> None:
        layer.backend = backend
        with context():
            out = layer(detached, batch, pairs)["x"]
        torch.autograd.grad(out, inputs, torch.ones_like(out), allow_unused=True)

    return step


def cache_path(device: str) -> Path:
    """The cache file for selections on this machine."""
    return cached_path("settled", device)


def read_cases(path: Path) -> Cases:
    """Read a cache file; empty if it is missing, damaged, or from another version of PyTorch."""
    try:
        content = json.loads(path.read_text())
        return dict(content["cases"]) if content["torch"] == torch.__version__ else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def cache_cases(path: Path, cases: Cases) -> Cases:
    """Add selections to a cache file, whose entries take precedence; returns all. The folder need not be writable."""
    try:
        with lock(path.with_suffix(".lock")):
            cases = cases | read_cases(path)
            write_bytes(path, json.dumps({"torch": torch.__version__, "cases": cases}, indent=1).encode())
    except (OSError, UserError):
        pass
    return cases

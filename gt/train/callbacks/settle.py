"""Close calls among attention's backends, settled by timing them on the first batches of a run, before it starts."""

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

RECORD = "attention.json"  # in the run folder: the backends that were settled for it
BATCHES = 4

Cases = dict[str, str]  # of each class of batches, see `gt.attention.settled.case_key`, the backend to take
Times = dict[str, list[float]]  # seconds of each backend, the one that the cost table expects first
Context = Callable[[], AbstractContextManager[Any]]


class SettleBackends(pl.Callback):
    """Has attention layers that may choose a backend go by what is fastest on the data they train on.

    What is settled is kept in the run's folder, so that a run that goes on computes as it did, and in the user's cache
    folder, where the first to settle a case settles it for every later run: a command computes today as it did
    yesterday. The first process settles for all. A network that is compiled or sharded goes by the cost table.

    Args:
        steps: of a training, below which the cost table decides: timing takes a few seconds.
    """

    def __init__(self, steps: int = 1_000) -> None:
        at_least(0, steps, "steps")
        self.steps = steps

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        net: Any = pl_module.net
        layers = free_layers(net)
        compiled = isinstance(trainer, Trainer) and trainer.compiled is not None
        if not layers or compiled or isinstance(trainer.strategy, Sharded | ContextParallel):
            return
        cases: Cases = {}
        if trainer.is_global_zero:
            record = Path(trainer.default_root_dir) / RECORD
            if record.exists():
                cases = json.loads(record.read_text())
            elif not trainer.ckpt_path and all_steps(trainer) >= self.steps:
                cases = self._settle(trainer, net)
                write_bytes(record, json.dumps(cases, indent=1).encode())
        cases = trainer.strategy.broadcast(cases)
        for layer in layers:
            demand = demand_key(layer.demand(trainer.strategy.root_device.type, _half(trainer)))
            layer.settled = frozenset(case for case in cases.items() if case[0].startswith(demand))

    @staticmethod
    def _settle(trainer: pl.Trainer, net: nn.Module) -> Cases:
        """What is known of the first batches, or else timed."""
        device = trainer.strategy.root_device
        loader = trainer.datamodule.data.loader("train")  # type: ignore[attr-defined]
        batches = (batch.to(device) for batch in islice(loader, BATCHES))
        path = kept_path(device.type)
        known = read_cases(path)
        timed = dict(time_close_calls(net, batches, _half(trainer), trainer.precision_plugin.forward_context, known))
        cases = keep_cases(path, {case: fastest(times) for case, times in timed.items()})
        if line := told(timed, cases):
            print(line, flush=True)
        return cases


def _half(trainer: pl.Trainer) -> bool:
    return "16" in str(trainer.precision)


def free_layers(net: nn.Module) -> list[Attention]:
    """The attention layers that may choose a backend."""
    return [layer for _, layer in attention_layers(net) if layer.backend == "auto"]


def told(timed: dict[str, Times], cases: Cases) -> str:
    """What timing has changed, in a line; nothing where it bore the cost table out."""
    changed = []
    for case, times in timed.items():
        expected, taken = next(iter(times)), cases[case]
        if taken in times and taken != expected:
            ms = {name: 1e3 * statistics.median(times[name]) for name in (taken, expected)}
            changed.append(f"{taken} ({ms[taken]:.2f} ms a layer) rather than {expected} ({ms[expected]:.2f} ms)")
    return f"attention, timed on the first batches: {'; '.join(changed)}" if changed else ""


def time_close_calls(
    net: nn.Module, batches: Iterable[GraphBatch], half: bool, context: Context, known: Iterable[str] = ()
) -> Iterator[tuple[str, Times]]:
    """Each class of batches whose backends the cost table cannot tell apart, but for known ones, and their times."""
    done = set(known)
    for batch in batches:
        for layer, state, wide, pairs in calls_of(net, batch, half, context):
            close = close_calls(explain(pairs, demand := layer.demand(batch.device.type, half)))
            if len(close) < 2 or (case := case_key(pairs, demand)) in done:
                continue
            done.add(case)
            buffers = [buffer.clone() for buffer in layer.buffers()]
            with torch.random.fork_rng():
                steps = {name: layer_step(layer, state, wide, pairs, name, context) for name in close}
                times = side_by_side(steps, batch.device.type, *SETTLING)
            layer.backend = "auto"
            for buffer, kept in zip(layer.buffers(), buffers, strict=True):
                buffer.copy_(kept)
            yield case, times
    for layer in free_layers(net):
        layer.used.clear()  # which counts the batches of the run


def calls_of(
    net: nn.Module, batch: GraphBatch, half: bool, context: Context
) -> list[tuple[Attention, State, GraphBatch, Pairs]]:
    """What the layers that may choose a backend are called with on a batch; of those that ask the same, the first."""
    calls: dict[Hashable, tuple[Attention, State, GraphBatch, Pairs]] = {}
    training = net.training

    def note(layer: nn.Module, call: tuple[State, GraphBatch, Pairs]) -> None:
        assert isinstance(layer, Attention)
        calls.setdefault((layer.demand(batch.device.type, half), id(call[2])), (layer, *call))

    hooks = [layer.register_forward_pre_hook(note) for layer in free_layers(net)]
    try:
        with torch.no_grad(), context():
            net.eval()(batch)  # which draws nothing and leaves running means alone
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return list(calls.values())


def layer_step(layer: Attention, state: State, batch: GraphBatch, pairs: Pairs, backend: str, context: Context) -> Step:
    """A layer forward and backward by one backend."""
    x, e, p = (None if stream is None else stream.detach().requires_grad_() for stream in (state.x, state.e, state.p))
    assert x is not None
    read = replace(state, x=x, e=e, p=p)
    inputs = [
        *(stream for stream in (x, e, p) if stream is not None),
        *(parameter for parameter in layer.parameters() if parameter.requires_grad),
    ]

    def step() -> None:
        layer.backend = backend
        with context():
            out = layer(read, batch, pairs)["x"]
        torch.autograd.grad(out, inputs, torch.ones_like(out), allow_unused=True)

    return step


def kept_path(device: str) -> Path:
    """Where what was settled on this machine is kept."""
    return cached_path("settled", device)


def read_cases(path: Path) -> Cases:
    """What is kept; nothing where the file is missing, damaged, or of another version of PyTorch."""
    try:
        content = json.loads(path.read_text())
        return dict(content["cases"]) if content["torch"] == torch.__version__ else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def keep_cases(path: Path, cases: Cases) -> Cases:
    """Add what was settled to what is kept, which stands; gives all of it. The folder need not be writable."""
    try:
        with lock(path.with_suffix(".lock")):
            cases = cases | read_cases(path)
            write_bytes(path, json.dumps({"torch": torch.__version__, "cases": cases}, indent=1).encode())
    except (OSError, UserError):
        pass
    return cases

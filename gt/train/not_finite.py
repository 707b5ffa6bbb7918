"""Locates the origin of a non-finite loss or gradient (layer and samples) and saves the batch for replay."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gt.data.batch_sampler import Batches
from gt.errors import UserError
from gt.graph import WHOLE_DEGREES, GraphBatch
from gt.parallel import Share
from gt.schema import format_list
from gt.train.checkpoint_files import write

REPLAY = "not_finite.ckpt"  # in the run folder: a checkpoint for `gt.load`, plus the batch and the seed of the step
MAX_LISTED_SAMPLES = 8  # in a message


@dataclass(frozen=True)
class StepContext:
    """A training batch and its position in the training.

    Attributes:
        index: counted from 0 within the epoch.
        seed: seeds the random numbers of the step.
    """

    batch: GraphBatch
    epoch: int
    index: int
    seed: int


@dataclass(frozen=True)
class Origin:
    """Where non-finite values arose on one rank: a description, whether any were found, and the batch's samples."""

    layer: str
    broken: bool
    samples: tuple[int, ...] = ()


def first_layer(task: Any, context: StepContext) -> Origin:
    """The innermost module with the first non-finite output of a forward pass, or else the largest output.

    Replays the forward pass of the training step with its random numbers, leaving the network's statistics unchanged.
    A collective call: every rank must take part.
    """
    for name in ("x", "edge_attr", "y"):
        if not _finite(getattr(context.batch, name)):
            return Origin(f"{name} of the batch", True)
    broken: list[str] = []
    largest = (0.0, "no layer")

    def check(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        label = f"{name} ({type(module).__name__})"
        if not _finite(output):
            broken.append(label + ("" if _finite(list(module.parameters())) else ", whose weights are not finite"))
        else:
            highest = max((float(tensor.abs().max()) for tensor in _tensors(output) if tensor.numel()), default=0.0)
            largest = max(largest, (highest, label), key=lambda pair: pair[0])

    hooks = [module.register_forward_hook(partial(check, name)) for name, module in task.net.named_modules() if name]
    gpus = [context.batch.device] if context.batch.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(gpus), torch.compiler.set_stance("force_eager"):
            torch.manual_seed(context.seed)
            functional_call(task, {name: value.clone() for name, value in task.named_buffers()}, (context.batch,))
    finally:
        for hook in hooks:
            hook.remove()
    if broken:
        return Origin(f"first in {broken[0]}", True)
    return Origin(f"the largest output is {largest[0]:.3g}, of {largest[1]}", False)


def last_gradient(net: nn.Module) -> Origin:
    """The layer nearest to the output with a non-finite gradient, which is where the backward pass went wrong."""
    broken = [name for name, p in net.named_parameters() if p.grad is not None and not _finite(p.grad)]
    return Origin(f"first in the backward pass of {broken[-1].rpartition('.')[0]}", True)


def _finite(value: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (tensor for part in value.values() for tensor in _tensors(part))
    elif isinstance(value, list | tuple):
        yield from (tensor for part in value for tensor in _tensors(part))
    elif is_dataclass(value):
        yield from (tensor for field in fields(value) for tensor in _tensors(getattr(value, field.name)))


def describe(task: Any, context: StepContext, origin: Origin) -> str:
    """Layer, samples and the file with the batch, as the end of a message. Every rank must call it.

    Args:
        task: the task in training.
        origin: on this rank.
    """
    trainer = task.trainer
    local = Origin(origin.layer, origin.broken, _samples(task, context))
    origins = [local]
    if trainer.world_size > 1:
        origins = [local] * trainer.world_size
        torch.distributed.all_gather_object(origins, local)
    guilty = [rank for rank, candidate in enumerate(origins) if candidate.broken] or list(range(len(origins)))
    line = origins[guilty[0]].layer
    if samples := [str(sample) for rank in guilty for sample in origins[rank].samples]:
        line += f"; training samples {format_list(samples, MAX_LISTED_SAMPLES)}"
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
    paths = [Path(trainer.default_root_dir) / (f"{rank}-{REPLAY}" if rank else REPLAY) for rank in guilty]
    with suppress(UserError):  # a full disk must not hide the actual error
        if trainer.global_rank in guilty:
            write(checkpoint | _replay(context, local.samples), paths[guilty.index(trainer.global_rank)])
        line += f", saved in {' '.join(map(str, paths))}"
    return line


def _samples(task: Any, context: StepContext) -> tuple[int, ...]:
    """Indices of a batch's samples within the training split; empty if the batch is part of a single graph."""
    trainer = task.trainer
    if trainer.datamodule is None or isinstance(context.batch, Share):
        return ()
    shared = {"rank": trainer.global_rank, "world": trainer.world_size}
    batches = trainer.datamodule.data.batches("train", epoch=context.epoch, first=context.index, **shared)
    return next(iter(batches)).samples if isinstance(batches, Batches) else ()


def _replay(context: StepContext, samples: tuple[int, ...]) -> dict[str, Any]:
    whole = context.batch.whole if isinstance(context.batch, Share) else context.batch
    batch = {field.name: getattr(whole, field.name) for field in fields(whole) if field.name != "memo"}
    batch = {name: part.cpu() if isinstance(part, Tensor) else part for name, part in batch.items()}
    batch["extras"] = {name: part.cpu() for name, part in whole.extras.items()}
    # the rest of the memo can be recomputed from the batch
    batch["memo"] = {WHOLE_DEGREES: whole.memo[WHOLE_DEGREES].cpu()} if WHOLE_DEGREES in whole.memo else {}
    return {
        "batch": batch,
        "samples": list(samples),
        "epoch": context.epoch,
        "index": context.index,
        "seed": context.seed,
    }


def all_finite(gradients: Sequence[Tensor]) -> bool:
    """Whether all gradients are finite; uniform ones take a single pass, four times as fast as computing a norm."""
    if not gradients:
        return True
    uniform = len({(type(gradient), gradient.device, gradient.dtype) for gradient in gradients}) == 1
    if not uniform or type(gradients[0]) is not Tensor or gradients[0].is_complex():
        return bool(torch.isfinite(nn.utils.get_total_norm(gradients)))
    infinite, scale = gradients[0].new_zeros(1, dtype=torch.float32), gradients[0].new_ones(1, dtype=torch.float32)
    torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), infinite, scale)
    return not infinite

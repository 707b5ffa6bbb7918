"""Where a step went wrong whose loss or gradients are not finite: the layer, the samples, and the batch for replay."""

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
from gt.schema import several
from gt.train.checkpoint_files import write

KEPT = "not_finite.ckpt"  # in a run's folder: what `gt.load` reads, with the batch and the seed of its step
SHOWN = 8  # samples that a message names


@dataclass(frozen=True)
class Place:
    """A batch of the training, and where it is.

    Attributes:
        index: counted from 0 within the epoch.
        seed: what the random numbers of its step come from.
    """

    batch: GraphBatch
    epoch: int
    index: int
    seed: int


@dataclass(frozen=True)
class Origin:
    """Where it began on one process: in words; whether anything there is not finite; the samples of its batch."""

    layer: str
    broken: bool
    samples: tuple[int, ...] = ()


def first_layer(task: Any, place: Place) -> Origin:
    """The innermost module whose output is the first of a forward pass that is not finite, or, of finite ones, largest.

    The pass is that of the training step, with its random numbers; it moves no statistics of the network. All processes
    call it at once.
    """
    for name in ("x", "edge_attr", "y"):
        if not _finite(getattr(place.batch, name)):
            return Origin(f"{name} of the batch", True)
    broken: list[str] = []
    largest = (0.0, "no layer")

    def look(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        words = f"{name} ({type(module).__name__})"
        if not _finite(output):
            broken.append(words + ("" if _finite(list(module.parameters())) else ", whose weights are not finite"))
        else:
            highest = max((float(tensor.abs().max()) for tensor in _tensors(output) if tensor.numel()), default=0.0)
            largest = max(largest, (highest, words), key=lambda each: each[0])

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in task.net.named_modules() if name]
    try:
        with torch.no_grad(), torch.random.fork_rng(), torch.compiler.set_stance("force_eager"):
            torch.manual_seed(place.seed)
            functional_call(task, {name: value.clone() for name, value in task.named_buffers()}, (place.batch,))
    finally:
        for hook in hooks:
            hook.remove()
    if broken:
        return Origin(f"first in {broken[0]}", True)
    return Origin(f"the largest output is {largest[0]:.3g}, of {largest[1]}", False)


def last_gradient(net: nn.Module) -> Origin:
    """The layer nearest to the output with a gradient that is not finite: where it began, going backwards."""
    broken = [name for name, p in net.named_parameters() if p.grad is not None and not _finite(p.grad)]
    return Origin(f"going backwards first in {broken[-1].rpartition('.')[0]}", True)


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
        yield from (tensor for each in fields(value) for tensor in _tensors(getattr(value, each.name)))


def described(task: Any, place: Place, origin: Origin) -> str:
    """Layer, samples and the file that keeps the batch, for the end of a line. All processes call it at once.

    Args:
        task: that is trained.
        origin: on this process.
    """
    trainer = task.trainer
    own = Origin(origin.layer, origin.broken, _samples(task, place))
    known = [own]
    if trainer.world_size > 1:
        known = [own] * trainer.world_size
        torch.distributed.all_gather_object(known, own)
    guilty = [rank for rank, each in enumerate(known) if each.broken] or list(range(len(known)))
    line = known[guilty[0]].layer
    if samples := [str(sample) for rank in guilty for sample in known[rank].samples]:
        line += f"; training samples {several(samples, SHOWN)}"
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
    paths = [Path(trainer.default_root_dir) / (f"{rank}-{KEPT}" if rank else KEPT) for rank in guilty]
    with suppress(UserError):  # a full disk must not hide what went wrong
        if trainer.global_rank in guilty:
            write(checkpoint | _replay(place, own.samples), paths[guilty.index(trainer.global_rank)])
        line += f", kept in {' '.join(map(str, paths))}"
    return line


def _samples(task: Any, place: Place) -> tuple[int, ...]:
    """The numbers of a batch's samples within the training split; none where a batch is a part of one graph."""
    trainer = task.trainer
    if trainer.datamodule is None or isinstance(place.batch, Share):
        return ()
    shared = {"rank": trainer.global_rank, "world": trainer.world_size}
    batches = trainer.datamodule.data.batches("train", epoch=place.epoch, first=place.index, **shared)
    return next(iter(batches)).samples if isinstance(batches, Batches) else ()


def _replay(place: Place, samples: tuple[int, ...]) -> dict[str, Any]:
    whole = place.batch.whole if isinstance(place.batch, Share) else place.batch
    batch = {each.name: getattr(whole, each.name) for each in fields(whole) if each.name != "memo"}
    batch = {name: part.cpu() if isinstance(part, Tensor) else part for name, part in batch.items()}
    batch["extras"] = {name: part.cpu() for name, part in whole.extras.items()}
    # the rest of the memo follows from the batch
    batch["memo"] = {WHOLE_DEGREES: whole.memo[WHOLE_DEGREES].cpu()} if WHOLE_DEGREES in whole.memo else {}
    return {"batch": batch, "samples": list(samples), "epoch": place.epoch, "index": place.index, "seed": place.seed}


def all_finite(gradients: Sequence[Tensor]) -> bool:
    """Whether every number of them is: by one pass where they are alike, which takes a quarter of what a norm takes."""
    if not gradients:
        return True
    alike = len({(type(each), each.device, each.dtype) for each in gradients}) == 1
    if not alike or type(gradients[0]) is not Tensor or gradients[0].is_complex():
        return bool(torch.isfinite(nn.utils.get_total_norm(gradients)))
    infinite, scale = gradients[0].new_zeros(1, dtype=torch.float32), gradients[0].new_ones(1, dtype=torch.float32)
    torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), infinite, scale)
    return not infinite

"""What a layer adds to a state, held against what is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gt.errors import UserError, nearest

STREAMS = ("x", "e", "p", "g")  # of a `gt.layers.base.State`


def fits(step: Sequence[int], rows: Sequence[int]) -> bool:
    """Whether something of a shape can be added to rows of another, and leaves them theirs."""
    beyond = len(rows) - len(step)
    return beyond >= 0 and all(size in (1, own) for size, own in zip(step, rows[beyond:], strict=True))


def check_steps(layer: nn.Module, steps: Any, state: Any) -> None:
    """Whether a layer gives what can be added to a `gt.layers.base.State`.

    Raises:
        UserError: naming the layer.
    """
    if torch.compiler.is_compiling():  # a question about a size would tie what is traced to it
        return
    name = type(layer).__name__
    if not isinstance(steps, Mapping):
        raise UserError(
            f"{name} gives a {type(steps).__name__}: a layer gives what it adds to each stream by name, {{'x': ...}}"
        )
    for stream, step in steps.items():
        if stream not in STREAMS:
            raise UserError(f"{name} gives {stream!r}: {nearest(stream, STREAMS)}")
        rows = getattr(state, stream)
        if rows is not None and rows.shape != step.shape and not fits(step.shape, rows.shape):
            raise UserError(f"{name} gives {tuple(step.shape)} for the stream {stream}, which is {tuple(rows.shape)}")

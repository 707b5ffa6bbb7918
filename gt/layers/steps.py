"""Checks of what a layer adds to a state."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gt.errors import UserError, nearest

STREAMS = ("x", "e", "p", "g")  # of a `gt.layers.base.State`


def broadcasts_to(step: Sequence[int], rows: Sequence[int]) -> bool:
    """Whether a tensor of shape ``step`` broadcasts to shape ``rows``."""
    leading = len(rows) - len(step)
    return leading >= 0 and all(size in (1, row) for size, row in zip(step, rows[leading:], strict=True))


def check_steps(layer: nn.Module, steps: Any, state: Any) -> None:
    """Check that the output of a layer can be added to a `gt.layers.base.State`.

    Raises:
        UserError: it cannot; names the layer.
    """
    if torch.compiler.is_compiling():  # a comparison of sizes would specialise the traced graph to them
        return
    name = type(layer).__name__
    if not isinstance(steps, Mapping):
        raise UserError(
            f"{name} returns a {type(steps).__name__}: return what the layer adds to each stream by name, {{'x': ...}}"
        )
    for stream, step in steps.items():
        if stream not in STREAMS:
            raise UserError(f"{name} returns {stream!r}: {nearest(stream, STREAMS)}")
        rows = getattr(state, stream)
        if rows is not None and rows.shape != step.shape and not broadcasts_to(step.shape, rows.shape):
            raise UserError(f"{name} returns {tuple(step.shape)} for stream {stream}, which is {tuple(rows.shape)}")

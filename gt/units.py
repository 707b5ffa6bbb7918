"""Conversion of numbers between the data's units and standardised ones."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Units(nn.Module):
    """Standardises columns of numbers by their mean and scale.

    Both are stored and applied in float32 whatever the precision of the network: a mean of 1,800 in 16 bits would be
    off by up to 4.

    Args:
        mean, scale: one number per column; empty leaves all columns unchanged.
    """

    moments: Tensor

    def __init__(self, mean: Sequence[float], scale: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("moments", torch.tensor([mean, scale], dtype=torch.float32), persistent=False)
        self._exact = self.moments

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Units":
        super()._apply(fn, recurse)
        self.moments = self._exact.to(self.moments.device)  # moved to the device, but never rounded
        return self

    def shrink(self, values: Tensor) -> Tensor:
        """Convert (rows, columns) from the data's units to standardised ones."""
        if not self.moments.numel():
            return values
        return (values.float() - self.moments[0]) / self.moments[1]

    def restore(self, numbers: Tensor) -> Tensor:
        """Convert (rows, columns) from standardised units to the data's, in at least float32."""
        numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        return numbers * self.moments[1] + self.moments[0] if self.moments.numel() else numbers

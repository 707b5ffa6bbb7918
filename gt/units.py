"""Numbers in units of their own: what a network computes with, and what the data hold."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Units(nn.Module):
    """Columns of numbers, each with a mean and a scale: 0 stands for the mean, 1 for a scale above it.

    They are kept, and computed with, in float32 whatever the precision of the network: a mean of 1,800 in 16 bits is
    off by up to 4.

    Args:
        mean, scale: of each column; none leave all columns as they are.
    """

    moments: Tensor

    def __init__(self, mean: Sequence[float], scale: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("moments", torch.tensor([mean, scale], dtype=torch.float32), persistent=False)
        self._exact = self.moments

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Units":
        super()._apply(fn, recurse)
        self.moments = self._exact.to(self.moments.device)  # moved, but never rounded
        return self

    def shrink(self, values: Tensor) -> Tensor:
        """(rows, columns) in the data's units to the same in these."""
        if not self.moments.numel():
            return values
        return (values.float() - self.moments[0]) / self.moments[1]

    def restore(self, numbers: Tensor) -> Tensor:
        """(rows, columns) in these units to the same in the data's, in float32 at least."""
        numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        return numbers * self.moments[1] + self.moments[0] if self.moments.numel() else numbers

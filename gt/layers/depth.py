"""Aids for deep networks: stochastic depth, LayerScale and jumping knowledge."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gt.graph import GraphBatch
from gt.layers.base import State
from gt.linear import Linear
from gt.masks import Pairs


def stochastic_depth(before: State, after: State, batch: GraphBatch, pairs: Pairs, rate: float) -> State:
    """Stochastic depth (Huang et al. 2016): each graph skips a block with probability ``rate``.

    What the block added to a graph's streams is scaled by 0 or by 1 / (1 - rate), which preserves its expectation. A
    stream that the block created is kept.
    """
    factor = (torch.rand(batch.num_graphs, device=batch.device) >= rate) / (1 - rate)
    new: dict[str, Any] = {}
    for name in ("x", "e", "p", "g"):
        old, current = getattr(before, name), getattr(after, name)
        if old is not None and current is not old:
            row_factor = factor if name == "g" else factor[batch.batch]
            if name in ("e", "p"):
                row_factor = row_factor[(batch.edge_index if name == "e" else pairs.edges)[1]]
            new[name] = old + row_factor.to(current.dtype)[:, None] * (current - old)
    return replace(after, **new)


class LayerScale(nn.Module):
    """A learned factor for each channel, all initialised to the same value (Touvron et al. 2021)."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), initial))

    def forward(self, rows: Tensor) -> Tensor:
        """(rows, width) to the same."""
        return rows * self.weight


class JumpConcatenate(nn.Module):
    """Jumping knowledge (Xu et al. 2018): a linear map of the concatenated states after every block.

    Args:
        width: channels of a node.
        depth: number of blocks.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.linear = Linear(depth * width, width)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """The states (N, width) after each block to (N, width)."""
        return self.linear(torch.cat(list(states), dim=1))


class JumpMax(nn.Module):
    """Jumping knowledge (Xu et al. 2018): the maximum of each channel over the states after every block."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """The states (N, width) after each block to (N, width)."""
        return torch.stack(list(states)).amax(0)

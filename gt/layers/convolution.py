"""The block of classic graph neural networks: convolve, normalise, activate, drop, add."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.layers.base import Composite, State
from gt.masks import Pairs
from gt.norms import normalised


class ConvolutionBlock(Composite):
    """``x + Dropout(activation(norm(local(x))))``, each part of it optional (Luo et al. 2024); no attention.

    Args:
        width: channels of a node.
        local: makes the message passing from the width, see `gt.layers.local`; one that brings its own norm and skip
            connection, as GatedGCN does, is for `gt.layers.ParallelBlock`.
        norm: makes a normalisation of (N, width); None leaves it out.
        activation: makes the activation; None leaves it out.
        dropout: on what is added.
        residual: whether x is added, or replaced.

    Raises:
        ValueError: ``local`` brings its own norm and skip connection.
    """

    def __init__(
        self,
        width: int,
        local: Callable[[int], nn.Module],
        norm: Callable[[int], nn.Module] | None = None,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        dropout: float = 0.0,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.local: Any = local(width)
        if getattr(self.local, "residual", False):
            raise ValueError(f"{type(self.local).__name__} has a skip connection of its own: choose ParallelBlock")
        self.norm = norm(width) if norm else nn.Identity()
        self.activation = activation() if activation else nn.Identity()
        self.dropout, self.residual = Dropout(dropout), residual

    @property
    def members(self) -> list[nn.Module]:
        return [self.local]

    @property
    def norms(self) -> list[nn.Module]:
        return [self.norm]

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        steps = self.local(state, batch, pairs)
        new = self.dropout(self.activation(normalised(self.norm, steps["x"], batch)))
        return replace(state.plus(steps), x=state.x + new if self.residual else new)

"""The block of classic graph neural networks: convolve, normalise, activate, drop, add; then a feed-forward network."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.layers.base import Composite, Residual, State
from gt.masks import Pairs
from gt.norms import normalised

Factory = Callable[[int], nn.Module]


class ConvolutionBlock(Composite):
    """``y = x + Dropout(activation(norm(local(x))))``, each part of it optional (Luo et al. 2024); no attention.

    With a feed-forward network ``norm(z + FFN(z))`` of ``z = norm(y)`` follows: GNN+ (Luo et al. 2025).

    Args:
        width: channels of a node.
        local: makes the message passing from the width, see `gt.layers.local`; one that brings its own norm, ReLU and
            dropout, as GatedGCN does, is left with them.
        norm: makes a normalisation of (N, width); None leaves it out.
        activation: makes the activation of what the convolution gives; None leaves it out.
        dropout: on what is added.
        residual: whether what the convolution gives is added to what it read, or replaces it.
        feed_forward: makes the feed-forward network; None leaves it out, and both of its norms.

    Raises:
        ValueError: another activation for a ``local`` that brings its own.
    """

    def __init__(
        self,
        width: int,
        local: Factory,
        norm: Factory | None = None,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        dropout: float = 0.0,
        residual: bool = True,
        feed_forward: Factory | None = None,
    ) -> None:
        super().__init__()
        self.local: Any = local(width)
        self.finished = getattr(self.local, "residual", False)  # normalised, activated and dropped by itself
        normalisation: Factory = norm or nn.Identity
        self.norm = nn.Identity() if self.finished else normalisation(width)
        self.activation = activation() if activation else nn.Identity()
        if self.finished and not isinstance(self.activation, nn.ReLU):
            raise ValueError(f"{type(self.local).__name__} has a ReLU of its own: leave activation as it is")
        self.dropout, self.residual = Dropout(dropout), residual
        self.norm_feed_forward = normalisation(width) if feed_forward else nn.Identity()
        self.feed_forward = Residual(width, feed_forward, normalisation) if feed_forward else None

    @property
    def members(self) -> list[nn.Module]:
        return [self.local] if self.feed_forward is None else [self.local, self.feed_forward]

    @property
    def norms(self) -> list[nn.Module]:
        return [self.norm, self.norm_feed_forward]

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        steps = self.local(state, batch, pairs)
        if not self.finished:
            steps = steps | {"x": self.dropout(self.activation(normalised(self.norm, steps["x"], batch)))}
        state = state.plus(steps) if self.residual else replace(state, **steps)
        if self.feed_forward is None:
            return state
        return self.feed_forward(replace(state, x=normalised(self.norm_feed_forward, state.x, batch)), batch, pairs)

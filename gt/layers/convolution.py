"""The block of classic graph neural networks: convolve, normalise, activate, drop, add; then a feed-forward network."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.layers.base import Composite, Residual, State
from gt.masks import Pairs
from gt.norms import apply_norm

Factory = Callable[[int], nn.Module]


class ConvolutionBlock(Composite):
    """``y = x + Dropout(activation(norm(local(x))))``, all parts optional (Luo et al. 2024); no attention.

    A feed-forward network, if any, then computes ``norm(z + FFN(z))`` of ``z = norm(y)``: GNN+ (Luo et al. 2025).

    Args:
        width: channels of a node.
        local: builds the message passing from the width, see `gt.layers.local`; a layer with its own norm, ReLU and
            dropout, such as GatedGCN, keeps them and gets no others.
        norm: builds a normalisation of (N, width); None omits it.
        activation: builds the activation after the convolution; None omits it.
        dropout: on what is added.
        residual: add the output of the convolution to its input; else replace the input.
        feed_forward: builds the feed-forward network; None omits it and both of its norms.

    Raises:
        ValueError: an activation other than ReLU for a ``local`` that has its own.
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
        self.finished = getattr(self.local, "residual", False)  # it applies its own norm, activation and dropout
        normalisation: Factory = norm or nn.Identity
        self.norm = nn.Identity() if self.finished else normalisation(width)
        self.activation = activation() if activation else nn.Identity()
        if self.finished and not isinstance(self.activation, nn.ReLU):
            raise ValueError(f"{type(self.local).__name__} has its own ReLU: leave activation at its default")
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
            steps = steps | {"x": self.dropout(self.activation(apply_norm(self.norm, steps["x"], batch)))}
        state = state.plus(steps) if self.residual else replace(state, **steps)
        if self.feed_forward is None:
            return state
        return self.feed_forward(replace(state, x=apply_norm(self.norm_feed_forward, state.x, batch)), batch, pairs)

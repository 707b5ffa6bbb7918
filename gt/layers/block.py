"""A block: a local branch and a global branch, blended, then a feed-forward network."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gt.dropout import Dropout
from gt.encodings import EncodingModule
from gt.graph import GraphBatch
from gt.layers.attention import Attention
from gt.layers.base import Layer
from gt.masks import Pairs
from gt.norms import normalised
from gt.ranges import positive

Factory = Callable[[int], nn.Module]


class Blend(nn.Module):
    """``2 (1 - w) local + 2 w global``: w = 0 is a pure GNN, 1 a pure Transformer, 0.5 the plain sum of GPS.

    Args:
        weight: the share w of the global branch, in [0, 1]; in (0, 1) where it is learned.
        learned: whether w is trained (as the sigmoid of one parameter) or fixed.
    """

    def __init__(self, weight: float = 0.5, learned: bool = False) -> None:
        super().__init__()
        low, high = (1e-6, 1 - 1e-6) if learned else (0.0, 1.0)
        if not low <= weight <= high:
            raise ValueError(f"a {'learned' if learned else 'fixed'} blend weight cannot be {weight}")
        self.fixed = None if learned else weight
        self.logit = nn.Parameter(torch.tensor(math.log(weight / (1 - weight)))) if learned else None

    @property
    def weight(self) -> Tensor | float:
        """The share of the global branch."""
        return self.logit.sigmoid() if self.logit is not None else self.fixed  # type: ignore[return-value]

    def scales(self) -> tuple[Tensor | float, Tensor | float]:
        """The factors of the local and of the global branch."""
        return 2 * (1 - self.weight), 2 * self.weight


class FeedForward(Layer):
    """Two linear maps around an activation; ``ratio`` times as wide inside."""

    reads = "self"

    def __init__(
        self,
        width: int,
        ratio: float = 2.0,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        bias: bool = True,
    ) -> None:
        super().__init__()
        positive(ratio, "ratio")
        inner = max(1, int(width * ratio))
        self.expand, self.project_out = nn.Linear(width, inner, bias), nn.Linear(inner, width, bias)
        self.activation, self.dropout = activation(), Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width) to (N, width)."""
        return self.dropout(self.project_out(self.dropout(self.activation(self.expand(x)))))


class Block(Layer):
    """What both blends share: the branches, a norm and a blend weight for each, a feed-forward network.

    Args:
        width: channels of a node.
        local: makes the message-passing branch from the width, see `gt.layers.local`; None leaves it out.
        attention: makes the global branch; None leaves it out.
        feed_forward: makes the feed-forward network; None leaves it out.
        norm: makes a normalisation of (N, width).
        blend: makes the blend of both branches; without both of them there is nothing to blend.
        prenorm: normalise what a branch reads (GPT-2) instead of what it leaves (Vaswani et al. 2017, GPS).
        dropout: on what each branch adds to the residual stream.
    """

    norm_local: nn.Module
    norm_attention: nn.Module
    norm_feed_forward: nn.Module

    def __init__(
        self,
        width: int,
        local: Factory | None = None,
        attention: Factory | None = None,
        feed_forward: Factory | None = None,
        norm: Factory = nn.BatchNorm1d,
        blend: Callable[[], Blend] = Blend,
        prenorm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.local = local(width) if local else None
        self.attention = attention(width) if attention else None
        self.feed_forward = feed_forward(width) if feed_forward else None
        self.blend = blend() if local and attention else None
        for name in ("local", "attention", "feed_forward"):
            setattr(self, f"norm_{name}", norm(width) if getattr(self, name) is not None else None)
        self.prenorm, self.dropout = prenorm, Dropout(dropout)

    @property
    def parts(self) -> list[nn.Module]:
        return [part for part in (self.local, self.attention, self.feed_forward) if part is not None]

    def scales(self) -> tuple[Tensor | float, Tensor | float]:
        """The factors of the local and of the global branch."""
        return self.blend.scales() if self.blend is not None else (1.0, 1.0)

    def local_step(self, x: Tensor, e: Tensor | None, batch: GraphBatch) -> tuple[Tensor, Tensor | None]:
        """What the local branch adds to x (prenorm: of the normalised x), and the new e."""
        assert self.local is not None
        new, e = self.local(x, e, batch)
        return (new - x if self.local.residual else self.dropout(new)), e

    def read(self, norm: nn.Module, x: Tensor, batch: GraphBatch) -> Tensor:
        """What a branch with this norm reads of x."""
        return normalised(norm, x, batch.node_mask) if self.prenorm else x

    def left(self, norm: nn.Module, x: Tensor, batch: GraphBatch) -> Tensor:
        """What is left of x, to which the branch with this norm has added its step."""
        return x if self.prenorm else normalised(norm, x, batch.node_mask)

    def feed(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """The feed-forward step, with its norm and residual."""
        if self.feed_forward is None:
            return x
        step = self.feed_forward(self.read(self.norm_feed_forward, x, batch))
        return self.left(self.norm_feed_forward, x + step, batch)


class ParallelBlock(Block):
    """Both branches read the same x and their results are blended (GPS, Rampasek et al. 2022)."""

    def forward(
        self,
        x: Tensor,
        e: Tensor | None,
        batch: GraphBatch,
        pairs: Pairs,
        encodings: Sequence[EncodingModule] = (),
    ) -> tuple[Tensor, Tensor | None]:
        """(N, width) and (E, width) or None to the same."""
        of_local, of_global = self.scales()
        streams = []
        new_e = e
        if self.local is not None:
            step, new_e = self.local_step(self.read(self.norm_local, x, batch), e, batch)
            streams.append(of_local * (step if self.prenorm else self.left(self.norm_local, x + step, batch)))
        if self.attention is not None:
            step = self.dropout(self.attention(self.read(self.norm_attention, x, batch), pairs, encodings, e))
            streams.append(of_global * (step if self.prenorm else self.left(self.norm_attention, x + step, batch)))
        if streams:
            total = streams[0] if len(streams) == 1 else streams[0] + streams[1]
            x = x + total if self.prenorm else total
        return self.feed(x, batch), new_e


class SequentialBlock(Block):
    """The local branch first, then attention over what it left."""

    def forward(
        self,
        x: Tensor,
        e: Tensor | None,
        batch: GraphBatch,
        pairs: Pairs,
        encodings: Sequence[EncodingModule] = (),
    ) -> tuple[Tensor, Tensor | None]:
        """(N, width) and (E, width) or None to the same."""
        of_local, of_global = self.scales()
        if self.local is not None:
            step, e = self.local_step(self.read(self.norm_local, x, batch), e, batch)
            x = self.left(self.norm_local, x + of_local * step, batch)
        if self.attention is not None:
            step = self.dropout(self.attention(self.read(self.norm_attention, x, batch), pairs, encodings, e))
            x = self.left(self.norm_attention, x + of_global * step, batch)
        return self.feed(x, batch), e


def attention_layers(net: nn.Module) -> list[tuple[str, Attention]]:
    """Every attention layer of a network with its name, in order."""
    return [(name, layer) for name, layer in net.named_modules() if isinstance(layer, Attention)]

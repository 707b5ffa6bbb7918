"""A block: a local branch and a global branch, blended, then a feed-forward network."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.layers.attention import Attention
from gt.layers.base import Chain, Layer, Parallel, Residual, State
from gt.layers.depth import LayerScale
from gt.linear import Linear
from gt.masks import Pairs
from gt.ranges import positive

Factory = Callable[[int], nn.Module]


class Blend(nn.Module):
    """``2 (1 - w) local + 2 w global``: w = 0 is a pure GNN, 1 a pure Transformer, 0.5 the plain sum of GPS.

    Args:
        weight: the share w of the global branch, in [0, 1]; in (0, 1) where it is learned.
        learned: whether w is trained (as the sigmoid of one parameter) or fixed.
    """

    reads = "self"

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

    def forward(self, state: State, batch: GraphBatch) -> tuple[Tensor | float, Tensor | float]:
        """The factors of the local and of the global branch."""
        return 2 * (1 - self.weight), 2 * self.weight


class GatedBlend(nn.Module):
    """The blend of `Blend` with a weight of its own for each node and channel: ``w = sigmoid(W x + b)``, at first 0.5.

    Args:
        width: channels of a node.
    """

    reads = "self"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = Linear(width, width)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, state: State, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """The factors (N, width) of the local and of the global branch."""
        weight = self.gate(state.x).sigmoid()
        return 2 * (1 - weight), 2 * weight


class FeedForward(Layer):
    """Two linear maps around an activation; ``ratio`` times as wide inside.

    Args:
        gated: the activation of a linear map scales another channel by channel (GLU, Shazeer 2020), which with SiLU is
            SwiGLU; the first map gives both.
    """

    reads = "self"

    def __init__(
        self,
        width: int,
        ratio: float = 2.0,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        bias: bool = True,
        gated: bool = False,
    ) -> None:
        super().__init__()
        positive(ratio, "ratio")
        inner = max(1, int(width * ratio))
        self.expand, self.project_out = Linear(width, inner * (1 + gated), bias), Linear(inner, width, bias)
        self.gated = gated
        self.activation, self.dropout = activation(), Dropout(dropout)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        return {"x": self.map(state.x)}

    def map(self, x: Tensor) -> Tensor:
        """(rows, width) to the same."""
        inner = self.expand(x)
        if self.gated:
            gate, inner = inner.chunk(2, dim=1)
            inner = self.activation(gate) * inner
        else:
            inner = self.activation(inner)
        return self.dropout(self.project_out(self.dropout(inner)))


class Block(Chain):
    """What both blends share: the branches, a norm for each and a blend, a feed-forward network.

    Args:
        width: channels of a node.
        local: makes the message-passing branch from the width, see `gt.layers.local`; None leaves it out.
        attention: makes the global branch; None leaves it out.
        feed_forward: makes the feed-forward network; None leaves it out.
        norm: makes a normalisation of (N, width).
        blend: makes the blend of both branches; without both of them there is nothing to blend.
        prenorm: normalise what a branch reads (GPT-2) instead of what it leaves (Vaswani et al. 2017, GPS).
        dropout: on what each branch adds to the residual stream.
        layer_scale: what the learned scale of each channel of what a branch, or the feed-forward network, adds begins
            at (Touvron et al. 2021); None: there is none.
    """

    def __init__(
        self,
        width: int,
        local: Factory | None = None,
        attention: Factory | None = None,
        feed_forward: Factory | None = None,
        norm: Factory = nn.BatchNorm1d,
        blend: Callable[[], nn.Module] = Blend,
        prenorm: bool = False,
        dropout: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__(width, {})
        self.local = local(width) if local else None
        self.attention = attention(width) if attention else None
        self.feed_forward = feed_forward(width) if feed_forward else None
        self.blend: Any = blend() if local and attention else None
        for name in ("local", "attention", "feed_forward"):
            there = getattr(self, name) is not None
            setattr(self, f"norm_{name}", norm(width) if there else None)
            scale = LayerScale(width, layer_scale) if there and layer_scale is not None else None
            setattr(self, f"scale_{name}", scale)
        self.width, self.prenorm, self.dropout = width, prenorm, Dropout(dropout)
        self._join()

    def __setattr__(self, name: str, value: Any) -> None:
        """A part that is put in another's place takes it within the steps, too."""
        super().__setattr__(name, value)
        if name in self._modules and self.steps:
            self._join()

    def _join(self) -> None:
        """Make the steps out of the parts."""
        branches = {
            name: self._residual(name, self.dropout)
            for name in ("local", "attention")
            if getattr(self, name) is not None
        }
        steps = self.joined(self.width, branches)
        if self.feed_forward is not None:
            steps["feed_forward"] = self._residual("feed_forward", 0.0)
        self.steps = steps  # a plain dictionary, which registers nothing: parameters go by the names of parts alone

    def _residual(self, name: str, dropout: float | nn.Module) -> Residual:
        layer, norm, scale = (getattr(self, part) for part in (name, f"norm_{name}", f"scale_{name}"))
        return Residual(self.width, layer, norm, self.prenorm, dropout, scale)

    def joined(self, width: int, branches: dict[str, Residual]) -> dict[str, nn.Module]:
        """The steps that the branches, two at most, make together."""
        raise NotImplementedError


class ParallelBlock(Block):
    """Both branches read the same x and their results are blended (GPS, Rampasek et al. 2022)."""

    def joined(self, width: int, branches: dict[str, Residual]) -> dict[str, nn.Module]:
        return {**branches} if len(branches) < 2 else {"mix": Parallel(width, branches, self.blend)}


class SequentialBlock(Block):
    """The local branch first, then attention over what it left."""

    def joined(self, width: int, branches: dict[str, Residual]) -> dict[str, nn.Module]:
        for place, branch in enumerate(branches.values() if len(branches) > 1 else ()):
            branch.blend, branch.place = self.blend, place
        return {**branches}


def attention_layers(net: nn.Module) -> list[tuple[str, Attention]]:
    """Every attention layer of a network with its name, in order."""
    return [(name, layer) for name, layer in net.named_modules() if isinstance(layer, Attention)]


def in_turn(block: Factory | Sequence[Factory] | Mapping[str, Factory], pattern: str | Sequence[str]) -> list[Factory]:
    """The blocks that take turns, in order: see `gt.model.GraphTransformer`."""
    if not isinstance(block, Mapping):
        if pattern:
            raise ValueError("pattern spells blocks by name: let block be a section for each name")
        return list(block) if isinstance(block, Sequence) else [block]
    names = list(pattern or block)
    if unknown := [name for name in names if name not in block]:
        raise ValueError(f"pattern: there is no block '{unknown[0]}': there are {', '.join(block)}")
    return [block[name] for name in names]

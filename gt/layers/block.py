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
    """`Blend` with a weight for each node and channel, ``w = sigmoid(W x + b)``, initialised to 0.5.

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
    """Two linear maps around an activation; the hidden layer is ``ratio`` times as wide.

    Args:
        gated: multiply each hidden channel by the activation of another (GLU, Shazeer 2020; with SiLU: SwiGLU); the
            first map computes both.
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
    """Base class of blocks: a local and a global branch with their norms and a blend, then a feed-forward network.

    Args:
        width: channels of a node.
        local: builds the message-passing branch from the width, see `gt.layers.local`; None omits it.
        attention: builds the global branch; None omits it.
        feed_forward: builds the feed-forward network; None omits it.
        norm: builds a normalisation of (N, width).
        blend: builds the blend of the branches; unused unless there are both.
        prenorm: normalise the input of a branch (GPT-2) instead of the sum (Vaswani et al. 2017, GPS).
        dropout: on what each branch adds to the residual stream.
        layer_scale: initial value of a learned scale for each channel that a branch or the feed-forward network adds
            (LayerScale, Touvron et al. 2021); None for no scale.
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
            present = getattr(self, name) is not None
            setattr(self, f"norm_{name}", norm(width) if present else None)
            scale = LayerScale(width, layer_scale) if present and layer_scale is not None else None
            setattr(self, f"scale_{name}", scale)
        self.width, self.prenorm, self.dropout = width, prenorm, Dropout(dropout)
        self._build_steps()

    def __setattr__(self, name: str, value: Any) -> None:
        """Rebuild the steps when a part is replaced."""
        super().__setattr__(name, value)
        if name in self._modules and self.steps:
            self._build_steps()

    def _build_steps(self) -> None:
        """Assemble the steps from the parts."""
        branches = {
            name: self._residual(name, self.dropout)
            for name in ("local", "attention")
            if getattr(self, name) is not None
        }
        steps = self.arrange(self.width, branches)
        if self.feed_forward is not None:
            steps["feed_forward"] = self._residual("feed_forward", 0.0)
        self.steps = steps  # a plain dictionary, so that parameters are registered under the parts' names only

    def _residual(self, name: str, dropout: float | nn.Module) -> Residual:
        layer, norm, scale = (getattr(self, part) for part in (name, f"norm_{name}", f"scale_{name}"))
        return Residual(self.width, layer, norm, self.prenorm, dropout, scale)

    def arrange(self, width: int, branches: dict[str, Residual]) -> dict[str, nn.Module]:
        """The steps that apply the branches, of which there are at most two."""
        raise NotImplementedError


class ParallelBlock(Block):
    """Both branches read the same x and their outputs are blended (GPS, Rampasek et al. 2022)."""

    def arrange(self, width: int, branches: dict[str, Residual]) -> dict[str, nn.Module]:
        return {**branches} if len(branches) < 2 else {"mix": Parallel(width, branches, self.blend)}


class SequentialBlock(Block):
    """The local branch first, then attention over its output."""

    def arrange(self, width: int, branches: dict[str, Residual]) -> dict[str, nn.Module]:
        for index, branch in enumerate(branches.values() if len(branches) > 1 else ()):
            branch.blend, branch.branch_index = self.blend, index
        return {**branches}


def attention_layers(net: nn.Module) -> list[tuple[str, Attention]]:
    """The attention layers of a network with their names, in order."""
    return [(name, layer) for name, layer in net.named_modules() if isinstance(layer, Attention)]


def block_cycle(
    block: Factory | Sequence[Factory] | Mapping[str, Factory], pattern: str | Sequence[str]
) -> list[Factory]:
    """The block factories of one cycle over the depth, see `gt.model.GraphTransformer`."""
    if not isinstance(block, Mapping):
        if pattern:
            raise ValueError("pattern refers to blocks by name: make block a section with an entry for each name")
        return list(block) if isinstance(block, Sequence) else [block]
    names = list(pattern or block)
    if unknown := [name for name in names if name not in block]:
        raise ValueError(f"pattern: unknown block '{unknown[0]}': choose from {', '.join(block)}")
    return [block[name] for name in names]

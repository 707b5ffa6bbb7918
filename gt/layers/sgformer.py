"""SGFormer: one layer of simple global attention beside a stack of convolutions (Wu et al. 2023)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.layers.base import Composite, Layer, State
from gt.layers.linear import linear_attention, require_complete
from gt.linear import Linear
from gt.masks import Pairs
from gt.norms import apply_norm
from gt.ranges import at_least, up_to_one

Factory = Callable[[int], nn.Module]


class SimpleAttention(Layer):
    """``[v_i + q_i (K^T V) / n] / [1 + q_i (K^T 1) / n]``, Q and K divided by their norm over a graph, of n nodes.

    Args:
        width: channels of a node.
        heads: number of heads, each as wide as the layer; their outputs are averaged.

    Raises:
        UserError: when run, a mask other than ``Complete()``.
    """

    reads, reads_edges, reads_pairs = "graph", False, False
    cost = "N"

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        at_least(1, heads, "heads")
        self.heads = heads
        self.project_in = Linear(width, 3 * heads * width)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        require_complete(pairs, "SimpleAttention")
        rows = self.project_in(state.x).unflatten(1, (3, self.heads, -1))
        high = torch.promote_types(rows.dtype, torch.float32)
        q, k, v = (batch.to_dense(t) for t in rows.to(high).unbind(1))  # (B, L, H, d)
        q, k = (F.normalize(t.flatten(1), dim=1).view_as(t) for t in (q, k))
        nodes = batch.sizes.clamp(min=1)[:, None, None, None]
        out = linear_attention(q, k, F.pad(v, (0, 1), value=1.0)) / nodes  # padding has zero keys, so it adds nothing
        y = (v + out[..., :-1]) / (1 + out[..., -1:])
        return {"x": batch.to_packed(y).mean(1).type_as(state.x)}


class SGFormerBlock(Composite):
    """``(1 - w) Z + w GNN(x)`` with ``Z = norm(b attention(x) + (1 - b) x)``: the whole network as one block (depth 1).

    Args:
        width: channels of a node.
        convolution: builds one block of the GNN from the width, such as a `gt.layers.ConvolutionBlock`.
        layers: number of such blocks.
        attention: builds the global layer.
        norm: builds a normalisation of (N, width).
        weight: the share w of the GNN.
        mix: the share b of attention in the global branch.
        dropout: on the global branch.
    """

    def __init__(
        self,
        width: int,
        convolution: Factory,
        layers: int = 2,
        attention: Factory = SimpleAttention,
        norm: Factory = nn.LayerNorm,
        weight: float = 0.5,
        mix: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(0, layers, "layers")
        for name, value in (("weight", weight), ("mix", mix)):
            up_to_one(value, name)
        self.convolutions: Any = nn.ModuleList(convolution(width) for _ in range(layers))
        self.attention, self.norm, self.dropout = attention(width), norm(width), Dropout(dropout)
        self.weight, self.mix = weight, mix

    @property
    def members(self) -> list[nn.Module]:
        return [self.attention, *self.convolutions]

    @property
    def norms(self) -> list[nn.Module]:
        return [self.norm]

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        read = self.mix * self.attention(state, batch, pairs)["x"] + (1 - self.mix) * state.x
        global_ = self.dropout(apply_norm(self.norm, read, batch))
        for convolution in self.convolutions:
            state = convolution(state, batch, pairs)
        return replace(state, x=self.weight * state.x + (1 - self.weight) * global_)

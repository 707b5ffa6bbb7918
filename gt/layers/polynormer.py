"""Polynormer: polynomials of node features, first along edges, then over the whole graph (Deng et al. 2024)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.layers.base import Composite, Layer, State
from gt.layers.linear import normalised_linear_attention, require_complete
from gt.linear import Linear
from gt.masks import Pairs
from gt.ranges import at_least, divides


class PolynomialAttention(Layer):
    """``LN(linear attention(x)) * (H x + b)``, where queries and keys are both ``sigmoid(K x)``.

    Args:
        width: channels of a node.
        heads: number of heads; must divide the width.

    Raises:
        UserError: when run, a mask other than ``Complete()``.
    """

    reads, reads_edges, reads_pairs = "graph", False, False
    cost = "N"

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        divides(heads, width)
        self.heads = heads
        self.gate, self.key, self.value = (Linear(width, width) for _ in range(3))
        self.norm, self.logit = nn.LayerNorm(width), nn.Parameter(torch.zeros(width))

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        require_complete(pairs, "PolynomialAttention")
        high = torch.promote_types(state.x.dtype, torch.float32)
        k, v = (rows.unflatten(1, (self.heads, -1)).to(high) for rows in (self.key(state.x), self.value(state.x)))
        k = k.sigmoid()
        read = normalised_linear_attention(k, k, v, batch).flatten(1).type_as(state.x)
        return {"x": self.norm(read) * (self.gate(state.x) + self.logit.sigmoid())}


class PolynormerBlock(Composite):
    """The whole network as one block (depth 1): local layers, whose outputs are summed, then global ones.

    Local: ``z = ReLU(conv(x) + W x)``, ``x' = (1 - b) LN(ReLU(H x) * z) + b z``; global: ``ReLU(W attention(x))``,
    with the same ``W`` in every layer.

    Args:
        width: channels of a node.
        local: builds the message passing from the width, see `gt.layers.local`.
        local_layers, global_layers: how many of each.
        heads: of the attention.
        dropout: after each layer.
    """

    def __init__(
        self,
        width: int,
        local: Callable[[int], nn.Module],
        local_layers: int = 5,
        global_layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(1, local_layers, "local_layers")
        at_least(1, global_layers, "global_layers")
        self.local: Any = nn.ModuleList(local(width) for _ in range(local_layers))
        self.gates, self.maps = (nn.ModuleList(Linear(width, width) for _ in range(local_layers)) for _ in range(2))
        self.local_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(local_layers))
        self.logits = nn.ParameterList(torch.zeros(width) for _ in range(local_layers))
        self.norm = nn.LayerNorm(width)
        self.attention: Any = nn.ModuleList(PolynomialAttention(width, heads) for _ in range(global_layers))
        self.project_out = Linear(width, width)  # shared by all global layers, as in the authors' code
        self.dropout = Dropout(dropout)

    @property
    def members(self) -> list[nn.Module]:
        return [*self.local, *self.attention]

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        total = torch.zeros_like(state.x)
        parts = zip(self.local, self.gates, self.maps, self.local_norms, self.logits, strict=True)
        for local, gate, skip, norm, logit in parts:
            steps = local(state, batch, pairs)
            z = self.dropout((steps["x"] + skip(state.x)).relu())
            x = torch.lerp(norm(gate(state.x).relu() * z), z, logit.sigmoid().to(z.dtype))
            state, total = replace(state.plus(steps), x=x), total + x
        state = replace(state, x=self.norm(total))
        for attention in self.attention:
            read = attention(state, batch, pairs)["x"]
            state = replace(state, x=self.dropout(self.project_out(read).relu()))
        return state

"""The layer of EGT: *Global Self-Attention as a Replacement for Graph Convolution*, Hussain et al. 2022."""

import math

from torch import Tensor

from gt.dropout import dropout
from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.layers.pairs import softmax_of, state_of, sum_by_reader
from gt.linear import Linear
from gt.masks import Pairs, WideBatch
from gt.ranges import below_one, divides


class EGT(Layer):
    """Attention with a bias and a gate from the state of each pair, which is updated by the scores.

    ``s_ij = clamp(q_i . k_j / sqrt(D), -5, 5) + b_ij``, weights ``softmax_j(s_ij) sigmoid(g_ij)``, b and g linear in
    the state of the pair. The output of a node, except virtual ones, is scaled by ``log(1 + sum_j sigmoid(g_ij))``;
    pairs add a linear map of s.

    Args:
        width: channels of a node and of a pair.
        heads: number of heads; must divide the width.
        attention_dropout: probability of dropping an attention weight.
        clamp: bound on the absolute value of the dot products.
    """

    reads, writes, reads_edges = "pairs", ("x", "p"), False

    def __init__(self, width: int, heads: int = 8, attention_dropout: float = 0.0, clamp: float = 5.0) -> None:
        super().__init__()
        below_one(attention_dropout, "attention_dropout")
        divides(heads, width)
        self.heads, self.clamp, self.attention_dropout = heads, clamp, attention_dropout
        self.project_in, self.of_pair = Linear(width, 3 * width), Linear(width, 2 * heads)
        self.project_out, self.project_pair_out = Linear(width, width), Linear(heads, width)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        source, target = pairs.edges
        q, k, v = self.project_in(state.x).unflatten(1, (3, self.heads, -1)).unbind(1)  # (N, H, D)
        bias, gate = self.of_pair(state_of(state, pairs)).chunk(2, dim=1)  # (P, H)
        product = (q.index_select(0, target) * k.index_select(0, source)).sum(-1) / math.sqrt(q.shape[-1])
        scores, gate = product.clamp(-self.clamp, self.clamp) + bias, gate.sigmoid()
        if pairs.edge_heads is not None:
            gate = gate * pairs.edge_heads
        weights = dropout(softmax_of(scores, pairs) * gate, self.attention_dropout, self.training)
        scale = sum_by_reader(gate, pairs).log1p()
        if isinstance(batch, WideBatch):
            scale = scale.index_fill(0, batch.virtual.flatten(), 1.0)
        read = sum_by_reader(weights[..., None] * v.index_select(0, source), pairs) * scale[..., None]
        return {"x": self.project_out(read.flatten(1)), "p": self.project_pair_out(scores)}

"""The layer of GRASS: *Graph Attention with Stochastic Structures*, Liao & Poczos 2024 (arXiv 2407.05649)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.dropout import dropout
from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.layers.pairs import largest_of, state_of
from gt.linear import Linear
from gt.masks import Pairs
from gt.ranges import below_one, positive

EPS = 1e-7


class GRASS(Layer):
    """Channel-wise attention weighted by the state of each pair alone; both streams are updated in the same way.

    ``w_ij = exp(C p_ij - max_j C p_ij) + sqrt(eps)`` for each channel, ``r_i = sum_j w_ij (B x_j + D p_ij) /
    sum_j w_ij``; the nodes add ``scale O mish(A x_i + r_i + b)`` and pairs ``scale O' mish(E x_j + F x_i + G p_ij +
    b')``. For random pairs that are resampled at each step see ``redraw`` of `gt.model.GraphTransformer`.

    Args:
        width: channels of a node and of a pair.
        scale: of what is added to both streams.
        attention_dropout: probability of dropping an attention weight.
        reverse: reverse the pairs, so that sources read targets: GRASS reverses them after each layer.
    """

    reads, writes, reads_edges = "pairs", ("x", "p"), False

    def __init__(self, width: int, scale: float = 0.2, attention_dropout: float = 0.0, reverse: bool = False) -> None:
        super().__init__()
        positive(scale, "scale")
        below_one(attention_dropout, "attention_dropout")
        self.scale, self.attention_dropout, self.reverse = scale, attention_dropout, reverse
        if reverse:
            self.reads, self.cost = "graph", "P"  # reversed pairs may lie outside the mask
        self.of_node = Linear(width, 4 * width, bias=False)
        self.of_pair = Linear(width, 3 * width, bias=False)
        self.bias = nn.ParameterDict({stream: torch.zeros(width) for stream in self.writes})
        self.project_out = nn.ModuleDict({stream: Linear(width, width, bias=False) for stream in self.writes})

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        p = state_of(state, pairs)
        source, target = pairs.edges.flip(0) if self.reverse else pairs.edges
        self_term, values, source_term, target_term = self.of_node(state.x).chunk(4, dim=1)  # (N, d)
        pair_term, pair_values, scores = self.of_pair(p).chunk(3, dim=1)  # (P, d)
        weights = (scores - largest_of(scores, target, batch.num_nodes)).exp()
        weights = dropout(weights, self.attention_dropout, self.training) + EPS**0.5
        zeros = torch.zeros_like(self_term)
        mean = zeros.index_add(0, target, weights * (values.index_select(0, source) + pair_values))
        mean = mean / (zeros.index_add(0, target, weights) + EPS)
        ends = source_term.index_select(0, source) + target_term.index_select(0, target)
        steps = {"x": self_term + mean + self.bias["x"], "p": ends + pair_term + self.bias["p"]}
        return {stream: self.scale * self.project_out[stream](F.mish(step)) for stream, step in steps.items()}

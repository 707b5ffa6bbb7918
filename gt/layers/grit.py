"""The layer of GRIT: *Graph Inductive Biases in Transformers without Message Passing*, Ma et al. 2023."""

import torch
from torch import Tensor, nn

from gt.dropout import Dropout, dropout
from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.layers.pairs import softmax_of, state_of, sum_by_reader
from gt.linear import Linear
from gt.masks import Pairs
from gt.ranges import below_one, divides
from gt.sums import whole_degree


class GRIT(Layer):
    """Attention with scores computed from the state of each pair, which its two nodes update.

    ``p^_ij = ReLU(r((q_i + k_j) * W p_ij) + W' p_ij)`` with ``r(s) = sqrt(ReLU(s)) - sqrt(ReLU(-s))``, weights
    ``softmax_j(clamp(a . p^_ij, -5, 5))`` and output ``h_i = sum_j w_ij (v_j + V p^_ij)`` for each head; the nodes add
    ``O (t * h + log(1 + degree) t' * h)``, with degrees of the input graph, and pairs ``O' p^``.

    Args:
        width: channels of a node and of a pair.
        heads: number of heads; must divide the width.
        dropout: on the updates of both streams.
        attention_dropout: probability of dropping an attention weight.
        clamp: bound on the absolute value of the scores.
    """

    reads, writes, residual, reads_edges = "pairs", ("x", "p"), True, False

    def __init__(
        self, width: int, heads: int = 8, dropout: float = 0.0, attention_dropout: float = 0.0, clamp: float = 5.0
    ) -> None:
        super().__init__()
        below_one(attention_dropout, "attention_dropout")
        divides(heads, width)
        channels = width // heads
        self.heads, self.clamp, self.attention_dropout = heads, clamp, attention_dropout
        self.query, self.key_value = Linear(width, width), Linear(width, 2 * width, bias=False)
        self.of_pair = Linear(width, 2 * width)
        self.score = nn.Parameter(torch.empty(heads, channels))
        self.pair_value = nn.Parameter(torch.empty(heads, channels, channels))
        self.by_degree = nn.Parameter(torch.empty(2, width))
        for linear in (self.query, self.key_value, self.of_pair):
            nn.init.xavier_normal_(linear.weight)
        for parameter in (self.score, self.pair_value, self.by_degree):
            nn.init.xavier_normal_(parameter)
        self.dropout = Dropout(dropout)
        self.project_out = nn.ModuleDict({stream: Linear(width, width) for stream in self.writes})

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        source, target = pairs.edges
        q = self.query(state.x).unflatten(1, (self.heads, -1))  # (N, H, D)
        k, v = self.key_value(state.x).unflatten(1, (2, self.heads, -1)).unbind(1)
        scale, shift = self.of_pair(state_of(state, pairs)).unflatten(1, (2, self.heads, -1)).unbind(1)  # (P, H, D)
        product = (q.index_select(0, target) + k.index_select(0, source)) * scale
        # unlike sign(s) sqrt(|s|) this has a gradient at 0
        pair = (product.relu().sqrt() - (-product).relu().sqrt() + shift).relu()
        weights = softmax_of((pair * self.score).sum(-1).clamp(-self.clamp, self.clamp), pairs)
        weights = dropout(weights, self.attention_dropout, self.training)[..., None]
        read = sum_by_reader(weights * v.index_select(0, source), pairs)
        read = read + torch.einsum("nhd,hde->nhe", sum_by_reader(weights * pair, pairs), self.pair_value)
        read = self.dropout(read.flatten(1))
        plain, by_degree = self.by_degree
        read = read * (plain + by_degree * whole_degree(batch).to(read.dtype).log1p()[:, None])
        steps = {"x": read, "p": self.dropout(pair.flatten(1))}
        return {stream: self.project_out[stream](step) for stream, step in steps.items()}

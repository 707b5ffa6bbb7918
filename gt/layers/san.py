"""The layer of SAN: *Rethinking Graph Transformers with Spectral Attention*, Kreuzer et al. 2021."""

import math

from torch import Tensor, nn

from gt.encodings.edges import edges_among
from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.layers.pairs import state_of, sum_by_reader
from gt.linear import Linear
from gt.masks import Pairs
from gt.ranges import at_least, divides


class SAN(Layer):
    """Attention with separate queries, keys and gates for edges of the graph and for all other pairs.

    ``w_ij = exp(clamp(sum_c q_i k_j W p_ij / sqrt(D), -5, 5))``, times ``1 / (1 + gamma)`` on an edge and
    ``gamma / (1 + gamma)`` elsewhere; the output is ``sum_j w_ij v_j / (sum_j w_ij + 1e-6)``. A node does not read
    itself, unless along an edge.

    Args:
        width: channels of a node and of a pair.
        heads: number of heads; must divide the width.
        gamma: weight of pairs that are not edges: 0 is attention on the graph, 1 on the complete graph.
        clamp: bound on the absolute value of the scores.
    """

    reads, reads_edges = "pairs", False

    def __init__(self, width: int, heads: int = 8, gamma: float = 1e-5, clamp: float = 5.0) -> None:
        super().__init__()
        at_least(0, gamma, "gamma")
        divides(heads, width)
        self.heads, self.gamma, self.clamp = heads, gamma, clamp
        kinds = ("edge", "other")
        self.query_key = nn.ModuleDict({kind: Linear(width, 2 * width, bias=False) for kind in kinds})
        self.gate = nn.ModuleDict({kind: Linear(width, width, bias=False) for kind in kinds})
        self.value = Linear(width, width, bias=False)
        self.project_out = Linear(width, width)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        (source, target), p = pairs.edges, state_of(state, pairs)
        edge = edges_among(pairs)
        weights = p.new_zeros(len(p), self.heads)
        for kind, share, selected in (("edge", 1.0, edge), ("other", self.gamma, ~edge & (source != target))):
            q, k = self.query_key[kind](state.x).unflatten(1, (2, self.heads, -1)).unbind(1)  # (N, H, D)
            product = q.index_select(0, target) * k.index_select(0, source) * self.gate[kind](p).view(-1, *q.shape[1:])
            scores = (product.sum(-1) / math.sqrt(q.shape[-1])).clamp(-self.clamp, self.clamp)
            weights = weights + scores.exp() * selected[:, None] * (share / (1 + self.gamma))
        if pairs.edge_heads is not None:
            weights = weights * pairs.edge_heads
        v = self.value(state.x).unflatten(1, (self.heads, -1))
        read = sum_by_reader(weights[..., None] * v.index_select(0, source), pairs)
        read = read / (sum_by_reader(weights, pairs) + 1e-6)[..., None]
        return {"x": self.project_out(read.flatten(1))}

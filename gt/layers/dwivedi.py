"""The graph transformer layer of Dwivedi & Bresson, *A Generalization of Transformer Networks to Graphs*, 2020."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.layers.base import State
from gt.layers.block import FeedForward
from gt.layers.local import sum_to_targets
from gt.masks import Pairs
from gt.norms import normalised
from gt.ranges import at_least


class EdgeGatedBlock(nn.Module):
    """Attention on the input graph whose scores are gated channel by channel by an edge stream, which they update.

    ``w = (Q_i * K_j / sqrt(D)) * E_ij`` for each channel, ``a_ij = exp(clamp(sum_c w, -5, 5)) / (sum_j ... + 1e-6)``;
    the node stream reads ``sum_j a_ij V_j``, the edge stream ``w``. Both streams then go through dropout, a linear
    map, residual, norm, a feed-forward network, residual and norm. The mask plays no part: edges say who reads whom.

    Args:
        width: channels of a node and of an edge.
        heads: number of heads; must divide the width.
        dropout: on what each step adds to its residual stream.
        norm: makes a normalisation of (rows, width).
    """

    reads, writes = "edges", ("x", "e")

    def __init__(
        self, width: int, heads: int = 8, dropout: float = 0.0, norm: Callable[[int], nn.Module] = nn.BatchNorm1d
    ) -> None:
        super().__init__()
        at_least(1, heads, "heads")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_edge = nn.Linear(width, width, bias=False)
        self.dropout = Dropout(dropout)
        streams = ("x", "e")
        self.project_out = nn.ModuleDict({s: nn.Linear(width, width) for s in streams})
        self.feed_forward: Any = nn.ModuleDict({s: FeedForward(width, 2.0, dropout) for s in streams})
        self.norm_attention = nn.ModuleDict({s: norm(width) for s in streams})
        self.norm_feed_forward = nn.ModuleDict({s: norm(width) for s in streams})

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        """The next state of nodes and edges; edges that carry nothing start at zero."""
        (source, target), x = batch.edge_index, state.x
        e = x.new_zeros(batch.num_edges, x.shape[1]) if state.e is None else state.e
        q, k, v = self.project_in(x).view(len(x), 3, self.heads, x.shape[1] // self.heads).unbind(1)  # (N, H, D)
        gate = self.project_edge(e).view(len(e), *q.shape[1:])  # (E, H, D)
        scores = q[target] * k[source] / math.sqrt(q.shape[-1]) * gate
        weights = scores.sum(-1).clamp(-5, 5).exp()  # (E, H)
        total = sum_to_targets(weights, batch) + 1e-6
        read = sum_to_targets((weights[..., None] * v[source]).flatten(1), batch)
        read = read.view_as(v) / total[..., None]
        x = self._rest("x", x, read.flatten(1), batch.node_mask)
        return replace(state, x=x, e=self._rest("e", e, scores.flatten(1), batch.edge_mask))

    def _rest(self, stream: str, old: Tensor, new: Tensor, real: Tensor | None) -> Tensor:
        old = normalised(self.norm_attention[stream], old + self.project_out[stream](self.dropout(new)), real)
        return normalised(self.norm_feed_forward[stream], old + self.feed_forward[stream].map(old), real)

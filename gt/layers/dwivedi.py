"""The graph transformer layer of Dwivedi & Bresson, *A Generalization of Transformer Networks to Graphs*, 2020."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.layers.base import Chain, Layer, Residual, State
from gt.layers.block import FeedForward
from gt.layers.local import sum_to_targets
from gt.masks import Pairs
from gt.ranges import at_least

STREAMS = ("x", "e")


class EdgeGated(Layer):
    """Attention on the input graph whose scores are gated channel by channel by an edge stream, which they update.

    ``w = (Q_i * K_j / sqrt(D)) * E_ij`` for each channel, ``a_ij = exp(clamp(sum_c w, -5, 5)) / (sum_j ... + 1e-6)``;
    the node stream reads ``sum_j a_ij V_j``, the edge stream ``w``, both through dropout and a linear map. The mask
    plays no part: edges say who reads whom. Edges that carry nothing are zeros.

    Args:
        width: channels of a node and of an edge.
        heads: number of heads; must divide the width.
        dropout: on what both streams read.
    """

    reads, writes, residual = "edges", STREAMS, True

    def __init__(self, width: int, heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        at_least(1, heads, "heads")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_edge = nn.Linear(width, width, bias=False)
        self.dropout = Dropout(dropout)
        self.project_out = nn.ModuleDict({s: nn.Linear(width, width) for s in STREAMS})

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        (source, target), x = batch.edge_index, state.x
        e = x.new_zeros(batch.num_edges, x.shape[1]) if state.e is None else state.e
        q, k, v = self.project_in(x).view(len(x), 3, self.heads, x.shape[1] // self.heads).unbind(1)  # (N, H, D)
        gate = self.project_edge(e).view(len(e), *q.shape[1:])  # (E, H, D)
        scores = q[target] * k[source] / math.sqrt(q.shape[-1]) * gate
        weights = scores.sum(-1).clamp(-5, 5).exp()  # (E, H)
        total = sum_to_targets(weights, batch) + 1e-6
        read = sum_to_targets((weights[..., None] * v[source]).flatten(1), batch)
        steps = {"x": (read.view_as(v) / total[..., None]).flatten(1), "e": scores.flatten(1)}
        return {stream: self.project_out[stream](self.dropout(step)) for stream, step in steps.items()}


class FeedForwards(nn.ModuleDict):
    """A feed-forward network for each stream, by its name."""

    reads, writes, reads_edges = "self", STREAMS, True

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        networks: Any = self
        return {stream: network.map(getattr(state, stream)) for stream, network in networks.items()}


class EdgeGatedBlock(Chain):
    """`EdgeGated` and feed-forward networks for both streams, each with its skip connection and norms.

    Args:
        width: channels of a node and of an edge.
        heads: number of heads; must divide the width.
        dropout: on what each step adds to its residual stream.
        norm: makes a normalisation of (rows, width).
    """

    def __init__(
        self, width: int, heads: int = 8, dropout: float = 0.0, norm: Callable[[int], nn.Module] = nn.BatchNorm1d
    ) -> None:
        super().__init__(width, {})
        attention = EdgeGated(width, heads, dropout)
        self.project_in, self.project_edge = attention.project_in, attention.project_edge
        self.project_out, self.dropout = attention.project_out, attention.dropout
        self.feed_forward = FeedForwards({s: FeedForward(width, 2.0, dropout) for s in STREAMS})
        self.norm_attention = nn.ModuleDict({s: norm(width) for s in STREAMS})
        self.norm_feed_forward = nn.ModuleDict({s: norm(width) for s in STREAMS})
        # a plain dictionary, which registers nothing: parameters go by the names above, as in older checkpoints
        self.steps = {
            "attention": Residual(width, attention, dict(self.norm_attention.items())),
            "feed_forward": Residual(width, self.feed_forward, dict(self.norm_feed_forward.items())),
        }

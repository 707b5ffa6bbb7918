"""The graph transformer layer of Dwivedi & Bresson, *A Generalization of Transformer Networks to Graphs*, 2020."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.layers.base import Chain, Layer, Residual, State
from gt.layers.block import FeedForward
from gt.linear import Linear
from gt.masks import Pairs
from gt.ranges import divides
from gt.sums import add_up, gather, pair_ends, sources, targets


class EdgeGated(Layer):
    """Attention whose scores are gated channel by channel by an edge stream, which they update in turn.

    ``w = (Q_i * K_j / sqrt(D)) * E_ij`` for each channel, ``a_ij = exp(clamp(sum_c w, -5, 5)) / (sum_j ... + 1e-6)``;
    the node stream receives ``sum_j a_ij V_j``, the edge stream ``w``, both through dropout and a linear map. Missing
    edge features count as zeros.

    Args:
        width: channels of a node and of an edge.
        heads: number of heads; must divide the width.
        dropout: on what both streams receive.
        pairs: attend along the pairs of the mask, with their state; else along the edges of the graph, under any mask.
    """

    reads, residual = "edges", True

    def __init__(self, width: int, heads: int = 8, dropout: float = 0.0, pairs: bool = False) -> None:
        super().__init__()
        divides(heads, width)
        self.heads, self.stream = heads, "p" if pairs else "e"
        self.writes: tuple[str, ...] = ("x", self.stream)
        if pairs:
            self.reads, self.reads_edges = "pairs", False
        self.project_in = Linear(width, 3 * width, bias=False)
        self.project_edge = Linear(width, width, bias=False)
        self.dropout = Dropout(dropout)
        self.project_out = nn.ModuleDict({s: Linear(width, width) for s in self.writes})

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        x, e = state.x, getattr(state, self.stream)
        source, target = pair_ends(pairs) if self.stream == "p" else (sources(batch), targets(batch))
        e = x.new_zeros(len(source.node), x.shape[1]) if e is None else e
        query, key_value = self.project_in(x).tensor_split([x.shape[1]], dim=1)
        k, v = gather(key_value, source).chunk(2, dim=1)  # (E, d)
        scores = gather(query, target) * k * self.project_edge(e) / math.sqrt(x.shape[1] / self.heads)
        weights = scores.unflatten(1, (self.heads, -1)).sum(-1).clamp(-5, 5).exp()  # (E, H)
        if self.stream == "p" and pairs.edge_heads is not None:
            weights = weights * pairs.edge_heads
        total = add_up(weights, target) + 1e-6
        read = add_up((weights[..., None] * v.unflatten(1, (self.heads, -1))).flatten(1), target)
        steps = {"x": read / total.repeat_interleave(x.shape[1] // self.heads, dim=1), self.stream: scores}
        return {stream: self.project_out[stream](self.dropout(step)) for stream, step in steps.items()}


class FeedForwards(nn.ModuleDict):
    """A feed-forward network for each stream, by stream name."""

    reads = "self"

    def __init__(self, networks: Mapping[str, FeedForward]) -> None:
        super().__init__(networks)
        self.writes = tuple(networks)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        networks: Any = self
        return {stream: network.map(getattr(state, stream)) for stream, network in networks.items()}


class EdgeGatedBlock(Chain):
    """`EdgeGated` and feed-forward networks for both streams, each with its skip connection and norms.

    Args:
        width: channels of a node and of an edge.
        heads: number of heads; must divide the width.
        dropout: on what each step adds to its residual stream.
        norm: builds a normalisation of (rows, width).
        pairs: edges are the pairs of the mask, see `EdgeGated`.
    """

    def __init__(
        self,
        width: int,
        heads: int = 8,
        dropout: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
        pairs: bool = False,
    ) -> None:
        super().__init__(width, {})
        attention = EdgeGated(width, heads, dropout, pairs)
        self.project_in, self.project_edge = attention.project_in, attention.project_edge
        self.project_out, self.dropout = attention.project_out, attention.dropout
        self.feed_forward = FeedForwards({s: FeedForward(width, 2.0, dropout) for s in attention.writes})
        self.norm_attention = nn.ModuleDict({s: norm(width) for s in attention.writes})
        self.norm_feed_forward = nn.ModuleDict({s: norm(width) for s in attention.writes})
        # a plain dictionary, so that parameters are registered under the names above only, as in older checkpoints
        self.steps = {
            "attention": Residual(width, attention, dict(self.norm_attention.items())),
            "feed_forward": Residual(width, self.feed_forward, dict(self.norm_feed_forward.items())),
        }

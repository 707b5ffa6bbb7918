"""A node of each graph that all of its nodes write to and read, with a state of its own."""

from torch import Tensor, nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.heads import Sum
from gt.layers.base import Layer, State
from gt.masks import Pairs


class VirtualNode(Layer):
    """``g' = g + MLP(sum_i x_i + g)``, ``x_i' = x_i + g'`` (Gilmer et al. 2017, as in Hu et al. 2020); g begins at 0.

    The mask plays no part, nor does attention: `gt.masks.VirtualNodes` are nodes that attention reads and updates.

    Args:
        width: channels of a node and of a graph.
        dropout: on what is added to g.
    """

    reads, writes, reads_edges, reads_pairs, reads_mask = "graph", ("x", "g"), False, False, False
    cost = "N"

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.dropout = Dropout(dropout)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        total = Sum()(state.x, batch)
        step = self.dropout(self.mlp(total if state.g is None else total + state.g))
        g = step if state.g is None else state.g + step
        return {"x": g.index_select(0, batch.batch), "g": step}

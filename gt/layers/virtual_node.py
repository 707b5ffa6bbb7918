"""A virtual node per graph, with its own state, that all nodes write to and read from."""

from collections.abc import Callable

from torch import Tensor, nn

from gt.dropout import Dropout
from gt.graph import GraphBatch
from gt.heads import Sum
from gt.layers.base import Layer, State
from gt.linear import Linear
from gt.masks import Pairs
from gt.norms import apply_norm


class VirtualNode(Layer):
    """``g' = g + MLP(sum_i x_i + g)``, ``x_i' = x_i + g'`` (Gilmer et al. 2017, as in Hu et al. 2020); g starts at 0.

    Both linear maps of the MLP are followed by a normalisation and a ReLU, since sums over graphs of different sizes
    vary in magnitude. Mask and attention play no part; for virtual nodes that attention reads and updates see
    `gt.masks.VirtualNodes`.

    Args:
        width: channels of a node and of a graph.
        dropout: on what is added to g.
        norm: builds a normalisation of (B, channels) from the number of channels.
    """

    reads, writes, reads_edges, reads_pairs, reads_mask = "graph", ("x", "g"), False, False, False
    cost = "N"

    def __init__(self, width: int, dropout: float = 0.0, norm: Callable[[int], nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.linear = nn.ModuleList([Linear(width, 2 * width), Linear(2 * width, width)])
        self.norms = nn.ModuleList([norm(2 * width), norm(width)])
        self.dropout = Dropout(dropout)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        total = Sum()(state.x, batch)
        rows = total if state.g is None else total + state.g
        for linear, norm in zip(self.linear, self.norms, strict=True):
            rows = apply_norm(norm, linear(rows), batch, "g").relu()
        step = self.dropout(rows)
        g = step if state.g is None else state.g + step
        return {"x": g.index_select(0, batch.batch), "g": step}

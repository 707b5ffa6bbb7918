"""Local branches: message passing along a batch's edges, which are sorted by target; see `gt.layers.Layer`."""

import torch
from torch import Tensor, nn

from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.layers.weights import draw_glorot
from gt.linear import Linear
from gt.masks import Pairs
from gt.sums import add_up, gather, rescale_sampled, sources, sum_of_sources, targets, whole_degree


def smooth(x: Tensor, batch: GraphBatch) -> Tensor:
    """``sum_j x_j / sqrt((d_i + 1)(d_j + 1))``, j over i and its sources, d the in-degree: (N, width) to the same.

    With sampled edges it is an estimate, and degrees are those of the full graph: otherwise the outermost sampled
    nodes would weigh most.
    """
    scale = (whole_degree(batch) + 1).to(x.dtype).rsqrt()[:, None]
    scaled = x * scale
    return (rescale_sampled(sum_of_sources(scaled, batch), batch) + scaled) * scale


def sum_of_messages(x: Tensor, e: Tensor | None, batch: GraphBatch) -> Tensor:
    """``sum_j ReLU(x_j + e_ij)`` over the sources of each node: (N, width) and (E, width) or None to (N, width)."""
    if e is None:
        return rescale_sampled(sum_of_sources(x.relu(), batch), batch)
    return rescale_sampled(add_up((gather(x, sources(batch)) + e).relu(), targets(batch)), batch)


class Smoothing(Layer):
    """Graph convolution without a linear map (SGC, Wu et al. 2019): `smooth` plus a bias; ignores ``e``.

    Placed between linear maps, it builds a `GCN` whose layers differ in width.
    """

    reads = "edges"
    reads_edges = False

    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        read = smooth(state.x, batch)
        return {"x": read if self.bias is None else read + self.bias}


class GCN(Layer):
    """Graph convolution with self-loops and symmetric normalisation (Kipf & Welling 2017); ignores ``e``.

    ``x_i' = W sum_j x_j / sqrt((d_i + 1)(d_j + 1)) + b``, j over i and its sources, d the in-degree. W is
    initialised as by its authors, about 1.7 times as wide as PyTorch's default.

    Args:
        width: channels of a node.
        root: add a linear map of the node itself, a learned skip connection (Luo et al. 2024).
    """

    reads = "edges"
    reads_edges = False

    def __init__(self, width: int, root: bool = False) -> None:
        super().__init__()
        self.linear = Linear(width, width)
        draw_glorot(self.linear)
        self.root = Linear(width, width) if root else None

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        read = self.linear(smooth(state.x, batch))
        return {"x": read if self.root is None else read + self.root(state.x)}


class EdgeGCN(Layer):
    """The convolution with edge features of GNN+ (Luo et al. 2025): ``x_i' = sum_j ReLU(W x_j + e_ij) + b``."""

    reads = "edges"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        return {"x": sum_of_messages(self.linear(state.x), state.e, batch) + self.bias}


class GINE(Layer):
    """Graph isomorphism layer with edge features (Hu et al. 2020): ``MLP((1 + eps) x_i + sum_j ReLU(x_j + e_ij))``."""

    reads = "edges"

    def __init__(self, width: int, eps: float = 0.0) -> None:
        super().__init__()
        self.eps = eps
        self.mlp = nn.Sequential(Linear(width, width), nn.ReLU(), Linear(width, width))

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        return {"x": self.mlp((1 + self.eps) * state.x + sum_of_messages(state.x, state.e, batch))}

"""Local branches: message passing along a batch's edges, which are sorted by target; see `gt.layers.Layer`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gt.dropout import dropout
from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.layers.weights import draw_glorot
from gt.linear import Linear
from gt.masks import Pairs
from gt.norms import mixes_rows, normalised
from gt.ranges import below_one
from gt.sums import Ends, add_up, estimated, gather, sources, sum_of_sources, targets, totals, whole_degree
from gt.transforms import transformed


def smooth(x: Tensor, batch: GraphBatch) -> Tensor:
    """(N, width) to ``sum_j x_j / sqrt((d_i + 1)(d_j + 1))``, j over the sources of i and i itself, d the in-degree.

    Of drawn edges it is an estimate: degrees are those of the graph, without which nodes at the rim would weigh most.
    """
    scale = (whole_degree(batch) + 1).to(x.dtype).rsqrt()[:, None]
    sent = x * scale
    return (estimated(sum_of_sources(sent, batch), batch) + sent) * scale


def sum_of_messages(x: Tensor, e: Tensor | None, batch: GraphBatch) -> Tensor:
    """``sum_j ReLU(x_j + e_ij)`` over the sources of each node: (N, width) and (E, width) or None to (N, width)."""
    if e is None:
        return estimated(sum_of_sources(x.relu(), batch), batch)
    return estimated(add_up((gather(x, sources(batch)) + e).relu(), targets(batch)), batch)


class Smoothing(Layer):
    """Graph convolution without a map of its own (SGC, Wu et al. 2019): `smooth` and a bias; ignores ``e``.

    Between two linear maps it makes of them the convolutions of a `GCN` whose widths differ.
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

    ``x_i' = W sum_j x_j / sqrt((d_i + 1)(d_j + 1)) + b``, j over the sources of i and i itself, d the in-degree. W
    begins as its authors draw it, about 1.7 times as wide as PyTorch would.

    Args:
        width: channels of a node.
        root: add a linear map of the node itself, a skip connection that is learned (Luo et al. 2024).
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
    """Convolution with edge features as GNN+ has it (Luo et al. 2025): ``x_i' = sum_j ReLU(W x_j + e_ij) + b``."""

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


class _GatedSums(torch.autograd.Function):
    """``sum_j s(ê_ij) v_j`` and ``sum_j s(ê_ij)`` over the edges that each node reads, s the sigmoid.

    Of what is as long as the edges only ê is kept until the backward pass, which works out the rest again: for small
    graphs that is most of what a layer holds.
    """

    @staticmethod
    def forward(ctx: Any, edge: Tensor, value: Tensor, source: Ends, target: Ends) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(edge, value)
        ctx.source, ctx.target = source, target
        gate = edge.sigmoid()
        total = totals(gate, target)
        return totals(gate.mul_(value.index_select(0, source.node)), target), total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_weighted: Tensor, of_total: Tensor) -> tuple[Tensor, Tensor, None, None]:
        edge, value = ctx.saved_tensors
        source, target = ctx.source, ctx.target
        gate = edge.sigmoid()
        sent = of_weighted.index_select(0, target.node)
        grad_value = totals(sent * gate, source)
        of_gate = sent.mul_(value.index_select(0, source.node)).add_(of_total.index_select(0, target.node))
        return of_gate.mul_(gate).mul_(1 - gate), grad_value, None, None


class GatedGCN(Layer):
    """Residual gated graph convolution with an edge stream (Bresson & Laurent 2018), as GPS and the benchmarks use it.

    ``ê_ij = D x_i + E x_j + C e_ij``, ``x_i' = x_i + ReLU(BN(A x_i + sum_j s(ê_ij) B x_j / (sum_j s(ê_ij) + 1e-6)))``,
    ``e_ij' = e_ij + ReLU(BN(ê_ij))``, s the sigmoid. Edges that carry nothing start at zero.
    """

    reads = "edges"
    residual = True
    writes = ("x", "e")

    def __init__(
        self, width: int, dropout: float = 0.0, norm: Callable[[int], nn.Module] | None = nn.BatchNorm1d
    ) -> None:
        super().__init__()
        below_one(dropout, "dropout")
        norm = norm or nn.Identity
        self.of_node = Linear(width, 4 * width)  # A and D of the reader, B and E of the source
        self.of_edge = Linear(width, width)  # C
        self.norm_x, self.norm_e = norm(width), norm(width)
        if mixes_rows(self.norm_x):
            self.reads = "graph"
        self.dropout = dropout

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        source, target, x = sources(batch), targets(batch), state.x
        e = x.new_zeros(batch.num_edges, x.shape[1]) if state.e is None else state.e
        own, key, sent = self.of_node(x).split([x.shape[1], x.shape[1], 2 * x.shape[1]], dim=1)
        value, query = sent.split(x.shape[1], dim=1)
        edge = gather(key, target) + gather(query, source) + self.of_edge(e)  # (E, width)
        if transformed():
            gate = edge.sigmoid()
            weighted, total = add_up(gate * gather(value, source), target), add_up(gate, target)
        else:
            weighted, total = _GatedSums.apply(edge, value, source, target)
        new_x = normalised(self.norm_x, own + weighted / (total + 1e-6), batch).relu()
        new_e = normalised(self.norm_e, edge, batch, "e").relu()
        return {name: dropout(new, self.dropout, self.training) for name, new in (("x", new_x), ("e", new_e))}

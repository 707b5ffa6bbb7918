"""Residual gated graph convolution, in PyTorch and by a C kernel."""

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gt.dropout import dropout
from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.linear import Linear
from gt.masks import Pairs
from gt.native.library import address, addressable, kernels, obstacle
from gt.norms import apply_norm, mixes_rows
from gt.ranges import below_one
from gt.sums import Ends, add_up, gather, scatter_sum, sources, targets
from gt.transforms import once_differentiable, transformed

EPSILON = 1e-6  # added to the sum of gates


class _GatedSums(torch.autograd.Function):
    """``sum_j s(ê_ij) v_j`` and ``sum_j s(ê_ij)`` over the edges that each node reads, s the sigmoid.

    Saves only ê of the tensors with a row per edge and recomputes the others in the backward pass: for small graphs
    they would be most of a layer's memory.
    """

    @staticmethod
    def forward(ctx: Any, edge: Tensor, value: Tensor, source: Ends, target: Ends) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(edge, value)
        ctx.source, ctx.target = source, target
        gate = edge.sigmoid()
        total = scatter_sum(gate, target)
        return scatter_sum(gate.mul_(value.index_select(0, source.node)), target), total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_weighted: Tensor, grad_total: Tensor) -> tuple[Tensor, Tensor, None, None]:
        edge, value = ctx.saved_tensors
        source, target = ctx.source, ctx.target
        gate = edge.sigmoid()
        grad_target = grad_weighted.index_select(0, target.node)
        grad_value = scatter_sum(grad_target * gate, source)
        grad_gate = grad_target.mul_(value.index_select(0, source.node)).add_(grad_total.index_select(0, target.node))
        return grad_gate.mul_(gate).mul_(1 - gate), grad_value, None, None


class _Call(ctypes.Structure):
    """Mirrors the kernel's struct ``Gated``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("node", "given", "source", "rowptr", "order", "colptr")),
        *((name, ctypes.c_void_p) for name in ("edge", "out", "mean", "total")),
        *((name, ctypes.c_void_p) for name in ("dout", "dedge", "dnode", "dgiven", "sent")),
        *((name, ctypes.c_int64) for name in ("nodes", "width", "threads")),
    ]


class _NativeGatedMeans(torch.autograd.Function):
    """`gated_means` in one pass over the edges, and two backward, see ``gt/native/kernels/gated.c``."""

    @staticmethod
    def forward(ctx: Any, node: Tensor, edge_term: Tensor, source: Ends, target: Ends) -> tuple[Tensor, Tensor]:
        node, edge_term = node.contiguous(), edge_term.contiguous()
        edge = torch.empty_like(edge_term)
        out, mean, total = (node.new_empty(len(node), edge_term.shape[1]) for _ in range(3))
        ctx.source, ctx.target = source, target
        call = _NativeGatedMeans.call(ctx, node=node, given=edge_term, edge=edge, out=out, mean=mean, total=total)
        kernels().gated_forward(ctypes.byref(call))
        ctx.save_for_backward(node, edge, mean, total)
        return edge, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dedge: Tensor, dout: Tensor) -> tuple[Tensor, Tensor, None, None]:
        node, edge, mean, total = ctx.saved_tensors
        dgiven, dnode, sent = torch.empty_like(edge), torch.empty_like(node), torch.empty_like(edge)
        dedge, dout = dedge.contiguous(), dout.contiguous()
        gradients = {"dedge": dedge, "dout": dout, "dnode": dnode, "dgiven": dgiven, "sent": sent}
        call = _NativeGatedMeans.call(ctx, node=node, edge=edge, mean=mean, total=total, **gradients)
        kernels().gated_backward(ctypes.byref(call))
        return dnode, dgiven, None, None

    @staticmethod
    def call(ctx: Any, **tensors: Tensor) -> _Call:
        tensors |= {"source": ctx.source.node, "rowptr": ctx.target.ptr}
        tensors |= {"order": ctx.source.order, "colptr": ctx.source.ptr} if "dout" in tensors else {}
        nodes, width = tensors["mean"].shape
        addresses = {name: address(tensor) for name, tensor in tensors.items()}
        return _Call(nodes=nodes, width=width, threads=torch.get_num_threads(), **addresses)


def gated_means(node: Tensor, edge_term: Tensor, batch: GraphBatch) -> tuple[Tensor, Tensor]:
    """The new states of edges and nodes before normalisation, see `GatedGCN`.

    Args:
        node: (N, 4 width): A x and D x of a reader, B x and E x of a source.
        edge_term: (E, width): C e.

    Returns:
        (E, width): ``ê_ij``; (N, width): ``A x_i + sum_j s(ê_ij) B x_j / (sum_j s(ê_ij) + 1e-6)``.
    """
    source, target, width = sources(batch), targets(batch), edge_term.shape[1]
    consistent = addressable(node, edge_term) and len(node) == batch.num_nodes and len(edge_term) == batch.num_edges
    if consistent and source.within and target.within and obstacle() is None:
        return _NativeGatedMeans.apply(node, edge_term, source, target)
    own_term, key, sent = node.split([width, width, 2 * width], dim=1)
    value, query = sent.split(width, dim=1)
    edge = gather(key, target) + gather(query, source) + edge_term
    if transformed():
        gate = edge.sigmoid()
        weighted, total = add_up(gate * gather(value, source), target), add_up(gate, target)
    else:
        weighted, total = _GatedSums.apply(edge, value, source, target)
    return edge, own_term + weighted / (total + EPSILON)


class GatedGCN(Layer):
    """Residual gated graph convolution with edge states (Bresson & Laurent 2018), as used by GPS and the benchmarks.

    ``ê_ij = D x_i + E x_j + C e_ij``, ``x_i' = x_i + ReLU(BN(A x_i + sum_j s(ê_ij) B x_j / (sum_j s(ê_ij) + 1e-6)))``,
    ``e_ij' = e_ij + ReLU(BN(ê_ij))``, s the sigmoid. Edges without features start at zero.
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
        x = state.x
        e = x.new_zeros(batch.num_edges, x.shape[1]) if state.e is None else state.e
        edge, node = gated_means(self.of_node(x), self.of_edge(e), batch)
        new_x = apply_norm(self.norm_x, node, batch).relu()
        new_e = apply_norm(self.norm_e, edge, batch, "e").relu()
        return {name: dropout(new, self.dropout, self.training) for name, new in (("x", new_x), ("e", new_e))}

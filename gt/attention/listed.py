"""Attention over a list of pairs on a CPU by a C kernel, see ``gt/native/kernels/listed.c``."""

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from gt.attention.costs import Demand
from gt.attention.dense import pair_bias
from gt.attention.native import native_obstacle
from gt.attention.sparse import attend_sparse, prepare_sparse
from gt.masks import Pairs
from gt.native.library import (
    OPERATIONS,
    address,
    addressable,
    drop_level,
    kernels,
    random_seed,
    row_pointers,
    rows_of_heads,
)
from gt.transforms import once_differentiable

FORWARD, BACKWARD = 2, 4  # products per pair and channel in each direction
CHANNELS = 16  # per head, a multiple of: whole vectors on any processor
MAX_ELEMENTS = 2**21  # of a projection: if it spans more memory pages, copying head by head is faster


class _Call(ctypes.Structure):
    """Mirrors the kernel's struct ``Listed``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "grad")),
        *((name, ctypes.c_int64) for name in ("row_q", "row_k", "row_v", "row_grad")),
        *((name, ctypes.c_void_p) for name in ("rowptr", "source", "colptr", "order", "target", "bias", "allowed")),
        *((name, ctypes.c_void_p) for name in ("weights", "read", "out", "dscores", "dq", "dk", "dv")),
        *((name, ctypes.c_int64) for name in ("row_gradients", "nodes", "pairs", "heads", "channels", "threads")),
        ("seed", ctypes.c_uint64),
        ("dropped", ctypes.c_uint32),
        *((name, ctypes.c_float) for name in ("scale", "kept")),
    ]


def listed_obstacle(demand: Demand) -> str | None:
    """Why the kernel cannot serve a demand: as for `gt.attention.native`, or the width of heads."""
    if demand.channels % CHANNELS:
        return f"a head has {demand.channels} channels, it needs a multiple of {CHANNELS}"
    return native_obstacle(demand)


def prepare_listed(pairs: Pairs, demand: Demand) -> None:
    """Precompute the pairs of each reader and of each source."""
    if pairs.batch.num_nodes * demand.heads * demand.channels > MAX_ELEMENTS:
        prepare_sparse(pairs, demand)
    else:
        _ = pairs.rowptr, pairs.by_source, pairs.colptr, pairs.edge_heads, pairs.dense_entry


class _Listed(torch.autograd.Function):
    """(N, H, D) to (N, H, D); saves one number per pair and head besides its inputs and output."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, pairs: Pairs, dropout: float) -> Tensor:
        ctx.pairs, ctx.dropout = pairs, dropout
        ctx.seed = random_seed() if dropout else 0
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        weights = q.new_empty(q.shape[1], pairs.edges.shape[1])
        read = torch.empty_like(weights) if dropout else weights
        call = _call(ctx, q, k, v, weights, read, out)
        call.bias = None if bias is None else address(bias)
        if pairs.edge_heads is not None:
            call.allowed = address(pairs.cached("listed_heads", pairs.edge_heads.contiguous))
        kernels().listed_forward(ctypes.byref(call))
        OPERATIONS["attention"] += FORWARD * 2 * weights.numel() * q.shape[2]
        ctx.save_for_backward(q, k, v, weights, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, out = ctx.saved_tensors
        read = torch.empty_like(weights) if ctx.dropout else weights
        call, grad, dscores = _call(ctx, q, k, v, weights, read, out), rows_of_heads(grad), torch.empty_like(weights)
        dq, dk, dv = gradients = q.new_empty(len(q), 3, *q.shape[1:]).unbind(1)
        call.grad, call.row_grad, call.row_gradients = grad.data_ptr(), grad.stride(0), dq.stride(0)
        call.dscores = address(dscores)
        call.dq, call.dk, call.dv = dq.data_ptr(), dk.data_ptr(), dv.data_ptr()
        kernels().listed_backward(ctypes.byref(call))
        OPERATIONS["attention"] += BACKWARD * 2 * weights.numel() * q.shape[2]
        return *gradients, dscores.T if ctx.needs_input_grad[3] else None, None, None


def _call(ctx: Any, q: Tensor, k: Tensor, v: Tensor, weights: Tensor, read: Tensor, out: Tensor) -> _Call:
    """The arguments common to both kernels: tensors, sizes, pairs and dropout."""
    pairs, (nodes, heads, channels) = ctx.pairs, q.shape
    source, target = pairs.edges
    level, kept = drop_level(ctx.dropout)
    return _Call(
        **row_pointers(q=q, k=k, v=v),
        rowptr=address(pairs.rowptr),
        source=address(source),
        colptr=address(pairs.colptr),
        order=address(pairs.by_source),
        target=address(target),
        weights=address(weights),
        read=address(read),
        out=address(out),
        nodes=nodes,
        pairs=weights.shape[1],
        heads=heads,
        channels=channels,
        threads=torch.get_num_threads(),
        seed=ctx.seed,
        dropped=level,
        scale=1 / math.sqrt(channels),
        kept=kept,
    )


def attend_listed(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """One reader at a time; fastest for few allowed pairs in graphs of moderate size.

    (N, H, D) to (N, H, D); check `listed_obstacle` first. Falls back to sparse matrix products for tensors that are not
    float32, are being traced or transformed, or are very large.
    """
    inputs = (q, k, v) if bias is None else (q, k, v, bias)
    supported = v.shape == q.shape and q.shape[2] % CHANNELS == 0 and q.numel() <= MAX_ELEMENTS and dropout < 1
    if not (supported and addressable(*inputs)):
        return attend_sparse(q, k, v, pairs, bias, dropout)
    if bias is not None:
        bias = pair_bias(pairs, bias).expand(-1, q.shape[1]).contiguous()
    return _Listed.apply(rows_of_heads(q), rows_of_heads(k), rows_of_heads(v), bias, pairs, dropout)

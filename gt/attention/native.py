"""Attention within graphs on a CPU by a C kernel on packed nodes, see ``gt/native/kernels/attention.c``."""

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from gt.attention.costs import Demand
from gt.attention.dense import attend_dense
from gt.masks import Pairs
from gt.native.library import (
    OPERATIONS,
    address,
    addressable,
    drop_level,
    kernels,
    obstacle,
    random_seed,
    row_pointers,
    rows_of_heads,
)
from gt.transforms import one_by_one

FORWARD, BACKWARD = 2, 5  # products per pair and channel in each direction
# as in the kernel: for each graph and head, minimum readers per task, maximum tasks, and granularity of readers
READERS, TASKS, BLOCK = 512, 16, 32
MAX_SCRATCH = 2**28  # floats of scratch memory, 1 GiB; beyond it fewer threads are used


class _Call(ctypes.Structure):
    """Mirrors the kernel's struct ``Attention``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "grad")),
        *((name, ctypes.c_int64) for name in ("row_q", "row_k", "row_v", "row_grad")),
        *((name, ctypes.c_void_p) for name in ("ptr", "out", "norm", "dq", "dk", "dv")),
        ("row_gradients", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("scratch", "graph", "begin", "partial")),
        ("tasks", ctypes.c_int64),
        *((name, ctypes.c_int64) for name in ("heads", "channels", "largest", "threads", "back", "ahead")),
        *((name, ctypes.c_void_p) for name in ("allowed", "bias", "dbias")),
        *((name, ctypes.c_int64) for name in ("allowed_heads", "bias_heads", "side")),
        ("seed", ctypes.c_uint64),
        ("dropped", ctypes.c_uint32),
        *((name, ctypes.c_float) for name in ("scale", "kept")),
    ]


def native_obstacle(demand: Demand) -> str | None:
    """Why the kernel cannot serve a demand, as a phrase, or None."""
    if demand.device != "cpu":
        return "it needs a CPU"
    if demand.half:
        return "it only supports float32"
    if demand.scored:
        return "it only supports the scaled dot product"
    if demand.pair_value:
        return "it does not support pair values"
    return obstacle()


def prepare_native(pairs: Pairs, demand: Demand) -> None:
    """Precompute the consistency check, the mask unless positions decide it, and the tasks of large graphs."""
    _ = _consistent(pairs)
    if pairs.limits is None:
        _ = _allowed(pairs)
    if pairs.batch.max_nodes > READERS:
        _ = _tasks(pairs)


def _allowed(pairs: Pairs) -> Tensor:
    """(B, 1 or H, L, L) bool: who reads whom, contiguous for the kernel."""
    return pairs.cached("native_dense", pairs.dense.contiguous)


def _consistent(pairs: Pairs) -> bool:
    """Whether ``ptr`` and ``max_nodes`` describe the rows; otherwise the kernel would access wrong rows or memory.

    They do not for a part of a graph whose nodes keep their positions in the whole, see `gt.parallel.share.View`.
    """
    batch = pairs.batch

    def check() -> bool:
        well_formed = batch.ptr.dtype == torch.int64 and batch.ptr.is_contiguous()
        in_bounds = int(batch.ptr[0]) == 0 and max(batch.sizes.tolist(), default=0) <= batch.max_nodes
        return (
            well_formed
            and in_bounds
            and torch.equal(batch.position, torch.arange(batch.num_nodes) - batch.ptr[batch.batch])
        )

    return pairs.cached("native_trusted", check)


class _Attention(torch.autograd.Function):
    """(N, H, D) to (N, H, D); saves two numbers per node and head besides its inputs and output."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, pairs: Pairs, dropout: float) -> Tensor:
        ctx.pairs, ctx.dropout = pairs, dropout
        ctx.seed = random_seed() if dropout else 0
        out, norm = torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(*q.shape[:2], 2)
        ctx.save_for_backward(q, k, v, bias, out, norm)
        _run_kernel("attention_forward", _call(ctx, q, k, v, bias, out, norm), FORWARD, pairs)
        return out

    @staticmethod
    @one_by_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, norm = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives are those of plain matrix products
            if ctx.dropout:
                raise RuntimeError("attention with dropout has no second derivatives: set the attention dropout to 0")
            # views, so that no input's gradient flows through another that is the same tensor or computed from it
            q, k, v, bias = *(t.view_as(t) for t in (q, k, v)), None if bias is None else bias.view_as(bias)
            inputs = [t for t in (q, k, v, bias) if t is not None and t.requires_grad]
            output = attend_dense(q, k, v, ctx.pairs, bias)
            grads = iter(torch.autograd.grad(output, inputs, grad, create_graph=True))
            required = (t is not None and t.requires_grad for t in (q, k, v, bias))
            return *(next(grads) if needed else None for needed in required), None, None
        call, grad = _call(ctx, q, k, v, bias, out, norm), rows_of_heads(grad)
        dq, dk, dv = gradients = q.new_empty(len(q), 3, *q.shape[1:]).unbind(1)
        call.grad, call.row_grad, call.row_gradients = grad.data_ptr(), grad.stride(0), dq.stride(0)
        call.dq, call.dk, call.dv = dq.data_ptr(), dk.data_ptr(), dv.data_ptr()
        if call.graph:
            partial = q.new_empty(_tasks(ctx.pairs)[2], 2, *q.shape[1:])
            call.partial = address(partial)
        dbias = None
        if ctx.needs_input_grad[3]:
            dbias = bias.new_zeros(len(bias), q.shape[1], *bias.shape[2:])
            call.dbias = address(dbias)
        _run_kernel("attention_backward", call, BACKWARD, ctx.pairs)
        if dbias is not None and bias.shape[1] == 1:
            dbias = dbias.sum(1, keepdim=True)
        return *gradients, dbias, None, None


def _tasks(pairs: Pairs) -> tuple[Tensor, Tensor, int]:
    """The tasks that large graphs are split into: their graphs, first rows of partial gradients, and number of rows."""

    def make() -> tuple[Tensor, Tensor, int]:
        sizes = pairs.batch.sizes
        readers = (-(-sizes // (TASKS * BLOCK)) * BLOCK).clamp(min=READERS)
        graph = torch.arange(len(sizes)).repeat_interleave(-(-sizes // readers))
        rows = sizes[graph]
        return graph, rows.cumsum(0) - rows, int(rows.sum())

    return pairs.cached("native_tasks", make)


def _call(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, out: Tensor, norm: Tensor) -> _Call:
    """The arguments common to both kernels: tensors, sizes, mask, bias and dropout."""
    pairs, batch, (nodes, heads, channels) = ctx.pairs, ctx.pairs.batch, q.shape
    back, ahead = (nodes if limit is None else min(limit, nodes) for limit in pairs.limits or (None, None))
    level, kept = drop_level(ctx.dropout)
    call = _Call(
        **row_pointers(q=q, k=k, v=v),
        ptr=address(batch.ptr),
        out=address(out),
        norm=address(norm),
        heads=heads,
        channels=channels,
        largest=batch.max_nodes,
        threads=torch.get_num_threads(),
        back=back,
        ahead=ahead,
        side=batch.max_nodes,
        tasks=batch.num_graphs,
        seed=ctx.seed,
        dropped=level,
        scale=1 / math.sqrt(channels),
        kept=kept,
    )
    if batch.max_nodes > READERS:
        graph, begin, _ = _tasks(pairs)
        call.graph, call.begin, call.tasks = address(graph), address(begin), len(graph)
    if pairs.limits is None:
        allowed = _allowed(pairs)
        call.allowed, call.allowed_heads = address(allowed), allowed.shape[1]
    if bias is not None:
        call.bias, call.bias_heads = address(bias), bias.shape[1]
    return call


def _run_kernel(kernel: str, call: _Call, products: int, pairs: Pairs) -> None:
    """Call a kernel that computes ``products`` products per pair and channel."""
    library = kernels()
    per_thread = library.attention_scratch(ctypes.byref(call))
    call.threads = max(1, min(call.threads, call.tasks * call.heads, MAX_SCRATCH // max(per_thread, 1)))
    scratch = torch.empty(call.threads * per_thread, dtype=torch.float32)
    call.scratch = address(scratch)
    getattr(library, kernel)(ctypes.byref(call))
    OPERATIONS["attention"] += products * 2 * pairs.count * call.heads * call.channels


def attend_native(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Each graph and head on its own, without padding; fastest for many small graphs. (N, H, D) to (N, H, D).

    The bias is (B, 1 or H, L, L), and ignored at masked pairs; check `native_obstacle` first. Falls back to plain
    matrix products for tensors that are not float32 or are being traced or transformed, and for batches whose ``ptr``
    does not describe their rows.
    """
    inputs = (q, k, v) if bias is None else (q, k, v, bias)
    if not addressable(*inputs) or v.shape != q.shape or dropout >= 1 or not _consistent(pairs):
        return attend_dense(q, k, v, pairs, bias, dropout)
    bias = None if bias is None else bias.contiguous()
    return _Attention.apply(rows_of_heads(q), rows_of_heads(k), rows_of_heads(v), bias, pairs, dropout)

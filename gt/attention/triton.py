"""Attention over a list of pairs in one fused Triton kernel: one program per reader and head, with an online softmax
over its pairs, as FlashAttention has over blocks of a dense row (Dao et al. 2022).

The forward pass saves its inputs, the output and one log-sum-exp per node and head. The backward pass recomputes the
weights, once by reader for the gradients of q and bias, once by source for those of k and v: without atomic additions,
so that it is deterministic, and without a tensor of shape (P, D).
"""

import importlib.util
from typing import Any

import torch
from torch import Tensor

from gt.attention.costs import Demand, capability
from gt.attention.dense import pair_bias
from gt.masks import Pairs
from gt.transforms import once_differentiable

INSTALLED = importlib.util.find_spec("triton") is not None
MAX_CHANNELS = 256
MIN_CC = (8, 0)  # the lowest compute capability that Triton supports


def triton_obstacle(demand: Demand) -> str | None:
    """Why the kernels cannot serve a demand, as a phrase, or None. They support any pairs and any bias."""
    if not INSTALLED:
        return "triton is not installed"
    from gt.attention.triton_kernels import INTERPRETED

    if demand.dropout:
        return "it does not support dropout"
    if demand.pair_value:
        return "it does not support pair values"
    if demand.channels > MAX_CHANNELS:
        return f"a head has {demand.channels} channels, it supports {MAX_CHANNELS} at most"
    if demand.device == "cpu":
        return None if INTERPRETED else "on a CPU it needs TRITON_INTERPRET=1, set before triton is first imported"
    if demand.device != "cuda":
        return f"it does not run on {demand.device}"
    if torch.version.hip is None and (device := capability() or MIN_CC) < MIN_CC:
        return f"it needs compute capability {MIN_CC[0]}.{MIN_CC[1]}, the device has {device[0]}.{device[1]}"
    return None


def triton_drawback(demand: Demand) -> str | None:
    """On a CPU the kernels are interpreted, for tests only."""
    return "on a CPU it is interpreted" if demand.device == "cpu" else None


def prepare_triton(pairs: Pairs, demand: Demand) -> None:
    """Precompute the pairs by target and by source, which heads use each, and the index of each into a dense bias."""
    _ = pairs.rowptr, pairs.by_source, pairs.colptr, pairs.edge_heads, pairs.dense_entry


def _sizes(channels: int, values: int, pairs: int, nodes: int) -> dict[str, int]:
    """The block sizes of a launch, powers of two.

    A block of pairs has the average length of a row, so that most rows take one pass and only hubs loop, but at least
    16, the loads that one warp can have in flight, and at most 64, beyond which lanes idle in short rows. A tile of a
    block's channels has at most 2048 elements, 16 per thread: the four tiles of a backward kernel then fill half of a
    thread's 255 registers. 16 channels take one warp per program, 64 and more take four. Estimated, not measured.
    """
    block_d, block_e = (1 << (size - 1).bit_length() for size in (channels, values))
    mean = -(-pairs // max(nodes, 1))
    pairs_per_block = min(max(1 << max(mean - 1, 0).bit_length(), 16), 64)
    block_p = max(min(pairs_per_block, 2048 // max(block_d, block_e)), 1)
    warps = min(max(block_p * max(block_d, block_e) // 512, 1), 4)
    return {"D": channels, "BLOCK_D": block_d, "E": values, "BLOCK_E": block_e, "BLOCK_P": block_p, "num_warps": warps}


def _rows(tensor: Tensor | None) -> tuple[Tensor, int, int] | None:
    """A tensor (rows, heads) or (rows, heads, channels) with its strides, as the kernels take it."""
    return None if tensor is None else (tensor, tensor.stride(0), tensor.stride(1))


def _unit_stride(tensor: Tensor) -> Tensor:
    """The tensor with a stride of 1 along the channels, copied only if necessary."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


class _TritonAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(D) + bias) v over pairs; all tensors (N, H, D), bias (P, H) or None."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, pairs: Pairs) -> Tensor:
        import triton.language as tl

        from gt.attention import triton_kernels as kernels

        (nodes, heads, channels), width = q.shape, v.shape[2]
        double = q.dtype == torch.float64
        q, k, v = map(_unit_stride, (q, k, v))
        out = v.new_empty(v.shape)
        lse = torch.empty(nodes, heads, dtype=torch.float64 if double else torch.float32, device=q.device)
        sizes = {"HEADS": heads, "ACC": tl.float64 if double else tl.float32}
        sizes |= _sizes(channels, width, pairs.edges.shape[1], nodes)
        with torch.cuda.device_of(q):
            kernels.forward[(nodes * heads,)](
                *map(_rows, (q, k, v, bias)), pairs.edge_heads, pairs.edges[0], pairs.rowptr, _rows(out), lse, **sizes
            )
        ctx.save_for_backward(q, k, v, bias, out, lse)
        ctx.pairs, ctx.sizes = pairs, sizes
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from gt.attention import triton_kernels as kernels

        q, k, v, bias, out, lse = ctx.saved_tensors
        pairs: Pairs = ctx.pairs
        source, target = pairs.edges
        delta = torch.empty_like(lse)
        grad_q, grad_k, grad_v = (t.new_empty(t.shape) for t in (q, k, v))
        grad_bias = bias.new_empty(bias.shape) if ctx.needs_input_grad[3] else None
        inputs = (*map(_rows, (q, k, v, bias)), pairs.edge_heads)
        rows = _rows(_unit_stride(grad))
        grid = (q.shape[0] * q.shape[1],)
        with torch.cuda.device_of(q):
            kernels.backward_by_target[grid](
                *inputs, source, pairs.rowptr, _rows(out), lse, rows, delta, _rows(grad_q), grad_bias, **ctx.sizes
            )
            kernels.backward_by_source[grid](
                *inputs, pairs.by_source, target[pairs.by_source], pairs.colptr, lse, rows, delta,
                _rows(grad_k), _rows(grad_v), **ctx.sizes,
            )  # fmt: skip
        return grad_q, grad_k, grad_v, grad_bias, None


def attend_triton(
    q: Tensor | None, k: Tensor | None, v: Tensor, pairs: Pairs, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """One fused kernel over the allowed pairs, in the dtype of v; accumulates in float32, or float64 for float64.

    Does not support dropout; check `triton_obstacle` first. (N, H, D) to (N, H, D).
    """
    if q is None or k is None:  # the bias alone is the scores
        q = k = v.new_zeros(*v.shape[:2], 1)
    if bias is not None:
        bias = pair_bias(pairs, bias).expand(-1, q.shape[1])
    return _TritonAttention.apply(q, k, v, bias, pairs)

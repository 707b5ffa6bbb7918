"""Attention over a list of pairs in one fused Triton kernel: a program a reader and head, an online softmax over its
run of pairs, as FlashAttention does over blocks of a dense row (Dao et al. 2022).

The forward pass writes the result and one log-sum-exp a node and head, and keeps nothing else beside its inputs. The
backward pass computes the weights anew, once by reader for the gradients of q and bias, once by source for those of k
and v: no atomic additions, so that equal inputs give equal bits, and no tensor of P rows and D columns.
"""

import importlib.util
from typing import Any

import torch
from torch import Tensor

from gt.attention.costs import Demand
from gt.attention.dense import pair_bias
from gt.masks import Pairs
from gt.transforms import once_differentiable

INSTALLED = importlib.util.find_spec("triton") is not None
WIDEST = 256
OLDEST = (8, 0)  # the oldest compute capability that triton supports


def triton_obstacle(demand: Demand) -> str | None:
    """Why the kernels cannot serve, in a phrase; None where they can. Any pairs and any bias will do."""
    if not INSTALLED:
        return "triton is not installed"
    from gt.attention.triton_kernels import INTERPRETED

    if demand.dropout:
        return "it drops no weights"
    if demand.pair_value:
        return "its values have no term for a pair"
    if demand.channels > WIDEST:
        return f"a head has {demand.channels} channels, it takes {WIDEST} at most"
    if demand.device == "cpu":
        return None if INTERPRETED else "on a CPU it needs TRITON_INTERPRET=1, set before triton is first imported"
    if demand.device != "cuda":
        return f"it does not run on {demand.device}"
    if torch.cuda.is_available() and torch.version.hip is None:
        capability = torch.cuda.get_device_capability()
        if capability < OLDEST:
            return (
                f"it needs compute capability {OLDEST[0]}.{OLDEST[1]}, the device has {capability[0]}.{capability[1]}"
            )
    return None


def triton_avoided(demand: Demand) -> str | None:
    """On a CPU it is interpreted, for tests."""
    return "on a CPU it is interpreted" if demand.device == "cpu" else None


def prepare_triton(pairs: Pairs, demand: Demand) -> None:
    """The pairs by target and by source, which heads use each, and where each stands in a dense bias."""
    _ = pairs.rowptr, pairs.by_source, pairs.colptr, pairs.edge_heads, pairs.dense_entry


def _sizes(channels: int, values: int, pairs: int, nodes: int) -> dict[str, int]:
    """The block sizes of a launch, powers of two.

    A block of pairs is as long as a row is on average, so that most rows are done in one pass and a hub loops, but at
    least 16, the loads one warp can have in flight, and at most 64, beyond which a lane only idles in short rows. A
    tile of a block's channels stays within 2048 numbers at 16 a thread: the four tiles of a backward kernel then fill
    half of a thread's 255 registers. 16 channels are one warp a program, 64 and more are four. Reasoned, not measured.
    """
    block_d, block_e = (1 << (size - 1).bit_length() for size in (channels, values))
    mean = -(-pairs // max(nodes, 1))
    wanted = min(max(1 << max(mean - 1, 0).bit_length(), 16), 64)
    block_p = max(min(wanted, 2048 // max(block_d, block_e)), 1)
    warps = min(max(block_p * max(block_d, block_e) // 512, 1), 4)
    return {"D": channels, "BLOCK_D": block_d, "E": values, "BLOCK_E": block_e, "BLOCK_P": block_p, "num_warps": warps}


def _rows(tensor: Tensor | None) -> tuple[Tensor, int, int] | None:
    """(rows, heads) or (rows, heads, channels), as the kernels take it."""
    return None if tensor is None else (tensor, tensor.stride(0), tensor.stride(1))


def _dense_channels(tensor: Tensor) -> Tensor:
    """The same values with a stride of 1 along the channels; a copy only where it is another."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


class _TritonAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(D) + bias) v over pairs; all tensors (N, H, D), bias (P, H) or None."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, pairs: Pairs) -> Tensor:
        import triton.language as tl

        from gt.attention import triton_kernels as kernels

        (nodes, heads, channels), width = q.shape, v.shape[2]
        exact = q.dtype == torch.float64
        q, k, v = map(_dense_channels, (q, k, v))
        out = v.new_empty(v.shape)
        lse = torch.empty(nodes, heads, dtype=torch.float64 if exact else torch.float32, device=q.device)
        sizes = {"HEADS": heads, "ACC": tl.float64 if exact else tl.float32}
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
        rows = _rows(_dense_channels(grad))
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
    """One fused kernel over the pairs alone, in the dtype of v, sums in single precision or double for doubles.

    Takes no dropout; ask `triton_obstacle` first. (N, H, D) to (N, H, D).
    """
    if q is None or k is None:  # the bias stands for the scores
        q = k = v.new_zeros(*v.shape[:2], 1)
    if bias is not None:
        bias = pair_bias(pairs, bias).expand(-1, q.shape[1])
    return _TritonAttention.apply(q, k, v, bias, pairs)

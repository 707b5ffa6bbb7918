"""Attention within whole graphs by FlashAttention (Dao et al. 2022) on packed nodes, without padding."""

import torch
from torch import Tensor

from gt.attention.costs import Demand, capability
from gt.masks import Pairs

MAX_CHANNELS = 256
MIN_CC = (8, 0)  # compute capability


def flash_obstacle(demand: Demand) -> str | None:
    """Why the kernel cannot serve a demand, as a phrase, or None."""
    if demand.device != "cuda":
        return "it needs a GPU"
    if not demand.half:
        return "it only supports float16 and bfloat16"
    if demand.dropout:
        return "it does not support dropout"
    if demand.bias or demand.scored:
        return "it only supports the scaled dot product, without a bias"
    if demand.pair_value:
        return "it does not support pair values"
    if demand.channels > MAX_CHANNELS or demand.channels % 8:
        return f"a head has {demand.channels} channels, it needs a multiple of 8 up to {MAX_CHANNELS}"
    if (capability() or MIN_CC) < MIN_CC:
        return "it needs compute capability 8.0"
    return None


def flash_pairs_obstacle(pairs: Pairs) -> str | None:
    """Why the kernel cannot serve these pairs: it handles graphs and positions, not edges."""
    return "it only supports masks by position within a graph" if pairs.limits is None else None


def attend_flash(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Treats each graph as a sequence of its own length; (N, H, D) to (N, H, D).

    Supports neither bias nor dropout, and only masks by position; check `flash_obstacle` and `flash_pairs_obstacle`
    first.
    """
    from torch.nn.attention.varlen import varlen_attn  # imports the compiler: a second that few runs need

    if pairs.limits is None:
        raise ValueError("flash attention only supports masks by position within a graph")
    batch = pairs.batch
    offsets = pairs.cached("ends", lambda: batch.ptr.to(torch.int32))
    back, ahead = (-1 if limit is None else limit for limit in pairs.limits)
    out = varlen_attn(q, k, v, offsets, offsets, batch.max_nodes, batch.max_nodes, window_size=(back, ahead))
    assert isinstance(out, Tensor)  # a tuple only if more is requested
    return out

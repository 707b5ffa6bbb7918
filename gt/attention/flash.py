"""Attention within whole graphs by FlashAttention on packed nodes (Dao et al. 2022), which never pads."""

import torch
from torch import Tensor

from gt.attention.costs import Demand
from gt.masks import Pairs

WIDEST = 256
OLDEST = (8, 0)


def flash_obstacle(demand: Demand) -> str | None:
    """What the kernel cannot do."""
    if demand.device != "cuda":
        return "it needs a GPU"
    if not demand.half:
        return "it computes in 16 bits alone"
    if demand.dropout:
        return "it drops no weights"
    if demand.bias or demand.scored:
        return "it scores by the scaled dot product alone"
    if demand.pair_value:
        return "its values have no term for a pair"
    if demand.channels > WIDEST or demand.channels % 8:
        return f"a head has {demand.channels} channels, it takes multiples of 8 up to {WIDEST}"
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < OLDEST:
        return "it needs compute capability 8.0"
    return None


def flash_unfit(pairs: Pairs) -> str | None:
    """It knows graphs and positions, not edges."""
    return "it reads by position within a graph alone" if pairs.limits is None else None


def attend_flash(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Every graph a sequence of its own length, side by side; (N, H, D) to (N, H, D).

    Takes neither bias nor dropout, and masks by position alone; ask `flash_obstacle` and `flash_unfit` first.
    """
    from torch.nn.attention.varlen import varlen_attn  # brings in the compiler, a second that few runs need

    if pairs.limits is None:
        raise ValueError("flash attention reads by position within a graph alone")
    batch = pairs.batch
    ends = pairs.kept("ends", lambda: batch.ptr.to(torch.int32))
    back, forth = (-1 if limit is None else limit for limit in pairs.limits)
    out = varlen_attn(q, k, v, ends, ends, batch.max_nodes, batch.max_nodes, window_size=(back, forth))
    assert isinstance(out, Tensor)  # a pair only where more is asked for
    return out

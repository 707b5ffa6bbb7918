"""Attention over the non-empty blocks of the packed N x N matrix, by FlexAttention (Dong et al. 2024)."""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gt.attention.blocks import SIDE, Blocks, blocks_of
from gt.attention.costs import Demand
from gt.masks import Pairs

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

MAX_NODES = 1 << 18  # the block index grows with the square of the nodes
MIN_CHANNELS = 16
RECOMPILE_LIMIT = 64  # compilations of the kernel: a few for each kind of mask, dtype and number of heads or channels


@cache
def kernel(device: str) -> Any:
    """FlexAttention, compiled on a GPU; dynamic shapes keep recompilations few.

    Beyond the compiler's limit, by default 8, FlexAttention would run uncompiled, which computes every score.
    """
    from torch.nn.attention.flex_attention import flex_attention  # imports the compiler: a second that few runs need

    if device != "cuda":
        return flex_attention
    torch._dynamo.config.recompile_limit = max(RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, dynamic=True)


def flex_obstacle(demand: Demand) -> str | None:
    """Why FlexAttention, as used here, cannot serve a demand, as a phrase, or None."""
    if demand.dropout:
        return "it does not support dropout"
    if demand.bias or demand.scored:
        return "it only supports the scaled dot product, without a bias"
    if demand.pair_value:
        return "it does not support pair values"
    if demand.device == "cpu":
        return "on a CPU it computes no gradients" if demand.gradients else None
    if demand.device != "cuda":
        return f"it does not run on {demand.device}"
    return f"a head needs {MIN_CHANNELS} channels or more" if demand.channels < MIN_CHANNELS else None


def flex_drawback(demand: Demand) -> str | None:
    """On a CPU it is not compiled and computes every score."""
    return "on a CPU it computes every score" if demand.device == "cpu" else None


def flex_pairs_obstacle(pairs: Pairs) -> str | None:
    """Why it cannot serve the pairs of a batch, as a phrase, or None."""
    nodes = pairs.batch.num_nodes
    return f"its block index would be too large for {nodes:,} nodes" if nodes > MAX_NODES else None


def prepare_flex(pairs: Pairs, demand: Demand) -> None:
    """Precompute the non-empty blocks."""
    blocks_of(pairs)


def block_mask(blocks: Blocks, nodes: int) -> "BlockMask":
    """The blocks in the form that FlexAttention takes."""
    from torch.nn.attention.flex_attention import BlockMask

    return BlockMask.from_kv_blocks(
        blocks.partial_count[None, None],
        blocks.partial[None, None],
        blocks.full_count[None, None],
        blocks.full[None, None],
        BLOCK_SIZE=SIDE,
        mask_mod=lambda graph, head, reader, source: blocks.allows(head, reader, source),
        seq_lengths=(nodes, nodes),
    )


def attend_flex(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Computes non-empty blocks in full and skips the others; (N, H, D) to (N, H, D).

    Supports neither bias nor dropout; check `flex_obstacle` first.
    """
    blocks = blocks_of(pairs)
    if blocks.order is not None:
        q, k, v = (t.index_select(0, blocks.order) for t in (q, k, v))
    mask = pairs.cached("block_mask", lambda: block_mask(blocks, pairs.batch.num_nodes))
    out = kernel(q.device.type)(*(t.transpose(0, 1)[None].contiguous() for t in (q, k, v)), block_mask=mask)
    out = out[0].transpose(0, 1)
    return out if blocks.inverse is None else out.index_select(0, blocks.inverse)

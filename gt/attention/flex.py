"""Attention over the blocks of the packed N x N matrix that hold pairs, by FlexAttention (Dong et al. 2024)."""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gt.attention.blocks import SIDE, Blocks, blocks_of
from gt.attention.costs import Demand
from gt.masks import Pairs

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

MOST_NODES = 1 << 18  # the index of blocks grows with the square of the nodes
NARROWEST = 16


@cache
def kernel(device: str) -> Any:
    """FlexAttention, on a GPU compiled: anew for few of the sizes that it meets."""
    from torch.nn.attention.flex_attention import flex_attention  # brings in the compiler, a second that few runs need

    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


def flex_obstacle(demand: Demand) -> str | None:
    """What FlexAttention, as it is used here, cannot do."""
    if demand.dropout:
        return "it drops no weights"
    if demand.bias or demand.scored:
        return "it scores by the scaled dot product alone"
    if demand.pair_value:
        return "its values have no term for a pair"
    if demand.device == "cpu":
        return "on a CPU it computes no gradients" if demand.gradients else None
    if demand.device != "cuda":
        return f"it does not run on {demand.device}"
    return f"a head needs {NARROWEST} channels or more" if demand.channels < NARROWEST else None


def flex_avoided(demand: Demand) -> str | None:
    """On a CPU it is not compiled and works out every score."""
    return "on a CPU it works out every score" if demand.device == "cpu" else None


def flex_unfit(pairs: Pairs) -> str | None:
    """Which batches it cannot serve."""
    nodes = pairs.batch.num_nodes
    return f"its index of blocks would be too large for {nodes:,} nodes" if nodes > MOST_NODES else None


def prepare_flex(pairs: Pairs, demand: Demand) -> None:
    """The blocks that hold pairs."""
    blocks_of(pairs)


def block_mask(blocks: Blocks, nodes: int) -> "BlockMask":
    """What FlexAttention takes."""
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
    """Blocks that hold a pair are computed whole, the others not at all; (N, H, D) to (N, H, D).

    Takes neither bias nor dropout; ask `flex_obstacle` first.
    """
    blocks = blocks_of(pairs)
    if blocks.order is not None:
        q, k, v = (t.index_select(0, blocks.order) for t in (q, k, v))
    mask = pairs.kept("block_mask", lambda: block_mask(blocks, pairs.batch.num_nodes))
    out = kernel(q.device.type)(*(t.transpose(0, 1)[None].contiguous() for t in (q, k, v)), block_mask=mask)
    out = out[0].transpose(0, 1)
    return out if blocks.place is None else out.index_select(0, blocks.place)

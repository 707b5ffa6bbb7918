"""Reading through virtual nodes: what `Pairs` add on the wide batch of `GraphBatch.with_virtual_nodes`.

Masks speak of the real nodes alone, and beside that in one number for each head: how many virtual nodes it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gt.graph import GraphBatch
from gt.hops import ranges

if TYPE_CHECKING:
    from gt.masks.base import Mask


def wide_keys(batch: GraphBatch, real_keys: Tensor, used: int) -> Tensor:
    """(P,) sorted keys in the wide batch, from those of the batch without virtual nodes."""
    nodes, real = batch.num_nodes, batch.real
    reader, source = real_keys // len(real), real_keys % len(real)
    virtual = batch.virtual[:, :used]  # (B, used)
    lengths = (batch.sizes - batch.virtual_nodes + used).repeat_interleave(used)
    by_virtual = virtual.flatten().repeat_interleave(lengths)  # each reads all the real nodes and, behind them, these
    of_virtual = real[:, None] * nodes + virtual[batch.batch[real]]
    keys = [
        real[reader] * nodes + real[source],
        of_virtual.flatten(),
        by_virtual * nodes + ranges(batch.ptr[:-1].repeat_interleave(used), lengths),
    ]
    return torch.cat(keys).sort()[0]


def wide_heads(batch: GraphBatch, edges: Tensor, mask: Mask) -> Tensor:
    """(P, H) bool, the heads that use each pair (2, P) of the wide batch."""
    rank = batch.position - (batch.sizes - batch.virtual_nodes)[batch.batch]  # (N,): below 0 real, else which virtual
    highest = rank[edges].amax(0)
    heads = highest[:, None] < _on(batch, mask.through)
    between = highest < 0
    source, target = (edges - batch.batch[edges] * batch.virtual_nodes)[:, between]  # numbered without virtual nodes
    assert batch.narrow is not None
    heads[between] = mask.allows(batch.narrow, source, target)
    return heads


def wide_dense(batch: GraphBatch, real_dense: Tensor, through: tuple[int, ...]) -> Tensor:
    """(B, 1 or H, L, L) of the wide batch, from that of the batch without virtual nodes."""
    place = torch.arange(batch.max_nodes, device=batch.device)
    rank = place - (batch.sizes - batch.virtual_nodes)[:, None]  # (B, L): below 0 real, else which virtual node
    inside = rank[:, None] < _on(batch, through)[:, None]  # (B, H, L)
    virtual = (rank >= 0)[:, None]
    dense = inside[..., :, None] & inside[..., None, :] & (virtual[..., :, None] | virtual[..., None, :])
    most = real_dense.shape[-1]
    dense[..., :most, :most] |= real_dense
    return dense


def _on(batch: GraphBatch, numbers: tuple[int, ...]) -> Tensor:
    return torch.tensor(numbers, device=batch.device)

"""Attention over the padded (B, H, L, L) view: dense matrix products, which hardware likes."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gt.masks import Pairs


def dense_bias(pairs: Pairs, bias: Tensor) -> Tensor:
    """A bias per pair and head, (P, H) in the order of ``pairs.edges`` or (B, H or 1, L, L), as the latter."""
    if bias.dim() == 4:
        return bias
    batch, heads = pairs.batch, bias.shape[1]
    size = batch.num_graphs * batch.max_nodes**2
    rows = bias.new_zeros(size, heads).index_copy(0, pairs.dense_entry, bias)
    return rows.view(batch.num_graphs, batch.max_nodes, batch.max_nodes, heads).permute(0, 3, 1, 2)


def _visible(pairs: Pairs) -> Tensor | None:
    """(B, 1 or H, L, L) bool, or None where every padded row and column is a real one and all are read."""
    return None if pairs.batch.equal_sizes and pairs.limits == (None, None) else pairs.safe_dense


def _unpack(pairs: Pairs, out: Tensor) -> Tensor:
    """(B, H, L, D) to (N, H, D), with zeros at targets that read nobody."""
    if not pairs.all_read:
        out = out.masked_fill(~pairs.readers, 0.0)
    return pairs.batch.to_packed(out.transpose(1, 2))


def dense_weights(q: Tensor, k: Tensor, pairs: Pairs, bias: Tensor | None = None) -> Tensor:
    """The attention weights, (N, H, D) queries and keys to (B, H, L, L); rows that read nobody hold no meaning."""
    to_dense = pairs.batch.to_dense
    q, k = (to_dense(t).transpose(1, 2) for t in (q / math.sqrt(q.shape[-1]), k))  # (B, H, L, D)
    scores = q @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + dense_bias(pairs, bias)
    visible = _visible(pairs)
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(-1)


def attend_dense(q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None, dropout: float) -> Tensor:
    """Two batched matrix products and a softmax; fastest for many small graphs. (N, H, D) to (N, H, D)."""
    weights = dense_weights(q, k, pairs, bias)
    if dropout:
        weights = F.dropout(weights, dropout)
    return _unpack(pairs, weights.to(v.dtype) @ pairs.batch.to_dense(v).transpose(1, 2))


def attend_sdpa(q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None, dropout: float) -> Tensor:
    """PyTorch's fused attention; fastest for long sequences. (N, H, D) to (N, H, D)."""
    q, k, v = (pairs.batch.to_dense(t).transpose(1, 2) for t in (q, k, v))  # (B, H, L, D)
    # padding stands behind the real nodes, so the causal rule alone hides it from them
    causal = pairs.limits == (None, 0) and bias is None
    visible = None if causal else _visible(pairs)
    if bias is not None:
        mask: Tensor | None = dense_bias(pairs, bias)
        if visible is not None:
            mask = mask.masked_fill(~visible, -torch.inf)  # type: ignore[union-attr]
    else:
        mask = visible
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    return _unpack(pairs, out)

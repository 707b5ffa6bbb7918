"""Attention over the padded (B, H, L, L) view: dense matrix products, which hardware likes."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gt.attention.costs import Demand
from gt.dropout import dropout as drop
from gt.masks import Pairs


def pair_bias(pairs: Pairs, bias: Tensor) -> Tensor:
    """A bias per pair and head, (P, H) or (B, H or 1, L, L), as the former."""
    if bias.dim() == 2:
        return bias
    return bias.permute(0, 2, 3, 1).reshape(-1, bias.shape[1]).index_select(0, pairs.dense_entry)


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


def total(product: Tensor | None, bias: Tensor | None) -> Tensor:
    """Scores: the scaled product of queries and keys, a bias, or their sum.

    Raises:
        ValueError: neither is there.
    """
    if product is None and bias is None:
        raise ValueError("attention needs queries and keys, or a bias that stands for them")
    if product is None or bias is None:
        return bias if product is None else product  # type: ignore[return-value]
    return product + bias


def dense_weights(q: Tensor | None, k: Tensor | None, pairs: Pairs, bias: Tensor | None = None) -> Tensor:
    """The attention weights, (N, H, D) queries and keys, or none, to (B, H, L, L).

    Rows that read nobody hold no meaning.
    """
    scores = None
    if q is not None and k is not None:
        to_dense = pairs.batch.to_dense
        q, k = (to_dense(t).transpose(1, 2) for t in (q / math.sqrt(q.shape[-1]), k))  # (B, H, L, D)
        scores = q @ k.transpose(-2, -1)
    scores = total(scores, None if bias is None else dense_bias(pairs, bias))
    visible = _visible(pairs)
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(-1)


def attend_dense(
    q: Tensor | None,
    k: Tensor | None,
    v: Tensor,
    pairs: Pairs,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    pair_value: Tensor | None = None,
) -> Tensor:
    """Two batched matrix products and a softmax; fastest for many small graphs. (N, H, D) to (N, H, D)."""
    weights = dense_weights(q, k, pairs, bias)
    weights = drop(weights, dropout).to(v.dtype)
    out = _unpack(pairs, weights @ pairs.batch.to_dense(v).transpose(1, 2))
    if pair_value is not None:
        listed = pair_bias(pairs, weights)
        if pairs.edge_heads is not None:
            listed = listed.masked_fill(~pairs.edge_heads, 0.0)
        out = out.index_add(0, pairs.edges[1], listed[..., None] * pair_value.to(v.dtype))
    return out


def attend_sdpa(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
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


def prepare_dense(pairs: Pairs, demand: Demand) -> None:
    """The places of nodes on the padded view, the mask on it, and whether some node reads nobody."""
    _ = pairs.batch.slot, pairs.safe_dense, pairs.all_read


def sdpa_obstacle(demand: Demand) -> str | None:
    """What PyTorch's fused attention cannot do."""
    if demand.scored:
        return "it scores by the scaled dot product alone"
    if demand.pair_value:
        return "its values have no term for a pair"
    return None


def sdpa_avoided(demand: Demand) -> str | None:
    """Where it falls back to plain products and is slower than those of `attend_dense`."""
    if demand.device == "cpu" and (demand.dropout or demand.trained):
        return "on a CPU it is not fused with dropout or a trained bias"
    return None

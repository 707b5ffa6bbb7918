"""Attention on the padded (B, H, L, L) view, by dense matrix products, which hardware handles best."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gt.attention.costs import Demand
from gt.dropout import dropout as drop
from gt.masks import Pairs
from gt.transforms import transformed


def pair_bias(pairs: Pairs, bias: Tensor) -> Tensor:
    """Convert a bias per pair and head, (P, H) or (B, H or 1, L, L), to (P, H)."""
    if bias.dim() == 2:
        return bias
    return bias.permute(0, 2, 3, 1).reshape(-1, bias.shape[1]).index_select(0, pairs.dense_entry)


def dense_bias(pairs: Pairs, bias: Tensor) -> Tensor:
    """Convert a bias per pair and head, (P, H) in the order of ``pairs.edges`` or (B, H or 1, L, L), to the latter."""
    if bias.dim() == 4:
        return bias
    batch, heads = pairs.batch, bias.shape[1]
    size = batch.num_graphs * batch.max_nodes**2
    rows = bias.new_zeros(size, heads).index_copy(0, pairs.dense_entry, bias)
    return rows.view(batch.num_graphs, batch.max_nodes, batch.max_nodes, heads).permute(0, 3, 1, 2)


def _mask_bias(pairs: Pairs, dtype: torch.dtype) -> Tensor | None:
    """(B, 1 or H, L or 1, L) to add to scores: minus infinity at masked pairs, else 0; built once per batch.

    None if there is no padding and every pair is allowed. The contents of rows that read no node are arbitrary.
    """
    batch = pairs.batch
    unmasked = pairs.limits == (None, None)
    if unmasked and batch.equal_sizes:
        return None

    def make() -> Tensor:
        # without a mask the size of a graph decides; rows of padding are arbitrary
        positions = torch.arange(batch.max_nodes, device=batch.device)
        sizes = batch.sizes.clamp(min=1)  # empty graphs pad a batch, and a softmax over nothing is NaN
        visible = (positions < sizes[:, None])[:, None, None] if unmasked else pairs.safe_dense
        return torch.zeros(visible.shape, dtype=dtype, device=batch.device).masked_fill(~visible, -torch.inf)

    return pairs.cached(f"hides_{dtype}".replace(".", "_"), make)


def zero_masked(pairs: Pairs, bias: Tensor) -> Tensor:
    """A bias of either form as (B, 1 or H, L, L), zeroed at masked pairs, whatever it held there, even NaN."""
    if bias.dim() == 2:
        return dense_bias(pairs, bias)
    return bias if pairs.batch.equal_sizes and pairs.limits == (None, None) else bias.masked_fill(~pairs.dense, 0.0)


def _padded_rows(pairs: Pairs, heads: int) -> Tensor:
    """(N H,) the index of each node and head into the flattened padded view (B, H, L)."""
    batch = pairs.batch

    def make() -> Tensor:
        start = (batch.batch * (heads * batch.max_nodes) + batch.position)[:, None]
        return (start + torch.arange(heads, device=batch.device) * batch.max_nodes).flatten()

    return pairs.cached(f"rows_{heads}", make)


class _Pad(torch.autograd.Function):
    """Scatter each (N, H, D) into zeros (B, H, L, D) at the flattened ``index`` (N H,); backward gathers them again."""

    @staticmethod
    def forward(ctx: Any, index: Tensor, graphs: int, size: int, *packed: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(index)
        _, heads, channels = packed[0].shape
        padded = packed[0].new_zeros(len(packed), graphs * heads * size, channels)
        for rows, values in zip(padded, packed, strict=True):
            rows.index_copy_(0, index, values.reshape(-1, channels))
        return padded.view(len(packed), graphs, heads, size, channels).unbind()

    @staticmethod
    def backward(ctx: Any, *padded: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        heads, channels = padded[0].shape[1], padded[0].shape[3]
        rows = (grad.reshape(-1, channels).index_select(0, index) for grad in padded)
        return None, None, None, *(grad.view(-1, heads, channels) for grad in rows)


def _pad(pairs: Pairs, *packed: Tensor) -> tuple[Tensor, ...]:
    """Pad each (N, H, D) to (B, H, L, D) with zeros."""
    if any(t.shape != packed[0].shape for t in packed):
        return tuple(padded for t in packed for padded in _pad(pairs, t))
    batch, (_, heads, channels) = pairs.batch, packed[0].shape
    if batch.equal_sizes:
        views = (t.view(batch.num_graphs, batch.max_nodes, heads, channels) for t in packed)
        return tuple(t.transpose(1, 2) for t in views)
    index, shape = _padded_rows(pairs, heads), (batch.num_graphs, heads, batch.max_nodes, channels)
    if transformed():
        rows = (t.new_zeros(shape).view(-1, channels).index_copy(0, index, t.reshape(-1, channels)) for t in packed)
        return tuple(padded.view(shape) for padded in rows)
    return _Pad.apply(index, batch.num_graphs, batch.max_nodes, *packed)


def _unpad(pairs: Pairs, out: Tensor) -> Tensor:
    """(B, H, L, D) to (N, H, D), with zeros at nodes that read no node."""
    batch, (_, heads, _, channels) = pairs.batch, out.shape
    if not pairs.all_read:
        out = out.masked_fill(~pairs.readers, 0.0)
    if batch.equal_sizes:
        return out.transpose(1, 2).reshape(-1, heads, channels)
    return out.reshape(-1, channels).index_select(0, _padded_rows(pairs, heads)).view(-1, heads, channels)


def add_scores(product: Tensor | None, bias: Tensor | None) -> Tensor:
    """The scores: the scaled product of queries and keys, a bias, or their sum.

    Raises:
        ValueError: neither is given.
    """
    if product is None and bias is None:
        raise ValueError("attention needs queries and keys, or a bias in their place")
    if product is None or bias is None:
        return bias if product is None else product  # type: ignore[return-value]
    return product + bias


def dense_weights(q: Tensor | None, k: Tensor | None, pairs: Pairs, bias: Tensor | None = None) -> Tensor:
    """The attention weights (B, H, L, L) of queries and keys (N, H, D), or None, and a bias (B, 1 or H, L, L).

    Rows that read no node are meaningless.
    """
    if q is not None and k is not None:
        q, k = _pad(pairs, q / math.sqrt(q.shape[-1]), k)
    return _weights(q, k, pairs, bias)


def _weights(q: Tensor | None, k: Tensor | None, pairs: Pairs, bias: Tensor | None) -> Tensor:
    """The attention weights (B, H, L, L) of scaled queries and keys (B, H, L, D), or None.

    Zeros in rows where a bias hides every source; without a bias no row is fully masked, see `_mask_bias`.
    """
    if q is None or k is None:
        scores = add_scores(None, bias)
        mask_bias = _mask_bias(pairs, scores.dtype)
        return torch._safe_softmax(scores if mask_bias is None else scores + mask_bias, -1)
    scores = q @ k.transpose(-2, -1)
    for term in (bias, _mask_bias(pairs, scores.dtype)):
        if term is not None:  # in place: a pass over the largest tensor costs as much as a product
            scores = scores.add_(term) if term.dtype == scores.dtype else scores + term
    return scores.softmax(-1) if bias is None else torch._safe_softmax(scores, -1)


def attend_dense(
    q: Tensor | None,
    k: Tensor | None,
    v: Tensor,
    pairs: Pairs,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    pair_value: Tensor | None = None,
) -> Tensor:
    """Two batched matrix products and a softmax; fastest for many small graphs. (N, H, D) to (N, H, D).

    The bias is (B, 1 or H, L, L), and finite at masked pairs: NaN in padding would spoil the gradients.
    """
    if q is not None and k is not None:
        q, k, padded_v = _pad(pairs, q / math.sqrt(q.shape[-1]), k, v)
    else:
        (padded_v,) = _pad(pairs, v)
    weights = drop(_weights(q, k, pairs, bias), dropout).to(v.dtype)
    out = _unpad(pairs, weights @ padded_v)
    if pair_value is not None:
        pair_weights = pair_bias(pairs, weights)
        if pairs.edge_heads is not None:
            pair_weights = pair_weights.masked_fill(~pairs.edge_heads, 0.0)
        out = out.index_add(0, pairs.edges[1], pair_weights[..., None] * pair_value.to(v.dtype))
    return out


def attend_sdpa(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """PyTorch's fused attention; fastest for long sequences. (N, H, D) to (N, H, D)."""
    q, k, v = _pad(pairs, q, k, v)
    # padding follows the real nodes, so the causal mask already hides it from them
    causal = pairs.limits == (None, 0) and bias is None
    mask = None if causal else _mask_bias(pairs, q.dtype)
    if bias is not None:
        mask = bias if mask is None else bias + mask
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    return _unpad(pairs, out)


def prepare_dense(pairs: Pairs, demand: Demand) -> None:
    """Precompute the padded positions of nodes, the mask, and which nodes read no node."""
    if not demand.half:
        _mask_bias(pairs, torch.float32)
    elif pairs.limits != (None, None):  # which of the two 16-bit dtypes is not known yet
        _ = pairs.safe_dense
    if not pairs.batch.equal_sizes:
        _padded_rows(pairs, demand.heads)
    if not pairs.all_read:
        _ = pairs.readers
    if demand.bias or demand.scored:
        _ = pairs.dense


def sdpa_obstacle(demand: Demand) -> str | None:
    """Why PyTorch's fused attention cannot serve a demand, as a phrase, or None."""
    if demand.scored:
        return "it only supports the scaled dot product"
    if demand.pair_value:
        return "it does not support pair values"
    return None


def sdpa_drawback(demand: Demand) -> str | None:
    """Where it falls back to plain matrix products and is slower than `attend_dense`."""
    if demand.device == "cpu" and (demand.dropout or demand.trained):
        return "on a CPU it is not fused with dropout or a trained bias"
    return None

"""Attention over the padded (B, H, L, L) view: dense matrix products, which hardware likes."""

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


def _hides(pairs: Pairs, dtype: torch.dtype) -> Tensor | None:
    """(B, 1 or H, L or 1, L) to add to scores: minus infinity where nothing is read, else 0; made once for a batch.

    None where every padded row and column is a real one and all are read. Rows that read nobody hold what they like.
    """
    batch = pairs.batch
    everything = pairs.limits == (None, None)
    if everything and batch.equal_sizes:
        return None

    def make() -> Tensor:
        # who reads all of a graph is told by its size alone, whatever the rows of padding hold
        places = torch.arange(batch.max_nodes, device=batch.device)
        sizes = batch.sizes.clamp(min=1)  # of a graph that only fills a batch up: a softmax over nothing would be NaN
        visible = (places < sizes[:, None])[:, None, None] if everything else pairs.safe_dense
        return torch.zeros(visible.shape, dtype=dtype, device=batch.device).masked_fill(~visible, -torch.inf)

    return pairs.kept(f"hides_{dtype}".replace(".", "_"), make)


def bias_of_read(pairs: Pairs, bias: Tensor) -> Tensor:
    """A bias of either form as (B, 1 or H, L, L), zero where nothing is read, whatever it held there: also NaN."""
    if bias.dim() == 2:
        return dense_bias(pairs, bias)
    return bias if pairs.batch.equal_sizes and pairs.limits == (None, None) else bias.masked_fill(~pairs.dense, 0.0)


def _rows(pairs: Pairs, heads: int) -> Tensor:
    """(N H,) the row of each node and head in the flattened padded view (B, H, L)."""
    batch = pairs.batch

    def make() -> Tensor:
        first = (batch.batch * (heads * batch.max_nodes) + batch.position)[:, None]
        return (first + torch.arange(heads, device=batch.device) * batch.max_nodes).flatten()

    return pairs.kept(f"rows_{heads}", make)


class _Padded(torch.autograd.Function):
    """(N, H, D) each to zeros (B, H, L, D) with its rows (N H,) at ``at``; of what flows back those rows are all."""

    @staticmethod
    def forward(ctx: Any, at: Tensor, graphs: int, size: int, *packed: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(at)
        _, heads, channels = packed[0].shape
        padded = packed[0].new_zeros(len(packed), graphs * heads * size, channels)
        for rows, values in zip(padded, packed, strict=True):
            rows.index_copy_(0, at, values.reshape(-1, channels))
        return padded.view(len(packed), graphs, heads, size, channels).unbind()

    @staticmethod
    def backward(ctx: Any, *padded: Tensor) -> tuple[Tensor | None, ...]:
        (at,) = ctx.saved_tensors
        heads, channels = padded[0].shape[1], padded[0].shape[3]
        rows = (grad.reshape(-1, channels).index_select(0, at) for grad in padded)
        return None, None, None, *(grad.view(-1, heads, channels) for grad in rows)


def _pad(pairs: Pairs, *packed: Tensor) -> tuple[Tensor, ...]:
    """Each (N, H, D) to (B, H, L, D), zeros where a graph is shorter than L."""
    if any(t.shape != packed[0].shape for t in packed):
        return tuple(padded for t in packed for padded in _pad(pairs, t))
    batch, (_, heads, channels) = pairs.batch, packed[0].shape
    if batch.equal_sizes:
        wide = (t.view(batch.num_graphs, batch.max_nodes, heads, channels) for t in packed)
        return tuple(t.transpose(1, 2) for t in wide)
    at, shape = _rows(pairs, heads), (batch.num_graphs, heads, batch.max_nodes, channels)
    if transformed():
        rows = (t.new_zeros(shape).view(-1, channels).index_copy(0, at, t.reshape(-1, channels)) for t in packed)
        return tuple(each.view(shape) for each in rows)
    return _Padded.apply(at, batch.num_graphs, batch.max_nodes, *packed)


def _unpad(pairs: Pairs, out: Tensor) -> Tensor:
    """(B, H, L, D) to (N, H, D), with zeros at targets that read nobody."""
    batch, (_, heads, _, channels) = pairs.batch, out.shape
    if not pairs.all_read:
        out = out.masked_fill(~pairs.readers, 0.0)
    if batch.equal_sizes:
        return out.transpose(1, 2).reshape(-1, heads, channels)
    return out.reshape(-1, channels).index_select(0, _rows(pairs, heads)).view(-1, heads, channels)


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
    """The attention weights, (N, H, D) queries and keys, or none, and a bias (B, 1 or H, L, L) to (B, H, L, L).

    Rows that read nobody hold no meaning.
    """
    if q is not None and k is not None:
        q, k = _pad(pairs, q / math.sqrt(q.shape[-1]), k)
    return _weights(q, k, pairs, bias)


def _weights(q: Tensor | None, k: Tensor | None, pairs: Pairs, bias: Tensor | None) -> Tensor:
    """(B, H, L, D) queries, already scaled, and keys, or none, to the attention weights (B, H, L, L).

    They are 0 where a bias hides all that a reader reads; without one no row is hidden, see `_hides`.
    """
    if q is None or k is None:
        scores = total(None, bias)
        hides = _hides(pairs, scores.dtype)
        return torch._safe_softmax(scores if hides is None else scores + hides, -1)
    scores = q @ k.transpose(-2, -1)
    for each in (bias, _hides(pairs, scores.dtype)):
        if each is not None:  # in place: a pass over the largest tensor there is costs as much as a product
            scores = scores.add_(each) if each.dtype == scores.dtype else scores + each
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

    The bias is (B, 1 or H, L, L), and finite where nothing is read: padding that holds NaN would spoil gradients.
    """
    if q is not None and k is not None:
        q, k, wide_v = _pad(pairs, q / math.sqrt(q.shape[-1]), k, v)
    else:
        (wide_v,) = _pad(pairs, v)
    weights = drop(_weights(q, k, pairs, bias), dropout).to(v.dtype)
    out = _unpad(pairs, weights @ wide_v)
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
    q, k, v = _pad(pairs, q, k, v)
    # padding stands behind the real nodes, so the causal rule alone hides it from them
    causal = pairs.limits == (None, 0) and bias is None
    mask = None if causal else _hides(pairs, q.dtype)
    if bias is not None:
        mask = bias if mask is None else bias + mask
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    return _unpad(pairs, out)


def prepare_dense(pairs: Pairs, demand: Demand) -> None:
    """The places of nodes on the padded view, what they do not read there, and whether some read nobody."""
    if not demand.half:
        _hides(pairs, torch.float32)
    elif pairs.limits != (None, None):  # in which of the two types of 16 bits is not known yet
        _ = pairs.safe_dense
    if not pairs.batch.equal_sizes:
        _rows(pairs, demand.heads)
    if not pairs.all_read:
        _ = pairs.readers
    if demand.bias or demand.scored:
        _ = pairs.dense


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

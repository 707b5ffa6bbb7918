"""Attention over a list of pairs, as products with sparse matrices: work and memory grow with the pairs alone.

With P pairs, the weights of one head are a sparse N x N matrix A whose rows are the readers. One head then needs a
sampled product (Q K^T where A has entries) and a sparse-dense product (A V); the backward pass needs the same two
kinds. No tensor of P rows and D columns is ever made: what is kept for the backward pass is one number a pair and
head, beside q, k and v themselves.
"""

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gt.attention.dense import pair_bias, total
from gt.masks import Pairs

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


def csr(rowptr: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """An N x N matrix in compressed rows."""
    nodes = rowptr.numel() - 1
    return torch.sparse_csr_tensor(rowptr, columns, values, size=(nodes, nodes), check_invariants=False)


def full_precision(device: torch.device) -> torch.autocast:
    """Products as their operands are, whatever autocast asks for: sparse ones take no half precision."""
    return torch.autocast(device.type, enabled=False)


def by_head(rows: Tensor) -> Tensor:
    """(N, H, D) to (H, N, D), each head in one piece."""
    return rows.transpose(0, 1).contiguous()


def sampled(left: Tensor, right: Tensor, pairs: Pairs) -> Tensor:
    """The product of each target's row of ``left`` and each source's of ``right``: two (H, N, D) to (P, H)."""
    pattern = csr(pairs.rowptr, pairs.edges[0], left.new_zeros(pairs.edges.shape[1]))
    products = [torch.sparse.sampled_addmm(pattern, a, b.T, beta=0.0) for a, b in zip(left, right, strict=True)]
    return torch.stack([product.values() for product in products], dim=1)


def to_targets(weights: Tensor, rows: Tensor, pairs: Pairs) -> Tensor:
    """Sums over the pairs of each target of weighted rows of its sources: (P, H) and (H, N, D) to (N, H, D)."""
    heads = zip(weights.T.contiguous(), rows, strict=True)
    return torch.stack([csr(pairs.rowptr, pairs.edges[0], of_head) @ row for of_head, row in heads], dim=1)


def to_sources(weights: Tensor, rows: Tensor, pairs: Pairs) -> Tensor:
    """The same in the other direction: sums over the pairs of each source of weighted rows of its targets."""
    back = pairs.by_source
    heads = zip(weights.T, rows, strict=True)
    readers = pairs.edges[1][back]
    return torch.stack([csr(pairs.colptr, readers, of_head[back]) @ row for of_head, row in heads], dim=1)


class _PairProducts(torch.autograd.Function):
    """q_i . k_j for each pair: two (N, H, D) to (P, H)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        q, k = by_head(q), by_head(k)
        ctx.save_for_backward(q, k)
        ctx.pairs = pairs
        return sampled(q, k, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k = ctx.saved_tensors
        with full_precision(q.device):
            return to_targets(grad, k, ctx.pairs), to_sources(grad, q, ctx.pairs), None


class _PairSoftmax(torch.autograd.Function):
    """Softmax of (P, H) over the run of pairs of each target; a run of nothing but -inf gives zeros."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, pairs: Pairs) -> Tensor:
        target = pairs.edges[1]
        highest = torch.segment_reduce(scores, "max", offsets=pairs.rowptr, axis=0)  # (N, H)
        highest = highest.masked_fill(highest == -torch.inf, 0.0)  # an empty run
        weights = (scores - highest.index_select(0, target)).exp_()
        total = torch.zeros_like(highest).index_add_(0, target, weights)
        weights.div_(total.index_select(0, target).clamp_min_(torch.finfo(scores.dtype).tiny))
        ctx.save_for_backward(weights)
        ctx.pairs = pairs
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weights,) = ctx.saved_tensors
        target = ctx.pairs.edges[1]
        inner = grad * weights
        total = weights.new_zeros(ctx.pairs.batch.num_nodes, weights.shape[1]).index_add_(0, target, inner)
        return inner.sub_(weights * total.index_select(0, target)), None


class _WeightedSums(torch.autograd.Function):
    """sum_j a_ij v_j: weights (P, H) and rows (N, H, D) to (N, H, D)."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, v: Tensor, pairs: Pairs) -> Tensor:
        v = by_head(v)
        ctx.save_for_backward(weights, v)
        ctx.pairs = pairs
        return to_targets(weights, v, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, v = ctx.saved_tensors
        with full_precision(v.device):
            grad = by_head(grad)
            return sampled(grad, v, ctx.pairs), to_sources(weights, grad, ctx.pairs), None


def pair_weights(q: Tensor | None, k: Tensor | None, pairs: Pairs, bias: Tensor | None) -> Tensor:
    """The attention weight of each pair: (N, H, D) queries and keys, or none, to (P, H)."""
    scores = None
    if q is not None and k is not None:
        scores = _PairProducts.apply(q / math.sqrt(q.shape[-1]), k, pairs)
    scores = total(scores, None if bias is None else pair_bias(pairs, bias))
    if pairs.edge_heads is not None:
        scores = scores.masked_fill(~pairs.edge_heads, -torch.inf)
    return _PairSoftmax.apply(scores, pairs)


def attend_sparse(
    q: Tensor | None,
    k: Tensor | None,
    v: Tensor,
    pairs: Pairs,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    pair_value: Tensor | None = None,
) -> Tensor:
    """Sparse matrix products over the pairs alone; fastest where few pairs are allowed. (N, H, D) to (N, H, D)."""
    dtype = v.dtype
    if dtype in (torch.float16, torch.bfloat16):  # sparse products take no half precision
        v = v.float()
        q, k, bias, pair_value = (None if t is None else t.float() for t in (q, k, bias, pair_value))
    with full_precision(v.device):
        weights = pair_weights(q, k, pairs, bias).expand(-1, v.shape[1])
        weights = F.dropout(weights, dropout) if dropout else weights
        out = _WeightedSums.apply(weights, v, pairs)
        if pair_value is not None:
            out = out.index_add(0, pairs.edges[1], weights[..., None] * pair_value)
    return out.to(dtype)

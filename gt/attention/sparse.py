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

from gt.masks import Pairs

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


def csr(rowptr: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """An N x N matrix in compressed rows."""
    nodes = rowptr.numel() - 1
    return torch.sparse_csr_tensor(rowptr, columns, values, size=(nodes, nodes), check_invariants=False)


def full_precision(device: torch.device) -> torch.autocast:
    """Products as their operands are, whatever autocast asks for: sparse ones take no half precision."""
    return torch.autocast(device.type, enabled=False)


def segment_softmax(scores: Tensor, rowptr: Tensor, target: Tensor) -> Tensor:
    """Softmax of (P, H) over the run of pairs of each target; a run of nothing but -inf gives zeros."""
    highest = torch.segment_reduce(scores, "max", offsets=rowptr, axis=0)  # (N, H)
    highest = highest.masked_fill(highest == -torch.inf, 0.0)  # an empty run
    weights = (scores - highest.index_select(0, target)).exp_()
    total = torch.zeros_like(highest).index_add_(0, target, weights)
    return weights.div_(total.index_select(0, target).clamp_min_(torch.finfo(scores.dtype).tiny))


class _SparseAttention(torch.autograd.Function):
    """softmax(Q K^T + bias) V over pairs, one head after the other; q already scaled, all tensors (N, H, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, pairs: Pairs, dropout: float) -> Tensor:
        source, target = pairs.edges
        heads = q.shape[1]
        with full_precision(q.device):
            q, k, v = (t.transpose(0, 1).contiguous() for t in (q, k, v))  # (H, N, D)
            pattern = csr(pairs.rowptr, source, q.new_zeros(source.numel()))
            scores = torch.stack(
                [torch.sparse.sampled_addmm(pattern, q[h], k[h].T, beta=0.0).values() for h in range(heads)], dim=1
            )  # (P, H)
            if bias is not None:
                scores += bias
            if pairs.edge_heads is not None:
                scores.masked_fill_(~pairs.edge_heads, -torch.inf)
            weights = segment_softmax(scores, pairs.rowptr, target)
            kept = torch.empty_like(weights).bernoulli_(1 - dropout).div_(1 - dropout) if dropout else None
            used = weights if kept is None else weights * kept
            out = torch.stack([csr(pairs.rowptr, source, a) @ v[h] for h, a in enumerate(used.T.contiguous())], dim=1)
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.pairs, ctx.biased = pairs, bias is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, kept = ctx.saved_tensors
        pairs: Pairs = ctx.pairs
        source, target = pairs.edges
        back, readers = pairs.by_source, target[pairs.by_source]
        with full_precision(q.device):
            grad = grad.transpose(0, 1).contiguous()  # (H, N, D)
            pattern = csr(pairs.rowptr, source, q.new_zeros(source.numel()))
            heads = range(len(q))
            used = weights if kept is None else weights * kept
            grad_v = [csr(pairs.colptr, readers, used[:, h][back]) @ grad[h] for h in heads]
            grad_used = torch.stack(
                [torch.sparse.sampled_addmm(pattern, grad[h], v[h].T, beta=0.0).values() for h in heads], dim=1
            )  # (P, H)
            grad_weights = grad_used if kept is None else grad_used * kept
            inner = grad_weights * weights
            total = torch.zeros(len(q[0]), len(q), dtype=q.dtype, device=q.device).index_add_(0, target, inner)
            grad_scores = inner - weights * total.index_select(0, target)
            by_head = grad_scores.T.contiguous()
            grad_q = [csr(pairs.rowptr, source, by_head[h]) @ k[h] for h in heads]
            grad_k = [csr(pairs.colptr, readers, by_head[h][back]) @ q[h] for h in heads]
        return (
            torch.stack(grad_q, dim=1),
            torch.stack(grad_k, dim=1),
            torch.stack(grad_v, dim=1),
            grad_scores if ctx.biased else None,
            None,
            None,
        )


def edge_bias(pairs: Pairs, bias: Tensor) -> Tensor:
    """A bias per pair and head, (P, H) or (B, H or 1, L, L), as the former."""
    if bias.dim() == 2:
        return bias
    return bias.permute(0, 2, 3, 1).reshape(-1, bias.shape[1]).index_select(0, pairs.dense_entry)


def attend_sparse(q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | None, dropout: float) -> Tensor:
    """Sparse matrix products over the pairs alone; fastest where few pairs are allowed. (N, H, D) to (N, H, D)."""
    dtype = v.dtype
    if bias is not None:
        bias = edge_bias(pairs, bias).expand(-1, q.shape[1])
    q = q / math.sqrt(q.shape[-1])
    if dtype not in (torch.float32, torch.float64):  # sparse products take no half precision
        q, k, v = q.float(), k.float(), v.float()
        bias = None if bias is None else bias.float()
    return _SparseAttention.apply(q, k, v, bias, pairs, dropout).to(dtype)

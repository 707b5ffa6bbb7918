"""Attention over a list of pairs, as products with sparse matrices: work and memory grow with the pairs alone.

With P pairs, the weights of one head are a sparse N x N matrix whose rows are the readers; those of all heads, one
below the other on the diagonal, are one matrix A of H N rows. Attention needs a sampled product (Q K^T where A has
entries) and a sparse-dense product (A V); the backward pass needs the same two kinds. No tensor of P rows and D
columns is ever made: what is kept for the backward pass is one number a pair and head, beside q, k and v themselves.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gt.attention.costs import Demand
from gt.attention.dense import pair_bias, total
from gt.dropout import dropout as drop
from gt.graph import Move
from gt.masks import Pairs
from gt.sums import segment_sum
from gt.transforms import once_differentiable

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
LARGEST = (1 << 31) - 1  # what 32-bit indices count to


@dataclass(frozen=True)
class Stack:
    """The pairs of every head as one list, heads one after the other; node n of head h has the number ``h N + n``.

    Indices have 32 bits where they fit: sparse products work with these, and would turn others into them.

    Attributes:
        rowptr, colptr: (H N + 1,) offsets into the pairs of each target, and of each source in their order.
        source, target: (H P,) of each pair, by target.
        by_source, reader: (H P,) the order that sorts pairs by source, and their targets in it.
        offsets: ``rowptr`` in 64 bits.
    """

    rowptr: Tensor
    colptr: Tensor
    source: Tensor
    target: Tensor
    by_source: Tensor
    reader: Tensor
    offsets: Tensor

    def moved(self, move: Move, pairs: Pairs) -> Stack:
        """The same on another device."""
        return Stack(**{name: move(tensor) for name, tensor in vars(self).items()})


def stack_of(pairs: Pairs, heads: int) -> Stack:
    """The stack of pairs for so many heads, made once for each batch."""
    return pairs.kept(f"stack_{heads}", lambda: stacked(pairs, heads))


def stacked(pairs: Pairs, heads: int) -> Stack:
    nodes, count = pairs.batch.num_nodes, pairs.edges.shape[1]
    kind = torch.int32 if heads * max(count, nodes) <= LARGEST else torch.int64
    head = torch.arange(heads, device=pairs.edges.device, dtype=kind)[:, None]

    def repeated(values: Tensor, step: int) -> Tensor:
        return (values.to(kind) + step * head).flatten()

    def pointers(offsets: Tensor) -> Tensor:
        return torch.cat([repeated(offsets[:-1], count), offsets.new_full((1,), heads * count).to(kind)])

    source, target = pairs.edges
    rowptr = pointers(pairs.rowptr)
    return Stack(
        rowptr=rowptr,
        colptr=pointers(pairs.colptr),
        source=repeated(source, nodes),
        target=repeated(target, nodes),
        by_source=repeated(pairs.by_source, count),
        reader=repeated(target.index_select(0, pairs.by_source), nodes),
        offsets=rowptr.long(),
    )


def csr(rowptr: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """A square matrix in compressed rows."""
    nodes = rowptr.numel() - 1
    return torch.sparse_csr_tensor(rowptr, columns, values, size=(nodes, nodes), check_invariants=False)


def full_precision(device: torch.device) -> torch.autocast:
    """Products as their operands are, whatever autocast asks for: sparse ones take no half precision."""
    return torch.autocast(device.type, enabled=False)


def by_head(rows: Tensor) -> Tensor:
    """(N, H, D) to (H N, D), each head in one piece."""
    return rows.transpose(0, 1).reshape(-1, rows.shape[2])


def by_node(rows: Tensor, heads: int) -> Tensor:
    """(H N, D) to (N, H, D)."""
    return rows.view(heads, -1, rows.shape[1]).transpose(0, 1)


def sampled(left: Tensor, right: Tensor, stack: Stack) -> Tensor:
    """The product of each target's row of ``left`` and each source's of ``right``: two (H N, D) to (H P,)."""
    pattern = csr(stack.rowptr, stack.source, left.new_zeros(stack.source.shape[0]))
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()


def to_targets(weights: Tensor, rows: Tensor, stack: Stack) -> Tensor:
    """Sums over the pairs of each target of weighted rows of its sources: (H P,) and (H N, D) to (H N, D)."""
    return _products(stack.rowptr, stack.source, weights, rows)


def to_sources(weights: Tensor, rows: Tensor, stack: Stack) -> Tensor:
    """The same in the other direction: sums over the pairs of each source of weighted rows of its targets."""
    return _products(stack.colptr, stack.reader, weights.index_select(0, stack.by_source), rows)


def _products(ptr: Tensor, columns: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    if rows.device.type == "cpu":  # an embedding bag is up to three times as fast as the product of MKL
        return segment_sum(rows, columns, ptr, values)
    return csr(ptr, columns, values) @ rows


class _PairProducts(torch.autograd.Function):
    """q_i . k_j for each pair: two (N, H, D) to (H P,)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, stack: Stack) -> Tensor:
        ctx.heads, ctx.stack = q.shape[1], stack
        q, k = by_head(q), by_head(k)
        ctx.save_for_backward(q, k)
        return sampled(q, k, stack)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k = ctx.saved_tensors
        with full_precision(q.device):
            grads = to_targets(grad, k, ctx.stack), to_sources(grad, q, ctx.stack)
        return *(by_node(rows, ctx.heads) for rows in grads), None


class _PairSoftmax(torch.autograd.Function):
    """Softmax of (H P,) over the run of pairs of each target and head; a run of nothing but -inf gives zeros."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, stack: Stack) -> Tensor:
        highest = torch.segment_reduce(scores, "max", offsets=stack.offsets, axis=0)  # (H N,)
        highest = highest.masked_fill(highest == -torch.inf, 0.0)  # an empty run
        weights = (scores - highest.index_select(0, stack.target)).exp_()
        total = torch.zeros_like(highest).index_add_(0, stack.target, weights)
        weights.div_(total.clamp_min_(torch.finfo(scores.dtype).tiny).index_select(0, stack.target))
        ctx.save_for_backward(weights)
        ctx.stack = stack
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weights,) = ctx.saved_tensors
        stack: Stack = ctx.stack
        inner = grad * weights
        total = weights.new_zeros(stack.rowptr.numel() - 1).index_add_(0, stack.target, inner)
        return inner.sub_(weights * total.index_select(0, stack.target)), None


class _WeightedSums(torch.autograd.Function):
    """sum_j a_ij v_j: weights (H P,) and rows (N, H, D) to (N, H, D)."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, v: Tensor, stack: Stack) -> Tensor:
        ctx.heads, ctx.stack = v.shape[1], stack
        v = by_head(v)
        ctx.save_for_backward(weights, v)
        return by_node(to_targets(weights, v, stack), ctx.heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, v = ctx.saved_tensors
        with full_precision(v.device):
            grad = by_head(grad)
            return sampled(grad, v, ctx.stack), by_node(to_sources(weights, grad, ctx.stack), ctx.heads), None


def prepare_sparse(pairs: Pairs, demand: Demand) -> None:
    """The stack of pairs, which heads use each, and where each stands in a dense bias."""
    _ = stack_of(pairs, demand.heads), pairs.edge_heads, pairs.dense_entry


def by_pair(values: Tensor, heads: int) -> Tensor:
    """(P, H) or (P, 1) to (H P,)."""
    return values.expand(-1, heads).T.reshape(-1)


def attend_sparse(
    q: Tensor | None,
    k: Tensor | None,
    v: Tensor,
    pairs: Pairs,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    pair_value: Tensor | None = None,
) -> Tensor:
    """Sparse matrix products over the pairs alone; fastest where few pairs are allowed. (N, H, D) to (N, H, D).

    ``torch.compile`` cannot trace sparse matrices: a network that is compiled goes another way.
    """
    dtype, heads = v.dtype, v.shape[1]
    if dtype in (torch.float16, torch.bfloat16):  # sparse products take no half precision
        v = v.float()
        q, k, bias, pair_value = (None if t is None else t.float() for t in (q, k, bias, pair_value))
    stack = stack_of(pairs, heads)
    with full_precision(v.device):
        product = None
        if q is not None and k is not None:
            product = _PairProducts.apply(q / math.sqrt(q.shape[-1]), k, stack)
        scores = total(product, None if bias is None else by_pair(pair_bias(pairs, bias), heads))
        if pairs.edge_heads is not None:
            scores = scores.masked_fill(~by_pair(pairs.edge_heads, heads), -torch.inf)
        weights = _PairSoftmax.apply(scores, stack)
        weights = drop(weights, dropout)
        out = _WeightedSums.apply(weights, v, stack)
        if pair_value is not None:
            out = out.index_add(0, pairs.edges[1], weights.view(heads, -1).T[..., None] * pair_value)
    return out.to(dtype)

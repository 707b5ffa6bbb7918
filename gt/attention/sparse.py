"""Attention over a list of pairs, as products with sparse matrices: work and memory are linear in the pairs.

With P pairs, the weights of one head form a sparse N x N matrix whose rows are the readers; those of all heads form one
block-diagonal matrix A of H N rows. Attention needs a sampled product (Q K^T at the entries of A) and a sparse-dense
product (A V); so does the backward pass. No tensor of shape (P, D) is ever materialised: besides q, k and v, only one
number per pair and head is saved for the backward pass.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gt.attention.costs import Demand
from gt.attention.dense import add_scores, pair_bias
from gt.dropout import dropout as drop
from gt.graph import Move
from gt.masks import Pairs
from gt.sums import segment_sum
from gt.transforms import once_differentiable

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
INT32_MAX = (1 << 31) - 1  # largest 32-bit index


@dataclass(frozen=True)
class Stack:
    """The pairs of all heads as one list, head after head; node n of head h has the index ``h N + n``.

    Indices are int32 if they fit: sparse products use these, and would convert others.

    Attributes:
        rowptr, colptr: (H N + 1,) offsets of each target's pairs, and of each source's in the order ``by_source``.
        source, target: (H P,) of each pair, sorted by target.
        by_source, reader: (H P,) the permutation that sorts pairs by source, and the targets in that order.
        offsets: ``rowptr`` as int64.
    """

    rowptr: Tensor
    colptr: Tensor
    source: Tensor
    target: Tensor
    by_source: Tensor
    reader: Tensor
    offsets: Tensor

    def moved(self, move: Move, pairs: Pairs) -> Stack:
        """The same stack on another device."""
        return Stack(**{name: move(tensor) for name, tensor in vars(self).items()})


def stack_of(pairs: Pairs, heads: int) -> Stack:
    """The stack of pairs for a number of heads, built once per batch."""
    return pairs.cached(f"stack_{heads}", lambda: build_stack(pairs, heads))


def build_stack(pairs: Pairs, heads: int) -> Stack:
    nodes, num_pairs = pairs.batch.num_nodes, pairs.edges.shape[1]
    dtype = torch.int32 if heads * max(num_pairs, nodes) <= INT32_MAX else torch.int64
    head = torch.arange(heads, device=pairs.edges.device, dtype=dtype)[:, None]

    def for_each_head(values: Tensor, step: int) -> Tensor:
        return (values.to(dtype) + step * head).flatten()

    def pointers(offsets: Tensor) -> Tensor:
        return torch.cat([for_each_head(offsets[:-1], num_pairs), offsets.new_full((1,), heads * num_pairs).to(dtype)])

    source, target = pairs.edges
    rowptr = pointers(pairs.rowptr)
    return Stack(
        rowptr=rowptr,
        colptr=pointers(pairs.colptr),
        source=for_each_head(source, nodes),
        target=for_each_head(target, nodes),
        by_source=for_each_head(pairs.by_source, num_pairs),
        reader=for_each_head(target.index_select(0, pairs.by_source), nodes),
        offsets=rowptr.long(),
    )


def csr(rowptr: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """A square CSR matrix."""
    nodes = rowptr.numel() - 1
    return torch.sparse_csr_tensor(rowptr, columns, values, size=(nodes, nodes), check_invariants=False)


def full_precision(device: torch.device) -> torch.autocast:
    """Disable autocast: sparse products do not support half precision."""
    return torch.autocast(device.type, enabled=False)


def by_head(rows: Tensor) -> Tensor:
    """(N, H, D) to (H N, D), each head contiguous."""
    return rows.transpose(0, 1).reshape(-1, rows.shape[2])


def by_node(rows: Tensor, heads: int) -> Tensor:
    """(H N, D) to (N, H, D)."""
    return rows.view(heads, -1, rows.shape[1]).transpose(0, 1)


def sampled_product(left: Tensor, right: Tensor, stack: Stack) -> Tensor:
    """For each pair the dot product of its target's row of ``left`` and its source's of ``right``, to (H P,)."""
    pattern = csr(stack.rowptr, stack.source, left.new_zeros(stack.source.shape[0]))
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()


def to_targets(weights: Tensor, rows: Tensor, stack: Stack) -> Tensor:
    """Weighted sum of the rows of each target's sources: (H P,) and (H N, D) to (H N, D)."""
    return _sparse_product(stack.rowptr, stack.source, weights, rows)


def to_sources(weights: Tensor, rows: Tensor, stack: Stack) -> Tensor:
    """The transpose of `to_targets`: weighted sum of the rows of each source's targets."""
    return _sparse_product(stack.colptr, stack.reader, weights.index_select(0, stack.by_source), rows)


def _sparse_product(ptr: Tensor, columns: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    if rows.device.type == "cpu":  # an embedding bag is up to three times as fast as MKL's sparse product
        return segment_sum(rows, columns, ptr, values)
    return csr(ptr, columns, values) @ rows


class _PairProducts(torch.autograd.Function):
    """q_i . k_j for each pair: two (N, H, D) to (H P,)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, stack: Stack) -> Tensor:
        ctx.heads, ctx.stack = q.shape[1], stack
        q, k = by_head(q), by_head(k)
        ctx.save_for_backward(q, k)
        return sampled_product(q, k, stack)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k = ctx.saved_tensors
        with full_precision(q.device):
            grads = to_targets(grad, k, ctx.stack), to_sources(grad, q, ctx.stack)
        return *(by_node(rows, ctx.heads) for rows in grads), None


class _PairSoftmax(torch.autograd.Function):
    """Softmax of (H P,) over the pairs of each target and head; zeros if all of them are -inf."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, stack: Stack) -> Tensor:
        highest = torch.segment_reduce(scores, "max", offsets=stack.offsets, axis=0)  # (H N,)
        highest = highest.masked_fill(highest == -torch.inf, 0.0)  # no pairs, or all of them hidden
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
            return sampled_product(grad, v, ctx.stack), by_node(to_sources(weights, grad, ctx.stack), ctx.heads), None


def sparse_obstacle(demand: Demand) -> str | None:
    """Why sparse products cannot serve a demand, as a phrase, or None."""
    return "PyTorch has no sparse products on Apple's GPUs" if demand.device == "mps" else None


def prepare_sparse(pairs: Pairs, demand: Demand) -> None:
    """Precompute the stack of pairs, which heads use each, and the index of each into a dense bias."""
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
    """Sparse matrix products over the allowed pairs; fastest if they are few. (N, H, D) to (N, H, D).

    ``torch.compile`` cannot trace sparse matrices: compiled networks use other backends.
    """
    dtype, heads = v.dtype, v.shape[1]
    if dtype in (torch.float16, torch.bfloat16):  # sparse products do not support half precision
        v = v.float()
        q, k, bias, pair_value = (None if t is None else t.float() for t in (q, k, bias, pair_value))
    stack = stack_of(pairs, heads)
    with full_precision(v.device):
        product = None
        if q is not None and k is not None:
            product = _PairProducts.apply(q / math.sqrt(q.shape[-1]), k, stack)
        scores = add_scores(product, None if bias is None else by_pair(pair_bias(pairs, bias), heads))
        if pairs.edge_heads is not None:
            scores = scores.masked_fill(~by_pair(pairs.edge_heads, heads), -torch.inf)
        weights = _PairSoftmax.apply(scores, stack)
        weights = drop(weights, dropout)
        out = _WeightedSums.apply(weights, v, stack)
        if pair_value is not None:
            out = out.index_add(0, pairs.edges[1], weights.view(heads, -1).T[..., None] * pair_value)
    return out.to(dtype)

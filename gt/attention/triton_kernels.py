"""The Triton kernels of `gt.attention.triton`: one program per node and head, none of which write to the same memory.

Tensors with a row per node (or pair) and a column per head are passed as ``(pointer, row stride, head stride)``, so
that views of one projection are read without a copy. For a head h, a reader i and a source j:

    s_ij = q_i . k_j / sqrt(D) + bias_ij     lse_i = log sum_j exp s_ij     out_i = sum_j exp(s_ij - lse_i) v_j

This module requires triton; the package imports it only if the backend is requested.
"""

import triton
import triton.language as tl

# The interpreter must be enabled before triton is first imported, which binds its library functions.
INTERPRETED = not isinstance(tl.sum, triton.JITFunction)


@triton.jit
def node_and_head(HEADS: tl.constexpr) -> tl.tensor:
    """The node and head of this program, as int64: offsets may exceed 2^31 elements."""
    program = tl.program_id(0).to(tl.int64)
    return program // HEADS, program % HEADS


@triton.jit
def load_row(
    rows: tl.tuple, node: tl.tensor, head: tl.tensor, SIZE: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr
) -> tl.tensor:
    """(BLOCK,) the channels of one node and head, padded with zeros from SIZE on."""
    channel = tl.arange(0, BLOCK)
    return tl.load(rows[0] + node * rows[1] + head * rows[2] + channel, mask=channel < SIZE, other=0.0).to(ACC)


@triton.jit
def store_row(
    rows: tl.tuple, node: tl.tensor, head: tl.tensor, values: tl.tensor, SIZE: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    channel = tl.arange(0, BLOCK)
    pointers = rows[0] + node * rows[1] + head * rows[2] + channel
    tl.store(pointers, values.to(rows[0].dtype.element_ty), mask=channel < SIZE)


@triton.jit
def gather(
    rows: tl.tuple,
    nodes: tl.tensor,
    head: tl.tensor,
    mask: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
) -> tl.tensor:
    """(BLOCK_P, BLOCK) the channels of several nodes; rows outside ``mask`` are zeros and not loaded."""
    channel = tl.arange(0, BLOCK)
    pointers = rows[0] + nodes[:, None] * rows[1] + head * rows[2] + channel[None, :]
    return tl.load(pointers, mask=mask[:, None] & (channel < SIZE)[None, :], other=0.0).to(ACC)


@triton.jit
def mask_head(
    edge_heads: tl.tensor, pair: tl.tensor, head: tl.tensor, mask: tl.tensor, HEADS: tl.constexpr
) -> tl.tensor:
    """``mask`` without the pairs that this head does not use."""
    if edge_heads is not None:
        mask = mask & tl.load(edge_heads + pair * HEADS + head, mask=mask, other=0).to(tl.int1)
    return mask


@triton.jit
def add_bias(
    scores: tl.tensor, bias: tl.tuple, pair: tl.tensor, head: tl.tensor, mask: tl.tensor, ACC: tl.constexpr
) -> tl.tensor:
    """Scores plus their bias; -inf outside ``mask``."""
    if bias is not None:
        scores += tl.load(bias[0] + pair * bias[1] + head * bias[2], mask=mask, other=0).to(ACC)
    return tl.where(mask, scores, -float("inf"))


@triton.jit
def forward(
    q: tl.tuple, k: tl.tuple, v: tl.tuple, bias: tl.tuple, edge_heads: tl.tensor, source: tl.tensor, rowptr: tl.tensor,
    out: tl.tuple, lse: tl.tensor,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_P: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Loop over a reader's pairs in blocks: writes ``out`` and ``lse``, the latter +inf for readers without sources."""
    node, head = node_and_head(HEADS)
    scale = 1 / tl.sqrt(tl.full((), D, ACC))  # a float argument would arrive in single precision
    query = load_row(q, node, head, D, BLOCK_D, ACC) * scale
    running_max = tl.full((), -float("inf"), ACC)
    # accumulated for each position in the block and summed once after the loop
    total = tl.zeros((BLOCK_P,), ACC)
    acc = tl.zeros((BLOCK_P, BLOCK_E), ACC)
    first, end = tl.load(rowptr + node), tl.load(rowptr + node + 1)
    for start in range(first, end, BLOCK_P):
        pair = start + tl.arange(0, BLOCK_P)
        j = tl.load(source + pair, mask=pair < end, other=0)
        mask = mask_head(edge_heads, pair, head, pair < end, HEADS)
        scores = tl.sum(gather(k, j, head, mask, D, BLOCK_D, ACC) * query[None, :], 1)
        scores = add_bias(scores, bias, pair, head, mask, ACC)
        new_max = tl.maximum(running_max, tl.max(scores, 0))
        base = tl.where(new_max == -float("inf"), 0.0, new_max)  # nothing read so far: -inf minus -inf is NaN
        rescale = tl.exp(running_max - base)
        weights = tl.exp(scores - base)
        total = total * rescale + weights
        acc = acc * rescale + weights[:, None] * gather(v, j, head, mask, E, BLOCK_E, ACC)
        running_max = new_max
    sum_total = tl.sum(total, 0)
    empty = running_max == -float("inf")
    sum_total = tl.where(empty, 1.0, sum_total)
    store_row(out, node, head, tl.sum(acc, 0) / sum_total, E, BLOCK_E)
    tl.store(lse + node * HEADS + head, tl.where(empty, float("inf"), running_max + tl.log(sum_total)))


@triton.jit
def backward_by_target(
    q: tl.tuple, k: tl.tuple, v: tl.tuple, bias: tl.tuple, edge_heads: tl.tensor, source: tl.tensor, rowptr: tl.tensor,
    out: tl.tuple, lse: tl.tensor, grad: tl.tuple, delta: tl.tensor, grad_q: tl.tuple, grad_bias: tl.tensor,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_P: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Loop over a reader's pairs: writes ``grad_q``, ``grad_bias`` unless None, and ``delta_i = out_i . grad_i``."""
    node, head = node_and_head(HEADS)
    scale = 1 / tl.sqrt(tl.full((), D, ACC))
    query = load_row(q, node, head, D, BLOCK_D, ACC) * scale
    grad_out = load_row(grad, node, head, E, BLOCK_E, ACC)
    inner = tl.sum(load_row(out, node, head, E, BLOCK_E, ACC) * grad_out, 0)
    tl.store(delta + node * HEADS + head, inner)
    log_sum = tl.load(lse + node * HEADS + head)
    acc = tl.zeros((BLOCK_P, BLOCK_D), ACC)
    first, end = tl.load(rowptr + node), tl.load(rowptr + node + 1)
    for start in range(first, end, BLOCK_P):
        pair = start + tl.arange(0, BLOCK_P)
        j = tl.load(source + pair, mask=pair < end, other=0)
        mask = mask_head(edge_heads, pair, head, pair < end, HEADS)
        key = gather(k, j, head, mask, D, BLOCK_D, ACC)
        scores = add_bias(tl.sum(key * query[None, :], 1), bias, pair, head, mask, ACC)
        grad_weights = tl.sum(gather(v, j, head, mask, E, BLOCK_E, ACC) * grad_out[None, :], 1)
        grad_scores = tl.exp(scores - log_sum) * (grad_weights - inner)
        acc += grad_scores[:, None] * key
        if grad_bias is not None:
            tl.store(grad_bias + pair * HEADS + head, grad_scores.to(grad_bias.dtype.element_ty), mask=pair < end)
    store_row(grad_q, node, head, tl.sum(acc, 0) * scale, D, BLOCK_D)


@triton.jit
def backward_by_source(
    q: tl.tuple, k: tl.tuple, v: tl.tuple, bias: tl.tuple, edge_heads: tl.tensor, by_source: tl.tensor,
    reader: tl.tensor, colptr: tl.tensor, lse: tl.tensor, grad: tl.tuple, delta: tl.tensor, grad_k: tl.tuple,
    grad_v: tl.tuple,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_P: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """Loop over the pairs of a source, by reader: writes ``grad_k`` and ``grad_v``."""
    node, head = node_and_head(HEADS)
    scale = 1 / tl.sqrt(tl.full((), D, ACC))
    key = load_row(k, node, head, D, BLOCK_D, ACC) * scale
    value = load_row(v, node, head, E, BLOCK_E, ACC)
    acc_k = tl.zeros((BLOCK_P, BLOCK_D), ACC)
    acc_v = tl.zeros((BLOCK_P, BLOCK_E), ACC)
    first, end = tl.load(colptr + node), tl.load(colptr + node + 1)
    for start in range(first, end, BLOCK_P):
        position = start + tl.arange(0, BLOCK_P)
        i = tl.load(reader + position, mask=position < end, other=0)
        pair = tl.load(by_source + position, mask=position < end, other=0)
        mask = mask_head(edge_heads, pair, head, position < end, HEADS)
        query = gather(q, i, head, mask, D, BLOCK_D, ACC)
        grad_out = gather(grad, i, head, mask, E, BLOCK_E, ACC)
        log_sum = tl.load(lse + i * HEADS + head, mask=mask, other=0.0)
        inner = tl.load(delta + i * HEADS + head, mask=mask, other=0.0)
        scores = add_bias(tl.sum(query * key[None, :], 1), bias, pair, head, mask, ACC)
        weights = tl.exp(scores - log_sum)
        acc_v += weights[:, None] * grad_out
        acc_k += (weights * (tl.sum(grad_out * value[None, :], 1) - inner))[:, None] * query
    store_row(grad_k, node, head, tl.sum(acc_k, 0) * scale, D, BLOCK_D)
    store_row(grad_v, node, head, tl.sum(acc_v, 0), E, BLOCK_E)

"""The Triton kernels of `gt.attention.triton`: one program for each node and head, none writes where another does.

Tensors of a row a node (or a pair) and a column a head come as ``(pointer, stride of a row, stride of a head)``, so
that views of one projection are read where they stand. With h a head, i a reader, j what it reads:

    s_ij = q_i . k_j / sqrt(D) + bias_ij     lse_i = log sum_j exp s_ij     out_i = sum_j exp(s_ij - lse_i) v_j

This module needs triton; nothing of the package imports it until the backend is asked for.
"""

import triton
import triton.language as tl

# The interpreter must be asked for before triton is first imported: its library of functions is bound then.
INTERPRETED = not isinstance(tl.sum, triton.JITFunction)


@triton.jit
def place_of(HEADS: tl.constexpr) -> tl.tensor:
    """The node and head of this program, in 64 bits: their offsets may pass 2^31 elements."""
    program = tl.program_id(0).to(tl.int64)
    return program // HEADS, program % HEADS


@triton.jit
def load_row(
    rows: tl.tuple, node: tl.tensor, head: tl.tensor, SIZE: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr
) -> tl.tensor:
    """(BLOCK,) the channels of one node and head, zeros from SIZE on."""
    channel = tl.arange(0, BLOCK)
    return tl.load(rows[0] + node * rows[1] + head * rows[2] + channel, mask=channel < SIZE, other=0.0).to(ACC)


@triton.jit
def store_row(
    rows: tl.tuple, node: tl.tensor, head: tl.tensor, values: tl.tensor, SIZE: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    channel = tl.arange(0, BLOCK)
    place = rows[0] + node * rows[1] + head * rows[2] + channel
    tl.store(place, values.to(rows[0].dtype.element_ty), mask=channel < SIZE)


@triton.jit
def gather(
    rows: tl.tuple,
    nodes: tl.tensor,
    head: tl.tensor,
    wanted: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
) -> tl.tensor:
    """(BLOCK_P, BLOCK) the channels of several nodes; zeros where not ``wanted``, which are not read."""
    channel = tl.arange(0, BLOCK)
    place = rows[0] + nodes[:, None] * rows[1] + head * rows[2] + channel[None, :]
    return tl.load(place, mask=wanted[:, None] & (channel < SIZE)[None, :], other=0.0).to(ACC)


@triton.jit
def in_use(
    edge_heads: tl.tensor, pair: tl.tensor, head: tl.tensor, wanted: tl.tensor, HEADS: tl.constexpr
) -> tl.tensor:
    """``wanted`` without the pairs that this head does not use."""
    if edge_heads is not None:
        wanted = wanted & tl.load(edge_heads + pair * HEADS + head, mask=wanted, other=0).to(tl.int1)
    return wanted


@triton.jit
def add_bias(
    scores: tl.tensor, bias: tl.tuple, pair: tl.tensor, head: tl.tensor, wanted: tl.tensor, ACC: tl.constexpr
) -> tl.tensor:
    """Scores with their bias; -inf where not ``wanted``."""
    if bias is not None:
        scores += tl.load(bias[0] + pair * bias[1] + head * bias[2], mask=wanted, other=0).to(ACC)
    return tl.where(wanted, scores, -float("inf"))


@triton.jit
def forward(
    q: tl.tuple, k: tl.tuple, v: tl.tuple, bias: tl.tuple, edge_heads: tl.tensor, source: tl.tensor, rowptr: tl.tensor,
    out: tl.tuple, lse: tl.tensor,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_P: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """A reader's run of pairs, in blocks: writes ``out`` and ``lse``; +inf as the latter where nobody is read."""
    node, head = place_of(HEADS)
    scale = 1 / tl.sqrt(tl.full((), D, ACC))  # a float argument would arrive in single precision
    query = load_row(q, node, head, D, BLOCK_D, ACC) * scale
    highest = tl.full((), -float("inf"), ACC)
    # sums are kept for each place in the block and added up once, behind the loop
    total = tl.zeros((BLOCK_P,), ACC)
    mixed = tl.zeros((BLOCK_P, BLOCK_E), ACC)
    first, end = tl.load(rowptr + node), tl.load(rowptr + node + 1)
    for start in range(first, end, BLOCK_P):
        pair = start + tl.arange(0, BLOCK_P)
        j = tl.load(source + pair, mask=pair < end, other=0)
        wanted = in_use(edge_heads, pair, head, pair < end, HEADS)
        scores = tl.sum(gather(k, j, head, wanted, D, BLOCK_D, ACC) * query[None, :], 1)
        scores = add_bias(scores, bias, pair, head, wanted, ACC)
        above = tl.maximum(highest, tl.max(scores, 0))
        base = tl.where(above == -float("inf"), 0.0, above)  # nothing seen so far: -inf less -inf would be NaN
        shrink = tl.exp(highest - base)
        weights = tl.exp(scores - base)
        total = total * shrink + weights
        mixed = mixed * shrink + weights[:, None] * gather(v, j, head, wanted, E, BLOCK_E, ACC)
        highest = above
    sum_total = tl.sum(total, 0)
    empty = highest == -float("inf")
    sum_total = tl.where(empty, 1.0, sum_total)
    store_row(out, node, head, tl.sum(mixed, 0) / sum_total, E, BLOCK_E)
    tl.store(lse + node * HEADS + head, tl.where(empty, float("inf"), highest + tl.log(sum_total)))


@triton.jit
def backward_by_target(
    q: tl.tuple, k: tl.tuple, v: tl.tuple, bias: tl.tuple, edge_heads: tl.tensor, source: tl.tensor, rowptr: tl.tensor,
    out: tl.tuple, lse: tl.tensor, grad: tl.tuple, delta: tl.tensor, grad_q: tl.tuple, grad_bias: tl.tensor,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_P: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """A reader's run of pairs: writes ``grad_q``, ``grad_bias`` unless None, and ``delta_i = out_i . grad_i``."""
    node, head = place_of(HEADS)
    scale = 1 / tl.sqrt(tl.full((), D, ACC))
    query = load_row(q, node, head, D, BLOCK_D, ACC) * scale
    grad_out = load_row(grad, node, head, E, BLOCK_E, ACC)
    inner = tl.sum(load_row(out, node, head, E, BLOCK_E, ACC) * grad_out, 0)
    tl.store(delta + node * HEADS + head, inner)
    log_sum = tl.load(lse + node * HEADS + head)
    mixed = tl.zeros((BLOCK_P, BLOCK_D), ACC)
    first, end = tl.load(rowptr + node), tl.load(rowptr + node + 1)
    for start in range(first, end, BLOCK_P):
        pair = start + tl.arange(0, BLOCK_P)
        j = tl.load(source + pair, mask=pair < end, other=0)
        wanted = in_use(edge_heads, pair, head, pair < end, HEADS)
        key = gather(k, j, head, wanted, D, BLOCK_D, ACC)
        scores = add_bias(tl.sum(key * query[None, :], 1), bias, pair, head, wanted, ACC)
        grad_weights = tl.sum(gather(v, j, head, wanted, E, BLOCK_E, ACC) * grad_out[None, :], 1)
        grad_scores = tl.exp(scores - log_sum) * (grad_weights - inner)
        mixed += grad_scores[:, None] * key
        if grad_bias is not None:
            tl.store(grad_bias + pair * HEADS + head, grad_scores.to(grad_bias.dtype.element_ty), mask=pair < end)
    store_row(grad_q, node, head, tl.sum(mixed, 0) * scale, D, BLOCK_D)


@triton.jit
def backward_by_source(
    q: tl.tuple, k: tl.tuple, v: tl.tuple, bias: tl.tuple, edge_heads: tl.tensor, by_source: tl.tensor,
    reader: tl.tensor, colptr: tl.tensor, lse: tl.tensor, grad: tl.tuple, delta: tl.tensor, grad_k: tl.tuple,
    grad_v: tl.tuple,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_P: tl.constexpr, ACC: tl.constexpr,
) -> None:  # fmt: skip
    """The run of pairs in which a node is read, by its readers: writes ``grad_k`` and ``grad_v``."""
    node, head = place_of(HEADS)
    scale = 1 / tl.sqrt(tl.full((), D, ACC))
    key = load_row(k, node, head, D, BLOCK_D, ACC) * scale
    value = load_row(v, node, head, E, BLOCK_E, ACC)
    mixed_k = tl.zeros((BLOCK_P, BLOCK_D), ACC)
    mixed_v = tl.zeros((BLOCK_P, BLOCK_E), ACC)
    first, end = tl.load(colptr + node), tl.load(colptr + node + 1)
    for start in range(first, end, BLOCK_P):
        place = start + tl.arange(0, BLOCK_P)
        i = tl.load(reader + place, mask=place < end, other=0)
        pair = tl.load(by_source + place, mask=place < end, other=0)
        wanted = in_use(edge_heads, pair, head, place < end, HEADS)
        query = gather(q, i, head, wanted, D, BLOCK_D, ACC)
        grad_out = gather(grad, i, head, wanted, E, BLOCK_E, ACC)
        log_sum = tl.load(lse + i * HEADS + head, mask=wanted, other=0.0)
        inner = tl.load(delta + i * HEADS + head, mask=wanted, other=0.0)
        scores = add_bias(tl.sum(query * key[None, :], 1), bias, pair, head, wanted, ACC)
        weights = tl.exp(scores - log_sum)
        mixed_v += weights[:, None] * grad_out
        mixed_k += (weights * (tl.sum(grad_out * value[None, :], 1) - inner))[:, None] * query
    store_row(grad_k, node, head, tl.sum(mixed_k, 0) * scale, D, BLOCK_D)
    store_row(grad_v, node, head, tl.sum(mixed_v, 0), E, BLOCK_E)

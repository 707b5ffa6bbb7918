"""The attention operator and its interchangeable backends: they differ in speed, not in the result."""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gt.attention import dense, flash, flex, listed, native, sparse, triton
from gt.attention.costs import Demand, capability, cost_table
from gt.attention.scores import Hint, Score, score_bias
from gt.attention.settled import case_key
from gt.errors import nearest
from gt.masks import Mask, Pairs

log = logging.getLogger(__name__)

# a mask and what its pairs are needed for: a `Demand` for attention, None for a layer that uses the pairs directly, or
# a function that prepares the pairs for an encoding
Reading = tuple[Mask, Demand | Callable[[Pairs], None] | None]


def no_obstacle(demand_or_pairs: Demand | Pairs) -> None:
    """Supports everything."""


def no_index(pairs: Pairs, demand: Demand) -> None:
    """Needs no index beyond the batch itself."""


@dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    Attributes:
        function: computes attention.
        obstacle: why it cannot serve a demand, as a phrase, or None.
        drawback: why ``auto`` avoids it although it could serve the demand, likewise.
        pairs_obstacle: why it cannot serve the pairs of a batch, likewise.
        prepare: precomputes on the CPU each index that it will use.
        layout: what it works on: the ``padded`` (B, L, L) view, the pairs ``listed``, the non-empty ``blocks`` of the
            N x N matrix, or ``packed`` graphs as they are.
    """

    function: Callable[..., Tensor]
    obstacle: Callable[[Demand], str | None] = no_obstacle
    drawback: Callable[[Demand], str | None] = no_obstacle
    pairs_obstacle: Callable[[Pairs], str | None] = no_obstacle
    prepare: Callable[[Pairs, Demand], None] = no_index
    layout: Literal["padded", "listed", "blocks", "packed"] = "listed"

    @property
    def padded(self) -> bool:
        return self.layout == "padded"

    def refusal(self, pairs: Pairs, demand: Demand) -> str | None:
        """Why it cannot serve this demand on these pairs, or None."""
        return self.obstacle(demand) or self.pairs_obstacle(pairs)


BACKENDS: dict[str, Backend] = {
    "dense": Backend(dense.attend_dense, prepare=dense.prepare_dense, layout="padded"),
    "sdpa": Backend(
        dense.attend_sdpa, dense.sdpa_obstacle, dense.sdpa_drawback, prepare=dense.prepare_dense, layout="padded"
    ),
    "sparse": Backend(sparse.attend_sparse, sparse.sparse_obstacle, prepare=sparse.prepare_sparse),
    "native": Backend(native.attend_native, native.native_obstacle, prepare=native.prepare_native, layout="padded"),
    "listed": Backend(listed.attend_listed, listed.listed_obstacle, prepare=listed.prepare_listed),
    "triton": Backend(
        triton.attend_triton, triton.triton_obstacle, triton.triton_drawback, prepare=triton.prepare_triton
    ),
    "flex": Backend(
        flex.attend_flex,
        flex.flex_obstacle,
        flex.flex_drawback,
        flex.flex_pairs_obstacle,
        flex.prepare_flex,
        layout="blocks",
    ),
    "flash": Backend(
        flash.attend_flash, flash.flash_obstacle, pairs_obstacle=flash.flash_pairs_obstacle, layout="packed"
    ),
}


UNTRACED = ("sparse", "native", "listed", "triton")  # torch.compile cannot trace them


def explain(pairs: Pairs, demand: Demand) -> dict[str, float | str]:
    """For each backend its expected seconds, forward and backward, or why it is not considered."""
    table = cost_table(demand.device, demand.half)
    costs_or_reasons: dict[str, float | str] = {}
    for name, backend in BACKENDS.items():
        reason = backend.drawback(demand) or backend.refusal(pairs, demand)
        if demand.compiled and name in UNTRACED:
            reason = "it cannot be compiled"
        costs_or_reasons[name] = reason or table.seconds(name, pairs, demand)
    return costs_or_reasons


def choose(pairs: Pairs, demand: Demand) -> str:
    """The backend timed, or else expected, to be fastest; uses Python integers only, so the device need not sync.

    A backend that a layer requests is for training: in evaluation, which may be in float32 or on another device, it
    gives way where it cannot serve.
    """
    if demand.backend != "auto" and (demand.gradients or BACKENDS[demand.backend].obstacle(demand) is None):
        return demand.backend
    if demand not in pairs.choices:
        costs_or_reasons = explain(pairs, demand)
        costs = {name: cost for name, cost in costs_or_reasons.items() if not isinstance(cost, str)}
        settled = dict(demand.settled).get(case_key(pairs, demand)) if demand.settled else None
        pairs.choices[demand] = settled if settled in costs else min(costs, key=costs.__getitem__)
        log.debug("%s, %d pairs: %s", demand, pairs.count, costs_or_reasons)
    return pairs.choices[demand]


def look_up_device(readings: Iterable[Reading]) -> None:
    """Look up, once for all, what `prepare` has to know of the device: a forked process cannot ask CUDA for it."""
    for _, demand in readings:
        if isinstance(demand, Demand):
            cost_table(demand.device, demand.half)
            capability()


def prepare(pairs: Pairs, demand: Demand | Callable[[Pairs], None] | None) -> None:
    """Precompute on the CPU each index that the chosen backend will use; without a `Demand`, ``pairs.edges``."""
    if not isinstance(demand, Demand):
        _ = pairs.edges
        if demand is not None:
            demand(pairs)
        return
    backend = BACKENDS[choose(pairs, demand)]
    backend.prepare(pairs, demand)
    if demand.hops is not None:
        _ = pairs.dense_hops(demand.hops) if backend.padded else pairs.hops(demand.hops)
    if demand.listed:
        _ = pairs.of_edges, pairs.dense_entry


def check_bias(bias: Tensor, pairs: Pairs, heads: int) -> None:
    """Reject a bias of a shape that `attend` does not take, which a backend might silently misread."""
    graphs, size = pairs.batch.num_graphs, pairs.batch.max_nodes
    if bias.dim() == 4:
        fits = bias.shape[1] in (1, heads) and bias.shape == (graphs, bias.shape[1], size, size)
    else:
        fits = bias.shape == (pairs.edges.shape[1], heads)
    if not fits:
        expected = f"({pairs.edges.shape[1]}, {heads}) or ({graphs}, 1 or {heads}, {size}, {size})"
        raise ValueError(f"bias must have the shape {expected}, not {tuple(bias.shape)}")


def check_backend(backend: str) -> None:
    """Check that there is a backend of this name, ``auto`` included.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"there is no backend '{backend}': {nearest(backend, ('auto', *BACKENDS))}")


def check_shapes(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | Hint | None, pair: Tensor | None, value: Tensor | None
) -> None:
    """Reject inputs whose shapes do not match."""
    if q.shape != k.shape or q.shape[:2] != v.shape[:2] or q.shape[0] != pairs.batch.num_nodes:
        shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(f"attention over {pairs.batch.num_nodes} nodes cannot take {shapes}")
    if pairs.heads not in (1, q.shape[1]):
        raise ValueError(f"the mask distinguishes {pairs.heads} heads, the layer has {q.shape[1]}")
    if isinstance(bias, Tensor):
        check_bias(bias, pairs, q.shape[1])
    for name, term, like in (("pair", pair, k), ("pair_value", value, v)):
        if term is not None and term.shape != (pairs.edges.shape[1], *like.shape[1:]):
            expected = (pairs.edges.shape[1], *like.shape[1:])
            raise ValueError(f"{name} must have the shape {expected}, not {tuple(term.shape)}")


def joined_bias(
    q: Tensor,
    k: Tensor,
    pairs: Pairs,
    bias: Tensor | Hint | None,
    score: Score | None,
    pair: Tensor | None,
    padded: bool,
) -> Tensor | None:
    """The sum of all terms added to the scaled dot product, or replacing it given a score: (B, H, L, L) or (P, H).

    In the padded form, masked entries are finite and therefore harmless.
    """
    pair_scores = None
    if score is not None:
        pair_scores = score_bias(score, q, k, pairs, pair, padded)
    elif pair is not None:
        pair_scores = (q.index_select(0, pairs.edges[1]) * pair).sum(-1) / math.sqrt(q.shape[-1])
    if padded and pair_scores is not None:
        pair_scores = dense.zero_masked(pairs, pair_scores)
    finite = False
    if isinstance(bias, Hint):
        finite, bias = bias.finite, bias.bias(pairs, dense=padded)
    if padded and bias is not None and not finite:
        bias = dense.zero_masked(pairs, bias)
    if pair_scores is None or bias is None:
        return bias if pair_scores is None else pair_scores
    return pair_scores + bias if padded else dense.pair_bias(pairs, pair_scores) + dense.pair_bias(pairs, bias)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pairs: Pairs,
    bias: Tensor | Hint | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
    score: Score | None = None,
    pair: Tensor | None = None,
    pair_value: Tensor | None = None,
) -> Tensor:
    """Attention over allowed pairs: message passing on the graph that the mask defines.

    ``out_i = sum_j softmax_j(score(q_i, k_j, pair_ij) + bias_ij) (v_j + pair_value_ij)`` over the j that i reads. The
    score is ``q_i . (k_j + pair_ij) / sqrt(D)`` (Vaswani et al. 2017, Shaw et al. 2018) unless another one is given.

    Args:
        q, k, v: (N, H, D) packed nodes, no padding.
        pairs: who reads whom, ``mask(batch)``; a mask that differs between heads must have H of them.
        bias: added to the scores before the softmax: (P, H) in the order of ``pairs.edges``, (B, 1 or H, L, L), or a
            `Hint`, which yields whichever form the backend prefers. Minus infinity hides a pair.
        dropout: probability of dropping each attention weight.
        backend: ``auto`` or one of `BACKENDS`, which differ in speed but not in the result.
        score: see `gt.attention.scores`.
        pair: (P, H, D) features of the pairs, in the order of ``pairs.edges``, used by the score.
        pair_value: (P, H, D) added to the source's value for each pair (Ma et al. 2023).

    Returns:
        (N, H, D); zeros for a node that reads no node, or for which the bias hides every source.

    Raises:
        ValueError: an unknown backend or one that cannot be used here, or shapes that do not match.
    """
    check_backend(backend)
    check_shapes(q, k, v, pairs, bias, pair, pair_value)
    gradients = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    half, (_, heads, channels) = q.dtype in (torch.float16, torch.bfloat16), q.shape
    listed, valued = pair is not None, pair_value is not None
    demand = Demand.of(q.device.type, half, heads, channels, dropout, bias, score, listed, valued, gradients)
    if backend == "auto":
        backend = choose(pairs, demand)
    elif reason := BACKENDS[backend].refusal(pairs, demand):
        raise ValueError(f"the backend '{backend}' cannot be used here: {reason}")
    bias = joined_bias(q, k, pairs, bias, score, pair, BACKENDS[backend].padded)
    product = (q, k) if score is None else (None, None)  # any other score is passed as a bias, without a product
    values = {} if pair_value is None else {"pair_value": pair_value}
    return BACKENDS[backend].function(*product, v, pairs, bias, dropout, **values)

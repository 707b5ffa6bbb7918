"""Which way to compute attention: one operator, several backends, the choice never changes a result."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gt.attention import dense, flash, flex, listed, native, sparse, triton
from gt.attention.costs import Demand, cost_table
from gt.attention.scores import Hint, Score, score_bias
from gt.attention.settled import alike
from gt.errors import nearest
from gt.masks import Mask, Pairs

log = logging.getLogger(__name__)

# a mask, and what a layer that reads by it asks of attention; None: the pairs, for a layer with a way of its own; a
# function: what it does to the pairs, for what an encoding asks of them
Reading = tuple[Mask, Demand | Callable[[Pairs], None] | None]


def nothing(demand_or_pairs: Demand | Pairs) -> None:
    """Serves everything."""


def no_index(pairs: Pairs, demand: Demand) -> None:
    """Needs nothing but the batch."""


@dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    Attributes:
        function: computes it.
        obstacle: why it cannot serve a demand, in a phrase, or None.
        avoided: why it can but does so badly, likewise: ``auto`` leaves it alone.
        unfit: why it cannot serve a mask on a batch, likewise.
        prepare: works out each index that it will ask for, while still on the CPU.
        layout: what it works on: the ``padded`` (B, L, L) view, the pairs ``listed``, the ``blocks`` of the N x N
            matrix that hold any, or ``packed`` graphs as they are.
    """

    function: Callable[..., Tensor]
    obstacle: Callable[[Demand], str | None] = nothing
    avoided: Callable[[Demand], str | None] = nothing
    unfit: Callable[[Pairs], str | None] = nothing
    prepare: Callable[[Pairs, Demand], None] = no_index
    layout: Literal["padded", "listed", "blocks", "packed"] = "listed"

    @property
    def padded(self) -> bool:
        return self.layout == "padded"

    def refusal(self, pairs: Pairs, demand: Demand) -> str | None:
        """Why it cannot serve here, or None."""
        return self.obstacle(demand) or self.unfit(pairs)


BACKENDS: dict[str, Backend] = {
    "dense": Backend(dense.attend_dense, prepare=dense.prepare_dense, layout="padded"),
    "sdpa": Backend(
        dense.attend_sdpa, dense.sdpa_obstacle, dense.sdpa_avoided, prepare=dense.prepare_dense, layout="padded"
    ),
    "sparse": Backend(sparse.attend_sparse, prepare=sparse.prepare_sparse),
    "native": Backend(native.attend_native, native.native_obstacle, prepare=native.prepare_native, layout="padded"),
    "listed": Backend(listed.attend_listed, listed.listed_obstacle, prepare=listed.prepare_listed),
    "triton": Backend(
        triton.attend_triton, triton.triton_obstacle, triton.triton_avoided, prepare=triton.prepare_triton
    ),
    "flex": Backend(
        flex.attend_flex, flex.flex_obstacle, flex.flex_avoided, flex.flex_unfit, flex.prepare_flex, layout="blocks"
    ),
    "flash": Backend(flash.attend_flash, flash.flash_obstacle, unfit=flash.flash_unfit, layout="packed"),
}


UNTRACED = ("sparse", "native", "listed", "triton")  # a network that is compiled does without them


def explain(pairs: Pairs, demand: Demand) -> dict[str, float | str]:
    """For each backend the seconds that it is expected to take, forward and backward, or why it is not considered."""
    table = cost_table(demand.device, demand.half)
    costs_or_reasons: dict[str, float | str] = {}
    for name, backend in BACKENDS.items():
        reason = backend.avoided(demand) or backend.refusal(pairs, demand)
        if demand.compiled and name in UNTRACED:
            reason = "it cannot be compiled"
        costs_or_reasons[name] = reason or table.seconds(name, pairs, demand)
    return costs_or_reasons


def choose(pairs: Pairs, demand: Demand) -> str:
    """The backend that was timed, or else is expected, to be fastest; by Python integers: no device is waited for."""
    if demand.backend != "auto":
        return demand.backend
    if demand not in pairs.choices:
        costs_or_reasons = explain(pairs, demand)
        costs = {name: cost for name, cost in costs_or_reasons.items() if not isinstance(cost, str)}
        settled = dict(demand.settled).get(alike(pairs, demand)) if demand.settled else None
        pairs.choices[demand] = settled if settled in costs else min(costs, key=costs.__getitem__)
        log.debug("%s, %d pairs: %s", demand, pairs.count, costs_or_reasons)
    return pairs.choices[demand]


def prepare(pairs: Pairs, demand: Demand | Callable[[Pairs], None] | None) -> None:
    """Compute, while still on the CPU, each index that the chosen backend will ask for; without one ``pairs.edges``."""
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
    """Refuse a bias of neither shape that `attend` takes: a backend might read a wrong one without a complaint."""
    graphs, size = pairs.batch.num_graphs, pairs.batch.max_nodes
    if bias.dim() == 4:
        fits = bias.shape[1] in (1, heads) and bias.shape == (graphs, bias.shape[1], size, size)
    else:
        fits = bias.shape == (pairs.edges.shape[1], heads)
    if not fits:
        right = f"({pairs.edges.shape[1]}, {heads}) or ({graphs}, 1 or {heads}, {size}, {size})"
        raise ValueError(f"a bias of these pairs is {right}, not {tuple(bias.shape)}")


def check_backend(backend: str) -> None:
    """Whether there is a backend of this name, ``auto`` included.

    Raises:
        ValueError: naming the nearest.
    """
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"there is no backend '{backend}': {nearest(backend, ('auto', *BACKENDS))}")


def check_shapes(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, bias: Tensor | Hint | None, pair: Tensor | None, value: Tensor | None
) -> None:
    """Refuse what does not fit together."""
    if q.shape != k.shape or q.shape[:2] != v.shape[:2] or q.shape[0] != pairs.batch.num_nodes:
        shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(f"attention over {pairs.batch.num_nodes} nodes cannot take {shapes}")
    if pairs.heads not in (1, q.shape[1]):
        raise ValueError(f"the mask tells {pairs.heads} heads apart, the layer has {q.shape[1]}")
    if isinstance(bias, Tensor):
        check_bias(bias, pairs, q.shape[1])
    for what, term, like in (("pair", pair, k), ("pair_value", value, v)):
        if term is not None and term.shape != (pairs.edges.shape[1], *like.shape[1:]):
            right = (pairs.edges.shape[1], *like.shape[1:])
            raise ValueError(f"{what} of these pairs is {right}, not {tuple(term.shape)}")


def joined_bias(
    q: Tensor,
    k: Tensor,
    pairs: Pairs,
    bias: Tensor | Hint | None,
    score: Score | None,
    pair: Tensor | None,
    padded: bool,
) -> Tensor | None:
    """All that is added to the scaled dot product, or stands for it where there is a score: (B, H, L, L) or (P, H).

    Where nothing is read a padded one holds finite numbers, which do no harm there.
    """
    of_pairs = None
    if score is not None:
        of_pairs = score_bias(score, q, k, pairs, pair, padded)
    elif pair is not None:
        of_pairs = (q.index_select(0, pairs.edges[1]) * pair).sum(-1) / math.sqrt(q.shape[-1])
    if padded and of_pairs is not None:
        of_pairs = dense.bias_of_read(pairs, of_pairs)
    finite = False
    if isinstance(bias, Hint):
        finite, bias = bias.finite, bias.bias(pairs, dense=padded)
    if padded and bias is not None and not finite:
        bias = dense.bias_of_read(pairs, bias)
    if of_pairs is None or bias is None:
        return bias if of_pairs is None else of_pairs
    return of_pairs + bias if padded else dense.pair_bias(pairs, of_pairs) + dense.pair_bias(pairs, bias)


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
    """Attention over allowed pairs: message passing on the graph that the mask draws.

    ``out_i = sum_j softmax_j(score(q_i, k_j, pair_ij) + bias_ij) (v_j + pair_value_ij)`` over the j that i reads. The
    score is ``q_i . (k_j + pair_ij) / sqrt(D)`` (Vaswani et al. 2017, Shaw et al. 2018) unless another one is given.

    Args:
        q, k, v: (N, H, D) packed nodes, no padding.
        pairs: who reads whom, ``mask(batch)``; a mask for each head needs H heads.
        bias: added to the scores before the softmax: (P, H) in the order of ``pairs.edges``, or (B, 1 or H, L, L), or
            a `Hint`, which gives whichever the backend prefers. Minus infinity hides a pair.
        dropout: probability of dropping each attention weight.
        backend: ``auto``, or one of `BACKENDS`: the numbers are the same, the speed is not.
        score: see `gt.attention.scores`.
        pair: (P, H, D) features of the pairs, in the order of ``pairs.edges``; read by the score.
        pair_value: (P, H, D) what is read of each pair beside the source's value (Ma et al. 2023).

    Returns:
        (N, H, D); zeros for a node that reads nobody, or from whom the bias hides all that it reads.

    Raises:
        ValueError: an unknown backend or one that cannot serve here, or shapes that do not fit one another.
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
        raise ValueError(f"the backend '{backend}' cannot serve here: {reason}")
    bias = joined_bias(q, k, pairs, bias, score, pair, BACKENDS[backend].padded)
    product = (q, k) if score is None else (None, None)  # another score comes as a bias, on no product
    values = {} if pair_value is None else {"pair_value": pair_value}
    return BACKENDS[backend].function(*product, v, pairs, bias, dropout, **values)

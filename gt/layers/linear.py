"""Linear attention: with a feature map of queries and keys, the sources are summed once for all queries."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.dropout import Dropout
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.linear import Linear
from gt.masks import Pairs
from gt.ranges import at_least, divides

CHUNK = 64  # positions compared pair by pair; earlier ones enter through a running sum


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``out_i = sum_j (q_i . k_j) v_j`` over all nodes j of a graph, in time O(L M D).

    Args:
        q, k: (B, L, H, M); v: (B, L, H, D); keys are zero at padding, see `gt.graph.GraphBatch.to_dense`.

    Returns:
        (B, L, H, D).
    """
    return torch.einsum("blhm,bhmd->blhd", q, torch.einsum("blhm,blhd->bhmd", k, v))


def causal_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None, before: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``out_i = sum_{j <= i} exp(sum_{j < t <= i} log_decay_t) (q_i . k_j) v_j`` in time O(L (M + CHUNK) D).

    Equivalently ``state_i = exp(log_decay_i) state_{i-1} + k_i v_i^T``, ``out_i = q_i state_i``. Computed as attention
    without softmax within a chunk and as a recurrence between chunks (Dao & Gu 2024, *Transformers are SSMs*).

    Args:
        q, k, v: as in `linear_attention`.
        log_decay: (B, L, H), at most 0, and 0 at padding; None for no decay.
        before: (B, H, M, D), the state after the tokens so far; None if there are none.

    Returns:
        (B, L, H, D), and the state after the last position.
    """
    length, size = q.shape[1], min(CHUNK, q.shape[1])
    fill = -length % size
    q, k, v = (F.pad(t, (0, 0, 0, 0, 0, fill)).unflatten(1, (-1, size)) for t in (q, k, v))  # (B, n, C, H, .)
    scores = torch.einsum("bnchm,bnshm->bnhcs", q, k)
    states = torch.einsum("bnchm,bnchd->bnhmd", k, v) if log_decay is None else None
    first = q.new_zeros(len(q), 1, q.shape[3], k.shape[-1], v.shape[-1]) if before is None else before[:, None]
    if states is not None:  # the state before each chunk, its own keys excluded
        scores = scores.tril()
        states = torch.cat([first, states], dim=1).cumsum(1)
    else:
        assert log_decay is not None
        decay = F.pad(log_decay, (0, 0, 0, fill)).unflatten(1, (-1, size)).transpose(2, 3)  # (B, n, H, C)
        scores = scores * segment_sums(decay).exp()
        to_end = (decay.sum(-1, keepdim=True) - decay.cumsum(-1)).exp()
        updates = torch.einsum("bnchm,bnhc,bnchd->bnhmd", k, to_end, v)
        totals = F.pad(decay.sum(-1).transpose(1, 2), (1, 0))  # (B, H, n + 1), the initial state comes first
        states = torch.einsum("bhts,bshmd->bthmd", segment_sums(totals).exp(), torch.cat([first, updates], dim=1))
        q = q * decay.cumsum(-1).exp().transpose(2, 3)[..., None]
    out = torch.einsum("bnhcs,bnshd->bnchd", scores, v) + torch.einsum("bnchm,bnhmd->bnchd", q, states[:, :-1])
    return out.flatten(1, 2)[:, :length], states[:, -1]


def require_complete(pairs: Pairs, name: str) -> None:
    """Check that the mask allows all pairs, for a layer that supports no other.

    Raises:
        UserError: it does not; names the layer and the mask.
    """
    if pairs.limits != (None, None):
        raise UserError(
            f"{name} attends to all nodes of a graph and does not support the mask {pairs.mask}: choose mask=hops "
            "mask.hops=null, or another attention"
        )


def to_sequences(batch: GraphBatch, values: Tensor, growing: bool) -> Tensor:
    """(N, ...) to (B, L, ...), zero-padded; while texts grow, the same number of new tokens for each of them."""
    return values.unflatten(0, (batch.num_graphs, -1)) if growing else batch.to_dense(values)


def from_sequences(batch: GraphBatch, rows: Tensor, growing: bool) -> Tensor:
    """The inverse of `to_sequences`."""
    return rows.flatten(0, 1) if growing else batch.to_packed(rows)


def segment_sums(steps: Tensor) -> Tensor:
    """(..., T) to (..., T, T): the sum of steps s + 1 to t in row t and column s; minus infinity where s > t."""
    size = steps.shape[-1]
    ones = torch.ones(size, size, dtype=torch.bool, device=steps.device)
    rows = steps[..., None].expand(*steps.shape, size).masked_fill(~ones.tril(-1), 0.0)  # no difference of large sums
    return rows.cumsum(-2).masked_fill(~ones.tril(), -math.inf)


def normalised_linear_attention(q: Tensor, k: Tensor, v: Tensor, batch: GraphBatch) -> Tensor:
    """``out_i = sum_j (q_i . k_j) v_j / sum_j q_i . k_j`` over all nodes of each graph: (N, H, M) and (N, H, D)."""
    q, k, v = (batch.to_dense(t) for t in (q, k, F.pad(v, (0, 1), value=1.0)))
    return batch.to_packed(_normalise(linear_attention(q, k, v)))


def _normalise(out: Tensor) -> Tensor:
    """Divide the channels of each row by its last one, the normaliser."""
    return out[..., :-1] / out[..., -1:].clamp(min=torch.finfo(out.dtype).tiny)


def scaled_exp(logarithms: Tensor, batch: GraphBatch) -> Tensor:
    """(N, H, M) ``exp(logarithms - max)``, the maximum over each graph and head; the factor cancels in a ratio."""
    largest = logarithms.detach().amax(-1)
    graph = batch.batch[:, None].expand_as(largest)
    top = largest.new_full((batch.num_graphs, largest.shape[1]), -math.inf).scatter_reduce(0, graph, largest, "amax")
    return (logarithms - top.gather(0, graph)[..., None]).exp()


def running_scaled_exp(logarithms: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """``exp(logarithms - max)`` with the running maximum at each position, so that no later token leaks in.

    Args:
        logarithms: (B, L, H, M).
        before: (B, H), the maximum over the tokens so far; None if there are none.

    Returns:
        (B, L, H, M) the scaled exponentials; (B, L, H) the log factor by which earlier sums shrink at each position;
        (B, H) the overall maximum.
    """
    largest = logarithms.detach().amax(-1)
    first = largest[:, :1] if before is None else before[:, None]
    top = torch.cat([first, largest], dim=1).cummax(1).values
    return (logarithms - top[:, 1:, :, None]).exp(), top[:, :-1] - top[:, 1:], top[:, -1]


class PositiveELU(nn.Module):
    """Feature map ``elu(x) + 1`` (Katharopoulos et al. 2020), for heads of any width."""

    logarithms = False

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, query: bool) -> Tensor:
        """(N, H, D) to (N, H, D)."""
        return F.elu(x) + 1


class RandomFeatures(nn.Module):
    """FAVOR+: unbiased estimate of the softmax kernel by positive orthogonal random features (Choromanski et al. 2021).

    ``exp(w . x - |x|^2 / 2)`` for directions w that are drawn once and saved with the parameters. For keys it returns
    logarithms: the exponentials of long keys would underflow, and only their differences matter.

    Args:
        channels: D, of a head.
        features: M, the number of directions.
    """

    logarithms = True
    directions: Tensor

    def __init__(self, channels: int, features: int = 64) -> None:
        super().__init__()
        at_least(1, features, "features")
        blocks = -(-features // channels)
        axes, r = torch.linalg.qr(torch.randn(blocks, channels, channels))
        axes = axes * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # else not uniformly distributed
        lengths = torch.randn(features, channels).norm(dim=1, keepdim=True)
        self.register_buffer("directions", axes.flatten(0, 1)[:features] * lengths)

    def forward(self, x: Tensor, query: bool) -> Tensor:
        """(N, H, D) to (N, H, M)."""
        x = x * x.shape[-1] ** -0.25
        exponent = x @ self.directions.to(x.dtype).T - x.square().sum(-1, keepdim=True) / 2
        if not query:
            return exponent
        return (exponent - exponent.detach().amax(-1, keepdim=True)).exp()  # a factor per query cancels


class LinearAttention(Layer):
    """``out_i = sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j)`` (Katharopoulos et al. 2020).

    It supports two masks, complete and causal: in linear time no single pair can be masked.

    Args:
        width: channels of a node.
        heads: number of heads; must divide the width.
        feature_map: builds phi from the channels of a head, such as `PositiveELU` or `RandomFeatures`; called as
            ``phi(x, is_query)``, and with ``phi.logarithms`` it returns the logarithms of keys' features.
        bias: whether the projections have one.
        channels: of a head; None: width / heads.
        dropout: on the output, since linear attention has no weights to drop.

    Raises:
        UserError: when run, a mask other than ``Complete()`` or ``Causal()``.
    """

    reads, reads_edges, reads_pairs = "graph", False, False
    cost = "N"
    carried: list[Any] | None = None

    def __init__(
        self,
        width: int,
        heads: int = 4,
        feature_map: Callable[[int], nn.Module] = PositiveELU,
        bias: bool = True,
        channels: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if channels is None:
            divides(heads, width)
            channels = width // heads
        at_least(1, channels, "channels")
        self.heads, self.feature_map, inner = heads, feature_map(channels), heads * channels
        self.project_in = Linear(width, 3 * inner, bias=bias)
        self.project_out = Linear(inner, width, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        if pairs.limits not in ((None, None), (None, 0)):
            raise UserError(
                f"linear attention supports only the complete and the causal mask, not {pairs.mask}: "
                "choose mask=hops mask.hops=null, mask=causal, or another attention"
            )
        q, k, v = self.project_in(state.x).unflatten(1, (3, self.heads, -1)).unbind(1)
        high = torch.promote_types(v.dtype, torch.float32)  # sums over a whole graph, and exponentials
        q, k, v = self.feature_map(q.to(high), True), self.feature_map(k.to(high), False), v.to(high)
        logarithms = getattr(self.feature_map, "logarithms", False)
        if pairs.limits == (None, None):
            y = normalised_linear_attention(q, scaled_exp(k, batch) if logarithms else k, v, batch)
        else:
            growing, (before, top) = self.carried is not None, self.carried or (None, None)
            q, k, v = (to_sequences(batch, t, growing) for t in (q, k, F.pad(v, (0, 1), value=1.0)))
            decay = None
            if logarithms:
                k, decay, top = running_scaled_exp(k, top)
            out, after = causal_linear_attention(q, k, v, decay, before)
            if self.carried is not None:
                self.carried[:] = [after, top]
            y = from_sequences(batch, _normalise(out), growing)
        return {"x": self.dropout(self.project_out(y.flatten(1).type_as(state.x)))}

"""Attention in linear time: queries and keys go through a feature map, so that sources are summed up once for all."""

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

CHUNK = 64  # positions that are compared pair by pair; what came before them is summed up


def read_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``out_i = sum_j (q_i . k_j) v_j`` over all nodes j of a graph, in time O(L M D).

    Args:
        q, k: (B, L, H, M) and v: (B, L, H, D), keys zero at padding, see `gt.graph.GraphBatch.to_dense`.

    Returns:
        (B, L, H, D).
    """
    return torch.einsum("blhm,bhmd->blhd", q, torch.einsum("blhm,blhd->bhmd", k, v))


def read_before(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None, before: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``out_i = sum_{j <= i} exp(sum_{j < t <= i} log_decay_t) (q_i . k_j) v_j`` in time O(L (M + CHUNK) D).

    The same by recurrence: ``state_i = exp(log_decay_i) state_{i-1} + k_i v_i^T``, ``out_i = q_i state_i``. Within a
    chunk it is attention without a softmax, between chunks a recurrence (Dao & Gu 2024, *Transformers are SSMs*).

    Args:
        q, k, v: as in `read_all`.
        log_decay: (B, L, H), 0 or less, 0 at padding; None decays nothing.
        before: (B, H, M, D), the state that a text so far has left; None: nothing.

    Returns:
        (B, L, H, D), and the state after the last position.
    """
    length, size = q.shape[1], min(CHUNK, q.shape[1])
    fill = -length % size
    q, k, v = (F.pad(t, (0, 0, 0, 0, 0, fill)).unflatten(1, (-1, size)) for t in (q, k, v))  # (B, n, C, H, .)
    scores = torch.einsum("bnchm,bnshm->bnhcs", q, k)
    states = torch.einsum("bnchm,bnchd->bnhmd", k, v) if log_decay is None else None
    first = q.new_zeros(len(q), 1, q.shape[3], k.shape[-1], v.shape[-1]) if before is None else before[:, None]
    if states is not None:  # summed up without what the chunk itself leaves, which comes later than some of it
        scores = scores.tril()
        states = torch.cat([first, states], dim=1).cumsum(1)
    else:
        assert log_decay is not None
        decay = F.pad(log_decay, (0, 0, 0, fill)).unflatten(1, (-1, size)).transpose(2, 3)  # (B, n, H, C)
        scores = scores * spans(decay).exp()
        to_end = (decay.sum(-1, keepdim=True) - decay.cumsum(-1)).exp()
        own = torch.einsum("bnchm,bnhc,bnchd->bnhmd", k, to_end, v)
        totals = F.pad(decay.sum(-1).transpose(1, 2), (1, 0))  # (B, H, n + 1), the state before goes first
        states = torch.einsum("bhts,bshmd->bthmd", spans(totals).exp(), torch.cat([first, own], dim=1))
        q = q * decay.cumsum(-1).exp().transpose(2, 3)[..., None]
    out = torch.einsum("bnhcs,bnshd->bnchd", scores, v) + torch.einsum("bnchm,bnhmd->bnchd", q, states[:, :-1])
    return out.flatten(1, 2)[:, :length], states[:, -1]


def everything(pairs: Pairs, name: str) -> None:
    """Whether a mask allows all pairs, for a layer that knows no other.

    Raises:
        UserError: it does not; names the layer and the mask.
    """
    if pairs.limits != (None, None):
        raise UserError(
            f"{name} reads all nodes of a graph and cannot follow the mask {pairs.mask}: choose mask=hops "
            "mask.hops=null, or another attention"
        )


def rows_in_order(batch: GraphBatch, values: Tensor, growing: bool) -> Tensor:
    """(N, ...) to (B, L, ...), zeros after the end of a graph; of a growing text the new tokens, of each as many."""
    return values.unflatten(0, (batch.num_graphs, -1)) if growing else batch.to_dense(values)


def packed(batch: GraphBatch, rows: Tensor, growing: bool) -> Tensor:
    """The inverse of `rows_in_order`."""
    return rows.flatten(0, 1) if growing else batch.to_packed(rows)


def spans(steps: Tensor) -> Tensor:
    """(..., T) to (..., T, T): in row t and column s the sum of steps s + 1 to t; minus infinity where s > t."""
    size = steps.shape[-1]
    ones = torch.ones(size, size, dtype=torch.bool, device=steps.device)
    rows = steps[..., None].expand(*steps.shape, size).masked_fill(~ones.tril(-1), 0.0)  # no difference of large sums
    return rows.cumsum(-2).masked_fill(~ones.tril(), -math.inf)


def normalised_reading(q: Tensor, k: Tensor, v: Tensor, batch: GraphBatch) -> Tensor:
    """``out_i = sum_j (q_i . k_j) v_j / sum_j q_i . k_j`` over all nodes of each graph: (N, H, M) and (N, H, D)."""
    q, k, v = (batch.to_dense(t) for t in (q, k, F.pad(v, (0, 1), value=1.0)))
    return batch.to_packed(_ratio(read_all(q, k, v)))


def _ratio(out: Tensor) -> Tensor:
    """The channels of each row over its last one."""
    return out[..., :-1] / out[..., -1:].clamp(min=torch.finfo(out.dtype).tiny)


def powers(logarithms: Tensor, batch: GraphBatch) -> Tensor:
    """(N, H, M) ``exp(logarithms)`` over the largest one of each graph and head, a factor that a ratio cancels."""
    largest = logarithms.detach().amax(-1)
    graph = batch.batch[:, None].expand_as(largest)
    top = largest.new_full((batch.num_graphs, largest.shape[1]), -math.inf).scatter_reduce(0, graph, largest, "amax")
    return (logarithms - top.gather(0, graph)[..., None]).exp()


def powers_so_far(logarithms: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """``exp(logarithms)`` over the largest one until each position: none of them is told what comes after it.

    Args:
        logarithms: (B, L, H, M).
        before: (B, H), the largest of a text so far; None: there is none.

    Returns:
        (B, L, H, M) the quotients; (B, L, H) by how much, as a logarithm, what was summed up before shrinks at each
        position; (B, H) the largest of all.
    """
    largest = logarithms.detach().amax(-1)
    first = largest[:, :1] if before is None else before[:, None]
    top = torch.cat([first, largest], dim=1).cummax(1).values
    return (logarithms - top[:, 1:, :, None]).exp(), top[:, :-1] - top[:, 1:], top[:, -1]


class PositiveELU(nn.Module):
    """``elu(x) + 1`` (Katharopoulos et al. 2020), for heads of any width."""

    logarithms = False

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, query: bool) -> Tensor:
        """(N, H, D) to the same."""
        return F.elu(x) + 1


class RandomFeatures(nn.Module):
    """FAVOR+: the softmax kernel in expectation, by positive orthogonal random features (Choromanski et al. 2021).

    ``exp(w . x - |x|^2 / 2)`` in directions w that are drawn once and kept with the parameters. Of keys it gives the
    logarithms: those of long ones are below what an exponential can hold, and only their differences matter.

    Args:
        channels: D of a head.
        features: M, the directions.
    """

    logarithms = True
    directions: Tensor

    def __init__(self, channels: int, features: int = 64) -> None:
        super().__init__()
        at_least(1, features, "features")
        blocks = -(-features // channels)
        axes, r = torch.linalg.qr(torch.randn(blocks, channels, channels))
        axes = axes * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # else some axes are likelier than others
        lengths = torch.randn(features, channels).norm(dim=1, keepdim=True)
        self.register_buffer("directions", axes.flatten(0, 1)[:features] * lengths)

    def forward(self, x: Tensor, query: bool) -> Tensor:
        """(N, H, D) to (N, H, M)."""
        x = x * x.shape[-1] ** -0.25
        exponent = x @ self.directions.to(x.dtype).T - x.square().sum(-1, keepdim=True) / 2
        if not query:
            return exponent
        return (exponent - exponent.detach().amax(-1, keepdim=True)).exp()  # a factor of a query alone cancels


class LinearAttention(Layer):
    """``out_i = sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j)`` (Katharopoulos et al. 2020).

    Its masks are two, all nodes of a graph or those before each: a linear time leaves no choice among single pairs.

    Args:
        width: channels of a node.
        heads: number of heads; must divide the width.
        feature_map: makes phi from the channels of a head, such as `PositiveELU` or `RandomFeatures`; called with
            whether it is for queries. Its attribute ``logarithms`` says whether it gives those of keys' features.
        bias: whether the projections have one.
        channels: of a head; None: width / heads.
        dropout: on what it gives, as linear attention has no weights that could be dropped.

    Raises:
        UserError: when run, a mask that is neither ``Complete()`` nor ``Causal()``.
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
                f"linear attention reads all nodes of a graph, or all before each, and cannot follow {pairs.mask}: "
                "choose mask=hops mask.hops=null, mask=causal, or another attention"
            )
        q, k, v = self.project_in(state.x).unflatten(1, (3, self.heads, -1)).unbind(1)
        high = torch.promote_types(v.dtype, torch.float32)  # sums over a whole graph, and exponentials
        q, k, v = self.feature_map(q.to(high), True), self.feature_map(k.to(high), False), v.to(high)
        logarithms = getattr(self.feature_map, "logarithms", False)
        if pairs.limits == (None, None):
            y = normalised_reading(q, powers(k, batch) if logarithms else k, v, batch)
        else:
            growing, (before, top) = self.carried is not None, self.carried or (None, None)
            q, k, v = (rows_in_order(batch, t, growing) for t in (q, k, F.pad(v, (0, 1), value=1.0)))
            decay = None
            if logarithms:
                k, decay, top = powers_so_far(k, top)
            out, after = read_before(q, k, v, decay, before)
            if self.carried is not None:
                self.carried[:] = [after, top]
            y = packed(batch, _ratio(out), growing)
        return {"x": self.dropout(self.project_out(y.flatten(1).type_as(state.x)))}

"""Attention scores and biases beyond the scaled dot product.

A `Score` is a function of channels that broadcasts: the same code scores a list of pairs, (P, H, D) against (P, H, D),
and a padded batch, (B, L, 1, H, D) against (B, 1, L, H, D). A `Hint` is a bias that depends only on the mask's pairs,
such as on their hop distance, in either form.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.masks import Pairs


class Score(nn.Module, ABC):
    """Maps queries, keys and optional pair features, each (..., H, D), to scores (..., H)."""

    def __init__(self, heads: int, channels: int) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels

    @abstractmethod
    def forward(self, q: Tensor, k: Tensor, pair: Tensor | None) -> Tensor: ...

    def weights(self) -> nn.Parameter:
        """A vector for each head, initialised like a linear layer with one output."""
        return nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.heads, self.channels)))


class Gated(Score):
    """``sum_c q_c k_c pair_c / sqrt(D)``, clamped: each channel gated by the pair (Dwivedi & Bresson 2020, Exphormer).

    Args:
        heads, channels: H and D.
        clamp: bounds the magnitude of scores; None for no bound.
    """

    def __init__(self, heads: int, channels: int, clamp: float | None = 5.0) -> None:
        super().__init__(heads, channels)
        self.clamp = clamp

    def forward(self, q: Tensor, k: Tensor, pair: Tensor | None) -> Tensor:
        product = q * k if pair is None else q * k * pair
        scores = product.sum(-1) / math.sqrt(self.channels)
        return scores if self.clamp is None else scores.clamp(-self.clamp, self.clamp)


class Additive(Score):
    """``a . LeakyReLU(q + k + pair)`` (GATv2, Brody et al. 2022; Bahdanau et al. 2015 with a tanh)."""

    def __init__(self, heads: int, channels: int, slope: float = 0.2) -> None:
        super().__init__(heads, channels)
        self.slope, self.vector = slope, self.weights()

    def forward(self, q: Tensor, k: Tensor, pair: Tensor | None) -> Tensor:
        total = q + k if pair is None else q + k + pair
        return (F.leaky_relu(total, self.slope) * self.vector).sum(-1)


class Separable(Score):
    """``LeakyReLU(a . q + b . k + c . pair)``: all readers rank sources alike (GAT, Velickovic et al. 2018)."""

    def __init__(self, heads: int, channels: int, slope: float = 0.2) -> None:
        super().__init__(heads, channels)
        self.slope = slope
        self.of_target, self.of_source, self.of_pair = self.weights(), self.weights(), self.weights()

    def forward(self, q: Tensor, k: Tensor, pair: Tensor | None) -> Tensor:
        total = (q * self.of_target).sum(-1) + (k * self.of_source).sum(-1)
        if pair is not None:
            total = total + (pair * self.of_pair).sum(-1)
        return F.leaky_relu(total, self.slope)


class Hint(nn.Module, ABC):
    """A bias for each pair and head that is a function of the distance between the two nodes.

    Attributes:
        most: the distance is the number of hops from reader to source, ``most + 1`` if it is larger or the source is
            unreachable; None: the position of the source minus that of the reader within their graph.
        finite: whether the bias is always finite, so that its values at padding are harmless.
    """

    most: int | None = None
    finite = False

    @abstractmethod
    def forward(self, distance: Tensor) -> Tensor:
        """(P, 1) to (P, H), or (B, 1, L, L) to (B, H, L, L): the heads are the second axis of both."""

    @property
    def positions(self) -> bool:
        """Whether the distance is a difference of positions."""
        return self.most is None

    def bias(self, pairs: Pairs, dense: bool) -> Tensor:
        """The bias (P, H) in the order of ``pairs.edges``, or (B, H, L, L) if ``dense``."""
        if self.most is not None:
            distance = pairs.dense_hops(self.most) if dense else pairs.hops(self.most)
            return self(distance[:, None])
        if not dense:
            return self(pairs.ahead[:, None])
        position = torch.arange(pairs.batch.max_nodes, device=pairs.batch.device)
        return self((position - position[:, None])[None, None]).expand(pairs.batch.num_graphs, -1, -1, -1)


class Decay(Hint):
    """Weights decay as ``exp(-a_h d)`` with the distance d of the pair: a soft mask between local and complete.

    Args:
        rates: (H,) the initial rate ``a_h > 0`` of each head.
        learned: whether the rates are trained.
    """

    finite = True

    def __init__(self, rates: Tensor, learned: bool = True) -> None:
        super().__init__()
        self.raw = nn.Parameter(rates.expm1().log(), requires_grad=learned)  # inverse of softplus

    @property
    def rates(self) -> Tensor:
        """(H,) the decay rate of each head; a head with a rate near 0 ignores distance."""
        return F.softplus(self.raw)

    def forward(self, distance: Tensor) -> Tensor:
        return -self.rates.view(-1, *[1] * (distance.dim() - 2)) * distance.to(self.raw.dtype).abs()


class HopDecay(Decay):
    """`Decay` with the number of hops from reader to source; distances above ``most`` count as ``most + 1``.

    The initial rates are 1, 1/2, 1/4, ...: most of a graph is a few hops away, and the slopes of ALiBi (Press et al.
    2022), made for thousands of positions, would leave most heads uniform.
    """

    def __init__(self, heads: int, learned: bool = True, most: int = 16) -> None:
        super().__init__(0.5 ** torch.arange(heads), learned)
        self.most: int = most


class PositionDecay(Decay):
    """`Decay` with the difference of positions within the graph: ALiBi (Press et al. 2022) if not learned.

    The initial rates are ``2^(-8 h / H)``, h from 1 to H, as in ALiBi for H a power of two.
    """

    def __init__(self, heads: int, learned: bool = True) -> None:
        super().__init__(2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads), learned)


def score_bias(score: Score, q: Tensor, k: Tensor, pairs: Pairs, pair: Tensor | None, dense: bool) -> Tensor:
    """The scores of all pairs as a bias: (P, H), or (B, H, L, L) if ``dense`` and without pair features.

    Args:
        q, k: (N, H, D).
        pair: (P, H, D) or None.
    """
    if dense and pair is None:
        q, k = pairs.batch.to_dense(q), pairs.batch.to_dense(k)  # (B, L, H, D)
        return score(q[:, :, None], k[:, None], None).permute(0, 3, 1, 2)
    source, target = pairs.edges
    return score(q.index_select(0, target), k.index_select(0, source), pair)

"""How much a reader attends to a source, beyond the scaled dot product.

A `Score` is a function of channels, broadcast: the same few lines score a list of pairs, (P, H, D) against (P, H, D),
and a padded batch, (B, L, 1, H, D) against (B, 1, L, H, D). A `Hint` is a bias that the mask's pairs alone decide, such
as the hop distance, in either form.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.masks import Pairs


class Score(nn.Module, ABC):
    """Queries, keys and, where there are any, features of the pair, each (..., H, D), to scores (..., H)."""

    def __init__(self, heads: int, channels: int) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels

    @abstractmethod
    def forward(self, q: Tensor, k: Tensor, pair: Tensor | None) -> Tensor: ...

    def weights(self) -> nn.Parameter:
        """A vector for each head, drawn as for a linear map to one number."""
        return nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.heads, self.channels)))


class Gated(Score):
    """``sum_c q_c k_c pair_c / sqrt(D)``, clamped: each channel gated by the pair (Dwivedi & Bresson 2020, Exphormer).

    Args:
        heads, channels: H and D.
        clamp: keeps scores within plus and minus this; None sets no limit.
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
    """A bias for each pair and head that only the place of the two nodes decides: one function of a distance.

    Attributes:
        most: the distance is the hops from reader to source, ``most + 1`` where it is further or out of reach; None:
            it is the position of the source less that of the reader within their graph.
        finite: whether all that it gives is finite, so that what it gives to padding does no harm.
    """

    most: int | None = None
    finite = False

    @abstractmethod
    def forward(self, distance: Tensor) -> Tensor:
        """(P, 1) to (P, H), or (B, 1, L, L) to (B, H, L, L): heads are the second axis of either."""

    @property
    def positions(self) -> bool:
        """Whether it goes by the place of nodes within their graph."""
        return self.most is None

    def bias(self, pairs: Pairs, dense: bool) -> Tensor:
        """(P, H), in the order of ``pairs.edges``, or (B, H, L, L) where a dense one is asked for."""
        if self.most is not None:
            distance = pairs.dense_hops(self.most) if dense else pairs.hops(self.most)
            return self(distance[:, None])
        if not dense:
            return self(pairs.ahead[:, None])
        place = torch.arange(pairs.batch.max_nodes, device=pairs.batch.device)
        return self((place - place[:, None])[None, None]).expand(pairs.batch.num_graphs, -1, -1, -1)


class Decay(Hint):
    """Weights fall off as ``exp(-a_h d)`` with the distance d of the pair; a soft mask between local and complete.

    Args:
        rates: (H,) what the rate ``a_h > 0`` of each head is at first.
        learned: whether they are trained.
    """

    finite = True

    def __init__(self, rates: Tensor, learned: bool = True) -> None:
        super().__init__()
        self.raw = nn.Parameter(rates.expm1().log(), requires_grad=learned)  # softplus gives the rates back

    @property
    def rates(self) -> Tensor:
        """(H,) how fast each head's weights fall off; near 0 a head that distance means nothing to."""
        return F.softplus(self.raw)

    def forward(self, distance: Tensor) -> Tensor:
        return -self.rates.view(-1, *[1] * (distance.dim() - 2)) * distance.to(self.raw.dtype).abs()


class HopDecay(Decay):
    """`Decay` with the number of hops from reader to source; what is further than ``most`` counts as ``most + 1``.

    The rates are 1, 1/2, 1/4, ... at first: most of a graph is a few hops away, and the slopes that ALiBi (Press et al.
    2022) has for positions, of which there are thousands, would leave most heads even.
    """

    def __init__(self, heads: int, learned: bool = True, most: int = 16) -> None:
        super().__init__(0.5 ** torch.arange(heads), learned)
        self.most: int = most


class PositionDecay(Decay):
    """`Decay` with the difference of positions within the graph: ALiBi (Press et al. 2022) where it is not learned.

    The rates are ALiBi's ``2^(-8 h / H)`` at first, h from 1 to H, as it takes them for H a power of two.
    """

    def __init__(self, heads: int, learned: bool = True) -> None:
        super().__init__(2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads), learned)


def score_bias(score: Score, q: Tensor, k: Tensor, pairs: Pairs, pair: Tensor | None, dense: bool) -> Tensor:
    """The scores of all pairs as a bias: (P, H), or (B, H, L, L) where a dense one is asked for.

    Args:
        q, k: (N, H, D).
        pair: (P, H, D) or None.
    """
    if dense and pair is None:
        q, k = pairs.batch.to_dense(q), pairs.batch.to_dense(k)  # (B, L, H, D)
        return score(q[:, :, None], k[:, None], None).permute(0, 3, 1, 2)
    source, target = pairs.edges
    return score(q.index_select(0, target), k.index_select(0, source), pair)

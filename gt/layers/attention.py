"""The global branch: multi-head attention among the pairs that a mask allows."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gt.attention import Demand, attend, choose
from gt.attention.costs import Settled
from gt.attention.dense import dense_weights
from gt.attention.dispatch import check_backend, joined_bias
from gt.attention.scores import Hint, Score
from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.linear import Linear
from gt.masks import Pairs
from gt.ranges import at_least, below_one, divides
from gt.transforms import transformed


class PairFeatures(nn.Module):
    """Features of each pair: its state plus the features of its edge or, without an edge, a learned vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.no_edge = nn.Parameter(torch.randn(width))
        self.project = Linear(width, width, bias=False)

    def forward(self, state: State, pairs: Pairs) -> Tensor:
        """(P, width); the features of parallel edges add up."""
        count, e = pairs.edges.shape[1], state.e
        if e is None:
            e = self.no_edge.new_zeros(pairs.batch.num_edges, self.no_edge.numel())
        no_edge = torch.ones(count + 1, dtype=torch.bool, device=e.device).index_fill(0, pairs.of_edges, False)[:count]
        rows = e.new_zeros(count + 1, e.shape[1]).index_add(0, pairs.of_edges, e)[:count]
        rows = torch.where(no_edge[:, None], self.no_edge.to(e.dtype), rows)
        return self.project(rows if state.p is None else rows + state.p)


class Attention(Layer):
    """Multi-head attention (Vaswani et al. 2017), parameters as in ``torch.nn.MultiheadAttention``.

    Args:
        width: channels of a node.
        heads: number of heads; must divide the width.
        dropout: probability of dropping an attention weight.
        bias: whether the projections have one.
        backend: how to compute it, see `gt.attention.attend`.
        score: builds the score from the number of heads and their width, see `gt.attention.scores`; None is the scaled
            dot product.
        hint: builds a bias for each pair from the number of heads, such as `gt.attention.scores.HopDecay`.
        edges: the score reads each pair's state and edge features (the dot product adds them to the key).
        edge_values: the values read them too.
        kv_heads: number of key and value heads, each shared by a group of query heads (grouped-query attention,
            Ainslie et al. 2023); must divide ``heads``. None: as many as ``heads``.
        qk_norm: builds a normalisation of a head's channels, for queries and for keys (Henry et al. 2020).
        pair_bias: add the state of a pair, one channel per head, to its score (Ying et al. 2021).

    Attributes:
        cache: set during incremental decoding: takes the keys and values of new tokens and attends to all so far.
        compiled: set when the layer is compiled, see `gt.train.compile`.
        settled: set when close calls among backends have been timed, see `gt.train.callbacks.settle`.
    """

    reads = "pairs"
    cache: Callable[["Attention", Tensor, Tensor, Tensor, Pairs], Tensor] | None = None
    compiled = False
    settled: Settled = frozenset()

    def __init__(
        self,
        width: int,
        heads: int = 4,
        dropout: float = 0.0,
        bias: bool = True,
        backend: str = "auto",
        score: Callable[[int, int], Score] | None = None,
        hint: Callable[[int], Hint] | None = None,
        edges: bool = False,
        edge_values: bool = False,
        kv_heads: int | None = None,
        qk_norm: Callable[[int], nn.Module] | None = None,
        pair_bias: bool = False,
    ) -> None:
        super().__init__()
        below_one(dropout, "dropout")
        check_backend(backend)
        divides(heads, width)
        self.kv_heads = heads if kv_heads is None else kv_heads
        at_least(1, self.kv_heads, "kv_heads")
        if heads % self.kv_heads:
            raise ValueError(f"{self.kv_heads} kv_heads do not divide {heads} heads")
        self.heads, self.dropout, self.backend = heads, dropout, backend
        self.project_in = Linear(width, width + 2 * self.kv_heads * (width // heads), bias=bias)
        self.project_out = Linear(width, width, bias=bias)
        self.norm_q, self.norm_k = (qk_norm(width // heads) if qk_norm else nn.Identity() for _ in range(2))
        self.score = score(heads, width // heads) if score else None
        self.hint = hint(heads) if hint else None
        if pair_bias and (edges or edge_values):
            raise ValueError("pair_bias already uses the state of a pair, as a bias: leave edges and edge_values false")
        self.reads_edges, self.pair_bias = edges or edge_values, pair_bias
        self.reads_pairs = self.reads_edges or pair_bias
        self.pairs = PairFeatures(width) if self.reads_edges else None
        self.edges, self.edge_values = edges, edge_values
        self.positions = self.hint is not None and self.hint.positions
        self.used: Counter[str] = Counter()  # batches per backend, compiled ones excluded

    def project(self, state: State, batch: GraphBatch) -> Tensor:
        """(N, (H + 2 kv_heads) D): concatenated queries, keys and values of all heads."""
        return self.project_in(state.x)

    def queries_keys_values(self, state: State, batch: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(N, H, D) and twice (N, kv_heads, D); rotary encodings are applied to queries and keys."""
        heads = [self.heads, self.kv_heads, self.kv_heads]
        q, k, v = self.project(state, batch).unflatten(1, (sum(heads), -1)).split(heads, dim=1)
        q, k = self.norm_q(q).type_as(v), self.norm_k(k).type_as(v)  # a norm may return float32 where the rest is half
        for encoding in state.encodings:
            q, k = encoding.rotate(q, k, batch)
        return q, k, v

    def expand_kv(self, rows: Tensor) -> Tensor:
        """Keys or values (..., kv_heads, D) repeated for the query heads that share them: (..., H, D)."""
        repeats = self.heads // self.kv_heads
        return rows if repeats == 1 else rows.repeat_interleave(repeats, dim=-2)

    def demand(self, device: str, half: bool) -> Demand:
        return Demand.of(
            device,
            half,
            self.heads,
            self.project_in.in_features // self.heads,
            self.dropout if self.training else 0.0,
            self.hint,
            self.score,
            self.edges or self.pair_bias,
            self.edge_values,
            self.training,
            self.backend,
            self.compiled,
            self.settled,
        )

    def bias(self, state: State, pairs: Pairs) -> Hint | Tensor | None:
        """The bias of the scores: the hint, the state of the pairs, or their sum (P, H)."""
        if not self.pair_bias or state.p is None:
            return self.hint
        if state.p.shape[1] != self.heads:
            raise ValueError(
                f"pair_bias needs one channel for each of {self.heads} heads, pairs have {state.p.shape[1]}: "
                f"set heads={self.heads} of the encodings that write pairs"
            )
        return state.p if self.hint is None else state.p + self.hint.bias(pairs, dense=False)

    def weights(self, state: State, batch: GraphBatch, pairs: Pairs) -> Tensor:
        """The attention weights of `forward`, (B, H, L, L), zeros at masked pairs."""
        q, k, _ = self.queries_keys_values(state, batch)
        q, k = q.float(), self.expand_kv(k).float()
        pair = self.pairs(state, pairs).view(-1, *k.shape[1:]) if self.pairs is not None and self.edges else None
        bias = joined_bias(q, k, pairs, self.bias(state, pairs), self.score, pair, padded=True)
        own_score = self.score is not None  # then the bias includes it and replaces the dot product
        return dense_weights(None if own_score else q, None if own_score else k, pairs, bias) * pairs.dense

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        q, k, v = self.queries_keys_values(state, batch)
        if self.cache is not None:
            return {"x": self.project_out(self.cache(self, q, k, v, pairs).flatten(1))}
        k, v = self.expand_kv(k), self.expand_kv(v)
        if pairs.attend_sharded is not None:
            return {"x": self.project_out(pairs.attend_sharded(self, q, k, v, pairs).flatten(1))}
        pair_features = self.pairs(state, pairs).view(-1, *k.shape[1:]) if self.pairs is not None else None
        demand = self.demand(q.device.type, q.dtype in (torch.float16, torch.bfloat16))
        backend = "dense" if transformed() else choose(pairs, demand)  # dense has all derivatives
        if not torch.compiler.is_compiling():  # each new count would trigger a recompilation
            self.used[backend] += 1
        y = attend(
            q,
            k,
            v,
            pairs,
            self.bias(state, pairs),
            dropout=self.dropout if self.training else 0.0,
            backend=backend,
            score=self.score,
            pair=pair_features if self.edges else None,
            pair_value=pair_features if self.edge_values else None,
        )
        return {"x": self.project_out(y.flatten(1))}

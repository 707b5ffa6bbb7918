"""Shared parts of layers with a state for each pair: a softmax over listed pairs, and a block for both streams."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gt.layers.base import Chain, Residual, State
from gt.layers.dwivedi import FeedForwards
from gt.layers.traits import writes_of
from gt.masks import Pairs
from gt.sums import add_up, pair_ends

Factory = Callable[[int], nn.Module]


def state_of(state: State, pairs: Pairs) -> Tensor:
    """(P, d) the state of the pairs; zeros if nothing has written one."""
    return state.x.new_zeros(pairs.edges.shape[1], state.x.shape[1]) if state.p is None else state.p


def sum_by_reader(values: Tensor, pairs: Pairs) -> Tensor:
    """(P, ...) to (N, ...), the sum over the pairs of each reader."""
    return add_up(values.flatten(1), pair_ends(pairs)[1]).view(-1, *values.shape[1:])


def largest_of(scores: Tensor, target: Tensor, nodes: int) -> Tensor:
    """(P, C) for each score the maximum over the pairs with the same target, detached."""
    largest = scores.new_full((nodes, scores.shape[1]), torch.finfo(scores.dtype).min)
    largest = largest.scatter_reduce(0, target[:, None].expand_as(scores), scores.detach(), "amax")
    return largest.index_select(0, target)


def softmax_of(scores: Tensor, pairs: Pairs) -> Tensor:
    """Softmax of scores (P, H) over the pairs of each reader; 0 for pairs that the mask of a head excludes."""
    if pairs.edge_heads is not None:
        scores = scores.masked_fill(~pairs.edge_heads, -torch.inf)
    target = pairs.edges[1]
    weights = (scores - largest_of(scores, target, pairs.batch.num_nodes)).exp()
    total = sum_by_reader(weights, pairs).clamp(min=torch.finfo(scores.dtype).tiny)
    return weights / total.index_select(0, target)


class PairBlock(Chain):
    """An attention layer with a state for each pair, then feed-forward networks, all with skip connections and norms.

    Args:
        width: channels of a node and of a pair.
        attention: builds a layer that writes ``x``, and possibly ``p``, from the width.
        feed_forward: builds the feed-forward network of the nodes; None omits it.
        pair_feed_forward: builds that of the pairs; None omits it.
        norm: builds a normalisation of (rows, width).
        prenorm: normalise the input of a step instead of the sum.
        dropout: on what the attention adds to each stream, unless it applies its own.
    """

    def __init__(
        self,
        width: int,
        attention: Factory,
        feed_forward: Factory | None = None,
        pair_feed_forward: Factory | None = None,
        norm: Factory = nn.BatchNorm1d,
        prenorm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        layer = attention(width)
        steps = {"attention": Residual(width, layer, {s: norm(width) for s in writes_of(layer)}, prenorm, dropout)}
        factories = {"x": feed_forward, "p": pair_feed_forward}
        built: dict[str, Any] = {stream: build(width) for stream, build in factories.items() if build is not None}
        networks = FeedForwards(built)
        if len(networks):
            steps["feed_forward"] = Residual(width, networks, {s: norm(width) for s in networks}, prenorm)
        super().__init__(width, steps)

"""What layers with a state of each pair share: weights of listed pairs, and a block that normalises both streams."""

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
    """(P, d) the state of the pairs; zeros where nothing has written one."""
    return state.x.new_zeros(pairs.edges.shape[1], state.x.shape[1]) if state.p is None else state.p


def sum_by_reader(values: Tensor, pairs: Pairs) -> Tensor:
    """(P, ...) to (N, ...), the sum over the pairs of each reader."""
    return add_up(values.flatten(1), pair_ends(pairs)[1]).view(-1, *values.shape[1:])


def largest_of(scores: Tensor, target: Tensor, nodes: int) -> Tensor:
    """(P, C) for each of these scores the largest of those with the same target, without a gradient."""
    largest = scores.new_full((nodes, scores.shape[1]), torch.finfo(scores.dtype).min)
    largest = largest.scatter_reduce(0, target[:, None].expand_as(scores), scores.detach(), "amax")
    return largest.index_select(0, target)


def softmax_of(scores: Tensor, pairs: Pairs) -> Tensor:
    """(P, H) scores to weights that add up to 1 over the pairs of each reader; 0 where a head leaves a pair out."""
    if pairs.edge_heads is not None:
        scores = scores.masked_fill(~pairs.edge_heads, -torch.inf)
    target = pairs.edges[1]
    weights = (scores - largest_of(scores, target, pairs.batch.num_nodes)).exp()
    total = sum_by_reader(weights, pairs).clamp(min=torch.finfo(scores.dtype).tiny)
    return weights / total.index_select(0, target)


class PairBlock(Chain):
    """An attention layer with a state of pairs, then feed-forward networks, each with its skip connection and norms.

    Args:
        width: channels of a node and of a pair.
        attention: makes a layer that writes ``x``, and perhaps ``p``, from the width.
        feed_forward: makes the nodes' feed-forward network; None leaves it out.
        pair_feed_forward: makes that of pairs; None leaves it out.
        norm: makes a normalisation of (rows, width).
        prenorm: normalise what a step reads instead of what it leaves.
        dropout: on what the attention adds to each stream, unless it brings its own.
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
        made: dict[str, Any] = {stream: make(width) for stream, make in factories.items() if make is not None}
        networks = FeedForwards(made)
        if len(networks):
            steps["feed_forward"] = Residual(width, networks, {s: norm(width) for s in networks}, prenorm)
        super().__init__(width, steps)

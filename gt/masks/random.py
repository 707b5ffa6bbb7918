"""Random masks, a function of only the seed, a graph's size and its node order.

Random numbers come from an integer hash instead of a generator, so they are the same on every device, in every run and
in every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gt.graph import GraphBatch
from gt.hops import ranges
from gt.masks.base import Mask
from gt.ranges import at_least


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


STEP, FIRST, SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _fold(x: Tensor, shift: int) -> Tensor:
    return x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))  # a logical shift, which int64 does not have


def splitmix64(x: Tensor) -> Tensor:
    """One step of SplitMix64 (Steele, Lea & Flood 2014) from each state, in wrapping int64 arithmetic."""
    x = x + STEP
    x = _fold(x, 30) * FIRST
    x = _fold(x, 27) * SECOND
    return _fold(x, 31)


def hashed(seed: int, parts: Sequence[Tensor]) -> Tensor:
    """63 random bits, non-negative int64, from the seed and each element of the parts, int64 tensors that broadcast."""
    state = splitmix64(torch.full((), _signed(seed), device=parts[0].device))
    for part in parts:
        state = splitmix64(state ^ part)
    return state & ((1 << 63) - 1)


def redraw_mask(mask: Mask, draw: int) -> Mask:
    """The mask with its seeds replaced by ones derived from ``draw``; masks without a seed are unchanged."""
    changes: dict[str, Any] = {}
    for name, value in vars(mask).items():
        if isinstance(value, tuple) and value and all(isinstance(inner, Mask) for inner in value):
            changes[name] = tuple(redraw_mask(inner, draw) for inner in value)
        elif name == "seed":
            changes[name] = int(hashed(value, [torch.tensor(draw)]))
    return replace(mask, **changes) if changes else mask  # type: ignore[type-var]


@dataclass(frozen=True)
class RandomEdges(Mask):
    """A node reads ``degree`` random other nodes of its graph (BigBird, Zaheer et al. 2020).

    Sampled with replacement: repeated draws count once, so a node may read fewer. BigBird samples blocks of
    neighbouring tokens, as its kernel requires; here single nodes are sampled.
    """

    degree: int
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self.degree, "the degree of random edges")

    def keys(self, batch: GraphBatch) -> Tensor:
        size = batch.sizes[batch.batch]
        node = (size > 1).nonzero()  # (n, 1): a single node has no other node to read
        size, position = size[node], batch.position[node]
        draw = torch.arange(self.degree, device=batch.device)
        other = hashed(self.seed, (size, position, draw)) % (size - 1)  # (n, degree)
        other = other + (other >= position)  # skip the node itself
        return torch.unique(node * batch.num_nodes + batch.ptr[batch.batch[node]] + other)


@dataclass(frozen=True)
class Expander(Mask):
    """An expander graph: ``degree / 2`` random cycles through all nodes of each graph (Exphormer, Shirzad et al. 2023).

    Consecutive nodes of a cycle read each other; no node reads itself. A graph of at most ``degree + 1`` nodes is
    complete. Like random regular graphs, this one is nearly Ramanujan with high probability (Friedman 2008 covers
    cycles, too): the second eigenvalue barely exceeds ``2 sqrt(degree - 1)``, so random walks mix in O(log n) steps.

    Exphormer combines random permutations and resamples until the graph is good enough. A permutation may
    decompose into several cycles, have fixed points and leave the graph disconnected; a single cycle does none of this,
    so nothing needs checking and a batch takes one sort per cycle. An edge that two cycles share counts once.
    """

    degree: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.degree < 2 or self.degree % 2:
            raise ValueError(f"the degree of an expander must be even and 2 or more, not {self.degree}")

    def keys(self, batch: GraphBatch) -> Tensor:
        first, size = batch.ptr[batch.batch], batch.sizes[batch.batch]
        small = size <= self.degree + 1
        node = small.nonzero()[:, 0]
        ends = [(node.repeat_interleave(size[node]), ranges(first[node], size[node]))]
        following = first + (batch.position + 1) % size
        for cycle in range(self.degree // 2):
            draw = hashed(self.seed, (size, torch.full_like(size, cycle), batch.position))
            # by graph, then by 32 random bits; the stable sort makes ties independent of the batch
            order = (batch.batch << 32 | draw >> 31).argsort(stable=True)
            one, other = order[~small], order[following][~small]
            ends += [(one, other), (other, one)]
        reader, source = (torch.cat(nodes) for nodes in zip(*ends, strict=True))
        distinct = reader != source
        return torch.unique(reader[distinct] * batch.num_nodes + source[distinct])

"""Masks drawn at random, as a function of a seed, a graph's size and its node order alone.

The draws come from an integer hash and not from a generator: the same on every device, in every run, and whichever
other graphs are in the batch.
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
    return x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))  # int64 has no shift that fills with zeros


def splitmix64(x: Tensor) -> Tensor:
    """One step of Steele, Lea & Flood's generator (2014) from each state, on int64 that wraps."""
    x = x + STEP
    x = _fold(x, 30) * FIRST
    x = _fold(x, 27) * SECOND
    return _fold(x, 31)


def hashed(seed: int, parts: Sequence[Tensor]) -> Tensor:
    """63 random bits, int64 of 0 or more, for the seed and each row of the parts, int64 that broadcast."""
    state = splitmix64(torch.full((), _signed(seed), device=parts[0].device))
    for part in parts:
        state = splitmix64(state ^ part)
    return state & ((1 << 63) - 1)


def redrawn(mask: Mask, draw: int) -> Mask:
    """The same mask with all that it draws at random drawn again, the same for the same number; others stay."""
    changes: dict[str, Any] = {}
    for name, value in vars(mask).items():
        if isinstance(value, tuple) and value and all(isinstance(inner, Mask) for inner in value):
            changes[name] = tuple(redrawn(inner, draw) for inner in value)
        elif name == "seed":
            changes[name] = int(hashed(value, [torch.tensor(draw)]))
    return replace(mask, **changes) if changes else mask  # type: ignore[type-var]


@dataclass(frozen=True)
class RandomEdges(Mask):
    """A node reads ``degree`` nodes drawn at random among the others of its graph (BigBird, Zaheer et al. 2020).

    Draws that hit the same node count once, so that it may read fewer. BigBird draws blocks of neighbouring tokens,
    which its kernel needs; here single nodes are drawn.
    """

    degree: int
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self.degree, "the degree of random edges")

    def keys(self, batch: GraphBatch) -> Tensor:
        size = batch.sizes[batch.batch]
        node = (size > 1).nonzero()  # (n, 1): a single node has nobody to read
        size, position = size[node], batch.position[node]
        draw = torch.arange(self.degree, device=batch.device)
        other = hashed(self.seed, (size, position, draw)) % (size - 1)  # (n, degree)
        other = other + (other >= position)  # skip the node itself
        return torch.unique(node * batch.num_nodes + batch.ptr[batch.batch[node]] + other)


@dataclass(frozen=True)
class Expander(Mask):
    """An expander graph: ``degree / 2`` random cycles through all nodes of each graph (Exphormer, Shirzad et al. 2023).

    Nodes that follow one another on a cycle read each other; nobody reads itself. A graph of at most ``degree + 1``
    nodes is complete. As random regular graphs are, this one is nearly Ramanujan with high probability (Friedman 2008
    proves it for cycles, too): the second eigenvalue is hardly above ``2 sqrt(degree - 1)``, so that a walk forgets
    where it began in O(log n) steps.

    Exphormer joins random permutations and draws again until the graph is good enough. A permutation falls apart into
    cycles, fixes nodes and may leave the graph in pieces; a single cycle does neither, so that nothing has to be
    checked and a batch takes one sort a cycle. An edge that two cycles share counts once.
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
            # graph by graph, and within each by 32 random bits; equal ones keep their order in any batch
            order = (batch.batch << 32 | draw >> 31).argsort(stable=True)
            one, other = order[~small], order[following][~small]
            ends += [(one, other), (other, one)]
        reader, source = (torch.cat(nodes) for nodes in zip(*ends, strict=True))
        apart = reader != source
        return torch.unique(reader[apart] * batch.num_nodes + source[apart])

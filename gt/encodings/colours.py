"""Weisfeiler-Lehman colours: nodes that message passing cannot tell apart share one."""

import torch
from torch import Tensor

from gt.encodings.base import Encoding
from gt.errors import UserError
from gt.features import Features
from gt.graph import GraphBatch
from gt.masks.random import hashed
from gt.schema import Schema


class Colours(Encoding):
    """An embedding of a node's colour after each round of colour refinement (Weisfeiler & Lehman 1968).

    All nodes start alike; in each round a node's new colour stands for its own, those that it reads and those that read
    it, each as often as it is there. A colour is a number that the structure alone decides, the same in any dataset.
    Colours share ``size`` rows of a table for each round, so that few are taken for one another.

    Args:
        rounds: how far a node looks.
        size: rows of each table.
    """

    def __init__(self, rounds: int = 3, size: int = 1024) -> None:
        super().__init__()
        if rounds < 1 or size < 1:
            raise UserError(f"colours need rounds and size of 1 or more, not {rounds} and {size}")
        self.rounds, self.size = rounds, size

    def build(self, width: int, schema: Schema) -> None:
        self.tables = Features((self.size,) * self.rounds, 0, width)

    def nodes(self, batch: GraphBatch) -> Tensor:
        return self.tables(torch.stack(colours(batch, self.rounds), dim=1) % self.size)


def colours(batch: GraphBatch, rounds: int) -> list[Tensor]:
    """(N,) int64 of 0 or more for each round; equal where refinement tells nodes not apart."""
    source, target = batch.edge_index
    colour, refined = torch.zeros_like(batch.in_degree), []
    for _ in range(rounds):
        # a sum of hashes stands for a multiset; sums in 64 bits may wrap
        read = torch.zeros_like(colour).index_add(0, target, hashed(1, [colour])[source])
        readers = torch.zeros_like(colour).index_add(0, source, hashed(2, [colour])[target])
        colour = hashed(0, [colour, read, readers])
        refined.append(colour)
    return refined

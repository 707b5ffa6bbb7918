"""Weisfeiler-Lehman colours: message passing cannot distinguish nodes of the same colour."""

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

    All nodes start with the same colour; in each round the new colour of a node hashes its own and the multisets of
    colours that it reads and that read it. A colour depends on structure only and is the same in any dataset. Each
    round has a table of ``size`` rows, indexed by the hash, so that few colours collide.

    Args:
        rounds: number of rounds.
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
    """(N,) non-negative int64 for each round; equal for nodes that refinement does not distinguish."""
    source, target = batch.edge_index
    colour, refined = torch.zeros_like(batch.in_degree), []
    for _ in range(rounds):
        # a sum of hashes represents a multiset; 64-bit sums may wrap
        read = torch.zeros_like(colour).index_add(0, target, hashed(1, [colour])[source])
        readers = torch.zeros_like(colour).index_add(0, source, hashed(2, [colour])[target])
        colour = hashed(0, [colour, read, readers])
        refined.append(colour)
    return refined

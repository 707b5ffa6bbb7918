"""How many edges a node has: the simplest structural encoding."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gt.encodings.base import Encoding, EncodingModule
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.schema import Schema


@dataclass(frozen=True)
class Degree(Encoding):
    """An embedding of a node's in-degree plus one of its out-degree (Ying et al. 2021).

    Attributes:
        most: degrees above it share its embedding.
    """

    most: int = 64

    def __post_init__(self) -> None:
        if self.most < 0:
            raise UserError(f"the largest degree to tell apart must be 0 or more, not {self.most}")

    def module(self, width: int, schema: Schema) -> "DegreeModule":
        return DegreeModule(self.most, width)


class DegreeModule(EncodingModule):
    """Two tables of ``most + 1`` rows; adds (N, d)."""

    def __init__(self, most: int, width: int) -> None:
        super().__init__(width)
        self.most = most
        self.incoming = nn.Embedding(most + 1, width)
        self.outgoing = nn.Embedding(most + 1, width)
        for table in (self.incoming, self.outgoing):
            nn.init.normal_(table.weight, std=0.02)

    def nodes(self, batch: GraphBatch) -> Tensor:
        source = batch.edge_index[0]
        # torch.bincount would wait for the device to learn its output's length
        out_degree = torch.zeros_like(batch.in_degree).index_add_(0, source, torch.ones_like(source))
        return self.incoming(batch.in_degree.clamp(max=self.most)) + self.outgoing(out_degree.clamp(max=self.most))

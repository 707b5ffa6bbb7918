"""Node degrees: the simplest structural encoding."""

from torch import Tensor, nn

from gt.encodings.base import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.schema import Schema


class Degree(Encoding):
    """An embedding of a node's in-degree plus one of its out-degree (Ying et al. 2021).

    With sampled edges, these are the degrees in the full graph.

    Args:
        most: maximum degree with its own embedding, which larger ones share: both tables have ``most + 1`` rows.
    """

    def __init__(self, most: int = 64) -> None:
        super().__init__()
        if most < 0:
            raise UserError(f"the largest degree with its own embedding must be 0 or more, not {most}")
        self.most = most

    def build(self, width: int, schema: Schema) -> None:
        self.incoming = nn.Embedding(self.most + 1, width)
        self.outgoing = nn.Embedding(self.most + 1, width)
        for table in (self.incoming, self.outgoing):
            nn.init.normal_(table.weight, std=0.02)

    def nodes(self, batch: GraphBatch) -> Tensor:
        incoming, outgoing = (degree.clamp(max=self.most) for degree in batch.whole_degrees)
        return self.incoming(incoming) + self.outgoing(outgoing)

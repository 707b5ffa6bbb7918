"""From node states to predictions."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gt.graph import GraphBatch
from gt.schema import Schema


class Pool(ABC):
    """Makes one row a graph of the rows of its nodes: (N, width) to (B, width)."""

    @abstractmethod
    def __call__(self, x: Tensor, batch: GraphBatch) -> Tensor: ...


class Sum(Pool):
    """The sum over the nodes of each graph."""

    def __call__(self, x: Tensor, batch: GraphBatch) -> Tensor:
        if batch.node_mask is not None:
            x = x * batch.node_mask[:, None]
        return x.new_zeros(batch.num_graphs, x.shape[1]).index_add(0, batch.batch, x)


class Mean(Pool):
    """The mean over the nodes of each graph; zeros for a graph without nodes."""

    def __call__(self, x: Tensor, batch: GraphBatch) -> Tensor:
        if batch.node_mask is None:
            counts = batch.sizes
        else:
            counts = batch.sizes.new_zeros(batch.num_graphs).index_add(0, batch.batch, batch.node_mask.long())
        return Sum()(x, batch) / counts.clamp(min=1)[:, None]


class Head(nn.Module):
    """Predictions for each graph, or for each node (a token is a node of a path graph), as the schema asks.

    Args:
        width: channels of a node.
        schema: what is to be predicted.
        hidden: hidden layers, each half as wide as the one before (GPS has two); 0 is one linear map.
        pool: from nodes to graphs; unused where each node has a target.
        tied: predict with the embedding of the (single) node feature, as GPT-2 does; needs ``hidden=0``.
        bias: whether the last map has one.
    """

    def __init__(
        self,
        width: int,
        schema: Schema,
        hidden: int = 2,
        pool: Pool | None = None,
        tied: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if tied and (hidden or schema.node_vocab != (schema.outputs,)):
            raise ValueError("a tied head needs hidden=0 and outputs that are the values of the one node feature")
        if not width >> hidden:
            raise ValueError(f"a width of {width} cannot be halved {hidden} times: choose fewer hidden layers")
        self.pool = (pool or Mean()) if schema.level == "graph" else None
        self.tied = tied
        layers: list[nn.Module] = []
        for step in range(hidden):
            layers += [nn.Linear(width >> step, width >> (step + 1)), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(width >> hidden, schema.outputs, bias=bias))

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """(N, width) to (B, outputs) or (N, outputs)."""
        return self.mlp(x if self.pool is None else self.pool(x, batch))

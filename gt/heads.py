"""From node states to predictions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gt.graph import GraphBatch
from gt.ranges import at_least
from gt.schema import Schema


class Pool(nn.Module, ABC):
    """Makes one row a graph of the rows of its nodes: (N, width) to (B, width). It may have parameters."""

    @abstractmethod
    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor: ...


class Sum(Pool):
    """The sum over the nodes of each graph."""

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        if batch.node_mask is not None:
            x = x * batch.node_mask[:, None]
        return x.new_zeros(batch.num_graphs, x.shape[1]).index_add(0, batch.batch, x)


class Mean(Pool):
    """The mean over the nodes of each graph; zeros for a graph without nodes."""

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        if batch.node_mask is None:
            counts = batch.sizes
        else:
            counts = batch.sizes.new_zeros(batch.num_graphs).index_add(0, batch.batch, batch.node_mask.long())
        return Sum()(x, batch) / counts.clamp(min=1)[:, None]


class Max(Pool):
    """The maximum of each channel over the nodes of each graph; zeros for a graph without nodes."""

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        if batch.node_mask is not None:
            x = x.masked_fill(~batch.node_mask[:, None], -torch.inf)
        out = x.new_full((batch.num_graphs, x.shape[1]), -torch.inf)
        out = out.scatter_reduce(0, batch.batch[:, None].expand_as(x), x, "amax")
        return out.masked_fill(out == -torch.inf, 0.0)


PoolFactory = Callable[[int], nn.Module]  # called with the width


class Head(nn.Module):
    """Predictions for each graph, each node (a token is a node of a path graph) or each link, as the schema asks.

    A link is predicted from the product of its two nodes, channel by channel, so that its direction means nothing.

    Args:
        width: channels of a node.
        schema: what is to be predicted.
        hidden: hidden layers, each half as wide as the one before (GPS has two); 0 is one linear map.
        pool: from nodes to graphs, a module or what makes one of the width; of several the results stand side by side.
            Unused where each node has a target.
        tied: predict with the embedding of the (single) node feature, as GPT-2 does; needs ``hidden=0``.
        bias: whether the last map has one.
    """

    def __init__(
        self,
        width: int,
        schema: Schema,
        hidden: int = 2,
        pool: nn.Module | PoolFactory | Sequence[nn.Module | PoolFactory] = Mean(),  # noqa: B008  which holds no state
        tied: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        at_least(0, hidden, "hidden")
        if tied and (hidden or schema.node_vocab != (schema.outputs,)):
            raise ValueError("a tied head needs hidden=0 and outputs that are the values of the one node feature")
        if not width >> hidden:
            raise ValueError(f"a width of {width} cannot be halved {hidden} times: choose fewer hidden layers")
        pools = list(pool) if isinstance(pool, Sequence) else [pool]
        if not pools:
            raise ValueError("pool is empty: a head needs at least one")
        own = pools if schema.level == "graph" else []
        self.pools = nn.ModuleList(each if isinstance(each, nn.Module) else each(width) for each in own)
        self.tied, self.of_links = tied, schema.level == "link"
        widths = [width * (len(self.pools) or 1), *(width >> step for step in range(1, hidden + 1))]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], schema.positions * schema.outputs, bias=bias))

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """(N, width) to (B, outputs), (N, outputs) or (K, outputs); ``positions`` times as many columns."""
        if self.of_links:
            if batch.links is None:
                raise ValueError("this batch has no links to predict")
            x = x.index_select(0, batch.links[0]) * x.index_select(0, batch.links[1])
        if self.pools:
            x = torch.cat([pool(x, batch) for pool in self.pools], dim=1)
        return self.mlp(x)

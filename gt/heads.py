"""From node states to predictions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gt.errors import UserError
from gt.graph import GraphBatch
from gt.linear import Linear
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


class Virtual(Pool):
    """The mean state of the virtual nodes of each graph, such as Graphormer's one: (B, count, width) to (B, width)."""

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        return x.mean(1)


IMPOSSIBLE = -1e9  # log-odds of what cannot be
PoolFactory = Callable[[int], nn.Module]  # called with the width


class Head(nn.Module):
    """Predictions for each graph, each node (a token is a node of a path graph) or each link, as the schema asks.

    A link is predicted from the product of its two nodes, channel by channel, so that its direction means nothing; or,
    by ``dot``, it is the scalar product of what each of its nodes is mapped to.

    Where a graph is to choose among its own nodes (`gt.schema.Schema.pointer`), each node is scored beside the one that
    asks, and a choice has the probability of all the nodes that stand for it: pointer networks (Vinyals et al. 2015),
    with several places that are right (Vasic et al. 2019).

    Args:
        width: channels of a node.
        schema: what is to be predicted.
        hidden: hidden layers, each half as wide as the one before (GPS has two); 0 is one linear map.
        halve: whether they are; else each is as wide as a node.
        dot: of links, map each node by itself, to as many channels as it has, and multiply afterwards (the edge head of
            GraphGPS, Rampasek et al. 2022). Unused where targets are of nodes or graphs.
        pool: from nodes to graphs, a module or what makes one of the width; of several the results stand side by side.
            Unused where each node has a target, or is a choice.
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
        halve: bool = True,
        dot: bool = False,
    ) -> None:
        super().__init__()
        at_least(0, hidden, "hidden")
        if tied and hidden:
            raise ValueError(f"hidden={hidden} layers come between a tied head and the embedding: choose hidden=0")
        if tied and schema.node_vocab != (schema.outputs,):
            raise ValueError("tied=true needs outputs that are the values of the one node feature: choose tied=false")
        halvings = hidden if halve else 0
        if not width >> halvings:
            raise ValueError(f"a width of {width} cannot be halved {hidden} times: choose fewer hidden layers")
        dot = dot and schema.level == "link"
        if dot and schema.outputs > 1:
            raise ValueError(f"a scalar product is one number, and links have {schema.outputs} targets: leave dot out")
        pools = list(pool) if isinstance(pool, Sequence) else [pool]
        if not pools:
            raise ValueError("pool is empty: a head needs at least one")
        own = pools if schema.level == "graph" and not schema.pointer else []
        self.pools = nn.ModuleList(each if isinstance(each, nn.Module) else each(width) for each in own)
        self.reads_virtual = any(isinstance(pool, Virtual) for pool in self.pools)
        self.tied, self.of_links, self.dot = tied, schema.level == "link", dot
        self.choices = schema.outputs if schema.pointer else 0
        parts = 3 if self.choices else len(self.pools) or 1
        widths = [width * parts, *(width >> min(step, halvings) for step in range(1, hidden + 1))]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [Linear(wide, narrow), nn.ReLU()]
        outputs = width if dot else 1 if self.choices else schema.positions * schema.outputs
        self.mlp = nn.Sequential(*layers, Linear(widths[-1], outputs, bias=bias))

    def forward(self, x: Tensor, batch: GraphBatch, virtual: Tensor | None = None) -> Tensor:
        """(N, width) to (B, outputs), (N, outputs) or (K, outputs); ``positions`` times as many columns.

        Args:
            virtual: (B, count, width) states of virtual nodes, where a pool ``reads_virtual``.
        """
        if self.of_links:
            if batch.links is None:
                raise ValueError("this batch has no links to predict")
            x = self.mlp(x) if self.dot else x
            x = x.index_select(0, batch.links[0]) * x.index_select(0, batch.links[1])
            return x.sum(1, keepdim=True) if self.dot else self.mlp(x)
        if self.choices:
            asking = Sum()(x * batch.extras["query"][:, None], batch).index_select(0, batch.batch)
            return chosen(self.mlp(torch.cat([x, asking, x * asking], dim=1))[:, 0], batch, self.choices)
        if self.pools:
            rows = [pool(virtual if isinstance(pool, Virtual) else x, batch) for pool in self.pools]
            if not torch.compiler.is_compiling():
                self._check_rows(rows, (batch.num_graphs, x.shape[1]))
            x = torch.cat(rows, dim=1)
        return self.mlp(x)

    def _check_rows(self, rows: Sequence[object], right: tuple[int, int]) -> None:
        """Whether pools give a row for each graph.

        Raises:
            UserError: naming one that does not.
        """
        for pool, each in zip(self.pools, rows, strict=True):
            shape = tuple(each.shape) if isinstance(each, Tensor) else None
            if shape != right:
                raise UserError(f"the pool {type(pool).__name__} gives {shape} and is to give {right}, a row a graph")


def chosen(score: Tensor, batch: GraphBatch, choices: int) -> Tensor:
    """(N,) log-odds of nodes to (B, choices) of what they stand for, all but impossible where no node does."""
    score = score.to(torch.promote_types(score.dtype, torch.float32))
    row = batch.batch * (choices + 1) + batch.extras["candidate"]
    size = batch.num_graphs * (choices + 1)
    largest = score.new_full((size,), IMPOSSIBLE).scatter_reduce(0, row, score.detach(), "amax")
    total = score.new_zeros(size).index_add(0, row, (score - largest[row]).exp())
    rows = torch.where(total > 0, total.clamp(min=torch.finfo(score.dtype).tiny).log() + largest, IMPOSSIBLE)
    return rows.view(batch.num_graphs, choices + 1)[:, 1:]  # column 0 is of the nodes that stand for nothing

"""Read-outs: from node states to predictions."""

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
    """Pools node states into one row per graph, (N, width) to (B, width); may have parameters."""

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


IMPOSSIBLE = -1e9  # log-odds of a choice that no node stands for
PoolFactory = Callable[[int], nn.Module]  # called with the width


class Head(nn.Module):
    """MLP that predicts each graph, each node (a token is a node of a path graph) or each link, by the schema's level.

    A link is predicted from the elementwise product of its two node states, so that its direction does not matter; with
    ``dot``, it is the dot product of the two mapped states.

    If a graph chooses among its own nodes (`gt.schema.Schema.pointer`), each node is scored against the query node, and
    the probability of a choice is the sum over all nodes that stand for it: pointer networks (Vinyals et al. 2015) with
    several correct positions (Vasic et al. 2019).

    Args:
        width: channels per node.
        schema: describes the prediction target.
        hidden: number of hidden layers, each half as wide as the one before (GPS has two); 0 is one linear map.
        halve: whether hidden layers halve the width; otherwise each is as wide as a node.
        dot: for links, map each node to ``width`` channels first and take the dot product afterwards (the edge head of
            GraphGPS, Rampasek et al. 2022). Unused for targets of nodes or graphs.
        pool: pooling from nodes to graphs, a module or a factory called with the width; the results of several are
            concatenated. Unused if nodes have targets or are choices.
        tied: predict with the embedding of the (single) node feature, as GPT-2 does; needs ``hidden=0``.
        bias: whether the last linear map has a bias.
    """

    def __init__(
        self,
        width: int,
        schema: Schema,
        hidden: int = 2,
        pool: nn.Module | PoolFactory | Sequence[nn.Module | PoolFactory] = Mean(),  # noqa: B008  it is stateless
        tied: bool = False,
        bias: bool = True,
        halve: bool = True,
        dot: bool = False,
    ) -> None:
        super().__init__()
        at_least(0, hidden, "hidden")
        if tied and hidden:
            raise ValueError(f"a tied head cannot have hidden={hidden} layers before the embedding: choose hidden=0")
        if tied and schema.node_vocab != (schema.outputs,):
            raise ValueError("tied=true needs a single node feature whose values are the outputs: choose tied=false")
        halvings = hidden if halve else 0
        if not width >> halvings:
            raise ValueError(f"a width of {width} cannot be halved {hidden} times: choose fewer hidden layers")
        dot = dot and schema.level == "link"
        if dot and schema.outputs > 1:
            raise ValueError(f"a dot product is one number, but links have {schema.outputs} targets: choose dot=false")
        pools = list(pool) if isinstance(pool, Sequence) else [pool]
        if not pools:
            raise ValueError("pool is empty: a head needs at least one")
        factories = pools if schema.level == "graph" and not schema.pointer else []
        self.pools = nn.ModuleList(
            factory if isinstance(factory, nn.Module) else factory(width) for factory in factories
        )
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
        """Map (N, width) to (B, outputs), (N, outputs) or (K, outputs), with ``positions`` times as many columns.

        Args:
            virtual: (B, count, width) states of virtual nodes, needed if ``reads_virtual``.
        """
        if self.of_links:
            if batch.links is None:
                raise ValueError("this batch has no links to predict")
            x = self.mlp(x) if self.dot else x
            x = x.index_select(0, batch.links[0]) * x.index_select(0, batch.links[1])
            return x.sum(1, keepdim=True) if self.dot else self.mlp(x)
        if self.choices:
            query = Sum()(x * batch.extras["query"][:, None], batch).index_select(0, batch.batch)
            return choice_log_odds(self.mlp(torch.cat([x, query, x * query], dim=1))[:, 0], batch, self.choices)
        if self.pools:
            rows = [pool(virtual if isinstance(pool, Virtual) else x, batch) for pool in self.pools]
            if not torch.compiler.is_compiling():
                self._check_rows(rows, (batch.num_graphs, x.shape[1]))
            x = torch.cat(rows, dim=1)
        return self.mlp(x)

    def _check_rows(self, rows: Sequence[object], expected: tuple[int, int]) -> None:
        """Check that each pool returns one row per graph.

        Raises:
            UserError: one does not; names the pool.
        """
        for pool, row in zip(self.pools, rows, strict=True):
            shape = tuple(row.shape) if isinstance(row, Tensor) else None
            if shape != expected:
                raise UserError(f"the pool {type(pool).__name__} gives {shape}; expected {expected}, one row per graph")


def choice_log_odds(score: Tensor, batch: GraphBatch, choices: int) -> Tensor:
    """Logsumexp of node scores (N,) by choice, to (B, choices); `IMPOSSIBLE` for choices without a node."""
    score = score.to(torch.promote_types(score.dtype, torch.float32))
    group = batch.batch * (choices + 1) + batch.extras["candidate"]
    num_groups = batch.num_graphs * (choices + 1)
    largest = score.new_full((num_groups,), IMPOSSIBLE).scatter_reduce(0, group, score.detach(), "amax")
    total = score.new_zeros(num_groups).index_add(0, group, (score - largest[group]).exp())
    log_sums = torch.where(total > 0, total.clamp(min=torch.finfo(score.dtype).tiny).log() + largest, IMPOSSIBLE)
    return log_sums.view(batch.num_graphs, choices + 1)[:, 1:]  # column 0 holds the nodes that stand for no choice

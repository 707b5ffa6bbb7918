"""Exact predictions for graphs that are too large for one pass: layer by layer, chunk by chunk.

A chunk is a range of nodes, extended by the nodes that they read along edges and pairs of the mask; a block runs on all
of these, and the rows of the chunk are kept. Each layer processes all chunks before the next layer, so that nothing is
computed twice and memory holds the states of nodes, those of edges if a block has any, and one chunk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import torch
from torch import Tensor, nn

from gt.errors import UserError
from gt.graph import GraphBatch
from gt.hops import hop_distances, hops_between
from gt.layers import Chain, State, name_of, norms_of, parts_of, reads_of, uses_mask, writes_of
from gt.masks import Hops, Mask, Pairs, with_virtual_nodes
from gt.model import GraphTransformer
from gt.norms import apply_norm, mixes_rows

MAX_PAIRS = 1 << 31  # listed at once: tens of gigabytes


@dataclass(repr=False)
class WholeGraph(GraphBatch):
    """A batch of one graph that is processed in chunks of ``chunk`` nodes, edges and pairs, see `predict`."""

    chunk: int = 1 << 19


@dataclass(frozen=True, eq=False)
class Listed(Mask):
    """Explicit pairs of one batch: sorted keys (P,) as in `Mask.keys`, and (P, H) bool, their heads; None: all."""

    listed: Tensor
    by_head: Tensor | None = None

    @property
    def heads(self) -> int:
        return 1 if self.by_head is None else self.by_head.shape[1]

    def keys(self, batch: GraphBatch) -> Tensor:
        return self.listed

    def allows(self, batch: GraphBatch, source: Tensor, target: Tensor) -> Tensor:
        allowed = super().allows(batch, source, target)
        if self.by_head is None:
            return allowed
        index = torch.searchsorted(self.listed, target * batch.num_nodes + source).clamp_(max=len(self.listed) - 1)
        return allowed & self.by_head[index]


class ChunkPairs(Pairs):
    """The pairs that a chunk reads; hop distances are those of the whole graph."""

    def __init__(self, batch: GraphBatch, mask: Listed, whole: GraphBatch, nodes: Tensor, targets: Tensor) -> None:
        super().__init__(batch, mask)
        self.whole, self.nodes, self.targets = whole, nodes, targets

    def hops(self, limit: int) -> Tensor:
        source, target = self.nodes[self.edges]
        return hops_between(self.whole, source, target, limit, self.targets)

    def dense_hops(self, limit: int) -> Tensor:
        dense = self.edges.new_full((self.batch.num_nodes**2,), limit + 1)
        return dense.index_copy(0, self.dense_entry, self.hops(limit)).view(1, self.batch.num_nodes, -1)


def predict(net: nn.Module, batch: GraphBatch) -> Tensor:
    """``net(batch)``, in chunks for a `WholeGraph` that exceeds its chunk size."""
    if is_whole_graph(batch):
        if not isinstance(net, GraphTransformer):
            raise UserError("only a GraphTransformer can be evaluated in chunks: set data.evaluate=sampled")
        return predict_chunks(net, batch, batch.chunk)
    return net(batch)


def is_whole_graph(batch: GraphBatch) -> TypeGuard[WholeGraph]:
    """Whether a batch is a graph that is too large for one pass."""
    if not isinstance(batch, WholeGraph):
        return False
    links = 0 if batch.links is None else batch.links.shape[1]
    return batch.num_nodes + batch.num_edges + links > batch.chunk


@torch.no_grad()
def predict_chunks(net: GraphTransformer, batch: GraphBatch, chunk: int) -> Tensor:
    """(N, outputs) or (K, outputs): the same as ``net(batch)`` in evaluation, without gradients.

    Args:
        net: in evaluation mode, with targets for nodes or links.
        batch: one graph.
        chunk: nodes, edges, pairs and links processed at a time; a single node may have more.

    Raises:
        UserError: a layer reads positions of nodes, or nodes other than those given by edges or its mask, which a
            chunk does not have.
    """
    if net.training or net.schema.level == "graph" or batch.num_graphs != 1:
        raise ValueError(
            "inference in chunks needs a single graph, targets for nodes or links, and a network in evaluation mode"
        )
    _check(net)
    out = [_predicted(net, batch, masks, chunk) for masks in net.draws()]
    return sum(out[1:], out[0]) / len(out)


def _predicted(net: GraphTransformer, batch: GraphBatch, masks: Sequence[Mask], chunk: int) -> Tensor:
    """The prediction of one pass with the given masks, one for each block."""
    wide = with_virtual_nodes(batch, net.virtual_nodes)
    x = net.embed(batch)
    if net.virtual is not None:
        x = torch.cat([x, net.virtual.to(x.dtype)])
    states = Edges(net, batch)
    outputs: list[Tensor] = []
    for depth, (block, mask) in enumerate(zip(net.blocks, masks, strict=True), 1):
        for number, stage in enumerate(block_stages := stages(block), 1):
            reads = Reads(mask if any(map(uses_mask, stage)) else None, wide)
            last = depth == len(net.blocks) and number == len(block_stages)
            x = _pass(net, stage, x, states, reads, chunk, keep_edges=not last)
        if net.jump is not None:
            outputs.append(x)
    for mask in set(masks) - set(net.masks):
        wide.memo.pop(mask, None)  # random masks are redrawn in the next pass
    x = x if net.jump is None else net.jump(outputs)
    return net.in_units(_read_out(net, apply_norm(net.norm, x[: batch.num_nodes], batch), batch, chunk))


def _read_out(net: GraphTransformer, x: Tensor, batch: GraphBatch, chunk: int) -> Tensor:
    """The head applied to the states (N, width) of all nodes, for links in chunks."""
    if batch.links is None:
        return net.head(x, batch)
    return torch.cat([net.head(x, replace(batch, links=links)) for links in batch.links.split(chunk, dim=1)])


def _check(net: GraphTransformer) -> None:
    parts = [(index, part) for index, block in enumerate(net.blocks) for part in parts_of(block)]
    for index, part in parts:
        if reads_of(part) == "graph" or {"p", "g"} & set(writes_of(part)):
            raise UserError(
                f"{name_of(part)} in block {index} reads or keeps more than a chunk of the graph holds: declare that "
                'it reads less (reads = "edges"), raise data.chunk, or set data.evaluate=sampled'
            )
    for norm in (norm for block in net.blocks for norm in norms_of(block) if mixes_rows(norm)):
        raise UserError(
            f"{type(norm).__name__} normalises over all nodes of a graph, which a chunk does not hold: choose another "
            "norm, raise data.chunk, or set data.evaluate=sampled"
        )
    for encoding in net.encodings:
        if streams := {"e", "p"} & set(encoding.writes):
            raise UserError(
                f"{type(encoding).__name__} adds features to {'edges' if 'e' in streams else 'pairs'}, which cannot be "
                "computed in chunks: raise data.chunk, or set data.evaluate=sampled"
            )
    if net.rotations or any(getattr(part, "positions", False) for _, part in parts):
        raise UserError(
            "a layer that reads the position of nodes cannot be evaluated in chunks: "
            "leave out rotary encodings and position decay, raise data.chunk, or set data.evaluate=sampled"
        )


def steps_of(block: nn.Module) -> list[nn.Module]:
    """The steps of a block, nested chains flattened; a subclass that overrides ``forward`` is a single step."""
    if isinstance(block, Chain) and type(block).forward is Chain.forward:
        return [inner for step in block.steps.values() for inner in steps_of(step)]
    return [block]


def stages(block: nn.Module) -> list[list[nn.Module]]:
    """The steps of a block, grouped: each that reads other nodes, with the following ones that do not."""
    stages: list[list[nn.Module]] = []
    for step in steps_of(block):
        pointwise = all(reads_of(part) == "self" for part in parts_of(step))
        stages = [*stages[:-1], [*stages[-1], step]] if pointwise and stages else [*stages, [step]]
    return stages


class Edges:
    """The states of edges: embedded for each chunk until a block changes them, and stored on the CPU from then on."""

    def __init__(self, net: GraphTransformer, batch: GraphBatch) -> None:
        self.net, self.batch = net, batch
        self.stored: Tensor | None = None
        self.complete = False  # written by all chunks: only one chunk reads an edge's state, and may replace it

    def read(self, rows: slice) -> Tensor | None:
        if self.stored is not None and self.complete:
            return self.stored[rows].to(self.batch.device)
        if self.net.edges is None or self.batch.edge_attr is None:
            return None
        return self.net.edges(self.batch.edge_attr[rows])

    def write(self, rows: slice, values: Tensor) -> None:
        if self.stored is None:
            self.stored = torch.empty(self.batch.num_edges, values.shape[1], dtype=values.dtype)
        self.stored[rows] = values.cpu()


class Reads:
    """The pairs that a range of targets reads under a mask, none without it; for `Hops` found for the range only."""

    def __init__(self, mask: Mask | None, wide: GraphBatch) -> None:
        self.mask, self.wide = mask, wide
        self.radius = mask.hops if isinstance(mask, Hops) else None
        self.pairs = mask(wide) if mask is not None and self.radius is None else None
        if mask is not None and (count := mask.pair_count(with_virtual_nodes(wide, 0)) or 0) > MAX_PAIRS:
            raise UserError(f"{mask} has {count:,} pairs: choose a mask that follows the edges (mask=one_hop)")

    def counts(self) -> Tensor:
        """(N,) the number of pairs of each target, or an upper bound."""
        if self.pairs is not None:
            return self.pairs.rowptr.diff()
        reach = torch.zeros_like(self.wide.in_degree)
        source, target = self.wide.edge_index
        for _ in range(0 if self.radius is None else self.radius + 1):
            reach = torch.ones_like(reach).index_add(0, target, reach[source])
        return reach

    def of(self, low: int, high: int) -> tuple[Tensor, Tensor | None]:
        """(2, P) sources and targets of the nodes ``low`` to ``high``, sorted by (target, source), and their heads."""
        if self.pairs is not None:
            rows = slice(*self.pairs.rowptr[[low, high]].tolist())
            heads = self.pairs.edge_heads
            return self.pairs.edges[:, rows], None if heads is None else heads[rows]
        if self.radius is None:
            return self.wide.edge_index[:, :0], None
        real = with_virtual_nodes(self.wide, 0).num_nodes  # virtual nodes read nothing by hops
        readers = torch.arange(min(low, real), min(high, real), device=self.wide.device)
        keys, _ = hop_distances(self.wide, self.radius, readers)
        return torch.stack([keys % self.wide.num_nodes, keys // self.wide.num_nodes]), None


def work_ranges(work: Tensor, chunk: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of nodes with a total work of at most ``chunk``; a node with more forms its own range."""
    total = work.cumsum(0)
    low = 0
    while low < len(work):
        done = int(total[low - 1]) if low else 0
        high = max(low + 1, int(torch.searchsorted(total, done + chunk, right=True)))
        yield low, high
        low = high


def _pass(
    net: GraphTransformer, stage: list[nn.Module], x: Tensor, states: Edges, reads: Reads, chunk: int, keep_edges: bool
) -> Tensor:
    """Run one stage of a block on all nodes: (N, width) to the same."""
    wide = reads.wide
    out = torch.empty_like(x)
    index = torch.empty(wide.num_nodes, dtype=torch.long, device=x.device)
    work = 1 + wide.in_degree + reads.counts()
    for low, high in work_ranges(work, chunk):
        targets = torch.arange(low, high, device=x.device)
        rows = slice(*wide.rowptr[[low, high]].tolist())
        edges, (pairs, heads) = wide.edge_index[:, rows], reads.of(low, high)
        nodes = torch.unique(torch.cat([targets, edges[0], pairs[0]]))
        index[nodes] = torch.arange(len(nodes), device=x.device)
        part = GraphBatch(
            ptr=torch.tensor([0, len(nodes)], device=x.device),
            edge_index=index[edges],
            max_nodes=len(nodes),
        ).finish()
        part.in_degree = wide.in_degree[nodes]  # the part lacks edges into the sources
        source, target = index[pairs]
        mask = Listed(target * len(nodes) + source, heads)
        e = states.read(rows)
        state, chunk_pairs = State(x[nodes], e), ChunkPairs(part, mask, wide, nodes, targets)
        for step in stage:
            state = step(state, part, chunk_pairs)
        out[low:high] = state.x[index[targets]]
        if keep_edges and state.e is not None and state.e is not e:
            states.write(rows, state.e)
    states.complete = states.stored is not None
    return out

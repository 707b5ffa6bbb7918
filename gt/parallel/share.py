"""Sharding a batch over processes: the nodes that each rank owns, and what they read from other ranks."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from gt.attention import Demand, Reading, prepare
from gt.errors import UserError
from gt.graph import WHOLE_DEGREES, GraphBatch, Move
from gt.hops import hops_between
from gt.inference.whole_graph import MAX_PAIRS, Listed
from gt.masks import Mask, Pairs
from gt.parallel.halo import Halo, owner
from gt.parallel.ring import Ring


@dataclass(frozen=True)
class Partition:
    """The nodes of a batch that each rank owns: rank r those from ``bounds[r]`` to ``bounds[r + 1]``, possibly none."""

    rank: int
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, batch: GraphBatch, rank: int, world: int) -> Self:
        """Balance the number of nodes plus edges of all ranks."""
        work = (1 + batch.in_degree).cumsum(0)
        total = int(work[-1]) if len(work) else 0
        shares = torch.tensor([total * rank / world for rank in range(1, world)])
        inner = torch.searchsorted(work, shares, right=True).tolist()
        return cls(rank, (0, *inner, batch.num_nodes))

    @property
    def own(self) -> slice:
        """The rank's own nodes."""
        return slice(self.bounds[self.rank], self.bounds[self.rank + 1])

    def moved(self, move: Move, batch: GraphBatch) -> Self:
        """Itself, as it has no tensors."""
        return self


class SharePairs(Pairs):
    """The pairs that the own nodes of a share read; hop distances are those of the whole graph."""

    def __init__(self, batch: GraphBatch, mask: Listed, whole: GraphBatch, nodes: Tensor, own: Tensor) -> None:
        super().__init__(batch, mask)
        self.whole, self.nodes, self.own = whole, nodes, own

    def hops(self, limit: int) -> Tensor:
        def make() -> Tensor:
            source, target = self.nodes[self.edges.to(self.nodes.device)]
            return hops_between(self.whole, source, target, limit, self.own).to(self.edges.device)

        return self.cached(f"hops_{limit}", make)

    def dense_hops(self, limit: int) -> Tensor:
        def make() -> Tensor:
            size = self.batch.max_nodes
            dense = self.edges.new_full((self.batch.num_graphs * size * size,), limit + 1)
            return dense.index_copy(0, self.dense_entry, self.hops(limit)).view(-1, size, size)

        return self.cached(f"dense_hops_{limit}", make)

    def moved(self, move: Move, batch: GraphBatch) -> "SharePairs":
        out = SharePairs(batch, self.mask, self.whole, self.nodes, self.own)
        values = vars(super().moved(move, batch))
        vars(out).update({name: value for name, value in values.items() if name not in ("nodes", "own")})
        return out


@dataclass(frozen=True)
class View:
    """The nodes that a rank computes with: some or all of its own, and those of other ranks that they read.

    Attributes:
        halo: fetches the latter.
        rows: of the output of the halo, the rows whose results are kept or, for the read-out, that it uses.
        batch: all these nodes, with positions, degrees and ``max_nodes`` of the whole batch.
        pairs: the pairs of a mask that the own nodes read; None if only edges are read.
    """

    halo: Halo
    rows: slice
    batch: GraphBatch
    pairs: Pairs | None = None

    def moved(self, move: Move, batch: GraphBatch) -> "View":
        """A copy on another device."""
        moved = self.batch.apply(move)
        pairs = None if self.pairs is None else self.pairs.moved(move, moved)
        return View(self.halo.moved(move), self.rows, moved, pairs)


@dataclass(kw_only=True, repr=False)
class Share(GraphBatch):
    """One rank's shard of a batch: its nodes, the edges that they read, and its targets.

    As a batch it holds the own nodes with their features and positions, ``edge_attr`` of the edges that they read, and
    no edges; layers that look at other nodes run on a `View`.

    Attributes:
        whole: the batch, on the CPU.
        partition: which rank owns which nodes.
        y: None if this rank has no targets.
        readout: for targets of graphs or links, the nodes of those assigned to this rank.
    """

    whole: GraphBatch = field(repr=False)
    partition: Partition
    readout: View | None = None

    def view(self, mask: Mask | None) -> View:
        """The nodes that the own nodes read by a mask and along edges; None: along edges only."""
        return self._cached(("view", self.partition, mask), lambda: _view(self.whole, self.partition, mask))

    def ring(self, mask: Mask) -> Ring:
        """The `Ring` by which the own nodes attend, for a complete or causal mask."""
        causal = mask.limits == (None, 0)
        bounds, rank = self.partition.bounds, self.partition.rank
        return self._cached(
            ("ring", self.partition, causal), lambda: Ring.of(self.whole.ptr.tolist(), bounds, rank, causal)
        )

    def _cached(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """A value that the whole batch caches for all of its shares, moved to the device of this one."""
        if key not in self.memo:
            value = self.whole.cached(key, make)
            same_device = self.device == self.whole.device
            self.memo[key] = value if same_device else value.moved(lambda tensor: tensor.to(self.device), self)
        return self.memo[key]

    def apply(self, move: Move) -> Self:
        out = super().apply(move)
        out.readout = None if self.readout is None else self.readout.moved(move, out)
        return out


def ring_obstacle(mask: Mask, demand: Demand | None) -> str | None:
    """The reason why attention under a mask cannot use a `Ring` and its pairs must be listed, or None."""
    if mask.heads > 1 or mask.virtual_nodes or mask.limits not in ((None, None), (None, 0)):
        return f"{mask} is neither complete nor causal"
    if demand is None:
        return "a layer reads the list of pairs"
    for present, reason in (
        (demand.dropout, "attention weights are dropped"),
        (demand.scored, "scores are not the scaled dot product"),
        (demand.bias, "scores have a bias"),
        (demand.listed or demand.pair_value, "pairs have features"),
    ):
        if present:
            return reason
    return None


def share_of(batch: GraphBatch, rank: int, world: int, level: str, readings: Iterable[Reading] = ()) -> Share:
    """The share of one of ``world`` ranks in a batch, prepared for attention.

    Every rank partitions the same batch in the same way.

    Args:
        batch: on the CPU.
        level: what the targets belong to: ``node``, ``graph`` or ``link``.
        readings: see `gt.model.GraphTransformer.readings`.

    Raises:
        UserError: the pairs of a mask are too many to be listed.
    """
    partition = batch.cached(("cut", rank, world), lambda: Partition.of(batch, rank, world))
    own, readout, y = partition.own, None, batch.y
    if level == "node":
        y = None if y is None else y[own]
    else:
        readout, rows = (_graph_readout if level == "graph" else _link_readout)(batch, partition)
        y = None if y is None else y[rows]
    nodes = torch.arange(own.start, own.stop)
    edges = slice(*batch.rowptr[[own.start, own.stop]].tolist())
    out = Share(
        **_structure(batch, nodes),
        edge_index=batch.edge_index[:, :0],
        edge_attr=None if batch.edge_attr is None else batch.edge_attr[edges],
        x=None if batch.x is None else batch.x[own],
        y=y if y is not None and len(y) else None,
        extras={name: rows[own] for name, rows in batch.extras.items()},
        whole=batch,
        partition=partition,
        readout=readout,
    )
    _copy_positions(out, batch, nodes)
    for mask, demand in readings:
        assert demand is None or isinstance(demand, Demand)  # encodings of pairs are not shared
        obstacle = ring_obstacle(mask, demand)
        if obstacle is None and demand is not None:
            ring = out.ring(mask)
            if ring.inside is not None:
                prepare(ring.mask(ring.inside), demand)
            continue
        if (count := mask.pair_count(batch) or 0) > MAX_PAIRS:
            raise UserError(
                f"{mask} has {count:,} pairs, too many to list, which is needed because {obstacle}: change either"
            )
        pairs = out.view(mask).pairs
        assert pairs is not None
        prepare(pairs, demand)
    return out


def _structure(batch: GraphBatch, nodes: Tensor) -> dict[str, Any]:
    """The `GraphBatch` arguments for some ascending nodes (K,), with all graphs between the first and the last."""
    ends = batch.batch[nodes[[0, -1]]] if len(nodes) else torch.zeros(2, dtype=torch.long)
    first, last = ends.tolist()
    return {
        "ptr": torch.searchsorted(nodes, batch.ptr[first : last + 2]),
        "max_nodes": batch.max_nodes,
        "node_mask": None if batch.node_mask is None else batch.node_mask[nodes],
    }


def _copy_positions(part: GraphBatch, batch: GraphBatch, nodes: Tensor) -> None:
    """Give nodes the positions and degrees that they have in the whole batch."""
    part.position, part.in_degree = batch.position[nodes], batch.in_degree[nodes]
    if WHOLE_DEGREES in batch.memo:
        part.memo[WHOLE_DEGREES] = batch.memo[WHOLE_DEGREES][:, nodes]
    part.finish()


def _view(batch: GraphBatch, partition: Partition, mask: Mask | None) -> View:
    """See `Share.view`."""
    own, all_pairs = partition.own, None if mask is None else mask(batch)
    source, target = batch.edge_index if all_pairs is None else torch.cat([batch.edge_index, all_pairs.edges], dim=1)
    halo = Halo.of(partition.bounds, partition.rank, owner(partition.bounds, target), source)
    rows = slice(halo.before, halo.before + own.stop - own.start)
    nodes = halo.with_own(own)
    index = torch.zeros(batch.num_nodes, dtype=torch.long).index_copy(0, nodes, torch.arange(len(nodes)))
    edges = slice(*batch.rowptr[[own.start, own.stop]].tolist())
    part = GraphBatch(edge_index=index[batch.edge_index[:, edges]], **_structure(batch, nodes))
    _copy_positions(part, batch, nodes)
    if all_pairs is None:
        return View(halo, rows, part)
    listed = slice(*all_pairs.rowptr[[own.start, own.stop]].tolist())
    source, target = index[all_pairs.edges[:, listed]]  # indices keep their order, so the keys remain sorted
    heads = None if all_pairs.edge_heads is None else all_pairs.edge_heads[listed]
    local_mask = Listed(target * len(nodes) + source, heads)
    return View(halo, rows, part, SharePairs(part, local_mask, batch, nodes, torch.arange(own.start, own.stop)))


def _graph_readout(batch: GraphBatch, partition: Partition) -> tuple[View, slice]:
    """All nodes of the graphs whose first node the rank owns, and the range of these graphs."""
    of = owner(partition.bounds, batch.ptr[:-1]).clamp(max=len(partition.bounds) - 2)  # for trailing empty graphs
    halo = Halo.of(partition.bounds, partition.rank, of[batch.batch], torch.arange(batch.num_nodes))
    first, last = torch.searchsorted(of, torch.tensor([partition.rank, partition.rank + 1])).tolist()
    low, high = batch.ptr[[first, last]].tolist()
    part = GraphBatch(
        ptr=batch.ptr[first : last + 1] - low,
        edge_index=batch.edge_index[:, :0],
        max_nodes=batch.max_nodes,
        node_mask=None if batch.node_mask is None else batch.node_mask[low:high],
        extras={name: rows[low:high] for name, rows in batch.extras.items()},
    ).finish()
    start = low - partition.own.start if last > first else 0
    return View(halo, slice(start, start + high - low), part), slice(first, last)


def _link_readout(batch: GraphBatch, partition: Partition) -> tuple[View, slice]:
    """The nodes of a rank's share of the links, and the range of these links."""
    assert batch.links is not None
    count, world = batch.links.shape[1], len(partition.bounds) - 1
    ends = [count * rank // world for rank in range(world + 1)]
    of = owner(ends, torch.arange(count))
    halo = Halo.of(partition.bounds, partition.rank, of.repeat(2), batch.links.flatten())
    rows, nodes = slice(*ends[partition.rank : partition.rank + 2]), halo.with_own(partition.own)
    part = GraphBatch(edge_index=batch.edge_index[:, :0], **_structure(batch, nodes))
    part.links = torch.searchsorted(nodes, batch.links[:, rows].contiguous())
    _copy_positions(part, batch, nodes)
    return View(halo, slice(0, len(nodes)), part), rows

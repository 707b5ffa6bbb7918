"""A batch cut into the shares of several processes: which nodes a rank owns, and what these read of the others."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from gt.attention import Demand, Reading, prepare
from gt.errors import UserError
from gt.graph import WHOLE_DEGREES, GraphBatch, Move
from gt.hops import hops_between
from gt.inference.whole_graph import MOST, Listed
from gt.masks import Mask, Pairs
from gt.parallel.halo import Halo, owner
from gt.parallel.ring import Ring


@dataclass(frozen=True)
class Cut:
    """Which nodes of a batch a rank owns: rank r those from ``bounds[r]`` to ``bounds[r + 1]``, perhaps none."""

    rank: int
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, batch: GraphBatch, rank: int, world: int) -> Self:
        """Shares with about as many nodes and edges each."""
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
        """The same for a batch on another device."""
        return self


class SharePairs(Pairs):
    """What the own nodes of a share read; hops are those of the whole graph, and numbers those of its nodes."""

    def __init__(self, batch: GraphBatch, mask: Listed, whole: GraphBatch, nodes: Tensor, own: Tensor) -> None:
        super().__init__(batch, mask)
        self.whole, self.nodes, self.own = whole, nodes, own

    def hops(self, most: int) -> Tensor:
        def make() -> Tensor:
            source, target = self.nodes[self.edges.to(self.nodes.device)]
            return hops_between(self.whole, source, target, most, self.own).to(self.edges.device)

        return self.kept(f"hops_{most}", make)

    def dense_hops(self, most: int) -> Tensor:
        def make() -> Tensor:
            size = self.batch.max_nodes
            dense = self.edges.new_full((self.batch.num_graphs * size * size,), most + 1)
            return dense.index_copy(0, self.dense_entry, self.hops(most)).view(-1, size, size)

        return self.kept(f"dense_hops_{most}", make)

    def moved(self, move: Move, batch: GraphBatch) -> "SharePairs":
        out = SharePairs(batch, self.mask, self.whole, self.nodes, self.own)
        forms = vars(super().moved(move, batch))
        vars(out).update({name: form for name, form in forms.items() if name not in ("nodes", "own")})
        return out


@dataclass(frozen=True)
class View:
    """Nodes that a rank computes with: some or all of its own, and around them those of other ranks that these read.

    Attributes:
        halo: fetches the latter.
        rows: of what the halo gives, those that the result of a layer is kept of; where it is for the read-out, those
            that this is of.
        batch: all of them. Positions, degrees and the size of the largest graph are those of the whole.
        pairs: what a mask lets the own nodes read; None where edges are all that is read.
    """

    halo: Halo
    rows: slice
    batch: GraphBatch
    pairs: Pairs | None = None

    def moved(self, move: Move, batch: GraphBatch) -> "View":
        """The same on another device."""
        own = self.batch.apply(move)
        pairs = None if self.pairs is None else self.pairs.moved(move, own)
        return View(self.halo.moved(move), self.rows, own, pairs)


@dataclass(kw_only=True, repr=False)
class Share(GraphBatch):
    """What one rank owns of a batch: nodes, the edges that they read, and the targets that fall to it.

    As a batch it holds the own nodes with their features and positions, ``edge_attr`` of the edges that they read, and
    no edges; what a layer that looks at other nodes runs on is a `View`.

    Attributes:
        whole: the batch, on the CPU.
        cut: who owns what.
        y: None where no target falls to this rank.
        readout: where graphs or links have the targets, the nodes of those that fall to this rank.
    """

    whole: GraphBatch = field(repr=False)
    cut: Cut
    readout: View | None = None

    def view(self, mask: Mask | None) -> View:
        """What the own nodes read by a mask and along edges; None: along edges alone."""
        return self._kept(("view", self.cut, mask), lambda: _view(self.whole, self.cut, mask))

    def ring(self, mask: Mask) -> Ring:
        """How the own nodes attend by a mask that a `Ring` serves."""
        causal = mask.limits == (None, 0)
        bounds, rank = self.cut.bounds, self.cut.rank
        return self._kept(("ring", self.cut, causal), lambda: Ring.of(self.whole.ptr.tolist(), bounds, rank, causal))

    def _kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What the whole batch keeps for all shares that are cut from it, on this one's device."""
        if key not in self.memo:
            kept = self.whole.cached(key, make)
            here = self.device == self.whole.device
            self.memo[key] = kept if here else kept.moved(lambda tensor: tensor.to(self.device), self)
        return self.memo[key]

    def apply(self, move: Move) -> Self:
        out = super().apply(move)
        out.readout = None if self.readout is None else self.readout.moved(move, out)
        return out


def ring_obstacle(mask: Mask, demand: Demand | None) -> str | None:
    """Why attention by a mask cannot go round a ring, or None: its pairs are listed then."""
    if mask.heads > 1 or mask.virtual_nodes or mask.limits not in ((None, None), (None, 0)):
        return f"{mask} is neither complete nor causal"
    if demand is None:
        return "a layer reads the list of pairs"
    for wrong, what in (
        (demand.dropout, "attention weights are dropped"),
        (demand.scored, "scores are not the scaled dot product"),
        (demand.bias, "scores have a bias"),
        (demand.listed or demand.pair_value, "pairs have features"),
    ):
        if wrong:
            return what
    return None


def share_of(batch: GraphBatch, rank: int, world: int, level: str, readings: Iterable[Reading] = ()) -> Share:
    """The part of a batch that falls to one of so many ranks, ready for what attention asks of it.

    Every rank cuts the same batch, in the same way.

    Args:
        batch: on the CPU.
        level: what has the targets: ``node``, ``graph`` or ``link``.
        readings: see `gt.model.GraphTransformer.readings`.

    Raises:
        UserError: the pairs of a mask are too many to be listed.
    """
    cut = batch.cached(("cut", rank, world), lambda: Cut.of(batch, rank, world))
    own, readout, y = cut.own, None, batch.y
    if level == "node":
        y = None if y is None else y[own]
    else:
        readout, rows = (_of_graphs if level == "graph" else _of_links)(batch, cut)
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
        cut=cut,
        readout=readout,
    )
    _placed(out, batch, nodes)
    for mask, demand in readings:
        assert demand is None or isinstance(demand, Demand)  # encodings of pairs are not shared
        obstacle = ring_obstacle(mask, demand)
        if obstacle is None and demand is not None:
            ring = out.ring(mask)
            if ring.inside is not None:
                prepare(ring.mask(ring.inside), demand)
            continue
        if (count := mask.pair_count(batch) or 0) > MOST:
            raise UserError(f"{mask} has {count:,} pairs, which must all be listed where {obstacle}: change either")
        pairs = out.view(mask).pairs
        assert pairs is not None
        prepare(pairs, demand)
    return out


def _structure(batch: GraphBatch, nodes: Tensor) -> dict[str, Any]:
    """Some nodes (K,) of a batch, ascending, as those of a batch; of the graphs between the first and the last."""
    ends = batch.batch[nodes[[0, -1]]] if len(nodes) else torch.zeros(2, dtype=torch.long)
    first, last = ends.tolist()
    return {
        "ptr": torch.searchsorted(nodes, batch.ptr[first : last + 2]),
        "max_nodes": batch.max_nodes,
        "node_mask": None if batch.node_mask is None else batch.node_mask[nodes],
    }


def _placed(part: GraphBatch, batch: GraphBatch, nodes: Tensor) -> None:
    """Let nodes have the positions and the degrees that they have in the whole batch."""
    part.position, part.in_degree = batch.position[nodes], batch.in_degree[nodes]
    if WHOLE_DEGREES in batch.memo:
        part.memo[WHOLE_DEGREES] = batch.memo[WHOLE_DEGREES][:, nodes]
    part.finish()


def _view(batch: GraphBatch, cut: Cut, mask: Mask | None) -> View:
    """See `Share.view`."""
    own, all_pairs = cut.own, None if mask is None else mask(batch)
    source, target = batch.edge_index if all_pairs is None else torch.cat([batch.edge_index, all_pairs.edges], dim=1)
    halo = Halo.of(cut.bounds, cut.rank, owner(cut.bounds, target), source)
    rows = slice(halo.before, halo.before + own.stop - own.start)
    nodes = halo.around(own)
    place = torch.zeros(batch.num_nodes, dtype=torch.long).index_copy(0, nodes, torch.arange(len(nodes)))
    edges = slice(*batch.rowptr[[own.start, own.stop]].tolist())
    part = GraphBatch(edge_index=place[batch.edge_index[:, edges]], **_structure(batch, nodes))
    _placed(part, batch, nodes)
    if all_pairs is None:
        return View(halo, rows, part)
    listed = slice(*all_pairs.rowptr[[own.start, own.stop]].tolist())
    source, target = place[all_pairs.edges[:, listed]]  # numbers keep their order, so the keys are sorted, too
    heads = None if all_pairs.edge_heads is None else all_pairs.edge_heads[listed]
    by = Listed(target * len(nodes) + source, heads)
    return View(halo, rows, part, SharePairs(part, by, batch, nodes, torch.arange(own.start, own.stop)))


def _of_graphs(batch: GraphBatch, cut: Cut) -> tuple[View, slice]:
    """All nodes of the graphs whose first node the rank owns, and which graphs these are."""
    of = owner(cut.bounds, batch.ptr[:-1]).clamp(max=len(cut.bounds) - 2)  # behind the last node are empty graphs
    halo = Halo.of(cut.bounds, cut.rank, of[batch.batch], torch.arange(batch.num_nodes))
    first, last = torch.searchsorted(of, torch.tensor([cut.rank, cut.rank + 1])).tolist()
    low, high = batch.ptr[[first, last]].tolist()
    part = GraphBatch(
        ptr=batch.ptr[first : last + 1] - low,
        edge_index=batch.edge_index[:, :0],
        max_nodes=batch.max_nodes,
        node_mask=None if batch.node_mask is None else batch.node_mask[low:high],
        extras={name: rows[low:high] for name, rows in batch.extras.items()},
    ).finish()
    start = low - cut.own.start if last > first else 0
    return View(halo, slice(start, start + high - low), part), slice(first, last)


def _of_links(batch: GraphBatch, cut: Cut) -> tuple[View, slice]:
    """The nodes of a rank's share of the links, and which links these are."""
    assert batch.links is not None
    count, world = batch.links.shape[1], len(cut.bounds) - 1
    ends = [count * rank // world for rank in range(world + 1)]
    of = owner(ends, torch.arange(count))
    halo = Halo.of(cut.bounds, cut.rank, of.repeat(2), batch.links.flatten())
    rows, nodes = slice(*ends[cut.rank : cut.rank + 2]), halo.around(cut.own)
    part = GraphBatch(edge_index=batch.edge_index[:, :0], **_structure(batch, nodes))
    part.links = torch.searchsorted(nodes, batch.links[:, rows].contiguous())
    _placed(part, batch, nodes)
    return View(halo, slice(0, len(nodes)), part), rows

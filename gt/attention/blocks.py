"""Pairs as blocks: which squares of the N x N matrix of a packed batch hold any, and which pairs each of them holds.

Only such squares are computed. How many there are depends on the order of the nodes: of graphs larger than a block,
reverse Cuthill-McKee (Cuthill & McKee 1969) brings neighbours together, and is kept where it leaves fewer squares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from gt.graph import GraphBatch, Move
from gt.masks import Pairs

SIDE = 128  # nodes of a block's side
WORD = 32  # pairs in a number of a tile


@dataclass(frozen=True)
class Blocks:
    """The squares of R x R blocks that hold pairs, R = N / SIDE rounded up.

    Attributes:
        count: how many squares hold a pair.
        partial, full: for each row of blocks the columns where some pairs are allowed, where all are: (R, R) int32, the
            first ``..._count`` (R,) int32 of each row.
        tile: (R, R) int32, which of ``tiles`` says what a square allows; None where ``graph`` and ``position`` do.
        tiles: (T, 1 or H, SIDE, SIDE / WORD) int32, a bit for each pair; the last holds none.
        graph, position: (N,) of each node, where a mask goes by position alone, with its limits.
        order, place: (N,) the nodes in the order of the matrix, and the place of each; None where they stay.
    """

    count: int
    partial_count: Tensor
    partial: Tensor
    full_count: Tensor
    full: Tensor
    tile: Tensor | None = None
    tiles: Tensor | None = None
    graph: Tensor | None = None
    position: Tensor | None = None
    limits: tuple[int | None, int | None] = (None, None)
    order: Tensor | None = None
    place: Tensor | None = None

    def moved(self, move: Move, pairs: Pairs) -> Blocks:
        """The same on another device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: move(value) for name, value in tensors.items()})  # type: ignore[arg-type]

    def allows(self, head: Tensor, reader: Tensor, source: Tensor) -> Tensor:
        """Whether a place reads another, elementwise: what FlexAttention asks for."""
        if self.tile is not None and self.tiles is not None:
            tile = self.tile[reader // SIDE, source // SIDE]
            shared = self.tiles.shape[1] == 1
            word = self.tiles[tile, head * 0 if shared else head, reader % SIDE, source % SIDE // WORD]
            return (word >> (source % WORD)) & 1 == 1
        assert self.graph is not None
        assert self.position is not None
        allowed = self.graph[reader] == self.graph[source]
        back, forth = self.limits
        if back is None and forth is None:
            return allowed  # a position that is looked up and not used is more than the compiler of FlexAttention bears
        ahead = self.position[source] - self.position[reader]
        if back is not None:
            allowed = allowed & (ahead >= -back)
        return allowed if forth is None else allowed & (ahead <= forth)


def _rows(held: Tensor) -> tuple[Tensor, Tensor]:
    """(R, R) bool to the number of columns held by each row, (R,), and these columns first in each row, (R, R)."""
    order = (~held).to(torch.uint8).argsort(dim=1, stable=True)
    return held.sum(1, dtype=torch.int32), order.to(torch.int32)


def by_position(batch: GraphBatch, limits: tuple[int | None, int | None]) -> Blocks:
    """The blocks of a mask that goes by position within a graph, without a list of its pairs."""
    back, forth = limits
    nodes = batch.num_nodes
    first = torch.arange(0, nodes, SIDE, device=batch.device)
    last = (first + SIDE - 1).clamp(max=nodes - 1)
    low, high = batch.ptr[batch.batch[first]], batch.ptr[batch.batch[last] + 1] - 1  # all that a row of blocks may read
    if back is not None:
        low = torch.maximum(low, first - back)
    if forth is not None:
        high = torch.minimum(high, last + forth)
    held = (last[None] >= low[:, None]) & (first[None] <= high[:, None])
    alone = batch.batch[first] == batch.batch[last]
    whole = alone[:, None] & alone & (batch.batch[first][:, None] == batch.batch[first])
    if back is not None:
        whole &= last[:, None] - first <= back
    if forth is not None:
        whole &= last[None] - first[:, None] <= forth
    whole &= held
    return Blocks(
        int(held.sum()), *_rows(held & ~whole), *_rows(whole), graph=batch.batch, position=batch.position, limits=limits
    )


def _squares(source: Tensor, target: Tensor, rows: int) -> Tensor:
    """The number of each pair's square, row by row."""
    return target // SIDE * rows + source // SIDE


def by_list(pairs: Pairs) -> Blocks:
    """The blocks of a list of pairs, the nodes of large graphs in the order that leaves fewer of them."""
    batch = pairs.batch
    source, target = pairs.edges
    nodes = batch.num_nodes
    rows = -(-nodes // SIDE)
    order = place = None
    squares = _squares(source, target, rows)
    if batch.max_nodes > SIDE:
        better = bandwise(source, target, nodes).to(batch.device)
        places = torch.empty_like(better).index_copy(0, better, torch.arange(nodes, device=batch.device))
        moved = _squares(places[source], places[target], rows)
        if moved.unique().numel() < squares.unique().numel():
            order, place, squares = better, places, moved
            source, target = places[source], places[target]
    held, tile_of = squares.unique(return_inverse=True)
    used = torch.ones(len(source), 1, dtype=torch.bool) if pairs.edge_heads is None else pairs.edge_heads
    heads = used.shape[1]
    bits = torch.zeros((len(held) + 1) * heads * SIDE * (SIDE // WORD), dtype=torch.int64, device=batch.device)
    for head in range(heads):
        mine = used[:, head].to(batch.device)
        word = ((tile_of * heads + head) * SIDE + target % SIDE) * (SIDE // WORD) + source % SIDE // WORD
        bits.index_add_(0, word[mine], 1 << (source % WORD)[mine])
    signed = torch.where(bits >= 1 << (WORD - 1), bits - (1 << WORD), bits).to(torch.int32)
    square = torch.zeros(rows * rows, dtype=torch.bool, device=batch.device).index_fill(0, held, True)
    tile = torch.full((rows * rows,), len(held), dtype=torch.int32, device=batch.device)
    tile[held] = torch.arange(len(held), dtype=torch.int32, device=batch.device)
    return Blocks(
        len(held),
        *_rows(square.view(rows, rows)),
        *_rows(torch.zeros(rows, rows, dtype=torch.bool, device=batch.device)),
        tile=tile.view(rows, rows),
        tiles=signed.view(len(held) + 1, heads, SIDE, SIDE // WORD),
        order=order,
        place=place,
    )


def bandwise(source: Tensor, target: Tensor, nodes: int) -> Tensor:
    """(N,) the nodes in reverse Cuthill-McKee order of the graph of the pairs, their direction ignored."""
    ones = torch.ones(len(source), dtype=torch.int8).numpy()
    links = csr_matrix((ones, (target.cpu().numpy(), source.cpu().numpy())), shape=(nodes, nodes))
    order = reverse_cuthill_mckee((links + links.T).tocsr(), symmetric_mode=True)
    return torch.from_numpy(order.astype("int64"))


def blocks_of(pairs: Pairs) -> Blocks:
    """The blocks of pairs, made once for each batch."""
    limits = pairs.limits
    return pairs.kept("blocks", lambda: by_list(pairs) if limits is None else by_position(pairs.batch, limits))

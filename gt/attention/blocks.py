"""Pairs in block-sparse form: the non-empty blocks of the N x N matrix of a packed batch, and the pairs in each.

Only non-empty blocks are computed. Their number depends on the order of the nodes: in graphs larger than a block,
reverse Cuthill-McKee (Cuthill & McKee 1969) brings neighbours together, and is used if it leaves fewer blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from gt.graph import GraphBatch, Move
from gt.masks import Pairs

SIDE = 128  # nodes along one side of a block
WORD = 32  # pairs per integer of a tile


@dataclass(frozen=True)
class Blocks:
    """The non-empty blocks among R x R, R = N / SIDE rounded up.

    Attributes:
        count: number of non-empty blocks.
        partial, full: for each row of blocks the columns of those that allow some pairs, and all pairs: (R, R) int32,
            of which the first ``..._count`` (R,) int32 of each row are valid.
        tile: (R, R) int32, the index into ``tiles`` of each block; None if ``graph`` and ``position`` decide.
        tiles: (T, 1 or H, SIDE, SIDE / WORD) int32, a bit for each pair; the last tile is empty.
        graph, position: (N,) of each node, for a mask by position alone, with its limits.
        order, inverse: (N,) the permutation of the nodes in the matrix, and its inverse; None if there is none.
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
    inverse: Tensor | None = None

    def moved(self, move: Move, pairs: Pairs) -> Blocks:
        """The same blocks on another device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: move(value) for name, value in tensors.items()})  # type: ignore[arg-type]

    def allows(self, head: Tensor, reader: Tensor, source: Tensor) -> Tensor:
        """Whether readers may read sources, elementwise, both as rows of the matrix: FlexAttention's ``mask_mod``."""
        if self.tile is not None and self.tiles is not None:
            tile = self.tile[reader // SIDE, source // SIDE]
            shared = self.tiles.shape[1] == 1
            word = self.tiles[tile, head * 0 if shared else head, reader % SIDE, source % SIDE // WORD]
            return (word >> (source % WORD)) & 1 == 1
        assert self.graph is not None
        assert self.position is not None
        allowed = self.graph[reader] == self.graph[source]
        back, ahead = self.limits
        if back is None and ahead is None:
            return allowed  # an unused position lookup breaks FlexAttention's compiler
        offset = self.position[source] - self.position[reader]
        if back is not None:
            allowed = allowed & (offset >= -back)
        return allowed if ahead is None else allowed & (offset <= ahead)


def _columns_by_row(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """(R, R) bool to the number of True columns of each row, (R,), and all columns with those first, (R, R)."""
    order = (~occupied).to(torch.uint8).argsort(dim=1, stable=True)
    return occupied.sum(1, dtype=torch.int32), order.to(torch.int32)


def by_position(batch: GraphBatch, limits: tuple[int | None, int | None]) -> Blocks:
    """The blocks of a mask by position within a graph, without listing its pairs."""
    back, ahead = limits
    nodes = batch.num_nodes
    first = torch.arange(0, nodes, SIDE, device=batch.device)
    last = (first + SIDE - 1).clamp(max=nodes - 1)
    low, high = batch.ptr[batch.batch[first]], batch.ptr[batch.batch[last] + 1] - 1  # what a row of blocks may read
    if back is not None:
        low = torch.maximum(low, first - back)
    if ahead is not None:
        high = torch.minimum(high, last + ahead)
    occupied = (last[None] >= low[:, None]) & (first[None] <= high[:, None])
    single_graph = batch.batch[first] == batch.batch[last]
    full = single_graph[:, None] & single_graph & (batch.batch[first][:, None] == batch.batch[first])
    if back is not None:
        full &= last[:, None] - first <= back
    if ahead is not None:
        full &= last[None] - first[:, None] <= ahead
    full &= occupied
    return Blocks(
        int(occupied.sum()),
        *_columns_by_row(occupied & ~full),
        *_columns_by_row(full),
        graph=batch.batch,
        position=batch.position,
        limits=limits,
    )


def _block_index(source: Tensor, target: Tensor, rows: int) -> Tensor:
    """The row-major index of each pair's block."""
    return target // SIDE * rows + source // SIDE


def by_list(pairs: Pairs) -> Blocks:
    """The blocks of a list of pairs; the nodes of large graphs are reordered if that leaves fewer blocks."""
    batch = pairs.batch
    source, target = pairs.edges
    nodes = batch.num_nodes
    rows = -(-nodes // SIDE)
    order = inverse = None
    index = _block_index(source, target, rows)
    if batch.max_nodes > SIDE:
        reordered = cuthill_mckee_order(source, target, nodes).to(batch.device)
        new_position = torch.empty_like(reordered).index_copy(0, reordered, torch.arange(nodes, device=batch.device))
        new_index = _block_index(new_position[source], new_position[target], rows)
        if new_index.unique().numel() < index.unique().numel():
            order, inverse, index = reordered, new_position, new_index
            source, target = new_position[source], new_position[target]
    occupied, tile_of = index.unique(return_inverse=True)
    allowed = torch.ones(len(source), 1, dtype=torch.bool) if pairs.edge_heads is None else pairs.edge_heads
    heads = allowed.shape[1]
    bits = torch.zeros((len(occupied) + 1) * heads * SIDE * (SIDE // WORD), dtype=torch.int64, device=batch.device)
    for head in range(heads):
        in_head = allowed[:, head].to(batch.device)
        word = ((tile_of * heads + head) * SIDE + target % SIDE) * (SIDE // WORD) + source % SIDE // WORD
        bits.index_add_(0, word[in_head], 1 << (source % WORD)[in_head])
    signed = torch.where(bits >= 1 << (WORD - 1), bits - (1 << WORD), bits).to(torch.int32)
    nonempty = torch.zeros(rows * rows, dtype=torch.bool, device=batch.device).index_fill(0, occupied, True)
    tile = torch.full((rows * rows,), len(occupied), dtype=torch.int32, device=batch.device)
    tile[occupied] = torch.arange(len(occupied), dtype=torch.int32, device=batch.device)
    return Blocks(
        len(occupied),
        *_columns_by_row(nonempty.view(rows, rows)),
        *_columns_by_row(torch.zeros(rows, rows, dtype=torch.bool, device=batch.device)),
        tile=tile.view(rows, rows),
        tiles=signed.view(len(occupied) + 1, heads, SIDE, SIDE // WORD),
        order=order,
        inverse=inverse,
    )


def cuthill_mckee_order(source: Tensor, target: Tensor, nodes: int) -> Tensor:
    """(N,) the reverse Cuthill-McKee order of the nodes in the graph of the pairs, taken as undirected."""
    ones = torch.ones(len(source), dtype=torch.int8).numpy()
    adjacency = csr_matrix((ones, (target.cpu().numpy(), source.cpu().numpy())), shape=(nodes, nodes))
    order = reverse_cuthill_mckee((adjacency + adjacency.T).tocsr(), symmetric_mode=True)
    return torch.from_numpy(order.astype("int64"))


def blocks_of(pairs: Pairs) -> Blocks:
    """The blocks of pairs, built once per batch."""
    limits = pairs.limits
    return pairs.cached("blocks", lambda: by_list(pairs) if limits is None else by_position(pairs.batch, limits))

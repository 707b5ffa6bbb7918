"""Hop distances: breadth-first search from all nodes of a batch at once."""

import numpy as np
import torch
from torch import Tensor

from gt.graph import GraphBatch


def contains(keys: Tensor, queries: Tensor) -> Tensor:
    """(len(queries),) bool, which queries are in the sorted vector ``keys``."""
    if not keys.numel():
        return torch.zeros_like(queries, dtype=torch.bool)
    position = torch.searchsorted(keys, queries).clamp_(max=keys.numel() - 1)
    return keys[position] == queries


def ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """Concatenate the ranges ``starts[r], starts[r] + 1, ...`` of the given lengths."""
    ends = lengths.cumsum(0)
    shift = (starts - ends + lengths).repeat_interleave(lengths)
    return shift + torch.arange(shift.numel(), device=shift.device)


# Largest graph, in nodes, for which dense matrices are used rather than lists of reached pairs.
MAX_DENSE_NODES = 256


def _hops_by_bitset(batch: GraphBatch, limit: int) -> Tensor:
    """`hop_matrix` on a CPU, with bit sets: each hop takes the union over a node's sources of what they reach."""
    nodes, size = batch.num_nodes, batch.max_nodes
    source, rowptr, position = batch.edge_index[0].numpy(), batch.rowptr.numpy(), batch.position.numpy()
    reached = np.zeros((nodes, -(-size // 64)), np.uint64)
    reached[np.arange(nodes), position // 64] = np.uint64(1) << (position % 64).astype(np.uint64)
    readers = np.flatnonzero(np.diff(rowptr))
    starts = rowptr[readers]
    # number of hops after which a node was still unreached
    unreached_hops = np.zeros((nodes, 64 * reached.shape[1]), np.min_scalar_type(min(limit, size)))
    for hop in range(min(limit, size - 1) + 1):
        bits = np.unpackbits(reached.view(np.uint8), axis=1, bitorder="little")
        previous = reached[readers]
        union = previous | np.bitwise_or.reduceat(reached[source], starts) if len(readers) else previous
        if hop == limit or np.array_equal(union, previous):
            break
        unreached_hops += bits ^ 1
        reached[readers] = union
    rows = np.where(bits, unreached_hops, np.int64(limit + 1))[:, :size]
    distance = torch.full((batch.num_graphs * size, size), limit + 1)
    return distance.index_copy_(0, batch.slot, torch.from_numpy(rows)).view(batch.num_graphs, size, size)


def _hops_by_matmul(batch: GraphBatch, limit: int) -> Tensor:
    """`hop_matrix` on other devices: each hop multiplies the last frontier by the adjacency matrix."""
    shape = (batch.num_graphs, batch.max_nodes, batch.max_nodes)
    source, target = batch.edge_index
    edges = torch.zeros(shape, dtype=torch.float32, device=batch.device)
    edges[batch.batch[target], batch.position[target], batch.position[source]] = 1.0
    reached = torch.zeros_like(edges)
    reached[batch.batch, batch.position, batch.position] = 1.0
    last_hop = min(limit, batch.max_nodes - 1)
    distance = torch.full(shape, limit + 1, dtype=torch.long, device=batch.device).masked_fill_(reached > 0, 0)
    unreached = reached == 0
    for hop in range(1, last_hop + 1):  # no early exit: checking for new nodes costs more than going on
        new = (reached.bmm(edges) > 0).logical_and_(unreached)
        distance.masked_fill_(new, hop)
        unreached.logical_xor_(new)
        reached = new.to(edges.dtype)
    return distance


def hop_distances(batch: GraphBatch, limit: int | None = None, readers: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All pairs at most ``limit`` hops apart and their distances; a hop follows an edge from its target to its source.

    Args:
        batch: N nodes; time and memory grow with the number of pairs found, not with N squared.
        limit: the largest distance to search; None searches until nothing new is reached.
        readers: the nodes to start from, ascending; None: all.

    Returns:
        keys: (P,) int64, sorted, ``reader * N + source``; each node reaches itself at distance 0.
        distance: (P,) int64.
    """
    nodes, source = batch.num_nodes, batch.edge_index[0]
    if readers is None and 0 < batch.max_nodes <= MAX_DENSE_NODES:
        last_hop = batch.max_nodes if limit is None else limit
        matrix = hop_matrix(batch, last_hop)
        graph, row, column = (matrix <= last_hop).nonzero(as_tuple=True)
        first = batch.ptr[graph]
        return (first + row) * nodes + first + column, matrix[graph, row, column]
    reader = torch.arange(nodes, device=batch.device) if readers is None else readers
    keys = reader * nodes + reader
    distance = torch.zeros_like(keys)
    frontier, hop = keys, 0
    while frontier.numel() and (limit is None or hop < limit):
        hop += 1
        reader, last = frontier // nodes, frontier % nodes
        steps = batch.in_degree[last]
        reached = source[ranges(batch.rowptr[last], steps)]
        frontier = torch.unique(reader.repeat_interleave(steps) * nodes + reached)
        frontier = frontier[~contains(keys, frontier)]
        keys, order = torch.cat([keys, frontier]).sort()
        distance = torch.cat([distance, torch.full_like(frontier, hop)])[order]
    return keys, distance


def hops_between(
    batch: GraphBatch, source: Tensor, target: Tensor, limit: int, readers: Tensor | None = None
) -> Tensor:
    """(P,) hops from each target (P,) to its source (P,); ``limit + 1`` if further away or unreachable.

    Args:
        readers: the distinct nodes in ``target``, ascending; None: search from all nodes.
    """
    keys, distance = hop_distances(batch, limit, readers)
    queries = target * batch.num_nodes + source
    position = torch.searchsorted(keys, queries).clamp_(max=max(keys.numel() - 1, 0))
    return torch.where(keys[position] == queries, distance[position], limit + 1)


def hop_matrix(batch: GraphBatch, limit: int) -> Tensor:
    """(B, L, L) hops from reader i to source j; ``limit + 1`` if further away, unreachable or padding."""
    if batch.device.type == "cpu" and batch.max_nodes:
        return _hops_by_bitset(batch, limit)
    return _hops_by_matmul(batch, limit)

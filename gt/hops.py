"""Who can be reached in how many hops: breadth-first search from every node of a batch at once."""

import numpy as np
import torch
from torch import Tensor

from gt.graph import GraphBatch


def contains(keys: Tensor, wanted: Tensor) -> Tensor:
    """Which of ``wanted`` stand in the sorted vector ``keys``; a bool for each of ``wanted``."""
    if not keys.numel():
        return torch.zeros_like(wanted, dtype=torch.bool)
    place = torch.searchsorted(keys, wanted).clamp_(max=keys.numel() - 1)
    return keys[place] == wanted


def ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """The runs ``starts[r], starts[r] + 1, ...`` of the given lengths, end to end."""
    ends = lengths.cumsum(0)
    shift = (starts - ends + lengths).repeat_interleave(lengths)
    return shift + torch.arange(shift.numel(), device=shift.device)


# Nodes of the largest graph up to which every two of a graph are searched at once rather than those found listed.
DENSE = 256


def _by_bits(batch: GraphBatch, most: int) -> Tensor:
    """`hop_matrix` on a CPU: who is reached is a bit, and a node reaches in a hop more what those that it reads do."""
    nodes, size = batch.num_nodes, batch.max_nodes
    source, rowptr, place = batch.edge_index[0].numpy(), batch.rowptr.numpy(), batch.position.numpy()
    reached = np.zeros((nodes, -(-size // 64)), np.uint64)
    reached[np.arange(nodes), place // 64] = np.uint64(1) << (place % 64).astype(np.uint64)
    readers = np.flatnonzero(np.diff(rowptr))
    starts = rowptr[readers]
    away = np.zeros((nodes, 64 * reached.shape[1]), np.min_scalar_type(min(most, size)))  # hops that did not reach it
    for hop in range(min(most, size - 1) + 1):
        found = np.unpackbits(reached.view(np.uint8), axis=1, bitorder="little")
        before = reached[readers]
        now = before | np.bitwise_or.reduceat(reached[source], starts) if len(readers) else before
        if hop == most or np.array_equal(now, before):
            break
        away += found ^ 1
        reached[readers] = now
    rows = np.where(found, away, np.int64(most + 1))[:, :size]
    distance = torch.full((batch.num_graphs * size, size), most + 1)
    return distance.index_copy_(0, batch.slot, torch.from_numpy(rows)).view(batch.num_graphs, size, size)


def _by_products(batch: GraphBatch, most: int) -> Tensor:
    """`hop_matrix` elsewhere: a product of those reached last with the edges reaches those one hop further."""
    shape = (batch.num_graphs, batch.max_nodes, batch.max_nodes)
    source, target = batch.edge_index
    edges = torch.zeros(shape, dtype=torch.float32, device=batch.device)
    edges[batch.batch[target], batch.position[target], batch.position[source]] = 1.0
    reached = torch.zeros_like(edges)
    reached[batch.batch, batch.position, batch.position] = 1.0
    furthest = min(most, batch.max_nodes - 1)
    distance = torch.full(shape, most + 1, dtype=torch.long, device=batch.device).masked_fill_(reached > 0, 0)
    unreached = reached == 0
    for hop in range(1, furthest + 1):  # looking whether any is new costs more than going on
        new = (reached.bmm(edges) > 0).logical_and_(unreached)
        distance.masked_fill_(new, hop)
        unreached.logical_xor_(new)
        reached = new.to(edges.dtype)
    return distance


def hop_distances(batch: GraphBatch, most: int | None = None, readers: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Every pair at most ``most`` hops apart and its distance; a hop goes from a reader to a source along an edge.

    Args:
        batch: N nodes; work and memory grow with the pairs found, not with N squared.
        most: the largest distance looked for; None goes on until nothing new is reached.
        readers: the nodes that look, ascending; None is every node.

    Returns:
        keys: (P,) int64, sorted, ``reader * N + source``; every node reaches itself at distance 0.
        distance: (P,) int64.
    """
    nodes, source = batch.num_nodes, batch.edge_index[0]
    if readers is None and 0 < batch.max_nodes <= DENSE:
        furthest = batch.max_nodes if most is None else most
        matrix = hop_matrix(batch, furthest)
        graph, row, column = (matrix <= furthest).nonzero(as_tuple=True)
        first = batch.ptr[graph]
        return (first + row) * nodes + first + column, matrix[graph, row, column]
    reader = torch.arange(nodes, device=batch.device) if readers is None else readers
    keys = reader * nodes + reader
    distance = torch.zeros_like(keys)
    frontier, hop = keys, 0
    while frontier.numel() and (most is None or hop < most):
        hop += 1
        reader, last = frontier // nodes, frontier % nodes
        steps = batch.in_degree[last]
        reached = source[ranges(batch.rowptr[last], steps)]
        frontier = torch.unique(reader.repeat_interleave(steps) * nodes + reached)
        frontier = frontier[~contains(keys, frontier)]
        keys, order = torch.cat([keys, frontier]).sort()
        distance = torch.cat([distance, torch.full_like(frontier, hop)])[order]
    return keys, distance


def hops_between(batch: GraphBatch, source: Tensor, target: Tensor, most: int, readers: Tensor | None = None) -> Tensor:
    """(P,) the hops from each reader (P,) to its source (P,); ``most + 1`` where that is further or out of reach.

    Args:
        readers: the nodes among ``target``, ascending; None: any.
    """
    keys, distance = hop_distances(batch, most, readers)
    wanted = target * batch.num_nodes + source
    place = torch.searchsorted(keys, wanted).clamp_(max=max(keys.numel() - 1, 0))
    return torch.where(keys[place] == wanted, distance[place], most + 1)


def hop_matrix(batch: GraphBatch, most: int) -> Tensor:
    """(B, L, L) the hops from reader i to source j; ``most + 1`` where that is further, out of reach, or padding."""
    if batch.device.type == "cpu" and batch.max_nodes:
        return _by_bits(batch, most)
    return _by_products(batch, most)

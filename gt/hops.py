"""Who can be reached in how many hops: breadth-first search from every node of a batch at once."""

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


def hop_distances(batch: GraphBatch, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Every pair at most ``most`` hops apart and its distance; a hop goes from a reader to a source along an edge.

    Args:
        batch: N nodes; work and memory grow with the pairs found, not with N squared.
        most: the largest distance looked for; None goes on until nothing new is reached.

    Returns:
        keys: (P,) int64, sorted, ``reader * N + source``; every node reaches itself at distance 0.
        distance: (P,) int64.
    """
    nodes, source = batch.num_nodes, batch.edge_index[0]
    reader = torch.arange(nodes, device=batch.device)
    found = reader * nodes + reader
    distance = torch.zeros_like(found)
    frontier, hop = found, 0
    while frontier.numel() and (most is None or hop < most):
        hop += 1
        reader, last = frontier // nodes, frontier % nodes
        steps = batch.in_degree[last]
        reached = source[ranges(batch.rowptr[last], steps)]
        frontier = torch.unique(reader.repeat_interleave(steps) * nodes + reached)
        frontier = frontier[~contains(found, frontier)]
        found, order = torch.cat([found, frontier]).sort()
        distance = torch.cat([distance, torch.full_like(frontier, hop)])[order]
    return found, distance

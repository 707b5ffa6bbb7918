"""Shortest-path distances and the edges on shortest paths as features of pairs.

path a-b-c and isolated d:  distances from a  0 1 2, d unreachable;  from a to c the edges ab, bc
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from gt.encodings.base import Encoding
from gt.encodings.edges import EdgeFeatures, real_ends
from gt.graph import GraphBatch
from gt.hops import contains, hop_distances, ranges
from gt.masks import Pairs, WideBatch, with_virtual_nodes
from gt.ranges import at_least
from gt.schema import Schema


class Distance(Encoding):
    """A learned vector for the shortest-path distance from reader to source (SPD, Ying et al. 2021, Graphormer).

    Unreachable pairs have their own vector, and so have pairs with a virtual node at either end.

    Args:
        most: maximum distance with its own vector, which larger ones share.
        heads: channels of the state of a pair: the number of heads if it is a bias of attention
            (``pair_bias: true``); None: the model's width.
    """

    writes = ("p",)

    def __init__(self, most: int = 32, heads: int | None = None) -> None:
        super().__init__()
        at_least(1, most, "most")
        self.most, self.heads = most, heads
        self.arguments = most, heads

    def prepare(self, pairs: Pairs) -> None:
        pairs.hops(pairs.batch.max_nodes)

    def build(self, width: int, schema: Schema) -> None:
        self.table = nn.Embedding(self.most + 3, self.heads or width)
        nn.init.normal_(self.table.weight, std=0.02)

    def pairs(self, pairs: Pairs) -> Tensor:
        limit = pairs.batch.max_nodes  # above the length of any shortest path
        hops = pairs.hops(limit)
        row = torch.where(hops > limit, self.most + 1, hops.clamp(max=self.most))
        if isinstance(pairs.batch, WideBatch):
            _, virtual = real_ends(pairs)
            row = row.masked_fill(virtual, self.most + 2)
        return self.table(row)


class EdgePath(Encoding):
    """The features of the edges on a shortest path from reader to source, by position on it (Ying et al. 2021).

    ``c_ij = sum_k W_k f(e_k) / min(d_ij, length)`` over the first ``length`` edges e_k of the path, where f embeds edge
    features as the mean over their columns; zeros for unreachable pairs and for a node with itself. Of several shortest
    paths the one with the lexicographically first edge features is used, which makes it independent of node numbering.

    Args:
        length: maximum number of edges of a path.
        heads: channels of the state of a pair, see `Distance`.
    """

    writes = ("p",)

    def __init__(self, length: int = 5, heads: int | None = None) -> None:
        super().__init__()
        at_least(1, length, "length")
        self.length, self.heads = length, heads
        self.arguments = length, heads

    def prepare(self, pairs: Pairs) -> None:
        self.paths(pairs)

    def paths(self, pairs: Pairs) -> Tensor:
        """(P, length) edges, see `paths_of`; cached in the pairs."""
        return pairs.cached(f"edge_paths_{self.length}", lambda: paths_of(pairs, self.length))

    def build(self, width: int, schema: Schema) -> None:
        channels = self.heads or width
        self.edge = EdgeFeatures(schema, channels)
        self.maps = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.length, channels, channels)))

    def pairs(self, pairs: Pairs) -> Tensor:
        path = self.paths(pairs)
        features = self.edge(with_virtual_nodes(pairs.batch, 0)) / self.edge.columns
        padding = features.new_zeros(1, features.shape[1])
        features = torch.cat([features, padding])  # index E means no edge
        total = sum(features.index_select(0, path[:, k]) @ self.maps[k] for k in range(self.length))
        steps = (path < len(features) - 1).sum(1, keepdim=True)
        return total / steps.clamp(min=1)


def paths_of(pairs: Pairs, length: int) -> Tensor:
    """(P, length) the first edges on a shortest path from each reader to its source, padded with E."""
    batch = with_virtual_nodes(pairs.batch, 0)
    (source, target), virtual = real_ends(pairs)
    keys, path = edge_paths(batch, length)
    pair_keys = target * batch.num_nodes + source
    reachable = contains(keys, pair_keys) & ~virtual
    index = torch.searchsorted(keys, pair_keys).where(reachable, len(keys))
    return torch.cat([path, path.new_full((1, length), batch.num_edges)])[index]


def edge_paths(batch: GraphBatch, length: int) -> tuple[Tensor, Tensor]:
    """For all pairs of a reader and a source with a path between them, the first ``length`` edges of a shortest one.

    A path of d edges is an edge plus a path of d - 1 edges, so paths are ranked by their edge features in order of
    increasing distance; of several paths from i to j the first in rank is kept.

    Returns:
        keys: (K,) sorted, ``reader * N + source``.
        path: (K, length) edges, starting at the reader, padded with E.
    """
    nodes, device = batch.num_nodes, batch.device
    keys, distance = hop_distances(batch)
    path = torch.full((len(keys), length), batch.num_edges, device=device)
    kind = torch.zeros(batch.num_edges, dtype=torch.long, device=device)
    if batch.edge_attr is not None and batch.num_edges:
        kind = torch.unique(batch.edge_attr, dim=0, return_inverse=True)[1]
    by_source = batch.edge_index[0].argsort(stable=True)
    readers = torch.bincount(batch.edge_index[0], minlength=nodes)
    first = readers.cumsum(0) - readers
    by_distance = distance.argsort(stable=True)
    levels = by_distance.split(torch.bincount(distance).tolist())
    slot = torch.empty_like(keys).index_copy(0, by_distance, torch.arange(len(keys), device=device))
    rank, start = torch.zeros_like(keys), 0
    for hop, (last, level) in enumerate(pairwise(levels), 1):
        start += len(last)
        near, far = keys[last] // nodes, keys[last] % nodes
        count = readers[near]
        edge = by_source[ranges(first[near], count)]  # edges that extend a known path
        rest = last.repeat_interleave(count)
        index = torch.searchsorted(keys, batch.edge_index[1][edge] * nodes + far.repeat_interleave(count))
        shortest = distance[index] == hop
        edge, rest, index = edge[shortest], rest[shortest], index[shortest]
        order, group = kind[edge] * len(keys) + rank[rest], slot[index] - start
        best = torch.full_like(level, torch.iinfo(keys.dtype).max).scatter_reduce(0, group, order, "amin")
        chosen = order == best[group]  # ties only if all edge features are equal
        path[index[chosen]] = torch.cat([edge[:, None], path[rest, :-1]], dim=1)[chosen]
        rank[level] = torch.unique(best, return_inverse=True)[1]
    return keys, path

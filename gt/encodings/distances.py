"""What lies between two nodes: how far one is from the other, and the edges on the way, as features of pairs.

path a-b-c and d alone:  distances from a  0 1 2, d out of reach;  from a to c the edges ab, bc
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

    Pairs out of reach have a vector of their own, and so have those with a virtual node at either end.

    Args:
        most: what is further shares the vector of this distance.
        heads: channels of the state of a pair: as many as heads where it is a bias of attention
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
        beyond = pairs.batch.max_nodes  # no shortest path has as many edges
        hops = pairs.hops(beyond)
        row = torch.where(hops > beyond, self.most + 1, hops.clamp(max=self.most))
        if isinstance(pairs.batch, WideBatch):
            _, virtual = real_ends(pairs)
            row = row.masked_fill(virtual, self.most + 2)
        return self.table(row)


class EdgePath(Encoding):
    """The edges on a shortest path from reader to source, each by its features and its place (Ying et al. 2021).

    ``c_ij = sum_k W_k f(e_k) / min(d_ij, length)`` over the first ``length`` edges e_k of the path, where f embeds what
    an edge carries, the mean of its columns; zeros where there is no path, or none is needed. Of several shortest
    paths it is the one whose edges' features come first in their order, so that the numbering of nodes means nothing.

    Args:
        length: edges of a path that count.
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
        """(P, length) edges, see `paths_of`; kept by the pairs."""
        return pairs.kept(f"edge_paths_{self.length}", lambda: paths_of(pairs, self.length))

    def build(self, width: int, schema: Schema) -> None:
        channels = self.heads or width
        self.edge = EdgeFeatures(schema, channels)
        self.maps = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.length, channels, channels)))

    def pairs(self, pairs: Pairs) -> Tensor:
        path = self.paths(pairs)
        features = self.edge(with_virtual_nodes(pairs.batch, 0)) / self.edge.columns
        none = features.new_zeros(1, features.shape[1])
        features = torch.cat([features, none])  # the number E stands for no edge
        total = sum(features.index_select(0, path[:, k]) @ self.maps[k] for k in range(self.length))
        steps = (path < len(features) - 1).sum(1, keepdim=True)
        return total / steps.clamp(min=1)


def paths_of(pairs: Pairs, length: int) -> Tensor:
    """(P, length) the first edges on a shortest path from each reader to its source, E where there are no more."""
    batch = with_virtual_nodes(pairs.batch, 0)
    (source, target), virtual = real_ends(pairs)
    keys, path = edge_paths(batch, length)
    wanted = target * batch.num_nodes + source
    known = contains(keys, wanted) & ~virtual
    place = torch.searchsorted(keys, wanted).where(known, len(keys))
    return torch.cat([path, path.new_full((1, length), batch.num_edges)])[place]


def edge_paths(batch: GraphBatch, length: int) -> tuple[Tensor, Tensor]:
    """For every two nodes of a batch that are joined, the edges on a shortest path, as far as ``length`` of them.

    A path of d edges is an edge and a path of d - 1, so that paths are ranked by their edges' features, distance after
    distance: of several from i to j the first in rank is kept.

    Returns:
        keys: (K,) sorted, ``reader * N + source``.
        path: (K, length) edges, from the reader on; E where there are no more.
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
        edge = by_source[ranges(first[near], count)]  # each that leads to where a path is known from
        rest = last.repeat_interleave(count)
        place = torch.searchsorted(keys, batch.edge_index[1][edge] * nodes + far.repeat_interleave(count))
        on_way = distance[place] == hop
        edge, rest, place = edge[on_way], rest[on_way], place[on_way]
        order, own = kind[edge] * len(keys) + rank[rest], slot[place] - start
        best = torch.full_like(level, torch.iinfo(keys.dtype).max).scatter_reduce(0, own, order, "amin")
        chosen = order == best[own]  # several only where all their edges look alike
        path[place[chosen]] = torch.cat([edge[:, None], path[rest, :-1]], dim=1)[chosen]
        rank[level] = torch.unique(best, return_inverse=True)[1]
    return keys, path

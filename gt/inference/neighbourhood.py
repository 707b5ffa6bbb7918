"""The part of a large graph that the answer for one of its nodes goes by."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gt.graph import WHOLE_DEGREES, GraphBatch
from gt.hops import hop_distances
from gt.inference.whole_graph import stages
from gt.layers import parts_of, reads_of
from gt.masks import Hops, Mask, PerHead
from gt.model import GraphTransformer


def hops_read(net: nn.Module) -> int | None:
    """From how many hops away a node's answer is fed; None where the edges do not limit that, or it is not known.

    The layers' own say is what counts, see `gt.layers.Layer`.
    """
    if not isinstance(net, GraphTransformer):
        return None
    total = 0
    for block, mask in zip(net.blocks, net.masks, strict=True):
        for stage in stages(block):
            hops = [_hops(part, mask) for step in stage for part in parts_of(step)]
            known = [each for each in hops if each is not None]
            if len(known) < len(hops):
                return None
            total += max(known, default=0)
    return total


def _hops(part: nn.Module, mask: Mask) -> int | None:
    reads = reads_of(part)
    if reads in ("self", "edges"):
        return int(reads == "edges")
    masks = mask.masks if isinstance(mask, PerHead) else [mask]
    radii = [each.hops for each in masks if isinstance(each, Hops) and each.hops is not None]
    return max(radii) if reads == "pairs" and len(radii) == len(masks) else None


@dataclass(frozen=True)
class Neighbourhood:
    """A node and those nearest to it by the edges that they read, with every edge between them.

    Attributes:
        batch: the one graph, without targets; what goes by degrees is told those of the whole graph.
        nodes: (n,) int64, the number of each of its nodes in the whole graph, ascending.
        place: of the node in the middle among them.
    """

    batch: GraphBatch
    nodes: Tensor
    place: int

    def copies(self, count: int) -> GraphBatch:
        """So many of it as one batch."""
        out = self.batch.repeated(count)
        out.memo[WHOLE_DEGREES] = self.batch.memo[WHOLE_DEGREES].repeat(1, count)
        return out


def neighbourhood(batch: GraphBatch, node: int, hops: int | None, most: int) -> Neighbourhood:
    """What lies within some hops of a node of a batch of one graph, up to so many nodes, the nearest first.

    Args:
        hops: along the edges that nodes read; None: along all edges, whatever their direction, as far as they lead.
    """
    middle = torch.tensor([node], device=batch.device)
    joined = _both_ways(batch) if hops is None else batch
    keys, distance = hop_distances(joined, 0, middle)
    for radius in range(1, batch.num_nodes if hops is None else hops + 1):
        before = len(keys)
        keys, distance = hop_distances(joined, radius, middle)
        if len(keys) == before or len(keys) >= most:
            break
    nodes = (keys - node * batch.num_nodes)[distance.argsort(stable=True)[:most]].sort().values
    place = torch.full((batch.num_nodes,), -1, device=batch.device)
    place[nodes] = torch.arange(len(nodes), device=batch.device)
    ends = place[batch.edge_index]
    inside = (ends >= 0).all(0)
    part = GraphBatch(
        ptr=torch.tensor([0, len(nodes)], device=batch.device),
        edge_index=ends[:, inside],
        max_nodes=len(nodes),
        x=None if batch.x is None else batch.x[nodes],
        edge_attr=None if batch.edge_attr is None else batch.edge_attr[inside],
        extras={name: values[nodes] for name, values in batch.extras.items()},
        memo={WHOLE_DEGREES: torch.stack(batch.whole_degrees)[:, nodes]},
    )
    return Neighbourhood(part.finish(), nodes, int(place[node]))


def _both_ways(batch: GraphBatch) -> GraphBatch:
    """The nodes and edges of a batch, with the reverse of each edge."""
    edges = torch.cat([batch.edge_index, batch.edge_index.flip(0)], dim=1)
    return GraphBatch(batch.ptr, edges[:, edges[1].argsort()], batch.max_nodes)

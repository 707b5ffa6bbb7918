"""The receptive field of a node in a large graph."""

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
    """The radius of a node's receptive field in hops; None if edges do not limit it or it is unknown.

    It follows from what the layers declare, see `gt.layers.Layer`.
    """
    if not isinstance(net, GraphTransformer):
        return None
    total = 0
    for block, mask in zip(net.blocks, net.masks, strict=True):
        for stage in stages(block):
            hops = [_hops(part, mask) for step in stage for part in parts_of(step)]
            finite = [radius for radius in hops if radius is not None]
            if len(finite) < len(hops):
                return None
            total += max(finite, default=0)
    return total


def _hops(part: nn.Module, mask: Mask) -> int | None:
    reads = reads_of(part)
    if reads in ("self", "edges"):
        return int(reads == "edges")
    masks = mask.masks if isinstance(mask, PerHead) else [mask]
    radii = [inner.hops for inner in masks if isinstance(inner, Hops) and inner.hops is not None]
    return max(radii) if reads == "pairs" and len(radii) == len(masks) else None


@dataclass(frozen=True)
class Neighbourhood:
    """The subgraph induced by a node and the nodes nearest to it along edges.

    Attributes:
        batch: the subgraph as a batch, without targets and with the degrees of the whole graph.
        nodes: (n,) int64, the indices of its nodes in the whole graph, ascending.
        centre: the index of the central node among them.
    """

    batch: GraphBatch
    nodes: Tensor
    centre: int

    def copies(self, count: int) -> GraphBatch:
        """A batch of this many copies."""
        out = self.batch.repeated(count)
        out.memo[WHOLE_DEGREES] = self.batch.memo[WHOLE_DEGREES].repeat(1, count)
        return out


def neighbourhood(batch: GraphBatch, node: int, hops: int | None, limit: int) -> Neighbourhood:
    """The nodes within some hops of a node, at most ``limit``, preferring the nearest; the batch is a single graph.

    Args:
        hops: along edges from reader to source; None: along all edges in either direction, without a limit.
    """
    centre = torch.tensor([node], device=batch.device)
    searched = _undirected(batch) if hops is None else batch
    keys, distance = hop_distances(searched, 0, centre)
    for radius in range(1, batch.num_nodes if hops is None else hops + 1):
        before = len(keys)
        keys, distance = hop_distances(searched, radius, centre)
        if len(keys) == before or len(keys) >= limit:
            break
    nodes = (keys - node * batch.num_nodes)[distance.argsort(stable=True)[:limit]].sort().values
    index = torch.full((batch.num_nodes,), -1, device=batch.device)
    index[nodes] = torch.arange(len(nodes), device=batch.device)
    ends = index[batch.edge_index]
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
    return Neighbourhood(part.finish(), nodes, int(index[node]))


def _undirected(batch: GraphBatch) -> GraphBatch:
    """The structure of a batch with the reverse of each edge added."""
    edges = torch.cat([batch.edge_index, batch.edge_index.flip(0)], dim=1)
    return GraphBatch(batch.ptr, edges[:, edges[1].argsort()], batch.max_nodes)

"""Static shapes: batches padded to one of a few fixed sizes, so that a network is compiled only a few times.

nodes      | real graphs ................ | padding |      node_mask  1 1 1 1 1 1 1 1 1 1 0 0 0
edges      | real edges ....... | padding |                padding edges are loops at padding nodes
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gt.graph import GraphBatch
from gt.schema import UNLABELLED, Schema

MAX_SHAPES = 8  # of one split
SAMPLED = 96  # batches to which shapes are fitted


@dataclass(frozen=True, order=True)
class Shape:
    """The shape of a padded batch; at least one graph and one node of it are padding."""

    max_nodes: int
    nodes: int
    edges: int
    graphs: int

    def holds(self, graphs: int, nodes: int, edges: int, max_nodes: int) -> bool:
        """Whether a batch fits, ``max_nodes`` of its largest graph; padding graphs respect the limit of the shape."""
        spare = self.graphs - graphs
        return (
            spare > 0
            and 0 < self.nodes - nodes <= spare * self.max_nodes
            and edges <= self.edges
            and max_nodes <= self.max_nodes
        )

    @property
    def cost(self) -> int:
        """Rows that a network processes: nodes, and rows of the dense view."""
        return self.nodes + self.graphs * self.max_nodes


def batch_sizes(batches: Sequence[np.ndarray], nodes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(batches, 4) graphs, nodes, edges and largest graph of each batch, from nodes and edges of each graph (G,)."""
    order = np.concatenate(batches)
    counts = np.array([len(batch) for batch in batches])
    starts = np.cumsum(counts) - counts
    sums = [np.add.reduceat(counts_by_graph[order].astype(np.int64), starts) for counts_by_graph in (nodes, edges)]
    return np.stack([counts, *sums, np.maximum.reduceat(nodes[order], starts)], axis=1)


def enclosing_shape(sizes: np.ndarray) -> Shape:
    """The smallest rounded shape that holds each of some batches (batches, 4)."""
    graphs, nodes, edges, largest = sizes.T
    max_nodes = _round(max(int(largest.max()), 1), 4)
    rows = _round(int(nodes.max()) + 1, 32)
    max_graphs = int((graphs + -(-(rows - nodes) // max_nodes)).max())
    return Shape(max_nodes, rows, _round(int(edges.max()), 64), max_graphs)


def bound(nodes: np.ndarray, edges: np.ndarray, graphs: int, budget: int | None) -> Shape:
    """A shape that holds any batch of ``graphs`` graphs, or of a budget of nodes; ``nodes`` and ``edges`` are (G,)."""
    if budget is not None:
        graphs = min(len(nodes), max(1, budget // max(1, int(nodes.min()))))
    largest, total = int(nodes.max()), int(np.sort(nodes)[-graphs:].sum())
    total = total if budget is None else min(total, max(budget, largest))
    # the most edges for that many nodes: the densest graphs first, and one more than fits
    by_density = np.argsort(-edges / np.maximum(nodes, 1), kind="stable")
    fitting = int(np.searchsorted(np.cumsum(nodes[by_density]), total)) + 1
    max_nodes, rows = _round(max(largest, 1), 4), _round(total + 1, 32)
    return Shape(max_nodes, rows, _round(int(edges[by_density[:fitting]].sum()), 64), graphs + -(-rows // max_nodes))


def _round(number: int, to: int) -> int:
    return -(-number // to) * to


def fit_shapes(sizes: np.ndarray, most: int) -> list[Shape]:
    """At most ``most`` shapes that hold each of some batches (batches, 4), with minimal total cost.

    Batches, sorted by their largest graph, are cut into groups by dynamic programming; each group gets a shape.
    """
    sizes = sizes[np.lexsort((sizes[:, 1], sizes[:, 3]))]
    # many batches are merged into runs of a few
    ends = np.unique(np.linspace(0, len(sizes), min(SAMPLED, len(sizes)) + 1).round().astype(int))
    points = len(ends) - 1
    cost = np.full((points + 1, points + 1), np.inf)
    for low in range(points):
        for high in range(low + 1, points + 1):
            part = sizes[ends[low] : ends[high]]
            cost[low, high] = len(part) * enclosing_shape(part).cost
    best, cuts = cost[0], []  # cost up to each point, and where the last group begins
    for _ in range(most - 1):
        with_one_more = (best[:, None] + cost).min(0)
        cuts.append(np.where(with_one_more < best, (best[:, None] + cost).argmin(0), 0))
        best = np.minimum(best, with_one_more)
    shapes, high = [], points
    for cut in reversed(cuts):
        if low := int(cut[high]):
            shapes.append(enclosing_shape(sizes[ends[low] : ends[high]]))
            high = low
    return sorted([*shapes, enclosing_shape(sizes[: ends[high]])])


def shapes_of(batches: Sequence[np.ndarray], nodes: np.ndarray, edges: np.ndarray, last: Shape) -> tuple[Shape, ...]:
    """At most `MAX_SHAPES` shapes for batches of graphs with nodes and edges (G,), in ascending cost.

    Args:
        batches: graph numbers of sample batches, representative of the others.
        last: a shape that holds any batch, as a fallback.
    """
    shapes = fit_shapes(batch_sizes(batches, nodes, edges), MAX_SHAPES - 1)
    return tuple(sorted({*shapes, last}, key=lambda shape: shape.cost))


def pad_batch(batch: GraphBatch, shapes: Sequence[Shape], schema: Schema) -> GraphBatch:
    """Pad a batch to the first of the shapes that holds it.

    Padding nodes form graphs of their own after the real ones, padding edges are self-loops at padding nodes, the
    features of both are zero, and padded targets are unlabelled: -100 for a class, NaN for a number. Links are not
    padded: only the head reads them, which is not compiled.

    Raises:
        ValueError: no shape holds the batch.
    """
    graphs, nodes, edges = batch.num_graphs, batch.num_nodes, batch.num_edges
    shape = next((s for s in shapes if s.holds(graphs, nodes, edges, batch.max_nodes)), None)
    if shape is None:
        raise ValueError(f"no shape holds {graphs} graphs, {nodes} nodes, {edges} edges, {batch.max_nodes} in a graph")
    more_graphs, more_nodes, more_edges = shape.graphs - graphs, shape.nodes - nodes, shape.edges - edges
    ends = nodes + torch.arange(1, more_graphs + 1) * more_nodes // more_graphs
    loops = nodes + torch.arange(more_edges) * more_nodes // max(more_edges, 1)
    y = batch.y
    if y is not None and schema.level != "link":
        count = shape.graphs if schema.level == "graph" else shape.nodes
        y = _padded(y, count, UNLABELLED) if schema.kind == "multiclass" else _padded(y.float(), count, torch.nan)
    return GraphBatch(
        ptr=torch.cat([batch.ptr, ends]),
        edge_index=torch.cat([batch.edge_index, loops.expand(2, -1)], dim=1),
        max_nodes=shape.max_nodes,
        x=None if batch.x is None else _padded(batch.x, shape.nodes),
        edge_attr=None if batch.edge_attr is None else _padded(batch.edge_attr, shape.edges),
        y=y,
        links=batch.links,
        node_mask=torch.arange(shape.nodes) < nodes,
        extras={name: _padded(values, shape.nodes) for name, values in batch.extras.items()},
        padding=(more_graphs, more_nodes),
    ).finish()


def _padded(values: Tensor, count: int, value: float = 0) -> Tensor:
    return torch.cat([values, values.new_full((count - len(values), *values.shape[1:]), value)])

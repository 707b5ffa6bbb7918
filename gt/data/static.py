"""Static shapes: batches filled up to one of a few fixed sizes, so that a compiled network is compiled a few times.

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

MOST = 8  # shapes of one split
SAMPLED = 96  # batches that shapes are fitted to


@dataclass(frozen=True, order=True)
class Shape:
    """What a batch is filled up to; at least one graph and one node of it are padding."""

    max_nodes: int
    nodes: int
    edges: int
    graphs: int

    def holds(self, graphs: int, nodes: int, edges: int, max_nodes: int) -> bool:
        """Whether a batch fits, with padding graphs that are no larger than the largest graph may be."""
        spare = self.graphs - graphs
        return (
            spare > 0
            and 0 < self.nodes - nodes <= spare * self.max_nodes
            and edges <= self.edges
            and max_nodes <= self.max_nodes
        )

    @property
    def cost(self) -> int:
        """Rows that a network works on: those of the nodes and those of the dense view."""
        return self.nodes + self.graphs * self.max_nodes


def measured(batches: Sequence[np.ndarray], nodes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(batches, 4) graphs, nodes, edges and largest graph of each batch, given those of each graph (G,)."""
    order = np.concatenate(batches)
    counts = np.array([len(batch) for batch in batches])
    starts = np.cumsum(counts) - counts
    sums = [np.add.reduceat(of_each[order].astype(np.int64), starts) for of_each in (nodes, edges)]
    return np.stack([counts, *sums, np.maximum.reduceat(nodes[order], starts)], axis=1)


def around(sizes: np.ndarray) -> Shape:
    """The smallest shape, in round numbers, that holds each of some batches (batches, 4)."""
    graphs, nodes, edges, largest = sizes.T
    most = _round(max(int(largest.max()), 1), 4)
    rows = _round(int(nodes.max()) + 1, 32)
    needed = int((graphs + -(-(rows - nodes) // most)).max())
    return Shape(most, rows, _round(int(edges.max()), 64), needed)


def bound(nodes: np.ndarray, edges: np.ndarray, graphs: int, budget: int | None) -> Shape:
    """A shape that holds any batch of so many graphs, or of a budget of nodes, of those with nodes and edges (G,)."""
    if budget is not None:
        graphs = min(len(nodes), max(1, budget // max(1, int(nodes.min()))))
    largest, total = int(nodes.max()), int(np.sort(nodes)[-graphs:].sum())
    total = total if budget is None else min(total, max(budget, largest))
    # as many edges as so many nodes can have: the densest graphs first, and one more than fits
    by_density = np.argsort(-edges / np.maximum(nodes, 1), kind="stable")
    fitting = int(np.searchsorted(np.cumsum(nodes[by_density]), total)) + 1
    most, rows = _round(max(largest, 1), 4), _round(total + 1, 32)
    return Shape(most, rows, _round(int(edges[by_density[:fitting]].sum()), 64), graphs + -(-rows // most))


def _round(number: int, to: int) -> int:
    return -(-number // to) * to


def fitted(sizes: np.ndarray, most: int) -> list[Shape]:
    """At most so many shapes that hold each of some batches (batches, 4), of the least cost in all.

    Batches in the order of their largest graph are cut into groups by dynamic programming; a shape is what is around a
    group.
    """
    sizes = sizes[np.lexsort((sizes[:, 1], sizes[:, 3]))]
    # of many batches, runs of a few are taken together
    ends = np.unique(np.linspace(0, len(sizes), min(SAMPLED, len(sizes)) + 1).round().astype(int))
    points = len(ends) - 1
    cost = np.full((points + 1, points + 1), np.inf)
    for low in range(points):
        for high in range(low + 1, points + 1):
            part = sizes[ends[low] : ends[high]]
            cost[low, high] = len(part) * around(part).cost
    best, cuts = cost[0], []  # of the first groups to each point, and where the last of them begins
    for _ in range(most - 1):
        with_one_more = (best[:, None] + cost).min(0)
        cuts.append(np.where(with_one_more < best, (best[:, None] + cost).argmin(0), 0))
        best = np.minimum(best, with_one_more)
    shapes, high = [], points
    for cut in reversed(cuts):
        if low := int(cut[high]):
            shapes.append(around(sizes[ends[low] : ends[high]]))
            high = low
    return sorted([*shapes, around(sizes[: ends[high]])])


def shapes_of(batches: Sequence[np.ndarray], nodes: np.ndarray, edges: np.ndarray, last: Shape) -> tuple[Shape, ...]:
    """At most `MOST` shapes that suit such batches of graphs with nodes and edges (G,), from cheap to dear.

    Args:
        batches: graph numbers of each; others are expected to be much like them.
        last: a shape that holds any batch, for those that turn out not to be.
    """
    shapes = fitted(measured(batches, nodes, edges), MOST - 1)
    return tuple(sorted({*shapes, last}, key=lambda shape: shape.cost))


def filled(batch: GraphBatch, shapes: Sequence[Shape], schema: Schema) -> GraphBatch:
    """The batch, filled up to the first of the shapes that holds it.

    Padding nodes are in graphs of their own behind the real ones, padding edges are loops at padding nodes, features
    of either are zeros, and padding rows of the targets are unlabelled: -100 for a class, NaN for a number. Links stay
    as many as they are: only the head reads them, which is not compiled.

    Raises:
        ValueError: no shape holds it.
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
        y = _longer(y, count, UNLABELLED) if schema.kind == "multiclass" else _longer(y.float(), count, torch.nan)
    return GraphBatch(
        ptr=torch.cat([batch.ptr, ends]),
        edge_index=torch.cat([batch.edge_index, loops.expand(2, -1)], dim=1),
        max_nodes=shape.max_nodes,
        x=None if batch.x is None else _longer(batch.x, shape.nodes),
        edge_attr=None if batch.edge_attr is None else _longer(batch.edge_attr, shape.edges),
        y=y,
        links=batch.links,
        node_mask=torch.arange(shape.nodes) < nodes,
        extras={name: _longer(values, shape.nodes) for name, values in batch.extras.items()},
        padding=(more_graphs, more_nodes),
    ).finish()


def _longer(values: Tensor, count: int, value: float = 0) -> Tensor:
    return torch.cat([values, values.new_full((count - len(values), *values.shape[1:]), value)])

"""Links within each of many graphs: negative sampling for training, and the node pairs that links are ranked among."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gt.data.batching import hashed
from gt.graph import GraphBatch
from gt.link_targets import COLUMNS, Role
from gt.ranges import at_least

NEVER = np.uint64(1 << 63)  # above every random priority


@dataclass(frozen=True)
class Negatives:
    """Negative pairs, resampled each epoch, that replace those in the data.

    For each link (u, v), ``count`` distinct pairs of u and a node of its graph that u is not linked to, possibly u
    itself, as in the Long Range Graph Benchmark (Dwivedi et al. 2022); fewer if there are no more. Used as the
    ``present`` of a source.
    """

    count: int

    def __post_init__(self) -> None:
        at_least(1, self.count, "negatives")

    def __call__(self, batch: GraphBatch, random: np.ndarray) -> GraphBatch:
        """The batch with its links and negative pairs, drawn by ``random`` (B,) uint64."""
        assert batch.links is not None
        assert batch.y is not None
        links = batch.links.numpy()[:, batch.y[:, 0].numpy() == 1]
        position, max_nodes = batch.position.numpy(), max(batch.max_nodes, 1)
        sources, row, times = np.unique(links[0], return_inverse=True, return_counts=True)
        graph = batch.batch.numpy()[sources]
        free = np.arange(max_nodes) < np.diff(batch.ptr.numpy())[graph][:, None]  # (sources, nodes of a graph)
        free[row, position[links[1]]] = False
        # a random priority for each pair, independent of the batch: each source gets the pairs with the lowest
        pair = position[sources][:, None] * np.int64(1 << 32) + np.arange(max_nodes)
        priority = hashed(pair, random[graph][:, None]) >> np.uint64(1)
        priority[~free] = NEVER
        count = np.minimum(self.count * times, free.sum(1))
        drawn = priority.argsort(axis=1)[np.arange(max_nodes) < count[:, None]]
        negative = np.stack([sources.repeat(count), batch.ptr.numpy()[graph].repeat(count) + drawn])
        batch = copy.copy(batch)
        batch.links = torch.from_numpy(np.concatenate([links, negative], axis=1))
        batch.y = (torch.arange(batch.links.shape[1]) < links.shape[1]).float()[:, None]
        return batch


@dataclass(frozen=True)
class Ranked:
    """Adds to evaluation batches every pair that a link is ranked among, see `with_rivals`.

    Attributes:
        present: transform applied first, see `gt.data.source.Source`; None for none.
    """

    present: Callable[[GraphBatch, np.ndarray], GraphBatch] | None = None

    def __call__(self, batch: GraphBatch, random: np.ndarray) -> GraphBatch:
        return with_rivals(batch if self.present is None else self.present(batch, random))


def with_rivals(batch: GraphBatch) -> GraphBatch:
    """The batch with, after each link (u, v), the pairs of u and every other node of its graph, to rank v among.

    Targets get the columns that `gt.link_metrics.LinkRanks` needs; rivals have no label, so that losses ignore them.
    """
    assert batch.links is not None
    assert batch.y is not None
    links, label = batch.links, batch.y[:, 0]
    linked, graph = label == 1, batch.batch[links[0]]
    rows = torch.where(linked, batch.sizes[graph], 1)
    question = torch.arange(len(label)).repeat_interleave(rows)
    rank_row = torch.arange(len(question)) - (rows.cumsum(0) - rows)[question]
    is_query, (source, target) = rank_row == 0, links[:, question]
    first = batch.ptr[graph][question]
    rival = first + rank_row - 1
    target = torch.where(is_query, target, rival + (rival >= target))
    sources, row = links[0].unique(return_inverse=True)
    is_linked = torch.zeros(len(sources), batch.max_nodes, dtype=torch.bool)
    is_linked[row[linked], batch.position[links[1, linked]]] = True
    role = torch.full_like(source, Role.RIVAL)
    role[source == target] = Role.ITSELF
    role[is_linked[row[question], target - first]] = Role.LINKED
    role[is_query] = Role.ASKED
    links_of_graph = torch.zeros(batch.num_graphs).index_add(0, graph, linked.float())[graph]  # links of the same graph
    weight = torch.where(linked, links_of_graph.reciprocal(), 0.0)[question] * is_query
    batch = copy.copy(batch)
    batch.links = torch.stack([source, target])
    batch.y = torch.stack([label[question].where(is_query, torch.nan), role.float(), weight], dim=1)
    return batch


def query_rows(batch: GraphBatch) -> torch.Tensor:
    """The rows of a batch that are pairs from the data, or sampled `Negatives`, rather than rivals."""
    assert batch.links is not None
    if batch.y is None or batch.y.shape[1] < COLUMNS:
        return torch.arange(batch.links.shape[1])
    return (batch.y[:, 1] == Role.ASKED).nonzero()[:, 0]

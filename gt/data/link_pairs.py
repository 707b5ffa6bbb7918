"""Links within each of many graphs: what they are told from, and the pairs of nodes that each is ranked among."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gt.data.batching import mixed
from gt.graph import GraphBatch
from gt.link_targets import COLUMNS, Role
from gt.ranges import at_least

LAST = np.uint64(1 << 63)  # above every chance


@dataclass(frozen=True)
class Negatives:
    """Pairs that are no links, drawn anew in each epoch in place of those that the data name.

    For each link (u, v) so many pairs of u and a node of its graph that u is not linked to, which may be u itself, no
    pair twice, as the Long Range Graph Benchmark draws them (Dwivedi et al. 2022); fewer where there are no more. To be
    the ``present`` of a source.
    """

    count: int

    def __post_init__(self) -> None:
        at_least(1, self.count, "negatives")

    def __call__(self, batch: GraphBatch, random: np.ndarray) -> GraphBatch:
        """The batch with its links and the pairs that are none; ``random`` (B,) uint64 says which."""
        assert batch.links is not None
        assert batch.y is not None
        links = batch.links.numpy()[:, batch.y[:, 0].numpy() == 1]
        position, most = batch.position.numpy(), max(batch.max_nodes, 1)
        sources, row, times = np.unique(links[0], return_inverse=True, return_counts=True)
        graph = batch.batch.numpy()[sources]
        free = np.arange(most) < np.diff(batch.ptr.numpy())[graph][:, None]  # (sources, nodes of a graph)
        free[row, position[links[1]]] = False
        # a random number for each pair, whatever the batch: of each source the pairs with the lowest are drawn
        pair = position[sources][:, None] * np.int64(1 << 32) + np.arange(most)
        chance = mixed(pair, random[graph][:, None]) >> np.uint64(1)
        chance[~free] = LAST
        count = np.minimum(self.count * times, free.sum(1))
        drawn = chance.argsort(axis=1)[np.arange(most) < count[:, None]]
        negative = np.stack([sources.repeat(count), batch.ptr.numpy()[graph].repeat(count) + drawn])
        batch = copy.copy(batch)
        batch.links = torch.from_numpy(np.concatenate([links, negative], axis=1))
        batch.y = (torch.arange(batch.links.shape[1]) < links.shape[1]).float()[:, None]
        return batch


@dataclass(frozen=True)
class Ranked:
    """Makes an evaluation ask about every pair that a link is ranked among, see `with_rivals`.

    Attributes:
        present: what a batch is shown as before that, see `gt.data.source.Source`; None: as it is.
    """

    present: Callable[[GraphBatch, np.ndarray], GraphBatch] | None = None

    def __call__(self, batch: GraphBatch, random: np.ndarray) -> GraphBatch:
        return with_rivals(batch if self.present is None else self.present(batch, random))


def with_rivals(batch: GraphBatch) -> GraphBatch:
    """The batch asked, after each link (u, v), about u and every other node of its graph, which v is ranked among.

    Targets get the columns that `gt.link_metrics.LinkRanks` goes by; rivals have no label, so that no loss counts them.
    """
    assert batch.links is not None
    assert batch.y is not None
    links, label = batch.links, batch.y[:, 0]
    linked, graph = label == 1, batch.batch[links[0]]
    rows = torch.where(linked, batch.sizes[graph], 1)
    question = torch.arange(len(label)).repeat_interleave(rows)
    place = torch.arange(len(question)) - (rows.cumsum(0) - rows)[question]
    asked, (source, target) = place == 0, links[:, question]
    first = batch.ptr[graph][question]
    rival = first + place - 1
    target = torch.where(asked, target, rival + (rival >= target))
    sources, row = links[0].unique(return_inverse=True)
    known = torch.zeros(len(sources), batch.max_nodes, dtype=torch.bool)
    known[row[linked], batch.position[links[1, linked]]] = True
    role = torch.full_like(source, Role.RIVAL)
    role[source == target] = Role.ITSELF
    role[known[row[question], target - first]] = Role.LINKED
    role[asked] = Role.ASKED
    alike = torch.zeros(batch.num_graphs).index_add(0, graph, linked.float())[graph]  # links of the same graph
    weight = torch.where(linked, alike.reciprocal(), 0.0)[question] * asked
    batch = copy.copy(batch)
    batch.links = torch.stack([source, target])
    batch.y = torch.stack([label[question].where(asked, torch.nan), role.float(), weight], dim=1)
    return batch


def asked(batch: GraphBatch) -> torch.Tensor:
    """Which rows of a batch are pairs that the data name, or `Negatives` that were drawn, rather than rivals."""
    assert batch.links is not None
    if batch.y is None or batch.y.shape[1] < COLUMNS:
        return torch.arange(batch.links.shape[1])
    return (batch.y[:, 1] == Role.ASKED).nonzero()[:, 0]

"""Training batches of links, each with the graph from which those links are removed."""

from typing import Any

import numpy as np
import torch

from gt.data.batch_sampler import Batches, Request
from gt.data.batching import BatchDataset, prepare_all, runs
from gt.data.large.negatives import Negatives
from gt.data.large.nodes import refuse_dense
from gt.data.large.sampling import Adjacency, Neighbours
from gt.graph import GraphBatch


class InputGraph:
    """The graph of a batch of one, from which edges can be removed."""

    def __init__(self, batch: GraphBatch) -> None:
        self.batch = batch
        self.source, target = batch.edge_index.numpy()
        self.pointer = batch.rowptr.numpy()
        self.keys = self._key(self.source, target)  # ascending, as edges are sorted by (target, source)

    def _key(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        return target * np.int64(self.batch.num_nodes) + source

    def between(self, pairs: np.ndarray) -> np.ndarray:
        """Indices of all edges between the two nodes of any pair (2, K), in either direction; ascending."""
        key = np.unique(np.concatenate([self._key(*pairs), self._key(*pairs[::-1])]))
        low, high = (np.searchsorted(self.keys, key, side) for side in ("left", "right"))
        return runs(low, high - low)

    def without(self, removed: np.ndarray) -> GraphBatch:
        """The graph without some edges, given by ascending index."""
        mask = np.ones(len(self.keys), dtype=bool)
        mask[removed] = False
        keep, whole = torch.from_numpy(mask), self.batch
        return GraphBatch(
            ptr=whole.ptr,
            edge_index=whole.edge_index[:, keep],
            max_nodes=whole.max_nodes,
            x=whole.x,
            edge_attr=None if whole.edge_attr is None else whole.edge_attr[keep],
            extras=dict(whole.extras),
        )

    def around(
        self, removed: np.ndarray, links: np.ndarray, sampler: Neighbours, random: np.random.Generator
    ) -> GraphBatch:
        """Sample a subgraph around the nodes of links (2, K) in the graph without the ``removed`` edges.

        The edges are removed before sampling: a node whose link was drawn and then removed would reveal it by having
        fewer edges than others.
        """
        roots, is_root = np.unique(links), np.zeros(self.batch.num_nodes, dtype=bool)
        is_root[roots] = True
        pointer = self.pointer - np.searchsorted(removed, self.pointer)
        sampler.adjacency = Adjacency(pointer, np.delete(self.source, removed), np.diff(pointer))  # edges go both ways
        sample = sampler.sample(roots, is_root, random)
        edges = sample.edges + np.searchsorted(removed - np.arange(len(removed)), sample.edges, side="right")
        edge_ids, nodes, whole = torch.from_numpy(edges), torch.from_numpy(sample.nodes), self.batch
        return GraphBatch(
            ptr=torch.tensor([0, len(nodes)]),
            edge_index=torch.from_numpy(sample.ends),
            max_nodes=len(nodes),
            x=None if whole.x is None else whole.x[nodes],
            edge_attr=None if whole.edge_attr is None else whole.edge_attr[edge_ids],
            links=torch.from_numpy(np.searchsorted(sample.nodes, links)),
            extras={name: values[nodes] for name, values in whole.extras.items()},
            memo=sample.memo,
        )


class TrainingLinks(BatchDataset):
    """Training links; a batch has the links of a request and as many negatives.

    Args:
        graph: the input graph, which contains the links.
        links: (K, 2) nodes of each link.
        negatives: draws the negatives.
        sampler: samples the graph around the pairs; None for the whole graph.
        seed: seed of all draws, together with a request's ``draw``.
    """

    def __init__(
        self,
        graph: InputGraph,
        links: np.ndarray,
        negatives: Negatives,
        sampler: Neighbours | None,
        seed: int,
    ) -> None:
        self.graph, self.links, self.negatives, self.sampler, self.seed = graph, links, negatives, sampler, seed

    def __len__(self) -> int:
        return len(self.links)

    def batch(self, request: Request) -> GraphBatch:
        random = np.random.default_rng([self.seed, *request.draw])
        positive = self.links[np.array(request.samples)].T.astype(np.int64)
        links = np.concatenate([positive, self.negatives.draw(positive, random)], axis=1)
        removed = self.graph.between(positive)
        if self.sampler is None:
            batch = self.graph.without(removed)
            batch.links = torch.from_numpy(links)
        else:
            batch = self.graph.around(removed, links, self.sampler, random)
        batch.y = (torch.arange(links.shape[1]) < positive.shape[1]).float()[:, None]
        refuse_dense(batch.finish(), request.readings)
        return prepare_all(batch, request.readings)


class LinkBatches(Batches):
    """Batches of links, each with a draw number that is unique in training, see `TrainingLinks`."""

    def request(self, graphs: np.ndarray, index: int, **fields: Any) -> Request:
        draw = ((self.epoch * len(self) + index) * self.world + self.rank,)
        return Request(tuple(graphs.tolist()), draw=draw, **fields)

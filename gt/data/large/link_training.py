"""Batches of links to learn, each with the graph as it would be if none of them were there."""

from typing import Any

import numpy as np
import torch

from gt.data.batch_sampler import Batches, Request
from gt.data.batching import BatchDataset, prepare_all, runs
from gt.data.large.negatives import Negatives
from gt.data.large.nodes import refuse_dense
from gt.data.large.sampling import Neighbours, Rows
from gt.graph import GraphBatch


class InputGraph:
    """The graph of a batch of one graph, from which edges can be taken out."""

    def __init__(self, batch: GraphBatch) -> None:
        self.batch = batch
        self.source, target = batch.edge_index.numpy()
        self.pointer = batch.rowptr.numpy()
        self.keys = self._key(self.source, target)  # ascending, as edges are sorted by (target, source)

    def _key(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        return target * np.int64(self.batch.num_nodes) + source

    def between(self, pairs: np.ndarray) -> np.ndarray:
        """Rows of every edge between the two nodes of some pair (2, K), in either direction; ascending."""
        key = np.unique(np.concatenate([self._key(*pairs), self._key(*pairs[::-1])]))
        low, high = (np.searchsorted(self.keys, key, side) for side in ("left", "right"))
        return runs(low, high - low)

    def without(self, gone: np.ndarray) -> GraphBatch:
        """The same graph without some rows of edges (ascending)."""
        kept = np.ones(len(self.keys), dtype=bool)
        kept[gone] = False
        keep, whole = torch.from_numpy(kept), self.batch
        return GraphBatch(
            ptr=whole.ptr,
            edge_index=whole.edge_index[:, keep],
            max_nodes=whole.max_nodes,
            x=whole.x,
            edge_attr=None if whole.edge_attr is None else whole.edge_attr[keep],
            extras=dict(whole.extras),
        )

    def around(
        self, gone: np.ndarray, links: np.ndarray, sampler: Neighbours, random: np.random.Generator
    ) -> GraphBatch:
        """Some of what the nodes of links (2, K) read in the graph without some rows; with the links as its own.

        The rows are gone before anything is drawn: a node whose link was drawn and then left out would show it by
        having an edge fewer than others.
        """
        roots, is_root = np.unique(links), np.zeros(self.batch.num_nodes, dtype=bool)
        is_root[roots] = True
        pointer = self.pointer - np.searchsorted(gone, self.pointer)
        sampler.rows = Rows(pointer, np.delete(self.source, gone), np.diff(pointer))  # edges go both ways
        sample = sampler.sample(roots, is_root, random)
        edges = sample.edges + np.searchsorted(gone - np.arange(len(gone)), sample.edges, side="right")
        rows, nodes, whole = torch.from_numpy(edges), torch.from_numpy(sample.nodes), self.batch
        return GraphBatch(
            ptr=torch.tensor([0, len(nodes)]),
            edge_index=torch.from_numpy(sample.ends),
            max_nodes=len(nodes),
            x=None if whole.x is None else whole.x[nodes],
            edge_attr=None if whole.edge_attr is None else whole.edge_attr[rows],
            links=torch.from_numpy(np.searchsorted(sample.nodes, links)),
            extras={name: values[nodes] for name, values in whole.extras.items()},
            memo=sample.memo,
        )


class TrainingLinks(BatchDataset):
    """Links to learn; a batch has the links of a request, and as many pairs that are none.

    Args:
        graph: what a model reads, the links to learn among its edges.
        links: (K, 2) nodes of each link.
        negatives: makes the pairs that are none.
        sampler: what is read around them; None the whole graph.
        seed: what all is drawn from, together with a request's ``draw``.
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
        gone = self.graph.between(positive)
        if self.sampler is None:
            batch = self.graph.without(gone)
            batch.links = torch.from_numpy(links)
        else:
            batch = self.graph.around(gone, links, self.sampler, random)
        batch.y = (torch.arange(links.shape[1]) < positive.shape[1]).float()[:, None]
        refuse_dense(batch.finish(), request.readings)
        return prepare_all(batch, request.readings)


class LinkBatches(Batches):
    """Batches of links, each drawn by a number that no other batch of the training has: see `TrainingLinks`."""

    def request(self, graphs: np.ndarray, place: int, **fields: Any) -> Request:
        draw = ((self.epoch * len(self) + place) * self.world + self.rank,)
        return Request(tuple(graphs.tolist()), draw=draw, **fields)

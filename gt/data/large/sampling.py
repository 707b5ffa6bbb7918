"""Samplers: which nodes and edges of a graph that is too large for one training step each step sees.

A sampler distributes the roots, the nodes whose targets count, over the steps of an epoch, and draws a subgraph around
the roots of each step. All code is vectorised; nothing loops over nodes or edges.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gt.data.arrays import read_array, write_array
from gt.data.batching import runs
from gt.data.files import Damaged, lock
from gt.data.large.clusters import clusters
from gt.data.store import fingerprint
from gt.data.store_folders import computed_folders
from gt.errors import UserError
from gt.graph import WHOLE_DEGREES


@dataclass(frozen=True)
class Adjacency:
    """The incoming edges of each node of a graph of N nodes and E edges, in compressed (CSR) form.

    Attributes:
        pointer: (N + 1,) int64; node i reads ``source[pointer[i]:pointer[i + 1]]``.
        source: (E,) integers, ascending within each node.
        readers: (N,) int64, the out-degree of each node.
    """

    pointer: np.ndarray
    source: np.ndarray
    readers: np.ndarray

    @property
    def nodes(self) -> int:
        return len(self.pointer) - 1

    @classmethod
    def of(cls, edge_index: np.ndarray, nodes: int) -> "Adjacency":
        """From (2, E) edges sorted by (target, source)."""
        pointer = np.zeros(nodes + 1, np.int64)
        np.cumsum(np.bincount(edge_index[1], minlength=nodes), out=pointer[1:])
        return cls(pointer, edge_index[0], np.bincount(edge_index[0], minlength=nodes))


@dataclass(frozen=True)
class Sample:
    """A subgraph of n nodes and m edges.

    Attributes:
        nodes: (n,) int64, indices of its nodes in the graph, ascending.
        edges: (m,) int64, indices of its edges in the graph, ascending.
        ends: (2, m) int64, source and target of each edge as positions in ``nodes``, sorted by (target, source).
        roots: (r,) int64, the positions in ``nodes`` of those whose targets count.
        degrees: (2, n) int64, in-degree and out-degree of each node in the graph, if the sample may lack some of its
            edges.
    """

    nodes: np.ndarray
    edges: np.ndarray
    ends: np.ndarray
    roots: np.ndarray
    degrees: np.ndarray | None = None

    @property
    def memo(self) -> dict[Hashable, Any]:
        """What a batch of the subgraph stores about the whole graph."""
        return {} if self.degrees is None else {WHOLE_DEGREES: torch.from_numpy(self.degrees)}


def choose(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(M, count) distinct numbers below each of the sizes (M,), which are at least ``count``, uniformly at random.

    Robert Floyd's algorithm (Bentley & Floyd 1987), vectorised over rows.
    """
    chosen = np.empty((len(sizes), count), np.int64)
    for step in range(count):
        last = sizes - count + step
        number = rng.integers(0, last + 1)
        taken = (chosen[:, :step] == number[:, None]).any(1)
        chosen[:, step] = np.where(taken, last, number)
    return chosen


def read_edges(adjacency: Adjacency, nodes: np.ndarray, fanout: int | None, rng: np.random.Generator) -> np.ndarray:
    """Indices of incoming edges of the given nodes: all, or at most ``fanout`` per node, drawn uniformly."""
    start = adjacency.pointer[nodes]
    degree = adjacency.pointer[nodes + 1] - start
    if fanout is None:
        return runs(start, degree)
    excess = degree > fanout
    drawn = start[excess, None] + choose(degree[excess], fanout, rng)
    return np.concatenate([runs(start[~excess], degree[~excess]), drawn.ravel()])


def subgraph(adjacency: Adjacency, inside: np.ndarray, edges: np.ndarray, roots: np.ndarray) -> Sample:
    """The subgraph of the nodes in the mask ``inside`` (N,) and of the given edges between them.

    Args:
        roots: indices in the graph of the nodes whose targets count.
    """
    nodes = np.flatnonzero(inside)
    position = np.empty(adjacency.nodes, np.int64)
    position[nodes] = np.arange(len(nodes))
    edges = np.sort(edges)  # by target, then by source, as in the graph
    target = np.searchsorted(adjacency.pointer, edges, side="right") - 1
    return Sample(nodes, edges, np.stack([position[adjacency.source[edges]], position[target]]), position[roots])


def induced(adjacency: Adjacency, nodes: np.ndarray, is_root: np.ndarray) -> Sample:
    """The induced subgraph of some nodes."""
    inside = np.zeros(adjacency.nodes, bool)
    inside[nodes] = True
    nodes = np.flatnonzero(inside)
    edges = runs(adjacency.pointer[nodes], adjacency.pointer[nodes + 1] - adjacency.pointer[nodes])
    return subgraph(adjacency, inside, edges[inside[adjacency.source[edges]]], nodes[is_root[nodes]])


def round_up(steps: int, world: int) -> int:
    """The next multiple of ``world``, so that every process takes the same number of steps."""
    return -(-steps // world) * world


class Sampler(ABC):
    """Base of samplers. Each of W processes takes every W-th step of an epoch; together they see every root once."""

    def open(self, adjacency: Adjacency, folder: Path) -> None:
        """Precompute what depends only on the graph, cached in ``folder``."""
        self.adjacency = adjacency

    @abstractmethod
    def steps(self, roots: int, world: int) -> int:
        """Number of steps of an epoch with that many roots over all ``world`` processes; a multiple of ``world``."""

    @abstractmethod
    def plan(self, roots: np.ndarray, world: int, rng: np.random.Generator) -> list[np.ndarray]:
        """The seed nodes of each step."""

    @abstractmethod
    def sample(self, nodes: np.ndarray, is_root: np.ndarray, rng: np.random.Generator) -> Sample | None:
        """The subgraph of a step; None for the whole graph with ``nodes`` as its roots.

        Args:
            nodes: the seed nodes, from `plan`.
            is_root: (N,) bool, mask of all roots.
        """


class Full(Sampler):
    """The whole graph in one step; each process has its share of the roots."""

    def steps(self, roots: int, world: int) -> int:
        return world

    def plan(self, roots: np.ndarray, world: int, rng: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(roots, world)

    def sample(self, nodes: np.ndarray, is_root: np.ndarray, rng: np.random.Generator) -> None:
        return None


class Neighbours(Sampler):
    """Neighbour sampling (GraphSAGE, Hamilton et al. 2017): roots, some of their neighbours, some of theirs, and so on.

    The subgraph holds only the drawn edges. The edges of a node are drawn once, when it is first reached. Layers that
    sum over neighbours estimate the full sum from the drawn ones, see `gt.sums.rescale_sampled`.

    Args:
        fanout: edges drawn for each root, for each node reached from those, ...; null takes all.
        roots: number of roots in a step.
    """

    def __init__(self, fanout: Sequence[int | None] = (10, 5), roots: int = 1024) -> None:
        if roots < 1 or not fanout or any(count is not None and count < 1 for count in fanout):
            raise UserError(f"neighbour sampling needs roots and fanouts of at least 1, not {roots} and {list(fanout)}")
        self.fanout, self.roots = tuple(fanout), roots

    def steps(self, roots: int, world: int) -> int:
        return round_up(-(-roots // self.roots), world)

    def plan(self, roots: np.ndarray, world: int, rng: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(rng.permutation(roots), self.steps(len(roots), world))

    def sample(self, nodes: np.ndarray, is_root: np.ndarray, rng: np.random.Generator) -> Sample:
        inside = np.zeros(self.adjacency.nodes, bool)
        inside[nodes] = True
        edges, frontier = [], nodes
        for fanout in self.fanout:
            edges.append(read_edges(self.adjacency, frontier, fanout, rng))
            frontier = np.unique(self.adjacency.source[edges[-1]]).astype(np.int64)
            frontier = frontier[~inside[frontier]]
            inside[frontier] = True
        drawn = subgraph(self.adjacency, inside, np.concatenate(edges), nodes)
        in_degree = self.adjacency.pointer[drawn.nodes + 1] - self.adjacency.pointer[drawn.nodes]
        return replace(drawn, degrees=np.stack([in_degree, self.adjacency.readers[drawn.nodes]]))


class Partition(Sampler):
    """A new random partition of all nodes in each epoch; a step sees one part and the edges within it.

    Args:
        parts: number of parts, rounded up to a multiple of the number of processes.
    """

    def __init__(self, parts: int = 16) -> None:
        if parts < 1:
            raise UserError(f"a partition needs at least 1 part, not {parts}")
        self.parts = parts

    def steps(self, roots: int, world: int) -> int:
        return round_up(self.parts, world)

    def plan(self, roots: np.ndarray, world: int, rng: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(rng.permutation(self.adjacency.nodes), self.steps(len(roots), world))

    def sample(self, nodes: np.ndarray, is_root: np.ndarray, rng: np.random.Generator) -> Sample:
        return induced(self.adjacency, nodes, is_root)


class Clusters(Sampler):
    """Cluster-GCN (Chiang et al. 2019), with `gt.data.large.clusters` instead of METIS.

    The graph is clustered once such that few edges cross clusters. A step sees a random set of clusters and all edges
    between their nodes.

    Args:
        parts: number of clusters.
        together: clusters in a step.
    """

    def __init__(self, parts: int = 256, together: int = 8) -> None:
        if not 1 <= together <= parts:
            raise UserError(f"clusters need 1 <= together <= parts, not together={together} and parts={parts}")
        self.parts, self.together = parts, together

    def open(self, adjacency: Adjacency, folder: Path) -> None:
        super().open(adjacency, folder)
        parts = min(self.parts, adjacency.nodes)
        name = f"clusters-{fingerprint({'parts': parts, 'version': 1})}"
        for root in computed_folders(folder):
            path = root / f"{name}.npy"
            with suppress(FileNotFoundError, Damaged):
                part = read_array(path)
                break
        else:
            with lock(path.with_suffix(".lock")):  # one process computes, the others wait
                part = _partition(adjacency, parts, path)
        self.order = np.argsort(part, kind="stable")  # the nodes of part p are order[first[p]:first[p + 1]]
        self.first = np.searchsorted(part[self.order], np.arange(parts + 1))

    def steps(self, roots: int, world: int) -> int:
        parts = len(self.first) - 1
        steps = round_up(-(-parts // self.together), world)
        if steps > parts:
            raise UserError(f"{parts} clusters are too few for {world} processes: raise data.sampler.parts")
        return steps

    def plan(self, roots: np.ndarray, world: int, rng: np.random.Generator) -> list[np.ndarray]:
        groups = np.array_split(rng.permutation(len(self.first) - 1), self.steps(len(roots), world))
        return [self.order[runs(self.first[g], self.first[g + 1] - self.first[g])] for g in groups]

    def sample(self, nodes: np.ndarray, is_root: np.ndarray, rng: np.random.Generator) -> Sample:
        return induced(self.adjacency, nodes, is_root)


def _partition(adjacency: Adjacency, parts: int, path: Path) -> np.ndarray:
    """The clusters, computed unless another process has done so meanwhile."""
    try:
        return read_array(path)
    except (FileNotFoundError, Damaged):
        write_array(path, clusters(adjacency.pointer, adjacency.source, parts))
    return read_array(path)

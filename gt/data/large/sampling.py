"""Subgraphs of one graph that is too large for a training step: which nodes and edges each step sees.

A sampler shares the roots, the nodes whose targets count, out among the steps of an epoch, and draws for each step a
subgraph around its share. All of it works on whole arrays; nothing loops over nodes or edges.
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
from gt.data.store_folders import beside
from gt.errors import UserError
from gt.graph import WHOLE_DEGREES


@dataclass(frozen=True)
class Rows:
    """A graph of N nodes and E edges by what each node reads.

    Attributes:
        pointer: (N + 1,) int64; node i reads ``source[pointer[i]:pointer[i + 1]]``.
        source: (E,) integers, ascending within each node.
        readers: (N,) int64, how many edges read each node.
    """

    pointer: np.ndarray
    source: np.ndarray
    readers: np.ndarray

    @property
    def nodes(self) -> int:
        return len(self.pointer) - 1

    @classmethod
    def of(cls, edge_index: np.ndarray, nodes: int) -> "Rows":
        """From (2, E) edges sorted by (target, source)."""
        pointer = np.zeros(nodes + 1, np.int64)
        np.cumsum(np.bincount(edge_index[1], minlength=nodes), out=pointer[1:])
        return cls(pointer, edge_index[0], np.bincount(edge_index[0], minlength=nodes))


@dataclass(frozen=True)
class Sample:
    """A subgraph of n nodes and m edges.

    Attributes:
        nodes: (n,) int64, their numbers in the graph, ascending.
        edges: (m,) int64, the rows of its edges among those of the graph, ascending.
        ends: (2, m) int64, source and target of each edge as places in ``nodes``; sorted by (target, source).
        roots: (r,) int64, the places in ``nodes`` of those whose targets count.
        degrees: (2, n) int64, edges that each node reads in the graph, and edges that read it, where nodes may have
            drawn some of them alone.
    """

    nodes: np.ndarray
    edges: np.ndarray
    ends: np.ndarray
    roots: np.ndarray
    degrees: np.ndarray | None = None

    @property
    def memo(self) -> dict[Hashable, Any]:
        """What a batch of the subgraph is to know of the graph."""
        return {} if self.degrees is None else {WHOLE_DEGREES: torch.from_numpy(self.degrees)}


def choose(sizes: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """(M, count) distinct numbers below each of the sizes (M,), which are at least ``count``; all choices alike.

    Robert Floyd's algorithm (Bentley & Floyd 1987), a step for all rows at once.
    """
    chosen = np.empty((len(sizes), count), np.int64)
    for step in range(count):
        last = sizes - count + step
        number = draw.integers(0, last + 1)
        drawn = (chosen[:, :step] == number[:, None]).any(1)
        chosen[:, step] = np.where(drawn, last, number)
    return chosen


def read_edges(rows: Rows, nodes: np.ndarray, most: int | None, draw: np.random.Generator) -> np.ndarray:
    """Rows of the edges that the given nodes read: all of a node's, or ``most`` distinct ones drawn alike."""
    start = rows.pointer[nodes]
    degree = rows.pointer[nodes + 1] - start
    if most is None:
        return runs(start, degree)
    many = degree > most
    drawn = start[many, None] + choose(degree[many], most, draw)
    return np.concatenate([runs(start[~many], degree[~many]), drawn.ravel()])


def subgraph(rows: Rows, inside: np.ndarray, edges: np.ndarray, roots: np.ndarray) -> Sample:
    """The subgraph of the nodes ``inside`` (N,) bool and the given edge rows, which are between them.

    Args:
        roots: numbers in the graph of those whose targets count.
    """
    nodes = np.flatnonzero(inside)
    place = np.empty(rows.nodes, np.int64)
    place[nodes] = np.arange(len(nodes))
    edges = np.sort(edges)  # by target, then by source, as are the graph's
    target = np.searchsorted(rows.pointer, edges, side="right") - 1
    return Sample(nodes, edges, np.stack([place[rows.source[edges]], place[target]]), place[roots])


def induced(rows: Rows, nodes: np.ndarray, is_root: np.ndarray) -> Sample:
    """Some nodes and every edge between them."""
    inside = np.zeros(rows.nodes, bool)
    inside[nodes] = True
    nodes = np.flatnonzero(inside)
    edges = runs(rows.pointer[nodes], rows.pointer[nodes + 1] - rows.pointer[nodes])
    return subgraph(rows, inside, edges[inside[rows.source[edges]]], nodes[is_root[nodes]])


def rounded(steps: int, world: int) -> int:
    """The next multiple of ``world``: every process takes equally many steps."""
    return -(-steps // world) * world


class Sampler(ABC):
    """Makes the steps of an epoch. Of W processes each takes every W-th step; together they see every root once."""

    def open(self, rows: Rows, folder: Path) -> None:
        """Make ready what depends on the graph alone, and keep it in ``folder``."""
        self.rows = rows

    @abstractmethod
    def steps(self, roots: int, world: int) -> int:
        """Steps of an epoch with so many roots, of all ``world`` processes: a multiple of these."""

    @abstractmethod
    def plan(self, roots: np.ndarray, world: int, draw: np.random.Generator) -> list[np.ndarray]:
        """The nodes that each step begins with."""

    @abstractmethod
    def sample(self, nodes: np.ndarray, is_root: np.ndarray, draw: np.random.Generator) -> Sample | None:
        """The subgraph of a step; None stands for the whole graph, whose roots are then ``nodes``.

        Args:
            nodes: what `plan` said.
            is_root: (N,) bool, every root.
        """


class Full(Sampler):
    """The whole graph in one step; of several processes each has its share of the roots."""

    def steps(self, roots: int, world: int) -> int:
        return world

    def plan(self, roots: np.ndarray, world: int, draw: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(roots, world)

    def sample(self, nodes: np.ndarray, is_root: np.ndarray, draw: np.random.Generator) -> None:
        return None


class Neighbours(Sampler):
    """A few roots, some of the nodes that they read, some that these read, and so on (GraphSAGE, Hamilton et al. 2017).

    The subgraph holds the edges that were drawn and no others. A node draws its edges once, when it is first met.
    Layers that add up what a node reads take its draws for all of it, see `gt.sums.estimated`.

    Args:
        fanout: edges drawn for each root, for each node met then, ...; null takes all that there are.
        roots: in a step.
    """

    def __init__(self, fanout: Sequence[int | None] = (10, 5), roots: int = 1024) -> None:
        if roots < 1 or not fanout or any(most is not None and most < 1 for most in fanout):
            raise UserError(f"sampling neighbours needs roots and fanouts of 1 or more, not {roots} and {list(fanout)}")
        self.fanout, self.roots = tuple(fanout), roots

    def steps(self, roots: int, world: int) -> int:
        return rounded(-(-roots // self.roots), world)

    def plan(self, roots: np.ndarray, world: int, draw: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(draw.permutation(roots), self.steps(len(roots), world))

    def sample(self, nodes: np.ndarray, is_root: np.ndarray, draw: np.random.Generator) -> Sample:
        inside = np.zeros(self.rows.nodes, bool)
        inside[nodes] = True
        edges, met = [], nodes
        for most in self.fanout:
            edges.append(read_edges(self.rows, met, most, draw))
            met = np.unique(self.rows.source[edges[-1]]).astype(np.int64)
            met = met[~inside[met]]
            inside[met] = True
        drawn = subgraph(self.rows, inside, np.concatenate(edges), nodes)
        reads = self.rows.pointer[drawn.nodes + 1] - self.rows.pointer[drawn.nodes]
        return replace(drawn, degrees=np.stack([reads, self.rows.readers[drawn.nodes]]))


class Partition(Sampler):
    """All nodes dealt out at random, anew each epoch; a step sees one part and the edges within it.

    Args:
        parts: rounded up to a multiple of the processes.
    """

    def __init__(self, parts: int = 16) -> None:
        if parts < 1:
            raise UserError(f"a partition needs 1 part or more, not {parts}")
        self.parts = parts

    def steps(self, roots: int, world: int) -> int:
        return rounded(self.parts, world)

    def plan(self, roots: np.ndarray, world: int, draw: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(draw.permutation(self.rows.nodes), self.steps(len(roots), world))

    def sample(self, nodes: np.ndarray, is_root: np.ndarray, draw: np.random.Generator) -> Sample:
        return induced(self.rows, nodes, is_root)


class Clusters(Sampler):
    """Clusters that few edges leave, found once; a step sees some of them, drawn at random, and all edges among these.

    Chiang et al. 2019 (Cluster-GCN), with `gt.data.large.clusters` in the place of METIS.

    Args:
        parts: number of clusters.
        together: clusters in a step.
    """

    def __init__(self, parts: int = 256, together: int = 8) -> None:
        if not 1 <= together <= parts:
            raise UserError(f"clusters need 1 <= together <= parts, not together={together} and parts={parts}")
        self.parts, self.together = parts, together

    def open(self, rows: Rows, folder: Path) -> None:
        super().open(rows, folder)
        parts = min(self.parts, rows.nodes)
        name = f"clusters-{fingerprint({'parts': parts, 'version': 1})}"
        for place in beside(folder):
            path = place / f"{name}.npy"
            with suppress(FileNotFoundError, Damaged):
                part = read_array(path)
                break
        else:
            with lock(path.with_suffix(".lock")):  # of several processes one computes, and the others wait
                part = _partition(rows, parts, path)
        self.order = np.argsort(part, kind="stable")  # the nodes of part p: order[first[p]:first[p + 1]]
        self.first = np.searchsorted(part[self.order], np.arange(parts + 1))

    def steps(self, roots: int, world: int) -> int:
        parts = len(self.first) - 1
        steps = rounded(-(-parts // self.together), world)
        if steps > parts:
            raise UserError(f"{parts} clusters are too few for {world} processes: raise data.sampler.parts")
        return steps

    def plan(self, roots: np.ndarray, world: int, draw: np.random.Generator) -> list[np.ndarray]:
        groups = np.array_split(draw.permutation(len(self.first) - 1), self.steps(len(roots), world))
        return [self.order[runs(self.first[g], self.first[g + 1] - self.first[g])] for g in groups]

    def sample(self, nodes: np.ndarray, is_root: np.ndarray, draw: np.random.Generator) -> Sample:
        return induced(self.rows, nodes, is_root)


def _partition(rows: Rows, parts: int, path: Path) -> np.ndarray:
    """Clusters, computed unless another process did so while this one waited."""
    try:
        return read_array(path)
    except (FileNotFoundError, Damaged):
        write_array(path, clusters(rows.pointer, rows.source, parts))
    return read_array(path)

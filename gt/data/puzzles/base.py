"""The base class of puzzles: random graphs of equal size with targets at some of their nodes."""

from abc import abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gt.data.packed import Graphs, pointers
from gt.data.source import Source
from gt.ranges import at_least
from gt.schema import UNLABELLED, Schema

VERSION = 1  # raise when the same settings would give different graphs


@dataclass
class Samples:
    """G graphs of n nodes and e edges each.

    Attributes:
        x: (G, n, columns) integers.
        y: (G, n) the class of each node, `UNLABELLED` for nodes without a target.
        edges: (2, e), the same for all graphs, or (G, 2, e); row 0 is the source, row 1 the target.
        edge_attr: (e,) the kind of each edge, or None.
    """

    x: np.ndarray
    y: np.ndarray
    edges: np.ndarray
    edge_attr: np.ndarray | None = None


@dataclass(kw_only=True, eq=False)
class Puzzle(Source):
    """Independent random graphs for each split; puzzles with one target per graph have balanced classes.

    Args:
        train, valid, test: number of graphs in each split.
        sample_seed: seed of the graphs.
        root: the folder of the built stores.
    """

    train: int = 4000
    valid: int = 500
    test: int = 1000
    sample_seed: int = 0
    root: Path = Path("data")

    columns: ClassVar[tuple[str, ...]]  # names of the columns of x
    target_name: ClassVar[str]  # a description of the classes

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        at_least(0, self.sample_seed, "sample_seed")
        for split in ("train", "valid", "test"):
            at_least(1, getattr(self, split), split)

    @property
    @abstractmethod
    def vocab(self) -> tuple[int, ...]:
        """Number of distinct values of each column of x."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """Number of classes."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        """Draw ``count`` graphs with their targets."""

    def key(self) -> dict[str, Any]:
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "root"}
        return {"puzzle": self.name, "version": VERSION, **settings}

    def build(self) -> Graphs:
        rng, counts = np.random.default_rng(self.sample_seed), (self.train, self.valid, self.test)
        parts = [self.draw(rng, count) for count in counts]
        total, size = sum(counts), parts[0].x.shape[1]
        ends = [np.broadcast_to(part.edges, (len(part.x), 2, part.edges.shape[-1])) for part in parts]
        edges, kinds = np.concatenate(ends), parts[0].edge_attr
        bounds = np.cumsum([0, *counts])
        return Graphs(
            node_ptr=pointers(np.full(total, size)),
            edge_ptr=pointers(np.full(total, edges.shape[2])),
            edge_index=edges.transpose(1, 0, 2).reshape(2, -1),
            nodes={
                "x": np.concatenate([part.x for part in parts]).reshape(total * size, -1),
                "y": np.concatenate([part.y for part in parts]).ravel(),
            },
            edges={} if kinds is None else {"edge_attr": np.tile(kinds, total)[:, None]},
            splits={name: np.arange(bounds[i], bounds[i + 1]) for i, name in enumerate(("train", "valid", "test"))},
            schema=Schema(
                node_vocab=self.vocab,
                node_names=self.columns,
                edge_vocab=() if kinds is None else (int(kinds.max()) + 1,),
                level="node",
                kind="multiclass",
                outputs=self.classes,
                target=(self.target_name,),
                max_nodes=size,
            ),
        ).sort_edges()


def balanced(rng: np.random.Generator, count: int, classes: int) -> np.ndarray:
    """(count,) classes in random order, with frequencies that differ by at most one."""
    return rng.permutation(np.arange(count) % classes)


def label_at(node: np.ndarray, label: np.ndarray, size: int) -> np.ndarray:
    """(G, size) targets: in each graph, only one node (G,) has a label (G,)."""
    y = np.full((len(label), size), UNLABELLED)
    y[np.arange(len(label)), node] = label
    return y


def add_reverses(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(..., 2, 2 e) edges (..., e) and their reverses."""
    return np.stack([np.concatenate([source, target], -1), np.concatenate([target, source], -1)], -2)

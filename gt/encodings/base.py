"""What an encoding is: structure or position as features, where a mask is a rule."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from torch import Tensor, nn

from gt.errors import UserError
from gt.graph import GraphBatch
from gt.masks import Pairs
from gt.schema import Schema

Progress = Callable[[Sequence[Any]], Iterable[Any]]  # such as rich.progress.track; plain iteration is `iter`


class PackedGraphs(Protocol):
    """What an encoding reads of a dataset: G graphs, N nodes and E edges in flat arrays, as `gt.data.packed.Graphs`.

    Attributes:
        node_ptr, edge_ptr: (G + 1,) int64; graph g owns nodes ``node_ptr[g]:node_ptr[g + 1]``, and so its edges.
        edge_index: (2, E) integers, row 0 the source and row 1 the target, numbered from 0 within each graph.
        sizes: (G,) nodes of each graph.
    """

    node_ptr: np.ndarray
    edge_ptr: np.ndarray
    edge_index: np.ndarray

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> np.ndarray: ...


class Encoding(nn.Module):
    """What is computed once for a dataset, and what a model makes of it; a subclass defines what it needs of either.

    The constructor takes the options, and nothing more is needed to prepare data. A model trains a copy of its own,
    `module`, to which `build` has given parameters.

    Attributes:
        arrays: names of the arrays that `compute` returns; a batch carries each in its ``extras``.
        writes: the streams that it gives features to: ``"x"`` by `nodes`, ``"e"`` by `edges`, ``"p"`` by `pairs`.
        concat: channels of the node embedding that it fills: the model's own is then narrower by as many and what
            `nodes` gives is concatenated to it. 0: it is as wide as the model and added.
        rotates: whether attention is to turn queries and keys by `rotate`.
        reads: what the features of a node go by: ``"position"``, the place of the node within its graph alone, or
            ``"graph"``, anything.
        longest: nodes of the largest graph that it serves; None serves any.
        arguments: of the constructor, where `prepare` has something to do in the loader: they make it anew there.
    """

    arrays: ClassVar[tuple[str, ...]] = ()
    writes: tuple[str, ...] = ("x",)
    concat = 0
    rotates = False
    reads = "graph"
    longest: int | None = None
    arguments: tuple[Any, ...] | None = None

    def key(self) -> dict[str, Any] | None:
        """The (JSON-able) facts that `compute` depends on, see `gt.keys.full_key`; None: nothing is precomputed."""
        return None

    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        """Arrays (N, K) float32 with a row for every node of the dataset; 16 bits of each number are kept.

        Args:
            graphs: the whole dataset.
            progress: wraps a sequence of the parts that are worked on, to show how far it is.
        """
        return {}

    def module(self, width: int, schema: Schema) -> Self:
        """A copy with parameters of its own, for a model ``width`` channels wide on data that ``schema`` describes."""
        module = copy.deepcopy(self)
        module.build(width, schema)
        return module

    def build(self, width: int, schema: Schema) -> None:
        """Make the parameters."""

    def nodes(self, batch: GraphBatch) -> Tensor:
        """(N, concat) to concatenate, or (N, d) to add where ``concat`` is 0."""
        raise NotImplementedError

    def edges(self, batch: GraphBatch) -> Tensor:
        """(E, d) to add to the edges' embedding."""
        raise NotImplementedError

    def pairs(self, pairs: Pairs) -> Tensor:
        """(P, d), the first state of each pair, in the order of ``pairs.edges``."""
        raise NotImplementedError

    def prepare(self, pairs: Pairs) -> None:
        """Work out what `pairs` will ask of them that no parameter decides, kept by them or by their batch.

        It is done on the CPU, in the loader, where a device would have to be waited for.
        """

    def rotate(self, q: Tensor, k: Tensor, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """Queries and keys (N, H, D) of an attention layer, changed by position."""
        raise NotImplementedError


@dataclass(frozen=True)
class Preparation:
    """Has an encoding ``kind(*arguments)`` prepare pairs: a value that other processes and sets take."""

    kind: type[Encoding]
    arguments: tuple[Any, ...]

    def __call__(self, pairs: Pairs) -> None:
        self.kind(*self.arguments).prepare(pairs)


def precomputed(batch: GraphBatch, name: str) -> Tensor:
    """The (N, K) array ``name`` that data preparation added.

    Raises:
        UserError: the batch was made without it.
    """
    if name not in batch.extras:
        raise UserError(f"batches carry no '{name}': prepare the data with the same encodings as the model")
    return batch.extras[name]

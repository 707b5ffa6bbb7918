"""The interface of an encoding: structure or position as features, as opposed to the rule of a mask."""

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
    """The dataset as an encoding reads it: G graphs, N nodes, E edges in flat arrays, see `gt.data.packed.Graphs`.

    Attributes:
        node_ptr, edge_ptr: (G + 1,) int64; graph g owns nodes ``node_ptr[g]:node_ptr[g + 1]``, edges likewise.
        edge_index: (2, E) integers, row 0 the source and row 1 the target, numbered from 0 within each graph.
        sizes: (G,) number of nodes of each graph.
    """

    node_ptr: np.ndarray
    edge_ptr: np.ndarray
    edge_index: np.ndarray

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> np.ndarray: ...


class Encoding(nn.Module):
    """Arrays precomputed once for a dataset, and the module that embeds them; a subclass defines either or both.

    The constructor takes the options, which suffice to prepare data. A model trains its own copy, `module`, whose
    parameters `build` creates.

    Attributes:
        arrays: names of the arrays that `compute` returns; a batch carries each in its ``extras``.
        writes: the streams that it adds features to: ``"x"`` by `nodes`, ``"e"`` by `edges`, ``"p"`` by `pairs`.
        concat: channels of the node embedding that it fills: the output of `nodes` is concatenated to the model's
            embedding, which is narrower by that many channels. 0: as wide as the model, and added.
        rotates: whether attention applies `rotate` to queries and keys.
        reads: what the features of a node depend on: ``"position"``, only its position within the graph, or
            ``"graph"``, anything.
        longest: maximum number of nodes of a graph; None for no limit.
        arguments: constructor arguments with which the loader recreates the encoding to run `prepare`; None if there is
            nothing to prepare.
    """

    arrays: ClassVar[tuple[str, ...]] = ()
    writes: tuple[str, ...] = ("x",)
    concat = 0
    rotates = False
    reads = "graph"
    longest: int | None = None
    arguments: tuple[Any, ...] | None = None

    def key(self) -> dict[str, Any] | None:
        """What the result of `compute` depends on (JSON-able), see `gt.keys.full_key`; None: nothing is precomputed."""
        return None

    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        """Arrays (N, K) float32 with a row for every node of the dataset; they are stored in 16 bits.

        Args:
            graphs: the whole dataset.
            progress: wraps a sequence of work items to show progress.
        """
        return {}

    def module(self, width: int, schema: Schema) -> Self:
        """A copy with its own parameters, for a model ``width`` channels wide on data that ``schema`` describes."""
        module = copy.deepcopy(self)
        module.build(width, schema)
        return module

    def build(self, width: int, schema: Schema) -> None:
        """Create the parameters."""

    def nodes(self, batch: GraphBatch) -> Tensor:
        """(N, concat) to concatenate, or (N, d) to add where ``concat`` is 0."""
        raise NotImplementedError

    def edges(self, batch: GraphBatch) -> Tensor:
        """(E, d) to add to the edge embedding."""
        raise NotImplementedError

    def pairs(self, pairs: Pairs) -> Tensor:
        """(P, d), the initial state of each pair, in the order of ``pairs.edges``."""
        raise NotImplementedError

    def prepare(self, pairs: Pairs) -> None:
        """Precompute what `pairs` needs independently of parameters, cached in the pairs or their batch.

        It runs on the CPU, in the loader, which avoids synchronisation with a device.
        """

    def rotate(self, q: Tensor, k: Tensor, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """Queries and keys (N, H, D) of an attention layer, rotated by position."""
        raise NotImplementedError


@dataclass(frozen=True)
class Preparation:
    """Makes an encoding ``kind(*arguments)`` prepare pairs; hashable and picklable."""

    kind: type[Encoding]
    arguments: tuple[Any, ...]

    def __call__(self, pairs: Pairs) -> None:
        self.kind(*self.arguments).prepare(pairs)


def precomputed(batch: GraphBatch, name: str) -> Tensor:
    """The precomputed array ``name`` (N, K) of a batch.

    Raises:
        UserError: the batch does not have it.
    """
    if name not in batch.extras:
        raise UserError(f"batches do not contain '{name}': prepare the data with the same encodings as the model")
    return batch.extras[name]

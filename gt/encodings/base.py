"""What an encoding is: a soft hint of structure, given to a model beside the mask, which is a hard one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from gt.errors import UserError
from gt.graph import GraphBatch
from gt.schema import Schema

Progress = Callable[[Sequence[Any]], Iterable[Any]]  # such as rich.progress.track; plain iteration is `iter`


class PackedGraphs(Protocol):
    """What an encoding reads of a dataset: G graphs, N nodes and E edges in flat arrays, as `gt.data.store.Graphs`.

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


class Encoding(ABC):
    """Options of an encoding: a frozen dataclass that data preparation and the model read alike.

    Data preparation stores what `compute` returns, once per dataset; the model holds what `module` returns. One that
    needs nothing precomputed defines `module` alone.

    Attributes:
        arrays: names of the arrays that `compute` returns; a batch carries each in its ``extras``.
    """

    arrays: ClassVar[tuple[str, ...]] = ()

    def key(self) -> dict[str, Any] | None:
        """The (JSON-able) facts that `compute` depends on, or None where nothing is precomputed."""
        return None

    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        """Arrays (N, K) float32 with a row for every node of the dataset; 16 bits of each number are kept.

        Args:
            graphs: the whole dataset.
            progress: wraps a sequence of the parts that are worked on, to show how far it is.
        """
        return {}

    @abstractmethod
    def module(self, width: int, schema: Schema) -> "EncodingModule":
        """The trainable half, for a model ``width`` channels wide on data that ``schema`` describes."""


class EncodingModule(nn.Module):
    """The trainable half of an encoding. It may act at either of two places; by default it acts at none.

    Args:
        width: channels d of the model.
        concat: channels of the node embedding that this encoding fills: the model's own embedding is then narrower
            by as many and the output of `nodes` is concatenated to it. 0: the output is (N, d) and is added.

    Attributes:
        longest: nodes of the largest graph that it serves; None serves any.
    """

    longest: int | None = None

    def __init__(self, width: int, concat: int = 0) -> None:
        super().__init__()
        self.width, self.concat = width, concat

    def nodes(self, batch: GraphBatch) -> Tensor | None:
        """(N, concat) to concatenate, (N, d) to add where ``concat`` is 0, or None."""
        return None

    def rotate(self, q: Tensor, k: Tensor, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """Queries and keys (N, H, D) of an attention layer, changed by position."""
        return q, k


def precomputed(batch: GraphBatch, name: str) -> Tensor:
    """The (N, K) array ``name`` that data preparation added.

    Raises:
        UserError: the batch was made without it.
    """
    if name not in batch.extras:
        raise UserError(f"batches carry no '{name}': prepare the data with the same encodings as the model")
    return batch.extras[name]

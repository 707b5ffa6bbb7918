"""A control for encodings: does a model use the information of an encoding, or merely its presence?"""

from typing import Any

import numpy as np
from torch import Tensor

from gt.encodings.base import Encoding, PackedGraphs, Progress
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.keys import full_key
from gt.schema import Schema


class Shuffled(Encoding):
    """Another encoding with its rows permuted at random within each graph, once for a dataset.

    The parameters are those of the other encoding, under ``encoding``.

    Args:
        encoding: one that adds precomputed features to nodes.
        seed: of the permutation.
    """

    def __init__(self, encoding: Encoding, seed: int = 0) -> None:
        super().__init__()
        if encoding.key() is None or encoding.writes != ("x",):
            raise UserError(f"{type(encoding).__name__} has no precomputed node features to shuffle")
        self.encoding, self.seed = encoding, seed
        self.arrays, self.concat = encoding.arrays, encoding.concat  # type: ignore[misc]

    def key(self) -> dict[str, Any]:
        return {"name": "shuffled", "version": 1, "seed": self.seed, "of": full_key(self.encoding)}

    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        graph = np.repeat(np.arange(len(graphs)), graphs.sizes)
        order = np.lexsort((np.random.default_rng(self.seed).random(len(graph)), graph))
        return {name: rows[order] for name, rows in self.encoding.compute(graphs, progress).items()}

    def build(self, width: int, schema: Schema) -> None:
        self.encoding.build(width, schema)

    def nodes(self, batch: GraphBatch) -> Tensor:
        return self.encoding.nodes(batch)

"""Relative random-walk probabilities as features of nodes, edges and pairs.

triangle 0-1-2 with a tail 2-3:  a walker from 3 is at 2 after 1 step, and at 0, 1 or 3 with 1/3 each after 2 steps
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gt.attention.sparse import full_precision
from gt.encodings.base import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.linear import Linear
from gt.masks import Pairs
from gt.schema import Schema

MAX_ELEMENTS = 1 << 30  # of the matrices of a batch: 4 GB


class RelativeWalks(Encoding):
    """RRWP: row (i, j) of I, M, ..., M^(steps - 1), M = D^-1 A, mapped linearly (Ma et al. 2023, GRIT).

    The walker moves from readers to sources: from i along any edge j -> i to j, with probability 1 / (in-degree of i).
    A node gets the row (i, i), an edge j -> i and a pair of the mask the row (i, j). The dense matrices are computed
    for each batch, on its device, for graphs of up to a few thousand nodes; nothing is stored.

    Args:
        steps: number of matrices, the first of which is the identity.
        writes: the streams that get features, of nodes ``x``, edges ``e`` and pairs ``p``; pairs need attention that
            reads them (``edges: true``).

    Raises:
        UserError: a batch whose matrices would take more than 4 GB.
    """

    def __init__(self, steps: int = 8, writes: Sequence[str] = ("x", "e")) -> None:
        super().__init__()
        if steps < 1:
            raise UserError(f"relative walks need steps of 1 or more, not {steps}")
        if unknown := set(writes) - {"x", "e", "p"}:
            raise UserError(f"relative walks cannot write stream '{min(unknown)}': choose from x, e and p")
        self.steps, self.writes = steps, tuple(writes)

    def build(self, width: int, schema: Schema) -> None:
        self.maps = nn.ModuleDict({stream: Linear(self.steps, width, bias=False) for stream in self.writes})

    def powers(self, batch: GraphBatch) -> Tensor:
        """(B L L, steps), for reader i and source j in row (b L + i) L + j; computed once per batch."""

        def make() -> Tensor:
            graphs, size = batch.num_graphs, batch.max_nodes
            if graphs * size**2 * self.steps > MAX_ELEMENTS:
                raise UserError(
                    f"relative walks of {self.steps} steps on {graphs:,} graphs of up to {size:,} nodes are too large: "
                    "choose another encoding, such as encoding=rwse"
                )
            source, target = batch.edge_index
            entry = batch.slot[target] * size + batch.position[source]
            walk = torch.zeros(graphs * size * size, device=batch.device)
            walk = walk.index_add(0, entry, 1 / batch.in_degree[target].float()).view(graphs, size, size)
            power, powers = torch.eye(size, device=batch.device).expand(graphs, -1, -1), []
            with full_precision(batch.device):  # 16-bit rounding errors would grow with each step
                for _ in range(self.steps):
                    powers.append(power.flatten())
                    power = power @ walk
            return torch.stack(powers, dim=1)

        return batch.cached(("relative walks", self.steps), make)

    def features(self, stream: str, batch: GraphBatch, entry: Tensor) -> Tensor:
        """(rows, d) features from the given entries (rows,) of the flattened matrices."""
        linear: Any = self.maps[stream]
        return linear(self.powers(batch).index_select(0, entry).to(linear.weight.dtype))

    def nodes(self, batch: GraphBatch) -> Tensor:
        return self.features("x", batch, batch.slot * batch.max_nodes + batch.position)

    def edges(self, batch: GraphBatch) -> Tensor:
        source, target = batch.edge_index
        return self.features("e", batch, batch.slot[target] * batch.max_nodes + batch.position[source])

    def pairs(self, pairs: Pairs) -> Tensor:
        return self.features("p", pairs.batch, pairs.dense_entry)

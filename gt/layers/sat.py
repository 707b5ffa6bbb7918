"""SAT: attention whose queries and keys encode the structure around a node (Chen et al. 2022)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gt.graph import GraphBatch
from gt.layers.attention import Attention
from gt.layers.base import State
from gt.linear import Linear, linear
from gt.norms import apply_norm
from gt.ranges import at_least


class StructureAwareAttention(Attention):
    """Attention with queries and keys from a GNN around each node (k-subtrees), and values from the node alone.

    The GNN applies a convolution and ReLU for each hop; the outputs of all hops are concatenated, normalised and
    projected back to the width.

    Args:
        width: channels of a node.
        local: builds one convolution from the width, see `gt.layers.local`.
        hops: number of convolutions.
        heads, dropout, bias, backend: as in `Attention`.
    """

    reads, cost = "graph", "N^2 + E"  # less under a sparse mask

    def __init__(
        self,
        width: int,
        local: Callable[[int], nn.Module],
        hops: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        bias: bool = True,
        backend: str = "auto",
    ) -> None:
        at_least(0, hops, "hops")
        super().__init__(width, heads, dropout, bias, backend)
        self.local: Any = nn.ModuleList(local(width) for _ in range(hops))
        self.norm = nn.BatchNorm1d((hops + 1) * width)
        self.merge = Linear((hops + 1) * width, width)
        self.reads_edges = any(getattr(layer, "reads_edges", True) for layer in self.local)

    def structure(self, state: State, batch: GraphBatch) -> Tensor:
        """(N, width), the structure around each node."""
        rows = [state.x]
        for layer in self.local:
            rows.append(layer(State(rows[-1], state.e), batch, None)["x"].relu())
        return self.merge(apply_norm(self.norm, torch.cat(rows, dim=1), batch))

    def project(self, state: State, batch: GraphBatch) -> Tensor:
        width, bias = 2 * state.x.shape[1], self.project_in.bias
        rows = self.structure(state, batch), state.x
        weights = self.project_in.weight.tensor_split([width])
        biases = (None, None) if bias is None else bias.tensor_split([width])
        return torch.cat([linear(*args) for args in zip(rows, weights, biases, strict=True)], dim=1)

"""Recurrent layers over the ordered nodes of each graph: predecessors and rivals of the Transformer."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.layers.linear import causal_linear_attention, from_sequences, to_sequences
from gt.linear import Linear
from gt.masks import Pairs
from gt.norms import RMSNorm
from gt.ranges import at_least


def has_no_nodes(batch: GraphBatch) -> bool:
    """Whether all graphs are empty, which PyTorch's sequence layers reject."""
    return not torch.compiler.is_compiling() and batch.num_nodes == 0


class Recurrent(Layer):
    """LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014): a node reads those before it in its graph.

    Args:
        width: channels of a node.
        rnn: builds a PyTorch layer from its input and hidden width, with ``batch_first=True``.
        bidirectional: concatenate a second one that runs from the end of each graph; each is half as wide.

    Raises:
        ValueError: an odd width for two directions.
    """

    reads, reads_edges, reads_pairs, reads_mask, positions = "graph", False, False, False, True
    cost = "N"
    carried: list[Any] | None = None

    def __init__(self, width: int, rnn: Callable[..., nn.Module] = nn.LSTM, bidirectional: bool = False) -> None:
        super().__init__()
        if bidirectional and width % 2:
            raise ValueError(f"bidirectional: the width must be even, not {width}")
        inner = width // (1 + bidirectional)
        self.forwards = rnn(width, inner, batch_first=True)
        self.backwards = rnn(width, inner, batch_first=True) if bidirectional else None

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        if has_no_nodes(batch):
            return {"x": state.x}
        growing = self.carried is not None
        # padding comes last and is never read, so sequence lengths need not be copied to the host
        rows = to_sequences(batch, state.x, growing)
        out, after = self.forwards(rows, self.carried[0] if self.carried else None)
        if self.carried is not None:
            self.carried[:] = [after]
        out = from_sequences(batch, out, growing)
        if self.backwards is not None:
            last = batch.ptr[1:].index_select(0, batch.batch) - 1
            mirrored = last - batch.position  # (N,) the node at the mirrored position of its graph
            reverse, _ = self.backwards(batch.to_dense(state.x.index_select(0, mirrored)))
            out = torch.cat([out, batch.to_packed(reverse).index_select(0, mirrored)], dim=1)
        return {"x": out}


class Mamba2(Layer):
    """A selective state-space layer (Mamba-2, Dao & Gu 2024) over the nodes of each graph, in their order.

    ``h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t``, ``y_t = C_t h_t + D x_t``, where dt, B and C depend on the node;
    preceded by a causal convolution, followed by a gate and an RMS norm.

    Args:
        width: channels of a node.
        heads: number of heads, each with its own decay; must divide the inner width.
        states: size of the state of each channel.
        expand: the inner width as a multiple of the width.
        kernel: kernel size of the convolution, the node itself included.
        eps: of the norm.
    """

    reads, reads_edges, reads_pairs, reads_mask, positions = "graph", False, False, False, True
    cost = "N"
    carried: list[Any] | None = None

    def __init__(
        self, width: int, heads: int = 4, states: int = 16, expand: int = 2, kernel: int = 4, eps: float = 1e-5
    ) -> None:
        super().__init__()
        for name, value in (("heads", heads), ("states", states), ("expand", expand), ("kernel", kernel)):
            at_least(1, value, name)
        inner = expand * width
        if inner % heads:
            raise ValueError(f"{heads} heads do not divide an inner width of {inner}")
        self.heads, self.sizes, self.kernel = heads, [inner, states, states], kernel
        mixed = sum(self.sizes)
        self.project_in = Linear(width, inner + mixed + heads, bias=False)
        self.convolution = nn.Conv1d(mixed, mixed, kernel, groups=mixed)
        self.log_rate = nn.Parameter(torch.arange(1, heads + 1).log())  # A = -exp(log_rate)
        step = torch.empty(heads).uniform_(math.log(1e-3), math.log(0.1)).exp()
        self.step_bias = nn.Parameter(step + (-torch.expm1(-step)).log())  # softplus(step_bias) = step
        self.skip = nn.Parameter(torch.ones(heads))
        self.norm = RMSNorm(inner, eps=eps)
        self.project_out = Linear(inner, width, bias=False)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        if has_no_nodes(batch):
            return {"x": state.x}
        growing, (tail, before) = self.carried is not None, self.carried or (None, None)
        gate, mixed, step = self.project_in(state.x).split([self.sizes[0], sum(self.sizes), self.heads], dim=1)
        rows = to_sequences(batch, mixed, growing).transpose(1, 2)  # (B, C, L)
        rows = F.pad(rows, (self.kernel - 1, 0)) if tail is None else torch.cat([tail, rows], dim=2)
        mixed = from_sequences(batch, F.silu(self.convolution(rows)).transpose(1, 2), growing)
        x, b, c = mixed.split(self.sizes, dim=1)
        high = torch.promote_types(x.dtype, torch.float32)  # the state is a sum over all earlier nodes
        x = x.unflatten(1, (self.heads, -1)).to(high)
        step = F.softplus(step.to(high) + self.step_bias)  # (N, H)
        decay = step * -self.log_rate.to(high).exp()
        k, q = (t[:, None].expand(-1, self.heads, -1).to(high) for t in (b, c))
        q, k, v, decay = (to_sequences(batch, t, growing) for t in (q, k, x * step[..., None], decay))
        y, after = causal_linear_attention(q, k, v, decay, before)
        y = (from_sequences(batch, y, growing) + x * self.skip[:, None]).flatten(1).type_as(gate)
        if self.carried is not None:
            self.carried[:] = [rows[:, :, rows.shape[2] - self.kernel + 1 :], after]
        return {"x": self.project_out(self.norm(y * F.silu(gate)))}

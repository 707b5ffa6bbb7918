"""Branches from outside the package that read more than edges or a mask tell, and do not say so."""

import torch
from torch import nn
from torch.nn import functional as F

from gt.layers import Attention, FeedForward


class LinearAttention(nn.Module):
    """Causal attention without a softmax (Katharopoulos et al. 2020): each node reads the nodes before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 3 * width)

    def forward(self, state, batch, pairs):
        x, graph = state.x, batch.batch
        q, k, v = self.project(x).chunk(3, dim=1)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        seen = (q @ k.T) * (graph[:, None] == graph) * torch.ones(len(x), len(x), dtype=x.dtype).tril()
        return {"x": seen @ v / (seen.sum(1, keepdim=True) + 1e-6)}


class Recurrent(nn.Module):
    """A GRU over the nodes of each graph, in order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, state, batch, pairs):
        return {"x": batch.to_packed(self.gru(batch.to_dense(state.x))[0])}


class Parted(Recurrent):
    """The same, with names of its own that a block of this package has too."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.parts, self.steps = nn.ModuleList([FeedForward(width)]), 3


class Derived(Attention):
    """This package's attention with a forward that reads the nodes before each, whatever the mask allows."""

    def __init__(self, width: int) -> None:
        super().__init__(width, heads=2)

    def forward(self, state, batch, pairs):
        q, k, v = (part.flatten(1) for part in self.queries_keys_values(state, batch))
        same = batch.batch[:, None] == batch.batch
        seen = (q @ k.T) * same * torch.ones(len(q), len(q), dtype=q.dtype).tril()
        return {"x": self.project_out(seen @ v / 10)}


class Uncached(Derived):
    """The same, which says that it keeps to the mask; it knows nothing of a cache."""

    reads = "pairs"
    forward = Derived.forward

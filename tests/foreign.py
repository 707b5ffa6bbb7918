"""Third-party branches that read more nodes than the edges or the mask allow, without declaring it."""

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
        weights = (q @ k.T) * (graph[:, None] == graph) * torch.ones(len(x), len(x), dtype=x.dtype).tril()
        return {"x": weights @ v / (weights.sum(1, keepdim=True) + 1e-6)}


class Recurrent(nn.Module):
    """A GRU over the nodes of each graph, in order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, state, batch, pairs):
        return {"x": batch.to_packed(self.gru(batch.to_dense(state.x))[0])}


class Parted(Recurrent):
    """`Recurrent` with attributes whose names clash with those of a block of this package."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.parts, self.steps = nn.ModuleList([FeedForward(width)]), 3


class Derived(Attention):
    """A subclass of this package's attention that reads all preceding nodes, whatever the mask allows."""

    def __init__(self, width: int) -> None:
        super().__init__(width, heads=2)

    def forward(self, state, batch, pairs):
        q, k, v = (part.flatten(1) for part in self.queries_keys_values(state, batch))
        same_graph = batch.batch[:, None] == batch.batch
        weights = (q @ k.T) * same_graph * torch.ones(len(q), len(q), dtype=q.dtype).tril()
        return {"x": self.project_out(weights @ v / 10)}


class Uncached(Derived):
    """`Derived` that claims to respect the mask but does not support a cache."""

    reads = "pairs"
    forward = Derived.forward

"""Branches from outside the package that read more than edges or a mask tell, and do not say so."""

import torch
from torch import nn
from torch.nn import functional as F


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

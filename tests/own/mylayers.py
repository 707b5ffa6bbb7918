"""Layers and a pool as a user writes them, in a separate folder next to their configuration."""

import torch
from torch import nn
from torch.nn import functional as F

from gt.heads import Pool, Sum
from gt.layers import Layer


class LinearAttention(Layer):
    """Each node reads all nodes of its graph, in linear time (Katharopoulos et al. 2020)."""

    reads, reads_edges, reads_pairs = "graph", False, False

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.project_in, self.project_out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, state, batch, pairs):
        q, k, v = self.project_in(state.x).view(len(state.x), 3, self.heads, -1).unbind(1)  # (N, H, D)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        key_values = k.new_zeros(batch.num_graphs, self.heads, k.shape[2], k.shape[2])
        key_values = key_values.index_add(0, batch.batch, k[..., None] * v[:, :, None])
        keys = k.new_zeros(batch.num_graphs, *k.shape[1:]).index_add(0, batch.batch, k)
        read = torch.einsum("nhd,nhde->nhe", q, key_values[batch.batch])
        read = read / (q * keys[batch.batch]).sum(-1, keepdim=True)
        return {"x": self.project_out(read.flatten(1))}


class Recurrent(Layer):
    """A GRU over the nodes of each graph, in order."""

    reads, reads_edges, reads_pairs, positions = "graph", False, False, True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, state, batch, pairs):
        return {"x": batch.to_packed(self.gru(batch.to_dense(state.x))[0])}


class VirtualNode(Layer):
    """A node for each graph that reads all its nodes, is read by them and keeps a state (Gilmer et al. 2017)."""

    reads, writes, reads_edges, reads_pairs = "graph", ("x", "g"), False, False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)

    def forward(self, state, batch, pairs):
        total = state.x.new_zeros(batch.num_graphs, state.x.shape[1]).index_add(0, batch.batch, state.x)
        step = self.map(total if state.g is None else total + state.g).tanh()
        g = step if state.g is None else state.g + step
        return {"x": g[batch.batch], "g": step}


class PairAttention(Layer):
    """Attention scores come from a state of each pair, which its nodes update (GRIT, Ma et al. 2023).

    The initial state is an embedding of the distance, up to ``most`` hops.
    """

    reads, writes, reads_edges = "pairs", ("x", "p"), False

    def __init__(self, width: int, most: int = 3) -> None:
        super().__init__()
        self.most = most
        self.distance = nn.Embedding(most + 2, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, state, batch, pairs):
        source, target = pairs.edges
        seed = self.distance(pairs.hops(self.most)) if state.p is None else None
        p = seed if state.p is None else state.p
        step = torch.tanh(self.query(state.x)[target] * self.key(state.x)[source] + p)  # (P, d)
        weight = self.score(step).exp()
        total = weight.new_zeros(batch.num_nodes, 1).index_add(0, target, weight)
        read = torch.zeros_like(state.x).index_add(0, target, weight * self.value(state.x)[source])
        return {"x": read / total.clamp(min=1e-9), "p": step if seed is None else seed + step}


class GatedPool(Pool):
    """The sum over the nodes of each graph, each multiplied by a learned gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 1)

    def forward(self, x, batch):
        return Sum()(self.gate(x).sigmoid() * x, batch)

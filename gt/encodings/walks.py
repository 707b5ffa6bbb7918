"""Return probabilities of random walks: a structural encoding without sign ambiguity.

triangle 0-1-2 with a tail 2-3:  the walk from 3 is back after 2 steps with 1/3, after 3 with 0: no odd cycle nearby
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from gt.attention.sparse import csr
from gt.encodings.base import Encoding, PackedGraphs, Progress, precomputed
from gt.encodings.pieces import ENTRIES, component_batches, to_dense
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.linear import Linear
from gt.norms import apply_norm
from gt.schema import Schema

MAX_FULL = 2048  # nodes up to which powers of a walk matrix are computed in full


def return_probabilities(links: csr_matrix, count: int, steps: int) -> np.ndarray:
    """Diagonals of P, P^2, ..., P^steps for B = ``count`` components of n nodes: (B, n, steps) float32.

    P[j, i] is the probability of a step from j to i along an edge j -> i: edges from j to i over all edges from j.
    Nodes without outgoing edges have a row of zeros.

    Args:
        links: (B * n, B * n), as in `gt.encodings.pieces.Components`: the unnormalised transpose of P.
    """
    out_degree = np.bincount(links.indices, weights=links.data, minlength=links.shape[0])
    probability = (links.data / out_degree[links.indices]).astype(np.float32)
    walk = csr_matrix((probability, links.indices, links.indptr), links.shape)
    size = links.shape[0] // count
    return _full(walk, count, steps) if size <= MAX_FULL else _by_columns(walk, steps).reshape(count, size, steps)


def _full(walk: csr_matrix, count: int, steps: int) -> np.ndarray:
    """From half of the powers: ``diag(P^(a + b))_i = sum_j P^a[i, j] P^b[j, i]``."""
    power = to_dense(walk, count)
    rows, shape = (walk.shape[0], power.shape[1]), power.shape
    returns = np.empty((*shape[:2], steps), np.float32)
    returns[..., 0] = np.einsum("bii->bi", power)
    for step in range(2, steps + 1):
        last = power
        if step % 2:
            power = (walk @ power.reshape(rows)).reshape(shape)
        returns[..., step - 1] = np.einsum("bij,bji->bi", power, last)
    return returns


def _by_columns(walk: csr_matrix, steps: int) -> np.ndarray:
    """(B * n, steps), for graphs whose powers do not fit into memory: walks start from a few nodes at a time."""
    nodes = walk.shape[0]
    matrix = csr(*map(torch.from_numpy, (walk.indptr, walk.indices, walk.data)))  # multithreaded product
    returns = np.empty((nodes, steps), np.float32)
    width = max(32, 4 * ENTRIES // nodes)
    for low in range(0, nodes, width):
        start = torch.arange(low, min(low + width, nodes))
        walkers = torch.zeros(nodes, len(start))
        walkers[start, start - low] = 1
        for step in range(steps):
            walkers = matrix @ walkers
            returns[start, step] = walkers[start, start - low]
    return returns


class RandomWalk(Encoding):
    """RWSE: diag(P^k) for k = 1..steps, P = D^-1 A (Dwivedi et al. 2022, as used in GPS).

    Walks follow edge directions, and D is the out-degree, as in GraphGPS and PyG; on an undirected graph the direction
    does not matter. Repeated edges count. The probabilities are embedded by batch norm and a linear map (Rampasek et
    al. 2022).

    Args:
        steps: longest walk K; the precomputed array is (N, K).
        dim: channels of the node embedding that it fills.
    """

    arrays = ("random_walk",)

    def __init__(self, steps: int = 16, dim: int = 16) -> None:
        super().__init__()
        if steps < 1 or dim < 1:
            raise UserError(f"a random walk needs steps and dim of 1 or more, not {steps} and {dim}")
        self.steps, self.concat = steps, dim

    def key(self) -> dict[str, Any]:
        return {"name": "random walk", "version": 1, "steps": self.steps}

    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        returns = np.zeros((int(graphs.node_ptr[-1]), self.steps), np.float32)
        for batch in component_batches(graphs, progress):
            returns[batch.nodes] = return_probabilities(batch.links, len(batch.nodes), self.steps)
        return {"random_walk": returns}

    def build(self, width: int, schema: Schema) -> None:
        self.norm = nn.BatchNorm1d(self.steps)
        self.linear = Linear(self.steps, self.concat)

    def nodes(self, batch: GraphBatch) -> Tensor:
        walks = precomputed(batch, "random_walk").to(self.linear.weight.dtype)
        return self.linear(apply_norm(self.norm, walks, batch))

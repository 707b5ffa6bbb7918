"""Eigenvectors of the graph Laplacian, which generalise sines and cosines from paths to graphs.

path of 5:   lambda_0  + + + + +     lambda_1  + + 0 - -     lambda_2  + 0 - 0 +
"""

from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor, nn

from gt.encodings.base import Encoding, PackedGraphs, Progress, precomputed
from gt.encodings.pieces import component_batches
from gt.encodings.spectrum import smallest_modes
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.linear import Linear
from gt.schema import Schema


class Laplacian(Encoding):
    """LapPE: the k smallest eigenvalues of each graph's Laplacian and a node's entries in their eigenvectors.

    The Laplacian is that of the undirected simple graph. A disconnected graph has the modes of all its components, each
    zero outside its component, with one zero mode per component, the largest component first; isolated nodes are
    components. Graphs with fewer modes are padded with NaN, which the model masks. The features are the DeepSet of GPS
    (Rampasek et al. 2022), a sum over modes of MLP(entry, eigenvalue).

    The sign of an eigenvector is arbitrary. In training every eigenvector of every graph is flipped at random in each
    step (Dwivedi et al. 2020), with PyTorch's global random state; in evaluation none is.

    Args:
        k: number of eigenvectors; the precomputed arrays are (N, k), eigenvalues repeated for the nodes of a graph.
        dim: channels of the node embedding that it fills.
        zero: keep the modes of eigenvalue 0, as GPS does; they encode a node's degree and component but no position.
        normalised: D^(-1/2) (D - A) D^(-1/2) rather than D - A, which GPS uses for the Peptides datasets.
    """

    arrays = ("laplacian_vectors", "laplacian_values")

    def __init__(self, k: int = 8, dim: int = 16, zero: bool = True, normalised: bool = True) -> None:
        super().__init__()
        if k < 1 or dim < 1:
            raise UserError(f"a Laplacian encoding needs k and dim of 1 or more, not {k} and {dim}")
        self.k, self.concat, self.zero, self.normalised = k, dim, zero, normalised

    def key(self) -> dict[str, Any]:
        return {"name": "laplacian", "version": 2, "k": self.k, "zero": self.zero, "normalised": self.normalised}

    @threadpool_limits.wrap(limits=1, user_api="blas")  # threads slow small matrices down
    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        skip = 0 if self.zero else 1  # every component has exactly one zero mode, its first
        nodes = int(graphs.node_ptr[-1])
        component_of = np.zeros(nodes, np.int64)
        entries = np.zeros((nodes, self.k), np.float32)
        empty, components = np.empty(0, np.int64), 0
        spectra, owner, sizes = [np.empty((0, self.k))], [empty], [empty]  # all graphs may be empty
        for batch in component_batches(graphs, progress):
            count, size = batch.nodes.shape
            values, vectors = smallest_modes(batch.links, count, self.k + skip, self.normalised)
            available = values.shape[1] - skip
            entries[batch.nodes, :available] = vectors[..., skip:]
            component_of[batch.nodes] = components + np.arange(count)[:, None]
            components += count
            spectra.append(np.pad(values[:, skip:], ((0, 0), (0, self.k - available)), constant_values=np.inf))
            owner.append(np.searchsorted(graphs.node_ptr, batch.nodes[:, 0], side="right") - 1)
            sizes.append(np.full(count, size))
        values, column = merge(np.concatenate(spectra), np.concatenate(owner), np.concatenate(sizes), len(graphs))
        values = values.repeat(graphs.sizes, axis=0)
        vectors = np.where(np.isnan(values), np.float32(np.nan), np.float32(0))
        for mode in range(self.k):
            target = column[component_of, mode]
            kept = np.flatnonzero(target >= 0)
            vectors[kept, target[kept]] = entries[kept, mode]
        return {"laplacian_vectors": vectors, "laplacian_values": values}

    def build(self, width: int, schema: Schema) -> None:
        dim = self.concat
        self.mlp = nn.Sequential(Linear(2, 2 * dim), nn.ReLU(), Linear(2 * dim, dim), nn.ReLU())

    def nodes(self, batch: GraphBatch) -> Tensor:
        entries = precomputed(batch, "laplacian_vectors")  # (N, k)
        values = precomputed(batch, "laplacian_values")  # (N, k)
        absent = entries.isnan()[..., None]
        if self.training:
            signs = 1 - 2 * torch.randint(2, (batch.num_graphs, entries.shape[1]), device=entries.device)
            entries = entries * signs.index_select(0, batch.batch)
        modes = torch.stack([entries, values], dim=-1).masked_fill(absent, 0.0)  # (N, k, 2)
        modes = modes.to(next(self.mlp.parameters()).dtype)
        return self.mlp(modes).masked_fill(absent, 0.0).sum(1)


class Eigenvectors(Laplacian):
    """The arrays of `Laplacian` for a layer that reads them itself, such as `gt.layers.TokenGTBlock`; adds no features.

    Args:
        k, zero, normalised: as in `Laplacian`.
    """

    writes = ()

    def __init__(self, k: int = 16, zero: bool = False, normalised: bool = True) -> None:
        super().__init__(k, 1, zero, normalised)
        self.concat = 0

    def build(self, width: int, schema: Schema) -> None:
        """Create no parameters."""


def merge(spectra: np.ndarray, owner: np.ndarray, size: np.ndarray, graphs: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest eigenvalues of each graph among those of its components.

    Args:
        spectra: (C, k) ascending eigenvalues of each component, padded with inf.
        owner, size: (C,) the graph and the size of each component; ties put the larger component first.
        graphs: number of graphs G.

    Returns:
        values: (G, k) float32, padded with NaN.
        column: (C, k) the index of each component's mode among the k of its graph, -1 if not included.
    """
    k = spectra.shape[1]
    flat, graph = spectra.ravel(), owner.repeat(k)
    order = np.lexsort((-size.repeat(k), flat, graph))
    graph, first = graph[order], np.searchsorted(graph[order], np.arange(graphs))
    rank = np.arange(len(order)) - first[graph]
    kept = (rank < k) & np.isfinite(flat[order])
    values = np.full((graphs, k), np.nan, np.float32)
    values[graph[kept], rank[kept]] = flat[order][kept]
    column = np.full(len(order), -1)
    column[order[kept]] = rank[kept]
    return values, column.reshape(-1, k)

"""Graph kernels as features of nodes and pairs: heat kernel and effective resistance.

path a-b-c:  resistance a to b 1, a to c 2;  with the edge a-c each is 2/3, as two paths lead there
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor, nn

from gt.encodings.base import Encoding, PackedGraphs, Progress, precomputed
from gt.encodings.edges import real_ends
from gt.encodings.pieces import component_batches, to_dense
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.linear import Linear
from gt.masks import Pairs, with_virtual_nodes
from gt.norms import apply_norm
from gt.schema import Schema

MAX_NODES = 4096  # of a connected component, whose dense matrix is decomposed
EPS = 1e-8  # lower bound of degrees, against division by zero


class Kernel(Encoding):
    """Features of nodes and pairs from matrix functions of the Laplacian of the undirected graph.

    The weight of an edge is its multiplicity, the larger one of its two directions; loops are ignored. Pairs across
    components get zeros, as do virtual nodes. Node features are precomputed, those of pairs computed for each batch.
    Node features are embedded by batch norm and a linear map.

    Args:
        writes: the streams that get features, of nodes ``x`` and pairs ``p``.
    """

    name: str
    pair_channels: int
    node_channels: int

    def __init__(self, writes: Sequence[str]) -> None:
        super().__init__()
        if unknown := set(writes) - {"x", "p"}:
            raise UserError(f"{type(self).__name__} cannot write stream '{min(unknown)}': choose from x and p")
        self.writes = tuple(writes)
        self.arrays = (self.name,) if "x" in writes else ()  # type: ignore[misc]

    def matrices(self, weights: Tensor) -> Tensor:
        """(B, n, n) symmetric weights to (B, n, n, pair_channels), both in float64."""
        raise NotImplementedError

    def rows(self, weights: Tensor) -> Tensor:
        """(B, n, n) weights of connected graphs to node features (B, n, node_channels)."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """The options that `rows` depends on."""
        return {}

    def key(self) -> dict[str, Any] | None:
        return {"name": self.name, "version": 1, **self.options()} if "x" in self.writes else None

    @threadpool_limits.wrap(limits=1, user_api="blas")
    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        out = np.zeros((int(graphs.node_ptr[-1]), self.node_channels), np.float32)
        for batch in component_batches(graphs, progress):
            check_size(type(self).__name__, batch.nodes.shape[1])
            links = torch.from_numpy(to_dense(batch.links, len(batch.nodes)))
            out[batch.nodes] = self.rows(undirected(links))
        return {self.name: out}

    def build(self, width: int, schema: Schema) -> None:
        if "x" in self.writes:
            self.norm, self.of_x = nn.BatchNorm1d(self.node_channels), Linear(self.node_channels, width)
        if "p" in self.writes:
            self.of_p = Linear(self.pair_channels, width, bias=False)

    def nodes(self, batch: GraphBatch) -> Tensor:
        values = precomputed(batch, self.name).to(self.of_x.weight.dtype)
        return self.of_x(apply_norm(self.norm, values, batch))

    def pairs(self, pairs: Pairs) -> Tensor:
        batch, values = with_virtual_nodes(pairs.batch, 0), self.entries(pairs)
        (source, target), virtual = real_ends(pairs)
        rows = values.index_select(0, batch.slot[target] * batch.max_nodes + batch.position[source])
        return self.of_p(rows.masked_fill(virtual[:, None], 0.0).to(self.of_p.weight.dtype))

    def prepare(self, pairs: Pairs) -> None:
        self.entries(pairs)

    def entries(self, pairs: Pairs) -> Tensor:
        """(B L L, pair_channels), for reader i and source j in row (b L + i) L + j; cached in the batch."""
        batch = with_virtual_nodes(pairs.batch, 0)
        return batch.cached((self.name, *self.options().values()), lambda: self._compute_entries(batch))

    def _compute_entries(self, batch: GraphBatch) -> Tensor:
        check_size(type(self).__name__, batch.max_nodes)
        source, target = batch.edge_index
        entry = batch.slot[target] * batch.max_nodes + batch.position[source]
        size = (batch.num_graphs, batch.max_nodes, batch.max_nodes)
        links = torch.zeros(size, device=batch.device).flatten().index_add(0, entry, torch.ones_like(entry).float())
        return self.matrices(undirected(links.view(size))).flatten(0, 2).float()


class HeatKernel(Kernel):
    """``exp(-t L)`` with the normalised Laplacian L: heat diffusion after several times t.

    With growing t the heat spreads from a single node to the stationary distribution of a random walk (Kondor &
    Lafferty 2002; as a positional encoding: Kreuzer et al. 2021, Mialon et al. 2021).

    Args:
        times: t of each matrix.
        writes: the streams that get features, of nodes ``x``, from the diagonal, and pairs ``p``.
    """

    name = "heat_kernel"

    def __init__(self, times: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0), writes: Sequence[str] = ("x",)) -> None:
        super().__init__(writes)
        if not times or min(times) <= 0:
            raise UserError(f"a heat kernel needs times above 0, not {list(times)}")
        self.times = tuple(map(float, times))
        self.arguments = self.times, self.writes
        self.pair_channels = self.node_channels = len(self.times)

    def options(self) -> dict[str, Any]:
        return {"times": self.times}

    def decays(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, times) the decay of each mode, and the modes as columns (B, n, n)."""
        degree = weights.sum(-1)
        root = degree.clamp(min=EPS).rsqrt()
        values, vectors = torch.linalg.eigh(
            torch.diag_embed((degree > 0).to(weights)) - root[..., None] * weights * root[..., None, :]
        )
        return (-values[..., None] * values.new_tensor(self.times)).exp(), vectors

    def matrices(self, weights: Tensor) -> Tensor:
        decay, vectors = self.decays(weights)
        return torch.stack([(vectors * d[:, None]) @ vectors.mT for d in decay.unbind(-1)], dim=-1)

    def rows(self, weights: Tensor) -> Tensor:
        decay, vectors = self.decays(weights)
        return vectors.square() @ decay


class Resistance(Kernel):
    """The graph as a resistor network: effective resistance, commute time and electric potential of each pair.

    With L+ the pseudo-inverse of ``D - A``: the resistance ``L+_ii + L+_jj - 2 L+_ij`` (Klein & Randic 1993), the
    logarithm of 1 plus the commute time, which is the resistance times the sum of degrees in the component, and the
    potential ``L+_ij`` (Kreuzer et al. 2021). A node gets the mean, standard deviation, minimum and maximum of each of
    the three over the nodes of its component.

    Args:
        writes: the streams that get features, of nodes ``x`` and pairs ``p``.
    """

    name, pair_channels, node_channels = "resistance", 3, 12

    def __init__(self, writes: Sequence[str] = ("x",)) -> None:
        super().__init__(writes)
        self.arguments = (self.writes,)

    def options(self) -> dict[str, Any]:
        return {"version": 2}

    def matrices(self, weights: Tensor) -> Tensor:
        degree, connected = weights.sum(-1), same_component(weights)
        # the mean over a component spans the null space of D - A exactly, while a cutoff might hit small eigenvalues
        mean = connected.to(degree) / connected.sum(-1, keepdim=True)
        lifted = torch.linalg.cholesky(torch.diag_embed(degree) - weights + mean)
        potential = torch.cholesky_inverse(lifted) - mean
        diagonal = potential.diagonal(dim1=1, dim2=2)
        resistance = (diagonal[..., None] + diagonal[..., None, :] - 2 * potential).clamp(min=0)
        commute = (resistance * (connected.to(degree) @ degree[..., None])).log1p()
        return torch.stack([resistance, commute, potential], dim=-1) * connected[..., None]

    def rows(self, weights: Tensor) -> Tensor:
        entries = self.matrices(weights)  # (B, n, n, 3), one component each
        return torch.cat([entries.mean(2), entries.std(2, correction=0), entries.amin(2), entries.amax(2)], dim=-1)


def same_component(weights: Tensor) -> Tensor:
    """(B, n, n) whether two nodes are in the same connected component of a graph with these weights."""
    graphs, size, _ = weights.shape
    graph, source, target = weights.nonzero().cpu().unbind(1)
    links = coo_matrix((np.ones(len(graph)), (graph * size + source, graph * size + target)), shape=[graphs * size] * 2)
    labels = torch.from_numpy(connected_components(links, directed=False)[1]).view(graphs, size).to(weights.device)
    return labels[:, :, None] == labels[:, None]


def undirected(links: Tensor) -> Tensor:
    """(B, n, n) edge counts to symmetric weights in float64, without loops."""
    links = links.double()
    links = torch.maximum(links, links.mT)
    return links - torch.diag_embed(links.diagonal(dim1=1, dim2=2))


def check_size(name: str, nodes: int) -> None:
    """Check that a matrix of this many nodes can be decomposed in reasonable time.

    Raises:
        UserError: it is too large.
    """
    if nodes > MAX_NODES:
        raise UserError(f"{name} decomposes matrices of up to {MAX_NODES:,} nodes, not {nodes:,}: choose encoding=rwse")

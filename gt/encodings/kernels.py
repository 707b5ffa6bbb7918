"""How much two nodes have to do with one another: heat that flows between them, the resistance of all ways at once.

path a-b-c:  resistance a to b 1, a to c 2;  with an edge a-c too each is 2/3: two ways lead there
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
from gt.encodings.pieces import pieces, to_dense
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.linear import Linear
from gt.masks import Pairs, with_virtual_nodes
from gt.norms import normalised
from gt.schema import Schema

LARGEST = 4096  # nodes of a connected part, whose matrix is decomposed in full
ZERO = 1e-8  # weights below are zero


class Kernel(Encoding):
    """Features of nodes and pairs out of matrices that the Laplacian of the undirected graph gives.

    An edge weighs as often as it is there, in the direction where it is there more often; loops count nothing. Nodes of
    different parts of a graph have nothing to do with one another: zeros, as for virtual nodes. Features of nodes are
    computed beforehand, those of pairs from each batch. A node's are mapped linearly after batch norm.

    Args:
        writes: which of nodes ``x`` and pairs ``p`` have features of it.
    """

    name: str
    of_pair: int  # numbers of a pair
    of_node: int  # numbers of a node

    def __init__(self, writes: Sequence[str]) -> None:
        super().__init__()
        if unknown := set(writes) - {"x", "p"}:
            raise UserError(f"{type(self).__name__} knows no stream '{min(unknown)}': choose among x and p")
        self.writes = tuple(writes)
        self.arrays = (self.name,) if "x" in writes else ()  # type: ignore[misc]

    def matrices(self, weights: Tensor) -> Tensor:
        """(B, n, n) symmetric weights to (B, n, n, of_pair), both in float64."""
        raise NotImplementedError

    def rows(self, weights: Tensor) -> Tensor:
        """(B, n, n) weights of connected graphs to the numbers of their nodes, (B, n, of_node)."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """What `rows` depends on."""
        return {}

    def key(self) -> dict[str, Any] | None:
        return {"name": self.name, "version": 1, **self.options()} if "x" in self.writes else None

    @threadpool_limits.wrap(limits=1, user_api="blas")
    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        out = np.zeros((int(graphs.node_ptr[-1]), self.of_node), np.float32)
        for part in pieces(graphs, progress):
            check_size(type(self).__name__, part.nodes.shape[1])
            links = torch.from_numpy(to_dense(part.links, len(part.nodes)))
            out[part.nodes] = self.rows(undirected(links))
        return {self.name: out}

    def build(self, width: int, schema: Schema) -> None:
        if "x" in self.writes:
            self.norm, self.of_x = nn.BatchNorm1d(self.of_node), Linear(self.of_node, width)
        if "p" in self.writes:
            self.of_p = Linear(self.of_pair, width, bias=False)

    def nodes(self, batch: GraphBatch) -> Tensor:
        values = precomputed(batch, self.name).to(self.of_x.weight.dtype)
        return self.of_x(normalised(self.norm, values, batch))

    def pairs(self, pairs: Pairs) -> Tensor:
        batch, values = with_virtual_nodes(pairs.batch, 0), self.entries(pairs)
        (source, target), virtual = real_ends(pairs)
        rows = values.index_select(0, batch.slot[target] * batch.max_nodes + batch.position[source])
        return self.of_p(rows.masked_fill(virtual[:, None], 0.0).to(self.of_p.weight.dtype))

    def prepare(self, pairs: Pairs) -> None:
        self.entries(pairs)

    def entries(self, pairs: Pairs) -> Tensor:
        """(B L L, of_pair), for reader i and source j in row (b L + i) L + j; kept by the batch."""
        batch = with_virtual_nodes(pairs.batch, 0)
        return batch.cached((self.name, *self.options().values()), lambda: self._of_batch(batch))

    def _of_batch(self, batch: GraphBatch) -> Tensor:
        check_size(type(self).__name__, batch.max_nodes)
        source, target = batch.edge_index
        entry = batch.slot[target] * batch.max_nodes + batch.position[source]
        size = (batch.num_graphs, batch.max_nodes, batch.max_nodes)
        links = torch.zeros(size, device=batch.device).flatten().index_add(0, entry, torch.ones_like(entry).float())
        return self.matrices(undirected(links.view(size))).flatten(0, 2).float()


class HeatKernel(Kernel):
    """``exp(-t L)``, L the normalised Laplacian: where heat is after some times; a node's own is what stays with it.

    For t from 0 on it goes from each node alone to the stationary distribution of a walk (Kondor & Lafferty 2002;
    Kreuzer et al. 2021, Mialon et al. 2021 as a positional encoding).

    Args:
        times: t of each matrix.
        writes: which of nodes ``x``, by the diagonal, and pairs ``p`` have features of it.
    """

    name = "heat_kernel"

    def __init__(self, times: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0), writes: Sequence[str] = ("x",)) -> None:
        super().__init__(writes)
        if not times or min(times) <= 0:
            raise UserError(f"a heat kernel needs times above 0, not {list(times)}")
        self.times = tuple(map(float, times))
        self.arguments = self.times, self.writes
        self.of_pair = self.of_node = len(self.times)

    def options(self) -> dict[str, Any]:
        return {"times": self.times}

    def decays(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, times) how much of each mode is left, and the modes (B, n, n), a column each."""
        degree = weights.sum(-1)
        root = degree.clamp(min=ZERO).rsqrt()
        values, vectors = torch.linalg.eigh(
            torch.diag_embed((degree > 0).to(weights)) - root[..., None] * weights * root[..., None, :]
        )
        return (-values[..., None] * values.new_tensor(self.times)).exp(), vectors

    def matrices(self, weights: Tensor) -> Tensor:
        left, vectors = self.decays(weights)
        return torch.stack([(vectors * each[:, None]) @ vectors.mT for each in left.unbind(-1)], dim=-1)

    def rows(self, weights: Tensor) -> Tensor:
        left, vectors = self.decays(weights)
        return vectors.square() @ left


class Resistance(Kernel):
    """A graph as a network of resistors: of each pair the resistance, the commute time and the electric potential.

    With L+ the pseudo-inverse of ``D - A``: the resistance ``L+_ii + L+_jj - 2 L+_ij`` (Klein & Randic 1993), the
    logarithm of 1 plus the commute time, which is that times the sum of all degrees of the part, and the potential
    ``L+_ij`` (Kreuzer et al. 2021). A node has the mean, the deviation, the least and the largest of each of the three
    over the nodes of its part.

    Args:
        writes: which of nodes ``x`` and pairs ``p`` have features of it.
    """

    name, of_pair, of_node = "resistance", 3, 12

    def __init__(self, writes: Sequence[str] = ("x",)) -> None:
        super().__init__(writes)
        self.arguments = (self.writes,)

    def options(self) -> dict[str, Any]:
        return {"version": 2}

    def matrices(self, weights: Tensor) -> Tensor:
        degree, joined = weights.sum(-1), same_part(weights)
        # the mean over a part is what D - A sends to zero, and all that it does: an eigenvalue may be small, too
        mean = joined.to(degree) / joined.sum(-1, keepdim=True)
        lifted = torch.linalg.cholesky(torch.diag_embed(degree) - weights + mean)
        potential = torch.cholesky_inverse(lifted) - mean
        own = potential.diagonal(dim1=1, dim2=2)
        resistance = (own[..., None] + own[..., None, :] - 2 * potential).clamp(min=0)
        commute = (resistance * (joined.to(degree) @ degree[..., None])).log1p()
        return torch.stack([resistance, commute, potential], dim=-1) * joined[..., None]

    def rows(self, weights: Tensor) -> Tensor:
        every = self.matrices(weights)  # (B, n, n, 3), of one part each
        return torch.cat([every.mean(2), every.std(2, correction=0), every.amin(2), every.amax(2)], dim=-1)


def same_part(weights: Tensor) -> Tensor:
    """(B, n, n) whether two nodes are in one connected part of a graph with these weights."""
    graphs, size, _ = weights.shape
    graph, source, target = weights.nonzero().cpu().unbind(1)
    links = coo_matrix((np.ones(len(graph)), (graph * size + source, graph * size + target)), shape=[graphs * size] * 2)
    part = torch.from_numpy(connected_components(links, directed=False)[1]).view(graphs, size).to(weights.device)
    return part[:, :, None] == part[:, None]


def undirected(links: Tensor) -> Tensor:
    """(B, n, n) counts of edges to symmetric weights in float64, without loops."""
    links = links.double()
    links = torch.maximum(links, links.mT)
    return links - torch.diag_embed(links.diagonal(dim1=1, dim2=2))


def check_size(what: str, nodes: int) -> None:
    """Whether a matrix of so many nodes is decomposed in reasonable time.

    Raises:
        UserError: naming the number.
    """
    if nodes > LARGEST:
        raise UserError(f"{what} decomposes matrices of up to {LARGEST:,} nodes, not {nodes:,}: choose encoding=rwse")

"""Transformers over tokens other than the nodes: hops around a node (NAGphormer), nodes and edges (TokenGT).

The tokens form the nodes of another batch, on whose complete graphs ordinary blocks run. Each class is a whole network,
to be used as the single block of a model of depth 1.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from gt.encodings import precomputed
from gt.graph import GraphBatch
from gt.layers.base import State
from gt.layers.linear import require_complete
from gt.layers.local import smooth
from gt.linear import Linear
from gt.masks import Complete, Pairs
from gt.ranges import at_least

Factory = Callable[[int], nn.Module]


class NAGphormerBlock(nn.Module):
    """Each node reads its neighbourhoods of 0, 1, ..., K hops as a sequence of tokens (Chen et al. 2023).

    Hop2Token: token k of a node is its row of ``A^k x`` with A the adjacency of `gt.layers.local.smooth`. Blocks run on
    the tokens of each node; the read-out is ``x_0 + sum_k a_k x_k`` with ``a = softmax_k(w [x_0, x_k])`` over k > 0.

    Args:
        width: channels of a node.
        block: builds a block from the width, such as a `gt.layers.ParallelBlock` of attention alone.
        depth: number of blocks.
        hops: K.
        norm: builds a normalisation of the tokens before the read-out.
    """

    reads, reads_edges, reads_pairs = "graph", False, False
    cost = "N + E"

    def __init__(self, width: int, block: Factory, depth: int = 1, hops: int = 7, norm: Factory = nn.LayerNorm) -> None:
        super().__init__()
        at_least(1, depth, "depth")
        at_least(1, hops, "hops")
        self.blocks = nn.ModuleList(block(width) for _ in range(depth))
        self.hops, self.norm, self.score = hops, norm(width), Linear(2 * width, 1)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        require_complete(pairs, "NAGphormer")
        rows = [state.x]
        for _ in range(self.hops):
            rows.append(smooth(rows[-1], batch))
        tokens = torch.stack(rows, dim=1)  # (N, K + 1, d)
        sequences = GraphBatch(
            ptr=torch.arange(batch.num_nodes + 1, device=batch.device) * (self.hops + 1),
            edge_index=batch.edge_index[:, :0],
            max_nodes=self.hops + 1,
            node_mask=None if batch.node_mask is None else batch.node_mask.repeat_interleave(self.hops + 1),
        )
        sequences.num_nodes = len(rows) * batch.num_nodes
        out = self.norm(_run(self.blocks, tokens.flatten(0, 1), sequences)).view_as(tokens)
        node, neighbourhoods = out[:, :1], out[:, 1:]
        weight = self.score(torch.cat([node.expand_as(neighbourhoods), neighbourhoods], dim=2)).softmax(1)  # (N, K, 1)
        return replace(state, x=node[:, 0] + (weight * neighbourhoods).sum(1))


class TokenGTBlock(nn.Module):
    """A Transformer over nodes and edges as tokens (Kim et al. 2022); the output is that of the node tokens.

    A node v enters as ``W [x_v, P_v, P_v]``, an edge (u, v) as ``W [e_uv, P_u, P_v]``, each plus a type embedding. P
    identifies a node: random rows, orthonormal within a graph of up to ``identifiers`` nodes and resampled in every
    pass, evaluation included, as by the authors; or the Laplacian eigenvectors, with random signs in training.

    Args:
        width: channels of a node.
        block: builds a block from the width, such as a `gt.layers.ParallelBlock` of attention alone.
        depth: number of blocks.
        identifiers: channels of P; with ``laplacian`` as many as ``encoding=eigenvectors`` has.
        laplacian: use the eigenvectors.
    """

    reads, reads_edges, reads_pairs = "graph", True, False
    cost = "(N + E)^2"

    def __init__(
        self, width: int, block: Factory, depth: int = 4, identifiers: int = 16, laplacian: bool = True
    ) -> None:
        super().__init__()
        at_least(1, depth, "depth")
        at_least(1, identifiers, "identifiers")
        self.blocks = nn.ModuleList(block(width) for _ in range(depth))
        self.embed = Linear(width + 2 * identifiers, width)
        self.kinds = nn.Parameter(torch.randn(2, width))
        self.identifiers, self.laplacian = identifiers, laplacian

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        require_complete(pairs, "TokenGT")
        source, target = batch.edge_index
        p = (self._eigenvectors(batch) if self.laplacian else self._orthonormal(batch)).to(state.x.dtype)
        e = state.x.new_zeros(batch.num_edges, state.x.shape[1]) if state.e is None else state.e
        nodes = self.embed(torch.cat([state.x, p, p], dim=1)) + self.kinds[0]
        edges = self.embed(torch.cat([e, p[source], p[target]], dim=1)) + self.kinds[1]
        first_edge = batch.rowptr[batch.ptr]  # (B + 1,) number of edges before each graph
        position = torch.cat([  # of each node and edge token: graph by graph, nodes first
            torch.arange(batch.num_nodes, device=batch.device) + first_edge[batch.batch],
            torch.arange(batch.num_edges, device=batch.device) + batch.ptr[batch.batch[target] + 1],
        ])  # fmt: skip
        masks = batch.node_mask, batch.edge_mask
        tokens = GraphBatch(
            ptr=batch.ptr + first_edge,
            edge_index=batch.edge_index[:, :0],
            max_nodes=int((batch.sizes + first_edge.diff()).max()),  # synchronises with the device
            node_mask=None if batch.node_mask is None else torch.empty_like(position, dtype=torch.bool),
        )
        if tokens.node_mask is not None:
            tokens.node_mask[position] = torch.cat([mask for mask in masks if mask is not None])
        tokens.num_nodes = len(position)
        x = torch.cat([nodes, edges])
        x = _run(self.blocks, torch.empty_like(x).index_copy(0, position, x), tokens)
        return replace(state, x=x.index_select(0, position[: batch.num_nodes]))

    def _eigenvectors(self, batch: GraphBatch) -> Tensor:
        """(N, identifiers)."""
        vectors = precomputed(batch, "laplacian_vectors")
        if vectors.shape[1] != self.identifiers:
            raise ValueError(f"identifiers={self.identifiers} must be the number of eigenvectors, {vectors.shape[1]}")
        vectors = vectors.nan_to_num(0.0)
        if self.training:
            signs = 1 - 2 * torch.randint(2, (batch.num_graphs, self.identifiers), device=batch.device)
            vectors = vectors * signs.index_select(0, batch.batch)
        return vectors

    def _orthonormal(self, batch: GraphBatch) -> Tensor:
        """(N, identifiers); nodes beyond the number of channels get random directions."""
        random = torch.randn(batch.num_graphs, self.identifiers, batch.max_nodes, device=batch.device)
        columns = torch.linalg.qr(random[..., : self.identifiers]).Q
        rest = nn.functional.normalize(random[..., columns.shape[2] :], dim=1)
        return batch.to_packed(torch.cat([columns, rest], dim=2).mT)


def _run(blocks: nn.ModuleList, x: Tensor, tokens: GraphBatch) -> Tensor:
    """Run blocks on tokens (T, d) with full attention within each graph of tokens."""
    state, pairs = State(x), Complete()(tokens)
    for block in blocks:
        state = block(state, tokens, pairs)
    return state.x

"""Edge features as features of pairs, with learned vectors for pairs that are not edges."""

import torch
from torch import Tensor, nn

from gt.encodings.base import Encoding
from gt.features import Features
from gt.graph import GraphBatch
from gt.masks import Pairs, WideBatch, with_virtual_nodes
from gt.ranges import at_least
from gt.schema import Schema


class Edges(Encoding):
    """Initialises the state of a pair with the embedded features of its edge; parallel edges add up.

    Args:
        others: use learned vectors for pairs without an edge: one for a node and itself, one for two different nodes
            (full graph in GT, expander in Exphormer), and two for each virtual node, as source and as reader. Otherwise
            they start at zero (GRIT).
        virtual: number of virtual nodes with their own vectors; further ones share those of the last.
    """

    writes = ("p",)

    def __init__(self, others: bool = True, virtual: int = 1) -> None:
        super().__init__()
        at_least(1, virtual, "virtual")
        self.others, self.virtual = others, virtual
        self.arguments = others, virtual

    def prepare(self, pairs: Pairs) -> None:
        _ = pairs.of_edges

    def build(self, width: int, schema: Schema) -> None:
        self.edge = EdgeFeatures(schema, width)
        self.other = nn.Embedding(2 + 2 * self.virtual, width) if self.others else None

    def pairs(self, pairs: Pairs) -> Tensor:
        count = pairs.edges.shape[1]
        features = self.edge(with_virtual_nodes(pairs.batch, 0))
        rows = features.new_zeros(count + 1, features.shape[1]).index_add(0, pairs.of_edges, features)[:count]
        if self.other is None:
            return rows
        kind = pairs.cached(f"kind_{self.virtual}", lambda: kinds(pairs, self.virtual))
        return torch.where(edges_among(pairs)[:, None], rows, self.other(kind).to(rows.dtype))


def edges_among(pairs: Pairs) -> Tensor:
    """(P,) bool, the pairs that are edges."""
    count = pairs.edges.shape[1]
    false = torch.zeros(count + 1, dtype=torch.bool, device=pairs.batch.device)
    return false.index_fill(0, pairs.of_edges, True)[:count]


def kinds(pairs: Pairs, virtual: int) -> Tensor:
    """(P,) 0 for a node and itself, 1 for two different real nodes, ``2 + 2 v`` if virtual node v is the source.

    ``3 + 2 v`` if v is the reader and the source is real. Indices v are clamped to ``virtual - 1``.
    """
    source, target = pairs.edges
    batch, kind = pairs.batch, (source != target).long()
    if isinstance(batch, WideBatch):
        rank = batch.position - (batch.sizes - batch.virtual_nodes)[batch.batch]  # negative for a real node
        read, reads = rank[source].clamp(max=virtual - 1), rank[target].clamp(max=virtual - 1)
        kind = torch.where(reads >= 0, 3 + 2 * reads, kind)
        kind = torch.where(read >= 0, 2 + 2 * read, kind)
    return kind


class EdgeFeatures(nn.Module):
    """(E, channels) embedded edge features of a batch; without features, one learned vector for all edges.

    Attributes:
        columns: number of features that are added up.
    """

    def __init__(self, schema: Schema, channels: int) -> None:
        super().__init__()
        self.bare = not (schema.edge_vocab or schema.edge_floats)
        vocab = (1,) if self.bare else schema.edge_vocab
        self.columns = max(1, len(vocab))
        self.features = Features(vocab, schema.edge_floats, channels, schema.edge_mean, schema.edge_scale)

    def forward(self, batch: GraphBatch) -> Tensor:
        attr = batch.edge_attr
        if self.bare or attr is None:
            attr = batch.edge_index.new_zeros(batch.num_edges, 1)
        return self.features(attr)


def real_ends(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """(2, P) source and target as indices of real nodes, and (P,) whether either is a virtual node."""
    batch = pairs.batch
    if not isinstance(batch, WideBatch):
        return pairs.edges, torch.zeros_like(pairs.edges[0], dtype=torch.bool)
    index = torch.full((batch.num_nodes,), -1, device=batch.device)
    ends = index.index_copy(0, batch.real, torch.arange(len(batch.real), device=batch.device))[pairs.edges]
    return ends.clamp(min=0), (ends < 0).any(0)

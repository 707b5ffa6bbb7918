"""The timed networks with synthetic batches of realistic sizes, and the alternatives they are compared with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GCNConv, GINEConv, GPSConv, ResGatedGraphConv, TransformerConv, global_mean_pool

from gt.attention import prepare
from gt.cli.config_files import CONFIGS
from gt.data.static import enclosing_shape, pad_batch
from gt.graph import GraphBatch, path_graphs
from gt.lottery.workloads import random_graphs, spread
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.network import build, network_config

ATOM, BOND = (119, 5, 12, 12, 10, 6, 6, 2, 2), (5, 6, 2)  # feature vocabularies of OGB's molecules
BATCHES = 8
DROPOUT, ATTENTION_DROPOUT = 0.05, 0.5  # as published for GPS


@dataclass(frozen=True)
class Shape:
    """A network and batches for it.

    Attributes:
        about: description.
        overrides: overrides of the configuration that define the network.
        schema: schema of the synthetic data.
        batch: makes a batch without features from a seed.
        rival: name and factory of the alternative.
        unit: unit of throughput: graphs, tokens or nodes.
    """

    about: str
    overrides: tuple[str, ...]
    schema: Schema
    batch: Callable[[int], GraphBatch]
    rival: tuple[str, Callable[[], nn.Module]]
    unit: str

    def network(self) -> GraphTransformer:
        """The network of this package."""
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose("train", overrides=list(self.overrides))
        return build(network_config(cfg), self.schema)  # type: ignore[return-value]

    def batches(
        self, net: GraphTransformer, device: torch.device, half: bool, static: bool = False
    ) -> list[GraphBatch]:
        """Batches with features, targets and everything that attention needs, on a device.

        Args:
            static: pad them to one shape if they differ, as a compiled network requires.
        """
        out = []
        for seed in range(BATCHES):
            batch, draw = self.batch(seed), torch.Generator().manual_seed(seed)
            batch.x = random_features(self.schema.node_vocab, batch.num_nodes, draw)
            if self.schema.edge_vocab:
                batch.edge_attr = random_features(self.schema.edge_vocab, batch.num_edges, draw)
            rows = batch.num_graphs if self.schema.level == "graph" else batch.num_nodes
            if self.schema.kind == "multiclass":
                batch.y = torch.randint(self.schema.outputs, (rows,), generator=draw)
            else:
                batch.y = torch.randint(2, (rows, self.schema.outputs), generator=draw).float()
            out.append(batch)
        out = padded(out, self.schema) if static else out
        for batch in out:
            for mask, demand in net.readings(device.type, half):
                prepare(mask(batch), demand)
        return [batch.finish().to(device) for batch in out]

    def count(self, batch: GraphBatch) -> int:
        """Number of units in a batch."""
        return batch.num_graphs if self.unit == "graphs" else batch.num_nodes


def padded(batches: list[GraphBatch], schema: Schema) -> list[GraphBatch]:
    """Pad batches that differ in size to the smallest shape that holds them all."""
    sizes = np.array([(b.num_graphs, b.num_nodes, b.num_edges, b.max_nodes) for b in batches])
    if (sizes == sizes[0]).all():
        return batches
    return [pad_batch(batch, [enclosing_shape(sizes)], schema) for batch in batches]


def random_features(vocabulary: tuple[int, ...], rows: int, draw: torch.Generator) -> Tensor:
    """Random features (rows, columns)."""
    return torch.stack([torch.randint(size, (rows,), generator=draw) for size in vocabulary], dim=1)


class PyGNetwork(nn.Module):
    """Summed embeddings, layers of `torch_geometric.nn.GPSConv`, and a read-out of each node or of the mean."""

    def __init__(self, schema: Schema, width: int, depth: int, local: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.nodes, self.edges = (
            nn.ModuleList(nn.Embedding(size, width) for size in sizes)
            for sizes in (schema.node_vocab, schema.edge_vocab)
        )
        self.layers = nn.ModuleList(
            GPSConv(width, local(), heads=4, dropout=DROPOUT, attn_kwargs={"dropout": ATTENTION_DROPOUT})
            for _ in range(depth)
        )
        self.head, self.by_graph = nn.Linear(width, schema.outputs), schema.level == "graph"

    def forward(self, batch: GraphBatch) -> Tensor:
        assert batch.x is not None
        x = sum(table(column) for table, column in zip(self.nodes, batch.x.T, strict=True))
        edge_features = {}
        if batch.edge_attr is not None:
            columns = zip(self.edges, batch.edge_attr.T, strict=True)
            edge_features["edge_attr"] = sum(table(column) for table, column in columns)
        for layer in self.layers:
            x = layer(x, batch.edge_index, batch.batch, **edge_features)
        return self.head(global_mean_pool(x, batch.batch, batch.num_graphs) if self.by_graph else x)


class PyGLocal(nn.Module):
    """Message passing and attention along edges, summed, then a feed-forward network: GPS from PyG's convolutions."""

    def __init__(self, schema: Schema, width: int, depth: int) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(schema.node_vocab[0], width), nn.Linear(width, schema.outputs)
        self.local = nn.ModuleList(GCNConv(width, width) for _ in range(depth))
        self.attention = nn.ModuleList(
            TransformerConv(width, width // 4, heads=4, root_weight=False) for _ in range(depth)
        )
        self.feed = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 * depth))

    def forward(self, batch: GraphBatch) -> Tensor:
        assert batch.x is not None
        x, edges = self.table(batch.x[:, 0]), batch.edge_index
        for layer, (local, attention, feed) in enumerate(zip(self.local, self.attention, self.feed, strict=True)):
            first, second, third = self.norms[3 * layer : 3 * layer + 3]
            x = first(x + local(x, edges)) + second(x + attention(x, edges))
            x = third(x + feed(x))
        return self.head(x)


class TorchGPT(nn.Module):
    """`torch.nn.TransformerEncoder` with a causal mask and learned positions: GPT-2 from PyTorch's own modules."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.length = length
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, F.gelu, batch_first=True, norm_first=True, bias=False
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width, bias=False), enable_nested_tensor=False)

    def forward(self, batch: GraphBatch) -> Tensor:
        assert batch.x is not None
        x = self.tokens(batch.x.view(-1, self.length)) + self.places.weight
        mask = nn.Transformer.generate_square_subsequent_mask(self.length, device=x.device, dtype=x.dtype)
        return F.linear(self.layers(x, mask, is_causal=True), self.tokens.weight).flatten(0, 1)


def molecules(count: int) -> Callable[[int], GraphBatch]:
    """Factory of batches of ``count`` graphs with 10 to 41 nodes, 25.5 on average, and 2.15 edges per node."""
    return lambda seed: random_graphs(spread(count, 10, 41, seed), 2.15, seed)


def gps(name: str, option: str, conv: Callable[[], nn.Module], count: int) -> Shape:
    """GPS as published, on ``count`` molecules, with a local layer of this package or of PyG."""
    schema = Schema(node_vocab=ATOM, edge_vocab=BOND, kind="binary")
    return Shape(
        f"{name}, 10 x 64, {count} molecules",
        ("experiment=gps_molhiv", "encoding=none", f"model/local={option}"),
        schema,
        molecules(count),
        ("GPSConv", lambda: PyGNetwork(schema, 64, 10, conv)),
        "graphs",
    )


def gated() -> nn.Module:
    """PyG's counterpart of GatedGCN, which does not update edges."""
    return ResGatedGraphConv(64, 64, edge_dim=64)


def gine() -> nn.Module:
    """PyG's counterpart of GINE."""
    return GINEConv(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)))


def text(width: int, depth: int, heads: int, length: int, count: int) -> Shape:
    """A character-level GPT without dropout, on ``count`` texts."""
    schema = Schema(node_vocab=(256,), level="node", outputs=256, max_nodes=length)
    overrides = (
        "data=python_text",
        f"model.width={width}",
        f"model.depth={depth}",
        f"model.block.attention.heads={heads}",
    )
    return Shape(
        f"GPT, {depth} x {width}, {count} texts of {length}",
        (*overrides, "model.dropout=0.0", "model.block.dropout=0.0"),
        schema,
        lambda seed: path_graphs([length] * count),
        ("TransformerEncoder", lambda: TorchGPT(256, length, width, depth, heads, 0.0)),
        "tokens",
    )


def large() -> Shape:
    """Message passing and attention along the edges of one large graph."""
    schema = Schema(node_vocab=(16,), level="node", outputs=8)
    return Shape(
        "GCN and attention along edges, 2 x 64, 17,000 nodes",
        ("model=gps", "model/local=gcn", "mask=one_hop", "encoding=none", "model.depth=2", "model.block.dropout=0.0"),
        schema,
        lambda seed: random_graphs([17_000], 12, seed),
        ("GCNConv + TransformerConv", lambda: PyGLocal(schema, 64, 2)),
        "nodes",
    )


SHAPES: dict[str, Callable[[], Shape]] = {
    "gps_molhiv": lambda: gps("GPS-molhiv", "gated_gcn", gated, 32),
    "gps_molhiv_128": lambda: gps("GPS-molhiv", "gated_gcn", gated, 128),
    "gps_zinc": lambda: gps("GPS-ZINC", "gine", gine, 32),
    "gpt_small": lambda: text(128, 4, 4, 64, 12),
    "gpt": lambda: text(384, 6, 6, 256, 16),
    "large": large,
}

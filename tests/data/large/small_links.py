"""A small graph with links to predict, its data module, and a network."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gt.data.large.links import LinkData, LinkSource, add_reverses
from gt.data.large.negatives import AnotherTarget, AnyPair
from gt.data.packed import Graphs
from gt.graph import GraphBatch
from gt.layers import GINE, Attention, ParallelBlock
from gt.masks import Hops
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.data.modules import make_data

NODES = 12
# node 11 is isolated
EDGES = np.array([[0, 1], [1, 2], [2, 1], [2, 3], [4, 4], [5, 0], [5, 0], [6, 7], [7, 8], [9, 10]])
TRAIN = np.array([[0, 1], [2, 1], [3, 2], [4, 4], [0, 5], [8, 3]])  # the last is not an edge
VALID, TEST = np.array([[0, 2], [1, 3], [9, 11]]), np.array([[8, 9], [3, 11]])
NEGATIVES = np.array([[0, 11], [1, 11], [2, 11], [3, 9], [4, 9]])


class Links(LinkSource):
    """A small graph with self-loops, duplicate links and an isolated node."""

    name = "links"

    def __init__(self, root: Path, edges: np.ndarray = EDGES, ranked: bool = False) -> None:
        self.root, self.edges, self.ranked = root, edges, ranked
        self.negatives = AnotherTarget if ranked else AnyPair

    def key(self) -> dict[str, Any]:
        return {"shown": self.edges.tolist(), "ranked": self.ranked}

    def build(self) -> Graphs:
        features = np.repeat(self.edges.sum(1), 2)[:, None] + [0.25, 0.5]  # equal in both directions
        splits = {"train": TRAIN, "valid": VALID, "test": TEST}
        for part in ("valid", "test"):
            if self.ranked:
                splits[f"{part}_targets"] = np.arange(len(splits[part]) * 4).reshape(-1, 4) % NODES
            else:
                splits[f"{part}_negatives"] = NEGATIVES
        return Graphs(
            node_ptr=np.array([0, NODES]),
            edge_ptr=np.array([0, 2 * len(self.edges)]),
            edge_index=add_reverses(self.edges),
            nodes={"x": np.arange(NODES)[:, None]},
            edges={"edge_attr": features.astype(np.float32)},
            splits={**splits, "valid_edge_attr": np.full((len(VALID), 2), -1, dtype=np.float32)},
            schema=Schema((NODES,), edge_floats=2, level="link", kind="binary", max_nodes=NODES),
        ).sort_edges()


def link_data(root: Path, *edges: np.ndarray, **options: Any) -> LinkData:
    data: LinkData = make_data(LinkData, Links, root, *edges, **{"batch_size": 2, "seed": 5} | options)
    return data


def open_data(data: LinkData) -> LinkData:
    data.open([])
    return data


def edges_of(batch: GraphBatch) -> list[tuple[int, ...]]:
    """Each edge with its features; asserts the order by target and source on which all layers rely."""
    assert batch.edge_attr is not None
    source, target = batch.edge_index.tolist()
    assert (order := list(zip(target, source, strict=True))) == sorted(order)
    return sorted((s, t, *row) for s, t, row in zip(source, target, batch.edge_attr.tolist(), strict=True))


def pairs(links: Tensor | None) -> list[tuple[int, ...]]:
    assert links is not None
    return [tuple(pair) for pair in links.T.tolist()]


def network(seed: int = 0) -> GraphTransformer:
    torch.manual_seed(seed)
    schema = Schema((NODES,), edge_floats=2, level="link", kind="binary", max_nodes=NODES)

    def block(width: int) -> ParallelBlock:
        return ParallelBlock(width, local=GINE, attention=lambda d: Attention(d, heads=2))

    return GraphTransformer(schema, width=16, depth=2, block=block, mask=Hops(2)).eval()


def epoch_batches(data: LinkData, number: int = 0) -> list[GraphBatch]:
    loader = data.loader("train")
    loader.sampler.set_epoch(number)
    return list(loader)

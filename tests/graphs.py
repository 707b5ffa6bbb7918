"""Random graphs and edge cases shared by many tests."""

import torch
from torch_geometric.data import Data

from gt.graph import GraphBatch

SIZES = {  # nodes of the graphs of each batch
    "one graph": (7,),
    "one node": (1,),
    "single nodes": (1, 1, 1),
    "equal sizes": (5, 5, 5),
    "many sizes": (1, 9, 4, 1, 6, 2),
}


def random_graph(nodes: int, seed: int, directed: bool = True, density: float = 0.3) -> Data:
    """A simple graph without self-loops; it may have isolated nodes, or no edges at all."""
    generator = torch.Generator().manual_seed(seed)
    adjacency = torch.rand(nodes, nodes, generator=generator) < density
    adjacency.fill_diagonal_(False)
    if not directed:
        adjacency = adjacency.triu() | adjacency.triu().T
    edge_index = adjacency.nonzero().T.contiguous()
    return Data(
        x=torch.randint(0, 5, (nodes, 2), generator=generator),
        edge_index=edge_index,
        edge_attr=torch.randint(0, 3, (edge_index.shape[1], 1), generator=generator),
        y=torch.randint(0, 3, (1,), generator=generator),
        num_nodes=nodes,
    )


def random_batch(sizes: tuple[int, ...], seed: int = 0, directed: bool = True, density: float = 0.3) -> GraphBatch:
    """A batch of random graphs of the given sizes."""
    return GraphBatch.from_data_list([random_graph(n, seed + i, directed, density) for i, n in enumerate(sizes)])


def path(nodes: int, seed: int = 0) -> Data:
    """A directed path in which node i reads node i - 1 only, like text."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(1, nodes)
    return Data(
        x=torch.randint(0, 5, (nodes, 2), generator=generator),
        edge_index=torch.stack([target - 1, target]),
        edge_attr=torch.zeros(nodes - 1, 1, dtype=torch.long),
        num_nodes=nodes,
    )

"""Realistic attention workloads: sizes, densities, widths and heads of typical batches."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gt.graph import GraphBatch, path_graphs
from gt.masks import Causal, Complete, Hops, Mask, Pairs, Window


@dataclass(frozen=True)
class Workload:
    """One mask on one kind of batch.

    Attributes:
        name: description of the batch.
        make: builds the batch.
        mask: the attention mask.
        heads, channels: H and D.
    """

    name: str
    make: Callable[[], GraphBatch]
    mask: Mask
    heads: int = 4
    channels: int = 16

    def pairs(self, device: str) -> Pairs:
        return self.mask(self.make().to(device))

    def __str__(self) -> str:
        return f"{self.name}, {self.mask}, {self.heads} x {self.channels}"


def random_graphs(sizes: list[int], degree: float, seed: int = 0) -> GraphBatch:
    """Random graphs of the given sizes whose nodes have about ``degree`` incoming edges."""
    draw = torch.Generator().manual_seed(seed)
    size = torch.tensor(sizes)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    nodes = int(ptr[-1])
    target = torch.randint(nodes, (round(degree * nodes),), generator=draw)
    graph = torch.bucketize(target, ptr[1:], right=True)
    span = size[graph]
    source = ptr[graph] + torch.minimum((torch.rand(len(target), generator=draw) * span).long(), span - 1)
    keys = torch.unique(target * nodes + source)
    return GraphBatch(
        ptr=ptr,
        edge_index=torch.stack([keys % nodes, keys // nodes]),
        max_nodes=max(sizes),
    ).finish()


def spread(count: int, low: int, high: int, seed: int = 0) -> list[int]:
    """Draw ``count`` sizes uniformly from ``low`` to ``high``."""
    return torch.randint(low, high + 1, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def workloads() -> list[Workload]:
    """The grid: molecules, source-code trees, proteins, text and a single large graph, with local to complete masks."""

    def graphs(count: int, low: int, high: int, degree: float) -> Callable[[], GraphBatch]:
        return lambda: random_graphs(spread(count, low, high), degree)

    def texts(count: int, length: int) -> Callable[[], GraphBatch]:
        return lambda: path_graphs([length] * count)

    graph_masks: tuple[Mask, ...] = (Hops(1), Hops(2), Complete())
    workloads = []
    for name, make in (
        ("32 molecules of 10-40", graphs(32, 10, 40, 2.2)),
        ("256 molecules of 10-40", graphs(256, 10, 40, 2.2)),
        ("32 functions of 60-180", graphs(32, 60, 180, 3)),
        ("16 proteins of 150-350", graphs(16, 150, 350, 9)),
    ):
        for mask in graph_masks:
            workloads.append(Workload(name, make, mask))
        workloads.append(Workload(name, make, Complete(), 8, 16))
        workloads.append(Workload(name, make, Complete(), 4, 64))
        workloads.append(Workload(name, make, Hops(1), 4, 64))
    text_masks: tuple[Mask, ...] = (Causal(), Complete(), Window(16) & Causal())
    for count, length in ((12, 64), (8, 256), (2, 1024)):
        make = texts(count, length)
        for mask in text_masks:
            workloads.append(Workload(f"{count} texts of {length}", make, mask, 4, 32))
    for nodes, degree in ((2_000, 4), (2_000, 40), (17_000, 12)):
        name, make = f"one graph of {nodes:,}, {degree} edges a node", graphs(1, nodes, nodes, degree)
        workloads += [Workload(name, make, Hops(1)), Workload(name, make, Hops(1), 8, 32)]
    return workloads


def densities(nodes: int = 256, graphs: int = 4) -> list[Workload]:
    """The same nodes with increasingly dense masks, for the picture."""
    shares = [0.005 * 1.5**step for step in range(14) if 0.005 * 1.5**step < 1]

    def make(share: float) -> Callable[[], GraphBatch]:
        return lambda: random_graphs([nodes] * graphs, -nodes * float(torch.log1p(torch.tensor(-share))))

    return [Workload(f"{graphs} graphs of {nodes}", make(share), Hops(1)) for share in shares]


def inputs(pairs: Pairs, heads: int, channels: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values with gradients, and the gradient of the output; each (N, H, D)."""
    draw = torch.Generator().manual_seed(0)
    shape = (pairs.batch.num_nodes, heads, channels)
    inputs = [torch.randn(shape, generator=draw).to(pairs.batch.device, dtype) for _ in range(4)]
    return [t.requires_grad_(number < 3) for number, t in enumerate(inputs)]

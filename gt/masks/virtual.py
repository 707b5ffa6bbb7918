"""Virtual nodes, which connect all nodes of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gt.graph import GraphBatch
from gt.masks.base import Mask
from gt.ranges import at_least


@dataclass(frozen=True)
class VirtualNodes(Mask):
    """``count`` extra nodes of each graph read every node of it, one another and themselves; every node reads them.

    Any two nodes are then two layers apart at a cost linear in the number of nodes: the global nodes of Longformer
    (Beltagy et al. 2020), BigBird (Zaheer et al. 2020) and Exphormer (Shirzad et al. 2023), always as additional nodes
    with learned states; no node of the data becomes global. No other mask covers virtual nodes, so that
    ``a & VirtualNodes()`` allows nothing.
    """

    count: int = 1

    def __post_init__(self) -> None:
        at_least(1, self.count, "the number of virtual nodes")

    @property
    def virtual_per_head(self) -> tuple[int]:
        return (self.count,)

    def keys(self, batch: GraphBatch) -> Tensor:
        return torch.empty(0, dtype=torch.long, device=batch.device)

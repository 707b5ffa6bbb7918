"""Masks under which some nodes read nobody."""

from dataclasses import dataclass

import torch

from gt.masks import Mask


@dataclass(frozen=True)
class Neighbours(Mask):
    """Edges without self-loops: a node without incoming edges reads nobody."""

    def keys(self, batch):
        return batch.edge_index[1] * batch.num_nodes + batch.edge_index[0]


@dataclass(frozen=True)
class Nobody(Mask):
    """No pairs at all."""

    def keys(self, batch):
        return torch.empty(0, dtype=torch.long, device=batch.device)

"""Node positions as features."""

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform


class Positions(BaseTransform):
    """Appends ``pos`` to ``x``, as is usual for the superpixels of MNIST and CIFAR10 (Dwivedi et al. 2020)."""

    def forward(self, data: Data) -> Data:
        data.x = torch.cat([data.x, data.pos], dim=1)
        return data

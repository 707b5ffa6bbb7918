"""Where nodes lie, as features of theirs."""

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform


class Positions(BaseTransform):
    """Puts ``pos`` beside ``x``, as the superpixels of MNIST and CIFAR10 are read (Dwivedi et al. 2020)."""

    def forward(self, data: Data) -> Data:
        data.x = torch.cat([data.x, data.pos], dim=1)
        return data

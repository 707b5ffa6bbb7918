"""PyG datasets of a single graph as node data."""

from functools import partial

import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset

from gt.data.large.nodes import NodeData
from gt.data.own.pyg import PyG
from gt.errors import UserError
from gt.schema import UNLABELLED


class RingDataset(InMemoryDataset):
    """Copies of a ring of thirty nodes, optionally with masks named as in PyG's citation networks."""

    def __init__(self, graphs: int = 1, masks: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        ring = torch.arange(30)
        data = Data(
            x=torch.randn(30, 4, generator=generator),
            edge_index=torch.cat([torch.stack([ring, ring.roll(1)]), torch.stack([ring.roll(1), ring])], 1),
            y=torch.arange(30) % 3,
        )
        if masks:
            index = torch.arange(30)
            data.train_mask, data.val_mask, data.test_mask = index < 9, (index > 10) & (index < 20), index >= 20
        self.data, self.slices = self.collate([data] * graphs)


def test_masks_become_splits(tmp_path):
    data = NodeData(PyG(RingDataset, root=str(tmp_path)))
    data.open([])
    (batch,) = data.loader("train")
    assert (batch.num_nodes, batch.num_edges, data.schema.outputs, data.schema.level) == (30, 60, 3, "node")
    assert torch.equal(batch.y != UNLABELLED, torch.arange(30) < 9)
    assert torch.equal(batch.x, RingDataset()[0].x)
    assert data.dataset("test").roots.tolist() == list(range(20, 30))


def test_nodes_without_masks_are_split_at_random(tmp_path):
    data = NodeData(PyG(partial(RingDataset, masks=False), root=str(tmp_path), fractions=(0.6, 0.2, 0.2)))
    data.open([])
    assert [len(data.dataset(split)) for split in ("train", "valid", "test")] == [18, 6, 6]


def test_several_graphs_are_rejected(tmp_path):
    with pytest.raises(UserError, match="several graphs"):
        NodeData(PyG(partial(RingDataset, graphs=2), root=str(tmp_path))).open([])

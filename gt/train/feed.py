"""Adapter that passes data to Lightning's trainer."""

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from gt.data.datamodule import DataModule
from gt.graph import GraphBatch


class Feed(pl.LightningDataModule):
    """Wraps a `gt.data.datamodule.DataModule` as a Lightning data module."""

    def __init__(self, data: DataModule) -> None:
        self.data = data
        super().__init__()

    @property
    def trainer(self) -> pl.Trainer | None:
        """The trainer, whose rank determines the batches of this process."""
        return self.data.trainer

    @trainer.setter
    def trainer(self, trainer: pl.Trainer | None) -> None:
        self.data.trainer = trainer

    def train_dataloader(self) -> DataLoader[GraphBatch]:
        return self.data.loader("train")

    def val_dataloader(self) -> DataLoader[GraphBatch]:
        return self.data.loader("valid")

    def test_dataloader(self) -> DataLoader[GraphBatch]:
        return self.data.loader("test")

    def transfer_batch_to_device(self, batch: GraphBatch, device: torch.device, dataloader_idx: int) -> GraphBatch:
        """Copy a batch, which is in pinned memory; Lightning would wait for the GPU at every tensor."""
        return batch.to(device, non_blocking=device.type == "cuda")

"""How Lightning's trainer is given data."""

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from gt.data.datamodule import DataModule
from gt.graph import GraphBatch


class Feed(pl.LightningDataModule):
    """A `gt.data.datamodule.DataModule` as Lightning's trainer takes it."""

    def __init__(self, data: DataModule) -> None:
        self.data = data
        super().__init__()

    @property
    def trainer(self) -> pl.Trainer | None:
        """The trainer's place among several says which batches are this process's."""
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

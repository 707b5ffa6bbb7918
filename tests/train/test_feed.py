"""How batches reach the device."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.connectors.data_connector import _DataHookSelector

from gt.graph import GraphBatch, path_graphs
from gt.train.feed import Feed


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_batch_in_pinned_memory_is_copied_without_waiting_for_the_gpu(device, monkeypatch):
    copies = []
    monkeypatch.setattr(GraphBatch, "to", lambda batch, device, non_blocking=False: copies.append(non_blocking))
    feed = Feed(SimpleNamespace())
    hooks = _DataHookSelector(pl.LightningModule(), feed)
    hook = hooks.get_instance("transfer_batch_to_device").transfer_batch_to_device
    hook(path_graphs([2, 3]), torch.device(device), 0)
    assert copies == [device == "cuda"]

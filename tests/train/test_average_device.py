"""Where the average of the weights is kept."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from gt.train.callbacks import StochasticWeightAverage, WeightAverage


@pytest.mark.parametrize("average", [WeightAverage, StochasticWeightAverage])
def test_the_average_is_kept_on_the_device_to_which_the_network_will_be_moved(average):
    """On another device each update would copy all weights there."""
    module = pl.LightningModule()
    module.net = nn.BatchNorm1d(4)
    callback = average()
    trainer = SimpleNamespace(callbacks=[callback], strategy=SimpleNamespace(root_device=torch.device("meta")))
    callback.setup(trainer, module, "fit")
    kept = [*callback._average_model.parameters(), *callback._average_model.buffers()]
    assert {tensor.device.type for tensor in kept} == {"meta"}
    assert module.net.weight.device.type == "cpu"

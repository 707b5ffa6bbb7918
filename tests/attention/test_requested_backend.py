"""A backend that a layer requests is for training; a trained network can be evaluated in other ways than it trained."""

import pytest
import torch

from gt.attention import Demand, choose, costs
from gt.layers import Attention, State
from gt.masks import Complete
from tests.graphs import random_batch


@pytest.fixture
def card(monkeypatch):
    """A GPU that supports all backends."""
    monkeypatch.setattr(costs, "device_name", lambda device: "a GPU")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # its capability is not looked up


@pytest.mark.parametrize(("half", "training", "kept"), [(True, True, True), (True, False, True), (False, False, False)])
def test_flash_trained_in_16_bits_is_measured_in_float32(half, training, kept, card):
    demand = Demand(device="cuda", half=half, gradients=training, backend="flash")
    assert (choose(Complete()(random_batch((9, 4))), demand) == "flash") == kept


def test_a_network_trained_on_a_gpu_predicts_on_a_cpu():
    torch.manual_seed(0)
    layer, batch = Attention(32, 2, backend="flash"), random_batch((9, 4))
    state, pairs = State(torch.randn(13, 32)), Complete()(batch)
    with pytest.raises(ValueError, match="the backend 'flash' cannot be used here"):
        layer(state, batch, pairs)
    with torch.no_grad():
        out = layer.eval()(state, batch, pairs)["x"]
        layer.backend = "dense"
        torch.testing.assert_close(out, layer(state, batch, pairs)["x"], rtol=1e-5, atol=1e-6)

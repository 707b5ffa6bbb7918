"""Fixtures shared by tests of layers."""

import pytest
import torch


@pytest.fixture
def double_precision():
    """Seed PyTorch, and make float64 its default dtype."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

"""``--device`` names a GPU that the machine has, or a line says how many there are."""

import pytest
import torch

from gt.cli.program import device_of
from gt.errors import UserError


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch):
    for name, value in (("is_available", True), ("device_count", 2), ("init", None)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "cpu"])
def test_a_device_that_is_there(name):
    assert device_of(name) == torch.device(name)


def test_the_default_is_the_first_gpu():
    assert device_of(None) == torch.device("cuda")


def test_a_gpu_beyond_the_last_is_one_line():
    with pytest.raises(UserError, match=r"^there is no device 'cuda:2': this machine has 2 GPUs, numbered from 0$"):
        device_of("cuda:2")

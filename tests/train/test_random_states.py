"""Measurements and searches before or beside the training leave its random numbers as they are."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn

from gt.graph import GraphBatch, path_graphs
from gt.layers import Attention, ParallelBlock
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.callbacks import settle
from gt.train.compile import time_steps
from gt.train.not_finite import StepContext, first_layer


def batch() -> GraphBatch:
    out = path_graphs([3, 2])
    out.x = torch.zeros(5, 1, dtype=torch.long)
    return out


def compile_steps(net: nn.Module) -> None:
    time_steps(net, batch, nullcontext, "default")


def settle_backends(net: nn.Module) -> None:
    assert len(list(settle.time_close_calls(net, [batch()], False, nullcontext))) == 1


def find_layer(net: nn.Module) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, batch: GraphBatch) -> torch.Tensor:
            return self.net(batch)

    first_layer(Net(), StepContext(batch(), 0, 0, 0))


@pytest.mark.parametrize("measure", [compile_steps, settle_backends, find_layer])
def test_only_the_state_of_the_device_in_use_is_kept(measure, monkeypatch):
    """Not that of all GPUs of the machine, for which PyTorch prints a warning."""
    monkeypatch.setattr(nn.Module, "compile", lambda part, **options: None)
    monkeypatch.setattr(settle, "close_calls", lambda costs: ["dense", "sdpa"])
    monkeypatch.setattr(settle, "side_by_side", lambda steps, *options: {name: [1.0] for name in steps})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: pytest.fail(f"asked for the state of {device}"))
    net = GraphTransformer(Schema(node_vocab=(4,)), 8, 1, partial(ParallelBlock, attention=Attention))
    before = torch.get_rng_state()
    measure(net)
    assert torch.equal(torch.get_rng_state(), before)

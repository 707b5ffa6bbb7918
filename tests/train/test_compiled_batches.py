"""A compiled network leaves nothing with a batch that a CUDA graph will overwrite: a batch may be used again."""

from functools import partial

import pytest
import torch
from torch import nn

from gt.data.batching import prepare_all
from gt.encodings import Rotary
from gt.layers import Attention, ParallelBlock
from gt.masks import Causal, Hops
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.compile import Compiled
from tests.graphs import random_batch


@pytest.fixture
def graphs(monkeypatch):
    """Stands in for CUDA graphs: whatever compiled code returned in one pass is overwritten by the next."""
    returned: list[torch.Tensor] = []

    def backend(module, inputs):
        def run(*arguments):
            out = module(*arguments)
            returned.extend(value.detach() for value in out if isinstance(value, torch.Tensor))
            return out

        return run

    def overwrite():
        for value in returned:
            value.fill_(torch.nan)
        returned.clear()

    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda part, **_: compile_module(part, backend=backend, dynamic=False))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", overwrite)
    torch._dynamo.reset()
    yield returned
    torch._dynamo.reset()


@pytest.mark.parametrize("mask", [Causal(), Hops(1)], ids=str)
@pytest.mark.parametrize("half", [False, True])
@torch.no_grad()
def test_a_batch_can_be_read_again(mask, half, graphs):
    torch.manual_seed(0)
    block = partial(ParallelBlock, attention=Attention)
    net = GraphTransformer(Schema((5, 5), outputs=3), 16, 2, block, mask=mask, encodings=[Rotary()]).eval()
    compiled = Compiled(net, "reduce-overhead")
    batch = prepare_all(random_batch((9, 4)), net.readings("cpu", half))
    prepared = set(batch.memo), set(vars(mask(batch)))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        first = net(batch).clone()
        assert graphs
        assert (set(batch.memo), set(vars(mask(batch)))) == prepared
        assert torch.equal(net(batch), first)
    compiled.undo()

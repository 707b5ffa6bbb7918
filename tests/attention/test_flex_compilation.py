"""FlexAttention stays compiled for however many masks and shapes a process uses."""

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from gt.attention import attend, flex
from gt.masks import Causal, Complete, Hops
from tests.graphs import random_batch


@pytest.fixture
def kernel(monkeypatch):
    """The kernel for GPUs, traced for a CPU, and a counter of its compilations."""
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    with torch._dynamo.config.patch(recompile_limit=8):  # the default, whatever an earlier test has set
        torch._dynamo.reset()
        yield flex.kernel.__wrapped__("cuda"), counter
    torch._dynamo.reset()


@torch.no_grad()
def test_it_is_compiled_for_each_of_many_kinds(kernel, monkeypatch):
    compiled, counter = kernel
    monkeypatch.setattr(flex, "kernel", lambda device: compiled)
    kinds = [(mask, channels) for mask in (Complete(), Causal(), Hops(1)) for channels in (16, 32, 64)]
    for mask, channels in kinds:
        for sizes in ((190, 200), (150, 160, 130), (270, 140)):  # new graphs are no reason to compile again
            pairs = mask(random_batch(sizes, density=0.05))
            q, k, v = torch.randn(3, sum(sizes), 2, channels)
            expected = attend(q, k, v, pairs, backend="dense")
            torch.testing.assert_close(attend(q, k, v, pairs, backend="flex"), expected, rtol=1e-5, atol=1e-5)
    assert counter.frame_count == len(kinds)

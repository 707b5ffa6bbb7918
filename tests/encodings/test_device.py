"""No encoding synchronises with its device: it runs on fake tensors, which have no values to wait for."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from gt.encodings import Degree, Laplacian, LearnedPositions, RandomWalk, RelativeWalks, Rotary, Sinusoidal
from gt.masks import Hops
from gt.schema import Schema
from tests.encodings.samples import AWKWARD, batch_of


@pytest.mark.parametrize(
    "encoding",
    [
        RandomWalk(),
        Laplacian(),
        Degree(),
        Sinusoidal(),
        LearnedPositions(),
        Rotary(),
        RelativeWalks(4, ("x", "e", "p")),
    ],
    ids=lambda encoding: type(encoding).__name__,
)
def test_forward_does_not_synchronise(encoding):
    batch, mask = batch_of(AWKWARD, encoding), Hops(1)
    _ = mask(batch).dense_entry  # precomputed by the loader where a layer reads pairs
    with FakeTensorMode() as mode:
        batch = batch.apply(mode.from_tensor)
        module = encoding.module(32, Schema(max_nodes=90)).train()
        if "x" in module.writes:
            assert module.nodes(batch).shape == (batch.num_nodes, module.concat or 32)
        if "e" in module.writes:
            assert module.edges(batch).shape == (batch.num_edges, 32)
        if "p" in module.writes:
            assert module.pairs(mask(batch)).shape == (mask(batch).edges.shape[1], 32)
        if module.rotates:
            q = torch.randn(batch.num_nodes, 4, 8)
            assert module.rotate(q, q, batch)[0].shape == q.shape


def test_fake_tensors_detect_synchronisation():
    batch = batch_of(AWKWARD)
    with FakeTensorMode() as mode:
        batch = batch.apply(mode.from_tensor)
        with pytest.raises(DataDependentOutputException):
            batch.in_degree.max().item()
        with pytest.raises(DynamicOutputShapeException):
            torch.bincount(batch.edge_index[0], minlength=batch.num_nodes)

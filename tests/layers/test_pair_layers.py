"""Layers with a state for each pair, against their equations, one target, source and head at a time."""

import pytest
import torch
from torch import nn

from gt.layers import EGT, State
from gt.masks import Complete, Hops, PerHead, VirtualNodes, with_virtual_nodes
from tests.attention.masks import Neighbours
from tests.graphs import random_batch
from tests.layers.pair_references import HEADS, LAYERS, WIDTH, D, egt
from tests.layers.references import assert_same, redraw


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("mask", [Complete(), Neighbours()], ids=["complete", "edges"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_matches_its_equations(name, mask):
    make, reference = LAYERS[name]
    for sizes, density in (((1, 5, 3), 0.4), ((2,), 0.0)):
        batch = random_batch(sizes, density=density)
        pairs, layer = mask(batch), redraw(make(WIDTH))
        x = torch.randn(batch.num_nodes, WIDTH, requires_grad=True)
        p = torch.randn(pairs.count, WIDTH, requires_grad=True)
        ours, expected = layer(State(x, p=p), batch, pairs), reference(layer, x, p, pairs)
        assert tuple(ours) == layer.writes
        assert_same(list(ours.values()), [expected[stream] for stream in ours], [x, p, *layer.parameters()])


@pytest.mark.usefixtures("double_precision")
def test_zero_states_have_finite_gradients():
    """The square root has no finite slope at zero, and a state that no layer has written is zero."""
    for make, _ in LAYERS.values():
        batch, layer = random_batch((4, 3)), make(WIDTH)
        x = torch.zeros(7, WIDTH, requires_grad=True)
        sum(step.square().sum() for step in layer(State(x), batch, Complete()(batch)).values()).backward()
        assert all(t.grad is None or t.grad.isfinite().all() for t in (x, *layer.parameters()))


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["GRIT", "EGT", "SAN", "GT under a mask"])
def test_each_head_uses_its_own_mask(name):
    batch, layer = random_batch((5, 3)), redraw(LAYERS[name][0](WIDTH))
    mask = PerHead((Hops(0), Complete()))
    x, before = torch.randn(8, WIDTH), None
    if isinstance(layer.project_out, nn.ModuleDict):
        layer.project_out["x"] = nn.Identity()
    else:
        layer.project_out = nn.Identity()
    for change in (0.0, 1.0):
        x[0] += change
        after = layer(State(x), batch, mask(batch))["x"][1:5]
        if before is not None:
            assert torch.equal(after[:, :D], before[:, :D])
            assert not torch.allclose(after[:, D:], before[:, D:])
        before = after


def test_egt_does_not_scale_virtual_nodes_by_degree():
    layer, mask = redraw(EGT(WIDTH, HEADS)), Complete() | VirtualNodes(1)
    narrow = random_batch((3, 5))
    wide = with_virtual_nodes(narrow, 1)
    x = torch.randn(wide.num_nodes, WIDTH)
    pairs = mask(wide)
    ours = layer(State(x), wide, pairs)["x"]
    reference = egt(layer, x, torch.zeros(pairs.count, WIDTH), pairs)["x"] - layer.project_out.bias
    gates = torch.sigmoid(layer.of_pair.bias[HEADS:])  # the same for all pairs, whose states are zero
    scale = torch.log(1 + gates * (wide.sizes[wide.batch])[:, None])
    scale[wide.virtual.flatten()] = 1.0
    plain = torch.linalg.solve(layer.project_out.weight, reference.T).T.view(-1, HEADS, D)
    plain = plain / torch.log(1 + gates * wide.sizes[wide.batch][:, None])[..., None]
    torch.testing.assert_close(ours, layer.project_out((plain * scale[..., None]).flatten(1)), rtol=1e-3, atol=1e-3)

"""Pair and graph states of custom layers, and blocks composed of `Residual`, `Parallel` and `Chain`."""

from functools import partial

import pytest
import torch
from torch import nn
from torch_geometric.nn import GraphNorm

from gt.errors import UserError
from gt.inference.decode import obstacle
from gt.inference.whole_graph import predict_chunks
from gt.layers import Attention, Blend, Chain, FeedForward, Parallel, ParallelBlock, Residual, State
from gt.layers.local import GCN
from gt.masks import Complete, Hops, Window
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.graphs import random_batch
from tests.own.mylayers import PairAttention, VirtualNode

SCHEMA = Schema((5, 5), outputs=3)
NODES = Schema((5, 5), level="node", outputs=3)


def network(attention, mask, depth=2, schema=SCHEMA):
    torch.manual_seed(0)
    block = partial(ParallelBlock, attention=attention, feed_forward=FeedForward, norm=nn.LayerNorm)
    return GraphTransformer(schema, 8, depth, block, mask)


@pytest.mark.parametrize(("layer", "name"), [(PairAttention, "p"), (VirtualNode, "g")])
def test_state_passes_between_layers_and_is_trained(layer, name):
    batch, net, incoming = random_batch((5, 1, 3)), network(layer, Hops(2), 3), []
    for block in net.blocks:
        block.register_forward_pre_hook(lambda _, args: incoming.append(getattr(args[0], name)))
    net(batch).square().sum().backward()
    rows = Hops(2)(batch).edges.shape[1] if name == "p" else 3
    assert [None if s is None else tuple(s.shape) for s in incoming] == [None, (rows, 8), (rows, 8)]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.blocks[0].attention.parameters())
    with torch.no_grad():
        batched = net.eval()(batch)
        alone = torch.cat([net(type(batch).from_data_list([graph])) for graph in batch.to_data_list()])
    torch.testing.assert_close(batched, alone)


def test_pair_state_requires_a_single_mask():
    for masks in ([Hops(1), Hops(2)], [Window(1), Complete()]):
        with pytest.raises(ValueError, match="PairAttention") as caught:
            network(PairAttention, masks)
        assert "\n" not in str(caught.value)
    network(PairAttention, [Hops(1), Hops(1)])
    network(VirtualNode, [Hops(1), Hops(2)])


@pytest.mark.parametrize("layer", [PairAttention, VirtualNode])
def test_chunked_inference_and_decoding_reject_states(layer):
    net = network(layer, Hops(1), schema=NODES).eval()
    with pytest.raises(UserError, match=layer.__name__):
        predict_chunks(net, random_batch((9,)), 3)
    assert layer.__name__ in str(obstacle(net))


@pytest.mark.parametrize("norm", [GraphNorm, partial(nn.BatchNorm1d, track_running_stats=False)])
def test_chunked_inference_and_decoding_reject_row_mixing_norms(norm):
    block = partial(ParallelBlock, attention=Attention, norm=norm)
    net = GraphTransformer(NODES, 8, 1, block, Hops(1)).eval()
    with pytest.raises(UserError, match="Norm"):
        predict_chunks(net, random_batch((9,)), 3)
    assert "Norm" in str(obstacle(net))
    last = GraphTransformer(NODES, 8, 1, partial(block, norm=nn.LayerNorm), Hops(1), norm=norm).eval()
    assert "Norm" in str(obstacle(last))
    batch = random_batch((9,))  # the norm after the last block is applied to the whole graph
    with torch.no_grad():
        torch.testing.assert_close(predict_chunks(last, batch, 3), last(batch))


def test_each_stream_has_its_own_norm():
    batch = random_batch((4, 3))
    pairs = Complete()(batch)
    norms = {"x": nn.LayerNorm(8), "p": nn.LayerNorm(8, elementwise_affine=False)}
    layer, state = PairAttention(8), State(torch.randn(7, 8))
    after = Residual(8, layer, norms)(state, batch, pairs)
    steps = layer(state, batch, pairs)
    torch.testing.assert_close(after.x, norms["x"](state.x + steps["x"]))
    torch.testing.assert_close(after.p, norms["p"](steps["p"]))
    before = Residual(8, layer, norms, prenorm=True)(state, batch, pairs)
    steps = layer(State(norms["x"](state.x)), batch, pairs)
    torch.testing.assert_close(before.x, state.x + steps["x"])


def test_dropout_skips_layers_that_apply_their_own():
    batch = random_batch((4, 3))
    pairs, state = Complete()(batch), State(torch.randn(7, 8))
    layer, norms = PairAttention(8), {"x": nn.Identity()}
    after = Residual(8, layer, norms, dropout=nn.Dropout(1.0))(state, batch, pairs)
    assert torch.equal(after.x, state.x)
    assert not after.p.any()
    layer.residual = True
    assert not torch.equal(Residual(8, layer, norms, dropout=nn.Dropout(1.0))(state, batch, pairs).x, state.x)


class Gate(nn.Module):
    """A factor for each node and branch."""

    def __init__(self, width):
        super().__init__()
        self.map = nn.Linear(width, 2)

    def forward(self, state, batch):
        return self.map(state.x).sigmoid().split(1, dim=1)


@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("blend", [partial(Blend, 0.3), partial(Gate, 8)])
def test_composed_block_equals_parallel_block(prenorm, blend):
    torch.manual_seed(0)
    batch = random_batch((4, 3))
    options = {"feed_forward": FeedForward, "norm": nn.LayerNorm, "blend": blend, "prenorm": prenorm}
    block = ParallelBlock(8, GCN, partial(Attention, heads=2), **options)
    local, attention = (
        Residual(8, getattr(block, name), getattr(block, f"norm_{name}"), prenorm) for name in ("local", "attention")
    )
    mix = Parallel(8, {"local": local, "attention": attention}, block.blend)
    composed = Chain(8, {"mix": mix, "feed_forward": Residual(8, block.feed_forward, block.norm_feed_forward, prenorm)})
    state, pairs = State(torch.randn(7, 8)), Complete()(batch)
    assert torch.equal(composed(state, batch, pairs).x, block(state, batch, pairs).x)
    assert len(list(composed.parameters())) == len(list(block.parameters()))
    x = state.x
    factors = block.blend(state, batch)
    steps = [
        part(State(norm(x) if prenorm else x), batch, pairs)["x"]
        for part, norm in ((block.local, block.norm_local), (block.attention, block.norm_attention))
    ]
    if prenorm:
        mixed = x + factors[0] * steps[0] + factors[1] * steps[1]
    else:
        mixed = factors[0] * block.norm_local(x + steps[0]) + factors[1] * block.norm_attention(x + steps[1])
    torch.testing.assert_close(mix(state, batch, pairs).x, mixed)


def test_incompatible_branches_are_rejected():
    def branch(prenorm=False):
        return partial(Residual, layer=FeedForward, norm=nn.LayerNorm, prenorm=prenorm)

    for branches, name in (
        ({"a": branch(), "b": FeedForward}, "b is a FeedForward"),
        ({"a": branch(), "b": branch(True)}, "prenorm"),
        ({}, "branches"),
    ):
        with pytest.raises(ValueError, match=name):
            Parallel(8, branches, Blend)
    with pytest.raises(ValueError, match=r"norm: .* y"):
        Residual(8, FeedForward, {"y": nn.LayerNorm})
    three = Parallel(8, {"a": branch(), "b": branch(), "c": branch()}, Blend)
    with pytest.raises(ValueError, match="Blend returns 2 factors for 3 branches"):
        three(State(torch.randn(7, 8)), random_batch((4, 3)), None)

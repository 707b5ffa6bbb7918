"""Training passes replayed as CUDA graphs, emulated on a CPU by traces that repeat the same operations."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import gt.dropout
import gt.layers.gated
import gt.linear
from gt.bench.shapes import padded
from gt.data.batching import prepare_all
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.layers import GRIT, Attention, FeedForward, GatedGCN, ParallelBlock
from gt.masks import Complete, Hops, VirtualNodes
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train import compile as compiling
from gt.train.cuda_graphs import MAX_GRAPHS, Replayed, structure, tensors_of
from tests.graphs import random_batch

SCHEMA = Schema(node_vocab=(4,), edge_vocab=(3,), outputs=2)
SIZES = [(3, 5, 1), (4, 2, 6), (1, 1, 2), (6, 3, 5)]


def record(module: nn.Module, sample: tuple[Tensor, ...], allow_unused_input: bool, pool: object):
    """Stand in for `torch.cuda.make_graphed_callables`: warm up, then repeat one recorded list of operations."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def both_passes(gradient: Tensor, *tensors: Tensor) -> list[Tensor | None]:
        out = module(*tensors)
        return [out, *torch.autograd.grad(out, parameters, gradient, allow_unused=allow_unused_input)]

    for _ in range(3):
        example = torch.ones_like(module(*sample))
    trace = make_fx(both_passes)(example, *sample)

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *_: Tensor) -> Tensor:
            ctx.before = torch.get_rng_state()
            out = trace(torch.zeros_like(example), *sample)[0]
            return out.detach()

        @staticmethod
        def backward(ctx, gradient: Tensor):
            after, buffers = torch.get_rng_state(), [(buffer, buffer.clone()) for buffer in module.buffers()]
            torch.set_rng_state(ctx.before)
            gradients = trace(gradient, *sample)[1:]
            torch.set_rng_state(after)
            for buffer, value in buffers:
                buffer.copy_(value)
            return tuple(gradients)

    def replay(*tensors: Tensor) -> Tensor:
        for static, tensor in zip(sample, tensors, strict=True):
            static.copy_(tensor)
        return Replay.apply(*parameters)

    return replay


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    for module in (gt.dropout, gt.layers.gated, gt.linear):  # what a C kernel does cannot be traced
        monkeypatch.setattr(module, "addressable", lambda *tensors: False)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)


def network(mask=None, stochastic_depth: float = 0.0) -> GraphTransformer:
    torch.manual_seed(0)
    block = partial(
        ParallelBlock,
        local=GatedGCN,
        attention=partial(Attention, heads=2),
        feed_forward=partial(FeedForward, ratio=2),
        norm=nn.BatchNorm1d,
    )
    return GraphTransformer(SCHEMA, 8, 2, block, mask=mask or Complete(), stochastic_depth=stochastic_depth)


def batches(net: GraphTransformer, sizes=SIZES) -> list[GraphBatch]:
    """Batches padded to one shape, with the indices that a loader prepares."""
    drawn = []
    for seed, each in enumerate(sizes):
        batch, draw = random_batch(each, seed), torch.Generator().manual_seed(seed)
        batch.x = torch.randint(4, (batch.num_nodes, 1), generator=draw)
        batch.edge_attr = torch.randint(3, (batch.num_edges, 1), generator=draw)
        batch.y = torch.randn(batch.num_graphs, 2, generator=draw)
        drawn.append(GraphBatch(batch.ptr, batch.edge_index, batch.max_nodes, batch.x, batch.edge_attr, batch.y))
    out = padded(drawn, SCHEMA)
    return [prepare_all(batch.finish(), net.readings()) for batch in out]


def train(net: GraphTransformer, data: list[GraphBatch]) -> list[float]:
    optimizer, losses = torch.optim.SGD(net.parameters(), 0.005), []
    for batch in data:
        labelled = ~batch.y.isnan()
        loss = F.mse_loss(net(batch)[labelled], batch.y[labelled])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("mask", [Complete(), Complete() | VirtualNodes(1), Hops(1)], ids=str)
def test_replayed_training_matches_eager_training(mask):
    """One recording serves all batches of a shape, also if their masks have different numbers of pairs."""
    net, twin = network(mask), network(mask)
    recorded = Replayed(net)
    torch.testing.assert_close(train(net, 2 * batches(net)), train(twin, 2 * batches(twin)), rtol=1e-5, atol=1e-6)
    assert (recorded.replays, len(recorded.recordings), recorded.other_passes) == (8, 1, 0)
    state = net.state_dict()
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4, msg=name)
    batch = batches(net)[0]
    torch.testing.assert_close(net.eval()(batch), twin.eval()(batch), rtol=1e-4, atol=1e-5)
    assert recorded.replays == 8
    recorded.undo()
    assert net._compiled_call_impl is None


def test_recording_draws_no_random_numbers_and_replays_draw_new_ones():
    net = network(stochastic_depth=0.5)
    Replayed(net)
    batch = batches(net)[0]
    torch.manual_seed(5)
    first = net(batch)
    torch.manual_seed(5)
    again, other = net(batch), net(batch)
    torch.testing.assert_close(again, first)
    assert not torch.equal(other, first)


def test_passes_with_hooks_and_more_kinds_of_batches_run_as_they_are():
    net = network()
    recorded = Replayed(net)
    data = batches(net)
    states = []
    hook = net.head.register_forward_pre_hook(lambda module, arguments: states.append(arguments[0]))
    net(data[0])
    net(data[1])
    assert len(states) == recorded.other_passes == 2
    hook.remove()
    for number in range(MAX_GRAPHS + 2):
        net(batches(net, [(1,) * (number + 1)])[0])
    assert (recorded.replays, recorded.other_passes) == (MAX_GRAPHS, 4)


def test_batches_of_one_shape_that_choose_other_backends_are_recorded_apart():
    net = network()
    first, second = batches(net)[:2]
    assert structure(first) == structure(second)
    assert [tensor.shape for tensor in tensors_of(first)] == [tensor.shape for tensor in tensors_of(second)]
    pairs = Complete()(second)
    assert pairs.choices
    pairs.choices = dict.fromkeys(pairs.choices, "other")
    assert structure(first) != structure(second)


def test_masks_drawn_anew_are_refused():
    with pytest.raises(UserError, match="redraw"):
        Replayed(SimpleNamespace(redraw=2))


def test_a_layer_that_cannot_be_recorded_is_reported(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    net = network()
    Replayed(net)
    with pytest.raises(UserError, match=r"capturing; set trainer\.compile=false"):
        net(batches(net)[0])


def test_layers_that_list_pairs_are_known_to_vary():
    assert not Replayed(network()).reads_lists
    block = partial(ParallelBlock, attention=partial(Attention, heads=2), local=GatedGCN)
    assert Replayed(GraphTransformer(SCHEMA, 8, 1, partial(GRIT, heads=2), mask=Complete())).reads_lists
    assert not Replayed(GraphTransformer(SCHEMA, 8, 1, block, mask=Hops(1))).reads_lists


@pytest.mark.parametrize(("device", "devices"), [("cpu", 1), ("cuda", 2)])
def test_one_gpu_is_required(device, devices, tmp_path):
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer = SimpleNamespace(compile="cuda-graphs", world_size=devices, strategy=strategy)
    with pytest.raises(UserError, match=r"trainer\.compile=cuda-graphs .* trainer=gpu"):
        compiling.compile_network(trainer, network(), SimpleNamespace(), tmp_path)
    trainer = SimpleNamespace(compile="cuda-graphs", world_size=1, compiled=None)
    trainer.strategy = SimpleNamespace(root_device=torch.device("cuda"))
    compiling.compile_network(trainer, net := network(), SimpleNamespace(), tmp_path)
    assert isinstance(trainer.compiled, Replayed)
    assert net._compiled_call_impl is trainer.compiled

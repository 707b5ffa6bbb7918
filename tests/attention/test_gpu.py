"""Every backend on a GPU against dense matrices in float64 on the CPU, and a training step without synchronisation."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from gt.attention import BACKENDS, Demand, attend, prepare
from gt.layers import GINE, Attention, EdgeGatedBlock, FeedForward, GatedGCN, ParallelBlock
from gt.losses import total_loss
from gt.masks import Causal, Complete, Expander, Hops, PerHead, VirtualNodes, Window, with_virtual_nodes
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.attention.masks import Neighbours, Nobody
from tests.graphs import random_batch

pytestmark = pytest.mark.gpu
MASKS = [
    Complete(),
    Causal(),
    Window(3) & Causal(),
    Hops(1),
    Hops(2),
    Neighbours(),
    Nobody(),
    PerHead((Neighbours(), Causal())),
    Hops(1) | Expander(degree=4, seed=0),
]
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", [(1,), (30, 1, 17, 64), (40, 40), (300, 7)], ids=str)
@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("backend", ["dense", "sdpa", "sparse", "triton", "flash", "flex"])
def test_a_backend_gives_the_numbers_of_dense_matrices(backend, mask, sizes, dtype):
    torch.manual_seed(0)
    cpu_pairs = mask(random_batch(sizes, density=0.05))
    pairs = mask(random_batch(sizes, density=0.05).to("cuda"))
    demand = Demand(device="cuda", half=dtype != torch.float32, heads=2, channels=16)
    if reason := BACKENDS[backend].refusal(pairs, demand):
        pytest.skip(reason)
    random = [torch.randn(sum(sizes), 2, 16, dtype=dtype).double() for _ in range(4)]
    exact, grad = [t.requires_grad_() for t in random[:3]], random[3]
    expected = attend(*exact, cpu_pairs, backend="dense")
    expected = (expected.detach(), *torch.autograd.grad(expected, exact, grad))
    tensors = [t.detach().to("cuda", dtype).requires_grad_() for t in exact]
    out = attend(*tensors, pairs, backend=backend)
    results = (out, *torch.autograd.grad(out, tensors, grad.to("cuda", dtype)))
    for name, value, reference in zip("oqkv", results, expected, strict=True):
        assert value.dtype == dtype
        error = float((value.double().cpu() - reference).abs().max())
        assert error <= TOLERANCE[dtype] * max(1.0, float(reference.abs().max())), f"{name}: {error}"


def network(block, mask=None, kind="regression"):
    schema = Schema((5, 5), edge_vocab=(3,), kind=kind, mean=(3.0,), scale=(2.0,))
    return GraphTransformer(schema, 32, 3, block, mask=mask or Hops(2))


GPS = partial(ParallelBlock, local=GatedGCN, attention=Attention, feed_forward=FeedForward)
NETWORKS = {
    "gps": partial(network, GPS, Complete()),
    "two hops": partial(network, GPS, Hops(2)),
    "virtual nodes": partial(network, GPS, Hops(1) | VirtualNodes(1)),
    "gine": partial(network, partial(ParallelBlock, local=GINE)),
    "edge gated": partial(network, EdgeGatedBlock),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_the_numbers_of_the_cpu(name):
    torch.manual_seed(0)
    net = NETWORKS[name]()
    batch = random_batch((9, 1, 30, 12), density=0.1)
    expected = net(batch)
    loss = F.l1_loss(expected, torch.zeros_like(expected))
    gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    net = net.to("cuda")
    out = net(batch.to("cuda"))
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-3, atol=1e-3)
    loss = F.l1_loss(out, torch.zeros_like(out))
    for value, reference in zip(
        torch.autograd.grad(loss, list(net.parameters()), allow_unused=True), gradients, strict=True
    ):
        assert (value is None) == (reference is None)
        if value is not None and reference is not None:
            torch.testing.assert_close(value.cpu(), reference, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_never_waits_for_the_device(name):
    torch.manual_seed(0)
    net = NETWORKS[name]().to("cuda")
    optimiser = torch.optim.AdamW(net.parameters(), fused=True)
    batches = []
    for seed in range(3):
        batch = random_batch((9, 1, 30, 12), seed=seed, density=0.1)
        for mask, demand in net.readings("cuda", half=True):
            prepare(mask(with_virtual_nodes(batch, net.virtual_nodes)), demand)
        batches.append(batch.to("cuda"))

    def step(batch):
        with torch.autocast("cuda", torch.bfloat16):
            out = net(batch)
        total, count = total_loss(net.schema, out, batch.y.float())
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    for batch in batches[:2]:  # loads kernels and creates the optimiser's state
        step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batches[2])
    finally:
        torch.cuda.set_sync_debug_mode("default")

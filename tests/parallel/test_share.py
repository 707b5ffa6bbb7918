"""A network sharded over processes has the outputs and gradients of one process."""

from functools import partial
from itertools import product

import pytest
import torch
from torch import nn
from torch_geometric.nn import GraphNorm

from gt import parallel
from gt.attention.scores import Gated, HopDecay, PositionDecay
from gt.encodings import LearnedPositions, RandomWalk, RelativeWalks, Rotary
from gt.errors import UserError
from gt.graph import WHOLE_DEGREES, GraphBatch
from gt.heads import Head, Max, Mean, Sum
from gt.layers import (
    GCN,
    GINE,
    Attention,
    ConvolutionBlock,
    FeedForward,
    GatedGCN,
    JumpMax,
    Layer,
    ParallelBlock,
    SequentialBlock,
)
from gt.masks import Causal, Complete, Hops, PerHead, RandomEdges, VirtualNodes, Window
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.graphs import random_batch
from tests.parallel.ranks import run_on_ranks

SAMPLED = "some edges of a graph"
BATCHES = {"one graph": (14,), SAMPLED: (14,), "many sizes": (1, 9, 4, 1, 6, 2), "fewer nodes than ranks": (2,)}
LEVELS = ("node", "graph", "link")


def block(local=None, kind=ParallelBlock, prenorm=False, norm=nn.LayerNorm, **options):
    attention = partial(Attention, heads=2, **options)
    return partial(kind, local=local, attention=attention, feed_forward=FeedForward, norm=norm, prenorm=prenorm)


class Unsaid(Layer):
    """Does not declare how far it reads."""


GATED = partial(GatedGCN, norm=nn.LayerNorm)
MODELS = {
    "gps": {"block": block(GATED)},
    "gps within two hops": {"block": block(GATED), "mask": Hops(2)},
    "gine in sequence": {"block": block(GINE, SequentialBlock), "mask": Hops(1) | RandomEdges(2, seed=0)},
    "gcn alone": {"block": partial(ConvolutionBlock, local=GCN, norm=nn.LayerNorm)},
    "gpt": {"block": block(prenorm=True), "mask": Causal(), "encodings": [LearnedPositions(20), Rotary()]},
    "window": {"block": block(hint=PositionDecay), "mask": Window(3) & Causal()},
    "position decay": {"block": block(hint=PositionDecay)},
    "position decay along hops": {"block": block(hint=PositionDecay, backend="sparse"), "mask": Hops(2)},
    "hop decay": {"block": block(GINE, hint=partial(HopDecay, most=3))},
    "edges in scores": {"block": block(score=Gated, edges=True, edge_values=True), "mask": Hops(1)},
    "a mask for each head": {"block": block(GCN), "mask": PerHead((Hops(1), Complete()))},
    "a mask for each layer": {"block": block(GCN), "mask": [Complete(), Hops(1)]},
}


def network(level: str = "node", dtype: torch.dtype = torch.float64, **options) -> GraphTransformer:
    torch.manual_seed(0)
    schema = Schema(node_vocab=(5, 5), edge_vocab=(3,), level=level, kind="binary", outputs=3, max_nodes=14)
    head = partial(Head, pool=[Sum(), Mean(), Max()])
    return GraphTransformer(schema, width=8, depth=2, head=head, **options).to(dtype)


def example(name: str, level: str) -> GraphBatch:
    batch = random_batch(BATCHES[name], seed=3, density=0.1)
    rows = {"node": batch.num_nodes, "graph": batch.num_graphs, "link": 5}[level]
    batch.y = torch.arange(3.0 * rows).view(rows, 3)
    if name == SAMPLED:
        batch.memo[WHOLE_DEGREES] = torch.stack([2 * batch.in_degree + 1, batch.out_degree])
    if level == "link":
        batch.links = torch.randint(batch.num_nodes, (2, rows), generator=torch.Generator().manual_seed(1))
    return batch


def parameter_gradients(net: nn.Module, out: torch.Tensor) -> list[torch.Tensor]:
    """The gradient of each parameter."""
    out.square().sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]


CASES = [
    *product(MODELS, ("one graph", "many sizes"), ("node",)),
    *product(("gcn alone", "gine in sequence"), (SAMPLED,), ("node",)),
    *product(("gps",), BATCHES, ("graph", "link")),
    *product(("gpt", "gps within two hops"), ("fewer nodes than ranks",), ("node",)),
]


def run_rank(rank, world, dtype):
    """The output of each network on this rank's share, its targets, and the gradients of its part of the loss."""
    parts = []
    for name, sizes, level in CASES:
        net = network(level, dtype, **MODELS[name])
        share = parallel.share_of(example(sizes, level), rank, world, level, net.readings())
        out = parallel.forward(net, share)
        parts.append((out.detach(), share.y, parameter_gradients(net, out)))
    return parts


# the C kernels only compute in 32 bits
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_sharded_network_matches_one_process(dtype, tolerance, tmp_path):
    for case, *parts in zip(CASES, *run_on_ranks(3, tmp_path, partial(run_rank, dtype=dtype)), strict=True):
        outputs, targets, gradients = zip(*parts, strict=True)
        name, sizes, level = case
        net, batch = network(level, dtype, **MODELS[name]), example(sizes, level)
        out = net(batch)
        assert_close = partial(
            torch.testing.assert_close,
            rtol=tolerance,
            atol=tolerance,
            msg=lambda message, case=case: f"{case}: {message}",
        )
        assert_close(torch.cat(outputs), out.detach())
        assert_close(torch.cat([y for y in targets if y is not None]), batch.y)
        for gradient, expected in zip(zip(*gradients, strict=True), parameter_gradients(net, out), strict=True):
            assert_close(sum(gradient), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BatchNorm1d", {"block": block(GatedGCN)}),
        ("RandomWalk", {"block": block(), "encodings": [RandomWalk(2, 2)]}),
        ("virtual nodes", {"block": block(), "mask": VirtualNodes(1)}),
        ("GraphNorm", {"block": block(norm=GraphNorm)}),
        ("redraw", {"block": block(), "redraw": 2}),
        ("jump", {"block": block(), "jump": JumpMax}),
        ("stochastic_depth", {"block": block(), "stochastic_depth": 0.1}),
        ("RelativeWalks", {"block": block(edges=True), "encodings": [RelativeWalks(2)]}),
        ("Unsaid", {"block": partial(ParallelBlock, local=lambda width: Unsaid(), norm=nn.LayerNorm)}),
    ],
)
def test_unsupported_part_is_rejected_by_name(name, options):
    with pytest.raises(UserError, match=name):
        parallel.check(network(**options))


@pytest.mark.parametrize("name", MODELS)
def test_supported_models_pass_the_check(name):
    parallel.check(network(**MODELS[name]))


def test_pairs_beyond_the_memory_limit_are_rejected(monkeypatch):
    monkeypatch.setattr("gt.parallel.share.MAX_PAIRS", 10)
    net = network(block=block(hint=PositionDecay))
    with pytest.raises(UserError, match=r"Complete.* 196 pairs.* bias"):
        parallel.share_of(example("one graph", "node"), 0, 2, "node", net.readings())

"""A network whose nodes are spread over processes says, and learns, what one process would."""

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
from tests.parallel.ranks import on_ranks

SAMPLED = "some edges of a graph"
BATCHES = {"one graph": (14,), SAMPLED: (14,), "many sizes": (1, 9, 4, 1, 6, 2), "fewer nodes than ranks": (2,)}
LEVELS = ("node", "graph", "link")


def block(local=None, kind=ParallelBlock, prenorm=False, norm=nn.LayerNorm, **options):
    attention = partial(Attention, heads=2, **options)
    return partial(kind, local=local, attention=attention, feed_forward=FeedForward, norm=norm, prenorm=prenorm)


class Unsaid(Layer):
    """Says nothing of how far it reads."""


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


def learned(net: nn.Module, out: torch.Tensor) -> list[torch.Tensor]:
    """The gradient of each parameter."""
    out.square().sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]


CASES = [
    *product(MODELS, ("one graph", "many sizes"), ("node",)),
    *product(("gcn alone", "gine in sequence"), (SAMPLED,), ("node",)),
    *product(("gps",), BATCHES, ("graph", "link")),
    *product(("gpt", "gps within two hops"), ("fewer nodes than ranks",), ("node",)),
]


def shares(rank, world, dtype):
    """What each network says of this rank's share, its targets, and the gradients of its part of the loss."""
    parts = []
    for name, sizes, level in CASES:
        net = network(level, dtype, **MODELS[name])
        share = parallel.share_of(example(sizes, level), rank, world, level, net.readings())
        out = parallel.forward(net, share)
        parts.append((out.detach(), share.y, learned(net, out)))
    return parts


# kernels in C compute in 32 bits alone
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_a_network_on_shares_is_that_on_the_whole(dtype, tolerance, tmp_path):
    for case, *parts in zip(CASES, *on_ranks(3, tmp_path, partial(shares, dtype=dtype)), strict=True):
        said, targets, gradients = zip(*parts, strict=True)
        name, sizes, level = case
        net, batch = network(level, dtype, **MODELS[name]), example(sizes, level)
        out = net(batch)
        close = partial(
            torch.testing.assert_close, rtol=tolerance, atol=tolerance, msg=lambda what, case=case: f"{case}: {what}"
        )
        close(torch.cat(said), out.detach())
        close(torch.cat([y for y in targets if y is not None]), batch.y)
        for found, right in zip(zip(*gradients, strict=True), learned(net, out), strict=True):
            close(sum(found), right)


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
def test_what_goes_by_more_than_a_share_holds_is_refused_by_name(name, options):
    with pytest.raises(UserError, match=name):
        parallel.check(network(**options))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_compared_above_is_not_refused(name):
    parallel.check(network(**MODELS[name]))


def test_pairs_that_do_not_fit_into_memory_are_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr("gt.parallel.share.MAX_PAIRS", 10)
    net = network(block=block(hint=PositionDecay))
    with pytest.raises(UserError, match=r"Complete.* 196 pairs.* bias"):
        parallel.share_of(example("one graph", "node"), 0, 2, "node", net.readings())

"""Diagnostics of depth: each measure against a loop, and known properties of networks."""

import math
from collections import defaultdict, deque
from functools import partial
from itertools import pairwise

import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import nn

from gt.graph import path_graphs
from gt.inference.diagnostics import (
    attention_entropy,
    diagnose,
    dirichlet_energy,
    effective_rank,
    sensitivity,
    sink_mass,
)
from gt.layers import GCN, GINE, Attention, ConvolutionBlock, FeedForward, ParallelBlock
from gt.masks import Causal, Complete, Hops, PerHead, RandomEdges, VirtualNodes
from gt.masks.random import redraw_mask
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.graphs import SIZES, random_batch

MAX_HOPS = 3


def network(block, depth=2, mask=Complete(), width=8, **options):  # noqa: B008  masks are frozen values
    torch.manual_seed(0)
    schema = Schema(node_vocab=(5, 5), edge_vocab=(3,), level="node", outputs=3, max_nodes=64)
    return GraphTransformer(schema, width, depth, block, mask, **options).eval().double()


def distances_to(batch, reader):
    """The distance in hops of each node from which there is a path to a reader."""
    sources = defaultdict(list)
    for source, target in batch.edge_index.T.tolist():
        sources[target].append(source)
    hops, queue = {reader: 0}, deque([reader])
    while queue:
        node = queue.popleft()
        for source in sources[node]:
            if source not in hops:
                hops[source] = hops[node] + 1
                queue.append(source)
    return hops


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_dirichlet_energy_matches_loop(sizes, directed):
    batch = random_batch(sizes, directed=directed)
    x = torch.randn(batch.num_nodes, 4, dtype=torch.float64)
    energy = dirichlet_energy(x, batch)
    weight = torch.zeros(batch.num_nodes, batch.num_nodes, dtype=torch.float64)
    for source, target in batch.edge_index.T.tolist():
        weight[source, target] += 0.5
        weight[target, source] += 0.5
    scaled = x / (1 + weight.sum(1, keepdim=True)).sqrt()
    for graph, (low, high) in enumerate(pairwise(batch.ptr.tolist())):
        total = sum(
            weight[i, j] * (scaled[i] - scaled[j]).square().sum() for i in range(low, high) for j in range(low, i)
        )
        if not weight[low:high].any():
            assert energy[graph].isnan()
            continue
        assert energy[graph].item() == pytest.approx(float(total / x[low:high].square().sum()), rel=1e-9)
        assert 0 < energy[graph] < 2
    torch.testing.assert_close(dirichlet_energy(5 * x, batch), energy, equal_nan=True)


def test_states_proportional_to_root_degree_have_zero_energy():
    batch = random_batch((9,), directed=False)
    x = (1.0 + batch.in_degree).sqrt()[:, None] * torch.tensor([[1.0, -2.0]])
    assert dirichlet_energy(x, batch).item() == pytest.approx(0, abs=1e-9)


def test_effective_rank_of_each_graph():
    batch = random_batch((1, 9, 4, 2))
    x = torch.randn(batch.num_nodes, 5, dtype=torch.float64)
    x[:1] = 0  # the first graph
    x[-2:] = x[-1:] * torch.tensor([[3.0], [-1.0]])
    rank = effective_rank(x, batch)
    for graph, (low, high) in enumerate(pairwise(batch.ptr.tolist())):
        share = torch.linalg.svd(x[low:high], full_matrices=False).S
        share = [float(value) for value in share / share.sum() if value > 1e-12]
        expected = math.exp(-sum(p * math.log(p) for p in share)) if share else math.nan
        assert rank[graph].item() == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert rank[0].isnan()
    assert rank[3].item() == pytest.approx(1)
    torch.testing.assert_close(effective_rank(torch.eye(7), path_graphs([7])), torch.tensor([7.0]).double())


@pytest.mark.parametrize("mask", [Causal(), Hops(1), PerHead((Hops(0), Complete()))], ids=str)
def test_attention_entropy_and_sink_mass_match_loop(mask):
    torch.manual_seed(0)
    batch = random_batch((1, 6, 3), density=0.2)
    pairs, scores = mask(batch), torch.randn(batch.num_nodes, batch.num_nodes, 2, dtype=torch.float64)
    weights = torch.zeros(3, 2, 6, 6, dtype=torch.float64)
    entropy, received = torch.full((3, 2, 6), torch.nan), torch.zeros(3, 2, 6)
    for graph, (low, high) in enumerate(pairwise(batch.ptr.tolist())):
        for head in range(2):
            for i in range(high - low):
                allowed = pairs.dense[graph, min(head, pairs.heads - 1), i].nonzero().flatten().tolist()
                exps = [scores[low + i, low + j, head].exp() for j in allowed]
                share = [float(e / sum(exps)) for e in exps]
                weights[graph, head, i, allowed] = torch.tensor(share, dtype=torch.float64)
                for j, p in zip(allowed, share, strict=True):
                    received[graph, head, j] += p / (high - low)
                if len(share) > 1:
                    entropy[graph, head, i] = -sum(p * math.log(p) for p in share) / math.log(len(share))
    torch.testing.assert_close(
        attention_entropy(weights, pairs.dense).float(), entropy, equal_nan=True, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(sink_mass(weights, pairs.dense).float(), received.amax(-1))


@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_sensitivity_is_the_norm_of_the_jacobian(backend):
    width, batch = 4, random_batch((5, 1, 4), density=0.25)
    block = partial(
        ParallelBlock, local=GINE, attention=partial(Attention, heads=2, backend=backend), norm=nn.LayerNorm
    )
    net = network(block, 1, Hops(2), width)
    net.nodes.register_forward_hook(lambda module, args, out: inputs)
    inputs = torch.randn(batch.num_nodes, width, dtype=torch.float64, requires_grad=True)
    states = []
    net.blocks[0].register_forward_hook(lambda module, args, out: states.append(out.x))

    def state(features):
        nonlocal inputs
        inputs = features
        net(batch)
        return states.pop()

    jacobian = torch.autograd.functional.jacobian(state, inputs.detach())  # (N, d, N, d)
    expected, pairs = torch.zeros(MAX_HOPS + 2, dtype=torch.float64), [0] * (MAX_HOPS + 2)
    targets = torch.tensor([[0, 5, 6], [4, 5, 9]])
    graphs = [range(5), range(5, 6), range(6, 10)]
    for i, graph in [(i, g) for row in targets.tolist() for i, g in zip(row, graphs, strict=True)]:
        hops = distances_to(batch, i)
        for j in graph:
            distance = min(hops.get(j, MAX_HOPS + 1), MAX_HOPS + 1)
            expected[distance] += jacobian[i, :, j].square().sum()
            pairs[distance] += 1
    leaf = inputs.detach().requires_grad_()
    # unit vectors times sqrt(d) are uncorrelated with variance 1, so that their mean is exact
    squares, counted = sensitivity(
        [leaf, state(leaf)],
        leaf,
        batch,
        targets.repeat_interleave(width, 0),
        (width**0.5 * torch.eye(width).double())[:, None].expand(-1, 3, -1).repeat(2, 1, 1),
        MAX_HOPS,
    )
    assert counted.tolist() == [width * count for count in pairs]
    torch.testing.assert_close(squares[1] / width, expected)
    assert squares[0, 0] / width == pytest.approx(6 * width)  # the input: only six identities
    assert not squares[0, 1:].any()


def test_sensitivity_is_estimated_with_random_vectors():
    batch = path_graphs([3, 3, 3, 3])
    batch.x = torch.arange(5).repeat(6)[:24].view(12, 2)
    net = network(partial(ParallelBlock, local=GCN, norm=nn.Identity), 1, width=4)
    measures = diagnose(net, [batch], 2, 400).iloc[1]
    squared = net.blocks[0].local.linear.weight.square().sum().item()
    # two nodes read another, with in-degrees 1 and 0, or 1 and 1
    assert measures["sensitivity_1"] ** 2 == pytest.approx(squared * (1 / 2 + 1 / 4) / 2, rel=0.1)
    assert measures["sensitivity_2"] == 0


def test_sensitivity_of_message_passing_is_limited_to_its_depth():
    batch = path_graphs([9, 1, 4])
    batch.x, batch.edge_attr = torch.randint(5, (14, 2)), torch.zeros(batch.num_edges, 1, dtype=torch.long)
    table = diagnose(network(partial(ParallelBlock, local=GINE), 3), [batch], 6, 60)
    sensitivities = table[[f"sensitivity_{hops}" for hops in range(7)]].to_numpy()
    for layer in range(4):  # the first is the input
        assert (sensitivities[layer, : layer + 1] > 0).all()
        assert (sensitivities[layer, layer + 1 :] == 0).all()
    assert (table["sensitivity_further"] == 0).all()  # including later nodes of the path
    attention = partial(ParallelBlock, attention=partial(Attention, heads=2))
    sensitivities = diagnose(network(attention, 1), [batch], 6, 60)
    assert (sensitivities.iloc[1][[f"sensitivity_{hops}" for hops in range(7)]] > 0).all()
    assert sensitivities["sensitivity_further"][1] > 0


def test_deep_gcn_oversmooths_without_residual():
    batch = random_batch((20, 30, 25), directed=False, density=0.15)
    tables = []
    for with_residual in (False, True):
        net = network(partial(ConvolutionBlock, local=GCN, residual=with_residual), 12, width=32)
        tables.append(diagnose(net, [batch], targets=1))
    plain, residual = tables
    energy = plain["dirichlet_energy"].to_numpy()
    assert energy[0] == residual["dirichlet_energy"][0]
    assert energy[12] < energy[6] < energy[1] < energy[0]
    assert energy[6] < 0.2 * residual["dirichlet_energy"][6]
    assert plain["effective_rank"][6] < 0.5 * residual["effective_rank"][6]


@pytest.mark.parametrize("mask", [Hops(1), Hops(1) | VirtualNodes(2)], ids=str)
def test_diagnose_leaves_the_network_unchanged(mask):
    batch = random_batch((6, 1, 9), directed=False)
    attention = partial(Attention, heads=2)
    blocks = [
        partial(ParallelBlock, local=GINE),
        partial(ParallelBlock, local=GINE, attention=attention, feed_forward=FeedForward),
    ]
    net = network(blocks, 4, mask)
    before, hooks = net(batch), [len(module._forward_hooks) for module in net.modules()]
    table = diagnose(net, [batch], 2, 8)
    torch.testing.assert_close(net(batch), before)
    assert [len(module._forward_hooks) for module in net.modules()] == hooks
    assert not any(p.grad is not None for p in net.parameters())
    assert table["layer"].tolist() == ["input", "0", "1", "2", "3"]
    expected = dirichlet_energy(net.embed(batch).detach(), batch).nanmean()
    assert table["dirichlet_energy"][0] == pytest.approx(float(expected))
    assert table["attention_entropy"].notna().tolist() == [False, False, True, False, True]
    assert table["sink_mass_head_1"].notna().tolist() == [False, False, True, False, True]
    assert table["sink_mass"][2] == pytest.approx(table[["sink_mass_head_0", "sink_mass_head_1"]].iloc[2].mean())


def test_diagnose_uses_the_first_draw_of_redrawn_masks():
    mask = RandomEdges(2)
    net = network(partial(ParallelBlock, attention=partial(Attention, heads=2)), mask=mask, redraw=3)
    measures = diagnose(net, [random_batch((6, 4))])
    net.redraw, net.masks = 0, [redraw_mask(mask, 0)] * 2
    assert_frame_equal(measures, diagnose(net, [random_batch((6, 4))]))
    net.masks = [redraw_mask(mask, 2)] * 2
    assert not diagnose(net, [random_batch((6, 4))]).equals(measures)


def test_uniform_attention_has_maximal_entropy():
    batch = random_batch((6, 6))
    net = network(partial(ParallelBlock, attention=partial(Attention, heads=2)), 1)
    nn.init.zeros_(net.blocks[0].attention.project_in.weight)
    nn.init.zeros_(net.blocks[0].attention.project_in.bias)
    row = diagnose(net, [batch], 2, 8).iloc[1]
    assert row["attention_entropy"] == pytest.approx(1)
    assert row["sink_mass"] == pytest.approx(1 / 6)
    assert row["even_sink_mass"] == pytest.approx(1 / 6)

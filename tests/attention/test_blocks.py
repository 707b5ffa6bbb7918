"""Blocks of the packed matrix against its pairs, FlexAttention over them, and flash attention's arguments."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gt.attention import BACKENDS, Demand, attend, blocks, choose, costs, explain, flash, flex, prepare
from gt.attention.blocks import blocks_of
from gt.graph import path_graphs
from gt.lottery.measure import blocked_cases
from gt.lottery.workloads import random_graphs
from gt.masks import Causal, Complete, Hops, PerHead, VirtualNodes, Window, with_virtual_nodes
from tests.attention.masks import Neighbours, Nobody
from tests.graphs import random_batch

MASKS = [Complete(), Causal(), Window(3), Causal() & Window(5), Hops(1), Hops(2), Neighbours(), Nobody()]
PER_HEAD = PerHead((Neighbours(), Causal()))


def allowed(pairs, heads):
    """(H, N, N) bool, who reads whom."""
    nodes = pairs.batch.num_nodes
    source, target = pairs.edges
    in_use = torch.ones(len(source), heads, dtype=torch.bool) if pairs.edge_heads is None else pairs.edge_heads
    out = torch.zeros(heads, nodes, nodes, dtype=torch.bool)
    out[:, target, source] = in_use.T
    return out


def expanded(pairs, heads):
    """The same mask, expanded from the blocks."""
    index, nodes, side = blocks_of(pairs), pairs.batch.num_nodes, blocks.SIDE
    rows = -(-nodes // side)
    out = torch.zeros(heads, rows * side, rows * side, dtype=torch.bool)
    head = torch.arange(heads)[:, None, None]
    count = 0
    for row in range(rows):
        columns = [(c, False) for c in index.partial[row, : index.partial_count[row]].tolist()]
        columns += [(c, True) for c in index.full[row, : index.full_count[row]].tolist()]
        count += len(columns)
        assert len({c for c, _ in columns}) == len(columns)
        for column, full in columns:
            i, j = (torch.arange(start * side, (start + 1) * side) for start in (row, column))
            inside = (i[:, None] < nodes) & (j < nodes)
            i, j = i.clamp(max=nodes - 1)[:, None], j.clamp(max=nodes - 1)
            block = inside if full else inside & index.allows(head, i, j)
            out[:, row * side : (row + 1) * side, column * side : (column + 1) * side] = block
    assert count == index.count
    out = out[:, :nodes, :nodes]
    return out if index.inverse is None else out[:, index.inverse][:, :, index.inverse]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "SIDE", 32)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([*MASKS, PER_HEAD]),
    st.lists(st.integers(1, 70), min_size=1, max_size=5).map(tuple),
    st.sampled_from((0.0, 0.02, 0.3)),
    st.integers(0, 99),
)
def test_blocks_hold_the_pairs_and_no_others(mask, sizes, density, seed):
    blocks.SIDE = 32
    pairs = mask(random_batch(sizes, seed, density=density))
    assert torch.equal(expanded(pairs, 2), allowed(pairs, 2))


def test_a_shuffled_band_is_found_again():
    nodes = 400
    shuffled = torch.randperm(nodes, generator=torch.Generator().manual_seed(0))
    batch = path_graphs([nodes])
    source, target = shuffled[batch.edge_index]
    keys = torch.cat([target * nodes + source, source * nodes + target]).sort().values
    batch.edge_index = torch.stack([keys % nodes, keys // nodes])
    pairs = Hops(1)(batch)
    index = blocks_of(pairs)
    rows = -(-nodes // 32)
    assert index.order is not None
    assert index.count <= 3 * rows  # a band of 13 x 13 blocks
    assert torch.equal(index.order[index.inverse], torch.arange(nodes))
    assert torch.equal(expanded(pairs, 1), allowed(pairs, 1))


def test_complete_graphs_are_not_listed():
    pairs = Complete()(path_graphs([100_000]))
    blocks.SIDE = 128
    assert blocks_of(pairs).count == 782**2
    assert "edges" not in vars(pairs)


@pytest.mark.parametrize("mask", [*MASKS, PER_HEAD], ids=str)
@pytest.mark.parametrize("sizes", [(1,), (40, 1, 70), (64, 64), (5, 9)], ids=str)
def test_flex_equals_the_others_on_a_cpu(monkeypatch, mask, sizes):
    monkeypatch.setattr(flex, "SIDE", 32)
    torch.manual_seed(0)
    pairs = mask(random_batch(sizes, density=0.05))
    q, k, v = torch.randn(3, pairs.batch.num_nodes, 2, 16)
    torch.testing.assert_close(
        attend(q, k, v, pairs, backend="flex"), attend(q, k, v, pairs, backend="dense"), rtol=1e-5, atol=1e-5
    )


def test_flex_says_what_it_cannot_do():
    batch = random_batch((5, 4))
    pairs = Hops(1)(batch)
    q = torch.randn(9, 2, 16, requires_grad=True)
    for options, reason in [
        ({}, "computes no gradients"),
        ({"dropout": 0.1}, "does not support dropout"),
        ({"bias": torch.zeros(pairs.count, 2)}, "the scaled dot product, without a bias"),
        ({"pair_value": torch.zeros(pairs.count, 2, 16)}, "does not support pair values"),
    ]:
        with pytest.raises(ValueError, match=f"the backend 'flex' cannot be used here: .*{reason}"):
            attend(q, q, q, pairs, backend="flex", **options)
    with torch.no_grad():
        attend(q, q, q, pairs, backend="flex")
    assert explain(pairs, Demand(gradients=False))["flex"] == "on a CPU it computes every score"
    flex_cuda = BACKENDS["flex"].obstacle
    assert flex_cuda(Demand(device="cuda")) is None
    assert flex_cuda(Demand(device="cuda", channels=8)) == "a head needs 16 channels or more"
    pairs.batch.num_nodes = 1 << 19
    assert "too large for 524,288 nodes" in flex.flex_pairs_obstacle(pairs)


def test_flash_serves_whole_graphs_and_positions_in_16_bits_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    batch = random_batch((5, 4))
    supported = Demand(device="cuda", half=True)
    refusal = BACKENDS["flash"].refusal
    for mask in (Complete(), Causal(), Window(2), Hops(None)):
        assert refusal(mask(batch), supported) is None
    assert refusal(Hops(1)(batch), supported) == "it only supports masks by position within a graph"
    wide = with_virtual_nodes(batch, 1)
    assert (
        refusal((Complete() | VirtualNodes(1))(wide), supported) == "it only supports masks by position within a graph"
    )
    for change in ({"device": "cpu"}, {"half": False}, {"dropout": True}, {"bias": True}, {"channels": 12}):
        assert refusal(Complete()(batch), Demand(**{"device": "cuda", "half": True} | change)) is not None


def test_flash_is_given_each_graph_as_a_sequence_of_its_own(monkeypatch):
    def varlen(q, k, v, offsets_q, offsets_k, max_q, max_k, *, window_size):
        assert (offsets_q.dtype, max_q, max_k) == (torch.int32, 9, 9)
        assert torch.equal(offsets_q, offsets_k)
        back, ahead = window_size
        rows = []
        for low, high in zip(offsets_q[:-1].tolist(), offsets_q[1:].tolist(), strict=True):
            position = torch.arange(high - low)
            distance = position - position[:, None]
            visible = ((back < 0) | (distance >= -back)) & ((ahead < 0) | (distance <= ahead))
            scores = torch.einsum("ihd,jhd->hij", q[low:high], k[low:high]) / q.shape[2] ** 0.5
            weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
            rows.append(torch.einsum("hij,jhd->ihd", weights, v[low:high]))
        return torch.cat(rows)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen)
    torch.manual_seed(0)
    batch = random_batch((1, 9, 4))
    q, k, v = torch.randn(3, 14, 2, 8, dtype=torch.float64)
    for mask in (Complete(), Causal(), Window(2), Causal() & Window(3)):
        actual = flash.attend_flash(q, k, v, mask(batch))
        torch.testing.assert_close(actual, attend(q, k, v, mask(batch), backend="dense"))


def test_the_cost_of_blocks_is_read_by_how_many_there_are(monkeypatch):
    monkeypatch.setattr(blocks, "SIDE", 128)
    grid = [[1.0] * len(costs.NODES), *([[8.0] * len(costs.NODES)] * (len(costs.AREA) - 1))]
    table = costs.CostTable({f"flex/blocks/{d}": grid for d in costs.CHANNELS}, {})
    few, many = (Complete()(random_graphs([size] * (512 // size), 0)) for size in (128, 512))
    demand = Demand(device="cuda")
    assert table.seconds("flex", few, demand) == pytest.approx(1.0)
    assert table.seconds("flex", many, demand) == pytest.approx(8.0)
    monkeypatch.setattr("gt.attention.dispatch.cost_table", lambda device, half: table)
    assert choose(many, demand) == "flex"
    assert "blocks" in vars(many)
    prepare(few, demand)
    moved = few.batch.to("meta")
    assert Complete()(moved).cached("blocks", pytest.fail).graph.is_meta


def test_the_grid_of_blocks_is_what_it_is_said_to_be(monkeypatch):
    monkeypatch.setattr(blocks, "SIDE", 128)
    monkeypatch.setattr(costs, "MAX_BLOCKED", 1 << 18)
    cases = list(blocked_cases("cpu"))
    assert {(case.row, case.column) for case in cases} == {(0, 0), (0, 1), (1, 1)}
    for case in cases:
        nodes = case.pairs.batch.num_nodes
        assert nodes == costs.NODES[case.column]
        area = blocks_of(case.pairs).count * 128**2 / nodes
        assert area == max(costs.AREA[case.row], 128**2 / nodes)


@pytest.mark.gpu
@pytest.mark.parametrize("mask", [Complete(), Causal(), Window(3), Hops(1), Hops(2), Neighbours(), PER_HEAD], ids=str)
@pytest.mark.parametrize("sizes", [(1,), (200, 1, 700), (512, 512)], ids=str)
@pytest.mark.parametrize("backend", ["flex", "flash"])
def test_values_and_gradients_on_a_gpu(monkeypatch, mask, sizes, backend):
    monkeypatch.setattr(blocks, "SIDE", 128)
    torch.manual_seed(0)
    pairs = mask(random_batch(sizes, density=0.02).to("cuda"))
    dtype = torch.bfloat16 if backend == "flash" else torch.float32
    if reason := BACKENDS[backend].refusal(pairs, Demand(device="cuda", half=dtype == torch.bfloat16, heads=2)):
        pytest.skip(reason)
    tensors = [torch.randn(pairs.batch.num_nodes, 2, 16, device="cuda", dtype=dtype).requires_grad_() for _ in range(3)]
    exact = [t.detach().double().requires_grad_() for t in tensors]
    grad = torch.randn_like(tensors[0])
    actual = attend(*tensors, pairs, backend=backend)
    expected = attend(*exact, pairs, backend="dense")
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    results = zip(
        (actual, *torch.autograd.grad(actual, tensors, grad)),
        (expected, *torch.autograd.grad(expected, exact, grad.double())),
        strict=True,
    )
    for a, b in results:
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)

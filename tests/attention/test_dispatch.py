"""The choice of a backend by a cost table, among those that can be used, without synchronising a device."""

import json
import math

import pytest
import torch

from gt.attention import BACKENDS, Demand, attend, choose, costs, dispatch, explain, prepare
from gt.attention.costs import CHANNELS, KINDS, LISTED, PADDED, CostTable, cost_table, interpolate, read_table
from gt.attention.scores import Additive, Gated, HopDecay, PositionDecay
from gt.graph import path_graphs
from gt.layers import Attention
from gt.layers.base import State
from gt.masks import Causal, Complete, Hops, Window
from tests.graphs import random_batch

PLAIN = Demand()


def table_of(**seconds):
    """A table in which each backend has a constant time."""
    times = {}
    for name, value in seconds.items():
        padded = BACKENDS[name].padded
        rows, columns = PADDED if padded else LISTED
        keys = (
            [f"{name}/{kind}/{d}" for kind in KINDS for d in CHANNELS] if padded else [f"{name}/{d}" for d in CHANNELS]
        )
        times |= {key: [[value] * len(columns)] * len(rows) for key in keys}
    return CostTable(times, {})


@pytest.fixture
def costing(monkeypatch):
    return lambda **seconds: monkeypatch.setattr(dispatch, "cost_table", lambda device, half: table_of(**seconds))


@pytest.mark.parametrize("fastest", ["dense", "sdpa", "sparse"])
def test_the_cheapest_takes_it(costing, monkeypatch, fastest):
    costing(**{name: 1.0 if name == fastest else 2.0 for name in ("dense", "sdpa", "sparse")})
    pairs = Complete()(random_batch((3, 2)))
    assert choose(pairs, Demand(heads=2)) == fastest
    calls = []
    for name, backend in BACKENDS.items():
        spy = lambda *a, f=backend.function, n=name: calls.append(n) or f(*a)  # noqa: E731
        monkeypatch.setitem(BACKENDS, name, dispatch.Backend(spy, layout=backend.layout))
    q = torch.randn(5, 2, 16)
    attend(q, q, q, pairs)
    assert calls == [fastest]


def test_what_cannot_serve_is_not_chosen_and_says_why(costing):
    costing(dense=2.0, sdpa=1.0, sparse=3.0)
    pairs = Complete()(random_batch((3, 2)))
    assert choose(pairs, PLAIN) == "sdpa"
    for demand in (Demand(scored=True), Demand(pair_value=True), Demand(dropout=True), Demand(bias=True, trained=True)):
        assert choose(pairs, demand) == "dense"
        assert isinstance(explain(pairs, demand)["sdpa"], str)
    q = torch.randn(5, 4, 16)
    with pytest.raises(ValueError, match="the backend 'sdpa' cannot be used here: it does not support pair values"):
        attend(q, q, q, pairs, pair_value=torch.randn(13, 4, 16), backend="sdpa")
    attend(q, q, q, pairs, dropout=0.1, backend="sdpa")  # slow but supported


def test_a_table_is_exact_at_its_points_and_between_them_in_between():
    draw = torch.Generator().manual_seed(0)
    grid = torch.rand(len(PADDED[0]), len(PADDED[1]), generator=draw).add(0.1).tolist()
    for i, row in enumerate(PADDED[0]):
        for j, column in enumerate(PADDED[1]):
            assert math.isclose(interpolate(grid, PADDED, (row, column)), grid[i][j])
    corners = [grid[i][j] for i in (1, 2) for j in (2, 3)]
    middle = interpolate(grid, PADDED, (math.sqrt(24 * 64), math.sqrt(64 * 512)))
    assert math.isclose(middle, math.prod(corners) ** 0.25)  # halfway on a logarithmic scale
    assert interpolate(grid, PADDED, (1, 10**9)) == pytest.approx(grid[0][-1])


def test_what_needs_no_copies_or_reads_close_by_has_times_of_its_own():
    plain, table = table_of(dense=2.0, sparse=2.0), table_of(dense=1.0, sparse=1.0)
    near = {f"sparse/near/{d}": table.times[f"sparse/{d}"] for d in CHANNELS}
    refined = CostTable({**plain.times, **near, **{k: v for k, v in table.times.items() if "even" in k}}, {})
    far = Hops(1)(random_batch((costs.NEAR + 1,), density=0.01))
    ratios = {
        "sparse": {
            "small graphs": (Hops(1)(random_batch((9, 4, 7))), 0.5),
            "a window": (Window(3)(path_graphs([5000])), 0.5),
            "all before": (Causal()(path_graphs([5000])), 1.0),
            "a large graph": (far, 1.0),
        },
        "dense": {
            "one size": (Hops(1)(random_batch((9, 9))), 0.5),
            "several": (Hops(1)(random_batch((9, 8))), 1.0),
            "nothing masked": (Complete()(random_batch((9, 9))), 1.0),
        },
    }
    for backend, cases in ratios.items():
        for name, (pairs, ratio) in cases.items():
            expected = ratio * plain.seconds(backend, pairs, PLAIN)
            assert refined.seconds(backend, pairs, PLAIN) == pytest.approx(expected), name
    # a table of an earlier version does not distinguish them
    earlier = CostTable({k: v for k, v in plain.times.items() if "even" not in k}, {})
    even = Hops(1)(random_batch((9, 9)))
    assert earlier.seconds("dense", even, PLAIN) == plain.seconds("dense", even, PLAIN)


def test_beyond_its_edges_a_table_grows_with_the_work():
    table = table_of(dense=1.0, sparse=1.0)
    last = Complete()(random_batch((PADDED[0][-1],)))
    longer = Complete()(random_batch((2 * PADDED[0][-1],)))
    assert table.seconds("dense", longer, PLAIN) == pytest.approx(4 * table.seconds("dense", last, PLAIN))
    few, many = (Hops(0)(path_graphs([n])) for n in (LISTED[1][-1], 3 * LISTED[1][-1]))
    assert table.seconds("sparse", many, PLAIN) == pytest.approx(3 * table.seconds("sparse", few, PLAIN))
    assert table.seconds("sparse", few, Demand(heads=8)) == pytest.approx(2 * table.seconds("sparse", few, PLAIN))
    assert table.seconds("sdpa", last, PLAIN) == math.inf  # not in this table


def test_the_shipped_table_is_whole_and_tells_the_extremes_apart():
    table = read_table(costs.SHIPPED / "cpu.json")
    assert {"device", "torch", "date", "dtype"} <= set(table.source)
    for name, grid in table.times.items():
        rows, columns = costs.axes_of(name)
        assert len(grid) == len(rows)
        assert all(len(row) == len(columns) and min(row) > 0 for row in grid)
    cheap = Window(2)(random_batch((3000,), density=0))
    assert table.seconds("sparse", cheap, PLAIN) < table.seconds("dense", cheap, PLAIN) / 5
    full = Complete()(random_batch((60,) * 8))
    assert (
        min(table.seconds(name, full, PLAIN) for name in ("dense", "sdpa")) < table.seconds("sparse", full, PLAIN) / 2
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": -1, "times": {}, "source": {}}', '{"version": 1}'])
def test_a_damaged_or_outdated_table_is_passed_over(tmp_path, content):
    path = tmp_path / "costs.json"
    assert read_table(path) is None
    path.write_text(content)
    assert read_table(path) is None


def test_a_machines_own_table_goes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "user_cache_path", lambda name: tmp_path / name)
    folder = tmp_path / "gt"
    cost_table.cache_clear()
    shipped = json.loads((costs.SHIPPED / "cpu.json").read_text())["source"]["device"]
    assert cost_table("cpu", half=False).source["device"] == shipped
    table_of(flash=1.0).write(costs.cached_path("costs", "cpu"))  # where earlier versions stored it
    cost_table.cache_clear()
    assert all(name.startswith("flash/") for name in cost_table("cpu", half=True).times)
    table_of(sparse=1.0).write(costs.table_path("cpu", half=False))
    cost_table.cache_clear()
    for half in (False, True):
        assert set(cost_table("cpu", half).times) == {"sparse/16", "sparse/64"}
    table_of(dense=1.0).write(costs.table_path("cpu", half=True))  # other backends may be fastest in 16 bits
    cost_table.cache_clear()
    assert set(cost_table("cpu", half=False).times) == {"sparse/16", "sparse/64"}
    assert not set(cost_table("cpu", half=True).times) & {"sparse/16", "sparse/64"}
    assert len(list(folder.iterdir())) == 3
    cost_table.cache_clear()


@pytest.mark.parametrize("fastest", ["dense", "sdpa", "sparse"])
@pytest.mark.parametrize("mask", [Hops(0), Hops(1), Complete(), Causal()], ids=str)
def test_prepared_pairs_wait_for_no_device(costing, mask, fastest):
    costing(**{name: 1.0 if name == fastest else 2.0 for name in ("dense", "sdpa", "sparse")})
    demand = Demand(device="meta", heads=2, channels=3)
    batch = random_batch((30, 10), density=0.1)
    prepare(mask(batch), demand)
    moved = mask(batch.to("meta"))  # reading a value of a meta tensor raises
    assert choose(moved, demand) == fastest
    q = torch.empty(batch.num_nodes, 2, 3, device="meta")
    if fastest == "sparse":  # sparse products have no meta kernel: check that each index they need was precomputed
        needed = ("edges", "stack_2", "edge_heads", "dense_entry")
        assert all(name in vars(moved) for name in needed)
    else:
        assert attend(q, q, q, moved).shape == q.shape


@pytest.mark.parametrize("fastest", ["dense", "sparse"])
@pytest.mark.parametrize("mask", [Hops(1), Complete()], ids=str)
def test_what_hints_and_edges_ask_for_is_prepared_too(costing, mask, fastest):
    costing(**{name: 1.0 if name == fastest else 2.0 for name in ("dense", "sparse")})
    layer = Attention(8, 2, hint=HopDecay, edges=True, edge_values=True)
    batch = random_batch((9, 4))
    prepare(mask(batch), layer.demand("meta", False))
    prepared = set(vars(mask(batch)))
    listed, padded = {"hops_16"}, {"dense_hops_16"}
    assert prepared >= {"of_edges", "dense_entry"} | (padded if fastest == "dense" else listed)
    moved = mask(batch.to("meta"))
    if fastest == "dense":
        x, e = torch.empty(13, 8, device="meta"), torch.empty(batch.num_edges, 8, device="meta")
        assert layer.to("meta")(State(x, e), batch.to("meta"), moved)["x"].shape == (13, 8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.5},
        {"hint": HopDecay},
        {"score": Additive},
        {"edges": True},
        {"edge_values": True},
        {"score": Gated, "edges": True, "edge_values": True, "hint": PositionDecay},
    ],
)
def test_what_a_layer_says_ahead_is_what_attention_is_then_asked_for(options, training, monkeypatch):
    layer, batch = Attention(8, 2, **options).train(training), random_batch((5, 3))
    announced, demands, of = layer.demand("cpu", False), [], Demand.of

    def recorded(*args, **kwargs):
        demands.append(of(*args, **kwargs))
        return demands[-1]

    monkeypatch.setattr(dispatch.Demand, "of", recorded)
    with torch.set_grad_enabled(training):
        layer(State(torch.randn(8, 8), torch.randn(batch.num_edges, 8)), batch, Complete()(batch))
    assert len(demands) == 2  # of the layer, which chooses, and of `attend`, which checks
    assert set(demands) == {announced}


def test_pairs_of_a_layer_that_asks_nothing_of_attention_are_listed():
    pairs = Hops(1)(random_batch((5, 3)))
    prepare(pairs, None)
    assert "edges" in vars(pairs)

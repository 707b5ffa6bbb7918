"""``python -m gt.lottery``: workloads, timings and cost tables, and what the program reports and writes."""

import json
import sys

import pytest
import torch

from gt.attention import costs
from gt.attention.costs import CostTable
from gt.errors import one_line
from gt.lottery import __main__ as program
from gt.lottery import show
from gt.lottery.compare import Peaks, Row, compare, floor, peak_memory, peaks
from gt.lottery.flops import matrix_flops
from gt.lottery.measure import fill_gaps, measure
from gt.lottery.picture import crossings, draw
from gt.lottery.timing import attention_step, ms, side_by_side
from gt.lottery.workloads import Workload, densities, inputs, random_graphs, workloads
from gt.masks import Complete, Hops
from gt.native.library import obstacle

PEAK = Peaks(1e11, 1e10)


def make_row(density, chosen="dense", expected="dense", **seconds):
    row = Row("8 graphs of 9, mask, 4 x 16", 72, 100, density, expected, chosen, 1e-5)
    row.times = {name: [value * factor for factor in (0.9, 1.0, 1.1)] for name, value in seconds.items()}
    return row


def test_regret_is_the_excess_over_the_best_time():
    assert make_row(0.1, "sparse", dense=3.0, sparse=2.0).regret == 0
    assert make_row(0.1, "dense", dense=3.0, sparse=2.0).regret == pytest.approx(0.5)
    assert make_row(0.1, "dense", dense=3.0, sparse=2.0).best == "sparse"
    lines = show.verdict(
        [make_row(0.1, "dense", dense=3.0, sparse=2.0), make_row(0.1, "sparse", dense=3.0, sparse=2.0)]
    )
    assert lines == [
        "auto by its cost table alone is within 10 % of the fastest backend on 0 of 2, within 25 % on 0",
        "auto after timing close calls, as runs do, is within 10 % of the fastest backend on 1 of 2, within 25 % on 1",
    ]


def test_crossing_is_where_the_fastest_backend_changes():
    rows = [
        make_row(0.01, dense=2.0, sparse=1.0),
        make_row(0.04, dense=2.0, sparse=1.5),
        make_row(0.16, dense=2.0, sparse=3.0),
    ]
    assert crossings(rows) == [pytest.approx(0.08)]


def test_random_graphs_have_given_sizes_and_densities():
    batch = random_graphs([5, 1, 30], 3)
    assert batch.sizes.tolist() == [5, 1, 30]
    assert batch.max_nodes == 30
    source, target = batch.edge_index
    assert torch.equal(batch.batch[source], batch.batch[target])
    assert (target.diff() >= 0).all()
    dense = random_graphs([400], 6)
    assert 5.5 < dense.num_edges / 400 < 6.1  # a few edges are drawn twice
    shares = [w.pairs("cpu").count / (4 * 256**2) for w in densities()]
    expected = [0.005 * 1.5**step for step in range(len(shares))]
    assert shares == pytest.approx(expected, rel=0.1, abs=0.005)  # a node always attends to itself


def test_workloads_have_unique_names():
    every = workloads()
    assert len({str(w) for w in every}) == len(every)
    kinds = {type(w.mask).__name__ for w in every}
    assert {"Hops", "Complete", "Causal"} <= kinds


def test_workload_is_measured_drawn_and_written(tmp_path):
    row = compare(Workload("two", lambda: random_graphs([9, 4], 2), Hops(1)), "cpu", torch.float32, PEAK)
    assert set(row.times) | set(row.left_out) >= {"dense", "sdpa", "sparse"}
    assert row.chosen in row.times
    assert {"gt", "TransformerConv", "GATv2Conv", "MultiheadAttention"} == set(row.layers)
    assert all(bytes_ > 13 * 4 * 16 * 4 for bytes_ in row.memory.values())  # at least the output
    assert 0 < row.density < 1
    path = draw(tmp_path, [row, make_row(0.9, "dense", dense=1.0, sparse=2.0)], {"device": "this", "torch": "1"})
    assert path.read_bytes().startswith(b"\x89PNG")
    file = show.write(tmp_path, [row], [], {"device": "this"}, PEAK)
    assert json.loads(file.read_text())["grid"][0]["chosen"] == row.chosen
    assert "molecules" not in str(show.table([row]).title)
    assert {path.name for path in tmp_path.iterdir()} == {"lottery.png", "lottery.json"}


def test_peak_memory_is_the_maximum_held_at_once():
    def step():
        a = torch.ones(1_000_000)
        b = a + 1
        del a
        return b.sum()

    assert 8_000_000 <= peak_memory(step, "cpu") < 8_100_000


def test_floor_counts_operations_or_traffic():
    pairs = Complete()(random_graphs([10], 1))
    assert floor(pairs, 2, 3, 4, Peaks(1.0, 1e30)) == 7 * 2 * 100 * 6
    assert floor(pairs, 2, 3, 4, Peaks(1e30, 1.0)) == 8 * 10 * 6 * 4


def test_repeats_are_interleaved():
    calls = []
    times = side_by_side({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, "cpu", 7, 3, 1.0)
    assert "".join(calls[:12]) == "aabbaabbaabb"  # each turn: one warm-up, one timed step
    assert len(times["a"]) == len(times["b"]) == 7
    assert len(side_by_side({"a": lambda: None}, "cpu", 7, 3, 0.0)["a"]) == 3


def test_median_of_an_even_number_of_times():
    assert ms([0.1, 0.2]).startswith("150.00 ")
    assert ms([0.3, 0.1, 0.2]).startswith("200.00 ")


def test_gaps_are_filled_in_proportion_to_the_work():
    grid = fill_gaps([[1.0, 2.0], [3.0, 0.0]], ((10, 20), (1, 4)), 2)
    assert grid == [[1.0, 2.0], [3.0, 12.0]]
    assert fill_gaps([[1.0, 2.0], [0.0, 0.0]], ((10, 20), (1, 4)), 2)[1] == [4.0, 16.0]


@pytest.fixture
def small_tables(monkeypatch):
    monkeypatch.setattr(costs, "MAX_ENTRIES", 600)
    monkeypatch.setattr(costs, "MAX_PAIRS", 600)


def test_measured_table_has_no_gaps(small_tables, tmp_path):
    table = measure("cpu")
    assert isinstance(table, CostTable)
    kernels = {"native", "listed"} if obstacle() is None else set()
    assert {name.split("/")[0] for name in table.times} == {"dense", "sdpa", "sparse"} | kernels
    assert all(value > 0 for grid in table.times.values() for line in grid for value in line)
    table.write(tmp_path / "t.json")
    assert costs.read_table(tmp_path / "t.json").times == table.times


def test_program_saves_the_cost_table(small_tables, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(costs, "table_path", lambda device, half: tmp_path / f"own-{half}.json")
    monkeypatch.setattr(sys, "argv", ["lottery", "--table-only", "--out", str(tmp_path / "out")])
    program.main()
    costs.cost_table.cache_clear()
    assert "auto now uses" in capsys.readouterr().out
    saved, copy = (
        costs.read_table(path) for path in (tmp_path / "own-False.json", tmp_path / "out" / "costs-cpu.json")
    )
    assert saved is not None
    assert saved == copy


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_gpu_is_reported_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lottery", "--device", "cuda"])
    with pytest.raises(SystemExit) as caught, one_line():
        program.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: this machine has no GPU: choose --device cpu\n"


def test_peaks_are_plausible():
    measured = peaks("cpu", torch.float32)
    assert measured.operations > 1e9
    assert measured.traffic > 1e8


@pytest.mark.parametrize(
    ("backend", "count"), [("dense", lambda pairs: 50**2 + 50**2), ("sparse", lambda pairs: pairs.count)]
)
def test_sparse_products_count_their_nonzeros(backend, count):
    """Two matrix products forward and four backward, for 4 heads of width 8."""
    pairs = Hops(1)(random_graphs([50, 30], 3))
    step = attention_step(pairs, inputs(pairs, 4, 8, torch.float32), backend)
    step()  # the mask's own products are cached from here on
    assert matrix_flops(step) == 6 * 2 * count(pairs) * 4 * 8
    assert matrix_flops(lambda: torch.addmm(torch.ones(3), torch.ones(2, 5), torch.ones(5, 3))) == 2 * 2 * 5 * 3


def test_flops_of_fused_attention():
    """Two matrix products forward and five backward, the first of which recomputes the scores."""
    pairs = Complete()(random_graphs([30, 30], 3))
    step = attention_step(pairs, inputs(pairs, 4, 8, torch.float32), "sdpa")
    assert matrix_flops(step) == 7 * 2 * pairs.count * 4 * 8

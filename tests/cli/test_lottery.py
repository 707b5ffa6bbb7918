"""The measuring of machines: what is measured, what is said of it, and what is written."""

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


def row(density, chosen="dense", expected="dense", **seconds):
    made = Row("8 graphs of 9, mask, 4 x 16", 72, 100, density, expected, chosen, 1e-5)
    made.times = {name: [value * factor for factor in (0.9, 1.0, 1.1)] for name, value in seconds.items()}
    return made


def test_regret_is_how_far_the_choice_is_from_the_best():
    assert row(0.1, "sparse", dense=3.0, sparse=2.0).regret == 0
    assert row(0.1, "dense", dense=3.0, sparse=2.0).regret == pytest.approx(0.5)
    assert row(0.1, "dense", dense=3.0, sparse=2.0).best == "sparse"
    lines = show.verdict([row(0.1, "dense", dense=3.0, sparse=2.0), row(0.1, "sparse", dense=3.0, sparse=2.0)])
    assert lines == [
        "auto by its cost table alone is within 10 % of the fastest backend on 0 of 2, within 25 % on 0",
        "auto after timing close calls, as runs do, is within 10 % of the fastest backend on 1 of 2, within 25 % on 1",
    ]


def test_a_crossing_is_where_the_fastest_changes():
    rows = [row(0.01, dense=2.0, sparse=1.0), row(0.04, dense=2.0, sparse=1.5), row(0.16, dense=2.0, sparse=3.0)]
    assert crossings(rows) == [pytest.approx(0.08)]


def test_random_graphs_are_what_they_are_said_to_be():
    batch = random_graphs([5, 1, 30], 3)
    assert batch.sizes.tolist() == [5, 1, 30]
    assert batch.max_nodes == 30
    source, target = batch.edge_index
    assert torch.equal(batch.batch[source], batch.batch[target])
    assert (target.diff() >= 0).all()
    dense = random_graphs([400], 6)
    assert 5.5 < dense.num_edges / 400 < 6.1  # a few are drawn twice
    shares = [w.pairs("cpu").count / (4 * 256**2) for w in densities()]
    wanted = [0.005 * 1.5**step for step in range(len(shares))]
    assert shares == pytest.approx(wanted, rel=0.1, abs=0.005)  # itself is always read


def test_every_workload_can_be_built_and_is_named_apart():
    found = workloads()
    assert len({str(w) for w in found}) == len(found)
    kinds = {type(w.mask).__name__ for w in found}
    assert {"Hops", "Complete", "Causal"} <= kinds


def test_one_workload_from_end_to_end(tmp_path):
    made = compare(Workload("two", lambda: random_graphs([9, 4], 2), Hops(1)), "cpu", torch.float32, PEAK)
    assert set(made.times) | set(made.left_out) >= {"dense", "sdpa", "sparse"}
    assert made.chosen in made.times
    assert {"gt", "TransformerConv", "GATv2Conv", "MultiheadAttention"} == set(made.layers)
    assert all(bytes_ > 13 * 4 * 16 * 4 for bytes_ in made.memory.values())  # at least what comes out
    assert 0 < made.density < 1
    path = draw(tmp_path, [made, row(0.9, "dense", dense=1.0, sparse=2.0)], {"device": "this", "torch": "1"})
    assert path.read_bytes().startswith(b"\x89PNG")
    written = show.write(tmp_path, [made], [], {"device": "this"}, PEAK)
    assert json.loads(written.read_text())["grid"][0]["chosen"] == made.chosen
    assert "molecules" not in str(show.table([made]).title)
    assert {path.name for path in tmp_path.iterdir()} == {"lottery.png", "lottery.json"}


def test_memory_of_a_step_is_what_it_holds_at_most():
    def step():
        a = torch.ones(1_000_000)
        b = a + 1
        del a
        return b.sum()

    assert 8_000_000 <= peak_memory(step, "cpu") < 8_100_000


def test_the_floor_counts_products_or_traffic():
    pairs = Complete()(random_graphs([10], 1))
    assert floor(pairs, 2, 3, 4, Peaks(1.0, 1e30)) == 7 * 2 * 100 * 6
    assert floor(pairs, 2, 3, 4, Peaks(1e30, 1.0)) == 8 * 10 * 6 * 4


def test_repeats_are_taken_in_turn():
    seen = []
    found = side_by_side({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, "cpu", 7, 3, 1.0)
    assert "".join(seen[:12]) == "aabbaabbaabb"  # once before it is timed, once timed
    assert len(found["a"]) == len(found["b"]) == 7
    assert len(side_by_side({"a": lambda: None}, "cpu", 7, 3, 0.0)["a"]) == 3


def test_the_median_of_an_even_number_of_times_lies_between_two():
    assert ms([0.1, 0.2]).startswith("150.00 ")
    assert ms([0.3, 0.1, 0.2]).startswith("200.00 ")


def test_gaps_are_scaled_up_by_the_work():
    grid = fill_gaps([[1.0, 2.0], [3.0, 0.0]], ((10, 20), (1, 4)), 2)
    assert grid == [[1.0, 2.0], [3.0, 12.0]]
    assert fill_gaps([[1.0, 2.0], [0.0, 0.0]], ((10, 20), (1, 4)), 2)[1] == [4.0, 16.0]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(costs, "MAX_ENTRIES", 600)
    monkeypatch.setattr(costs, "MAX_PAIRS", 600)


def test_a_measured_table_is_whole(small, tmp_path):
    table = measure("cpu")
    assert isinstance(table, CostTable)
    kernels = {"native", "listed"} if obstacle() is None else set()
    assert {name.split("/")[0] for name in table.times} == {"dense", "sdpa", "sparse"} | kernels
    assert all(value > 0 for grid in table.times.values() for line in grid for value in line)
    table.write(tmp_path / "t.json")
    assert costs.read_table(tmp_path / "t.json").times == table.times


def test_the_command_keeps_the_table_and_says_where(small, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(costs, "table_path", lambda device, half: tmp_path / f"own-{half}.json")
    monkeypatch.setattr(sys, "argv", ["lottery", "--table-only", "--out", str(tmp_path / "out")])
    program.main()
    costs.cost_table.cache_clear()
    assert "auto now uses" in capsys.readouterr().out
    own, copy = (costs.read_table(path) for path in (tmp_path / "own-False.json", tmp_path / "out" / "costs-cpu.json"))
    assert own is not None
    assert own == copy


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lottery", "--device", "cuda"])
    with pytest.raises(SystemExit) as caught, one_line():
        program.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: this machine has no GPU: choose --device cpu\n"


def test_peaks_are_positive():
    found = peaks("cpu", torch.float32)
    assert found.operations > 1e9
    assert found.traffic > 1e8


@pytest.mark.parametrize(
    ("backend", "count"), [("dense", lambda pairs: 50**2 + 50**2), ("sparse", lambda pairs: pairs.count)]
)
def test_sparse_products_count_by_their_entries(backend, count):
    """Two products forward and four backward, of 4 heads of 8."""
    pairs = Hops(1)(random_graphs([50, 30], 3))
    step = attention_step(pairs, inputs(pairs, 4, 8, torch.float32), backend)
    step()  # the mask's own products are done
    assert matrix_flops(step) == 6 * 2 * count(pairs) * 4 * 8
    assert matrix_flops(lambda: torch.addmm(torch.ones(3), torch.ones(2, 5), torch.ones(5, 3))) == 2 * 2 * 5 * 3


def test_fused_attention_counts_its_products():
    """Two forward, and of the backward pass five, of which the first are the scores again."""
    pairs = Complete()(random_graphs([30, 30], 3))
    step = attention_step(pairs, inputs(pairs, 4, 8, torch.float32), "sdpa")
    assert matrix_flops(step) == 7 * 2 * pairs.count * 4 * 8

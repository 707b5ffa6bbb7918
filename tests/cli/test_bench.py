"""What the benchmark times: the networks that it says, in step with one another, and what it leaves."""

import json
import sys

import pytest
import torch

from gt.bench import __main__ as program
from gt.bench import shapes, steps
from gt.bench.show import changes, read
from gt.bench.steps import TRAINER, Row, measure
from gt.graph import path_graphs
from gt.lottery.compare import Peaks
from gt.lottery.workloads import random_graphs

SMALL = {
    "gps_molhiv": lambda: shapes.gps("GPS-molhiv", "gated_gcn", shapes.gated, 3),
    "gps_zinc": lambda: shapes.gps("GPS-ZINC", "gine", shapes.gine, 3),
    "gpt_small": lambda: shapes.text(16, 1, 2, 8, 3),
}


def test_the_names_that_a_typo_is_held_against_are_those_there_are():
    assert set(program.NAMES) == set(shapes.SHAPES)


@pytest.mark.parametrize("name", SMALL)
def test_programs_of_a_shape_answer_the_same_question(name, monkeypatch):
    monkeypatch.setattr(shapes, "BATCHES", 2)
    shape = SMALL[name]()
    net, rival = shape.network(), shape.rival[1]()
    for batch in shape.batches(net, torch.device("cpu"), False):
        assert net(batch).shape == rival(batch).shape
        assert shape.count(batch) in (3, 24)
    assert [parameter.numel() for parameter in rival.parameters()]


def test_pytorchs_gpt_has_the_parameters_and_the_view_of_ours():
    """A token changes nothing before it, and the networks are of one size."""
    shape = SMALL["gpt_small"]()
    net, rival = shape.network(), shape.rival[1]().eval()
    ours, theirs = net.parameter_count(), sum(parameter.numel() for parameter in rival.parameters())
    assert abs(ours - theirs) < 0.02 * ours
    batch = path_graphs([8])
    batch.x = torch.zeros(8, 1, dtype=torch.long)
    before = rival(batch)
    batch.x[5] = 7
    assert torch.equal(before[:5], rival(batch)[:5])
    assert not torch.equal(before[5:], rival(batch)[5:])


def test_of_the_large_graph_both_read_along_the_edges_alone(monkeypatch):
    monkeypatch.setattr(shapes, "random_graphs", lambda sizes, degree, seed: random_graphs([40], 2, seed))
    shape = shapes.large()
    net = shape.network().eval()
    (batch, *_), rival = shape.batches(net, torch.device("cpu"), False), shape.rival[1]().eval()
    alone = int((torch.bincount(batch.edge_index[0], minlength=40) == 0).nonzero()[0])  # whom nobody reads
    with torch.no_grad():
        before = [each(batch) for each in (net, rival)]
        batch.x[alone] = (batch.x[alone] + 1) % 16
        after = [each(batch) for each in (net, rival)]
    for was, now in zip(before, after, strict=True):
        assert (was != now).any(1).nonzero().flatten().tolist() == [alone]


def test_a_result_is_written_read_and_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shapes, "SHAPES", SMALL)
    monkeypatch.setattr("gt.lottery.compare.peaks", lambda *_: Peaks(1e12, 1e12))
    monkeypatch.setattr(sys, "argv", ["gt.bench", "--only", "gpt_small", "--rounds", "2", "--out", str(tmp_path)])
    program.main()
    rows = read(tmp_path / "bench.json")
    assert [row.program for row in rows] == ["gt", TRAINER, "TransformerEncoder"]
    assert all(len(row.times) >= 2 and row.median > 0 for row in rows)
    assert rows[0].flops == pytest.approx(rows[2].flops, rel=0.1)
    for row in (rows[0], rows[2]):
        assert sum(row.parts.values()) == pytest.approx(row.median, rel=0.5)
    said = capsys.readouterr().out
    assert f"picture  {tmp_path / 'bench.png'}" in said
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")

    slower = json.loads((tmp_path / "bench.json").read_text())
    for row in slower["rows"]:
        row["times"] = [3 * seconds for seconds in row["times"]]
    (tmp_path / "old.json").write_text(json.dumps(slower))
    lines = changes(read(tmp_path / "old.json"), rows)
    assert len(lines) == 3
    assert all(line.endswith("x 0.33") for line in lines)
    with pytest.raises(Exception, match=r"old\.png"):
        read(tmp_path / "old.png")


def test_the_loop_trains(monkeypatch):
    monkeypatch.setattr(shapes, "BATCHES", 1)
    shape = SMALL["gpt_small"]()
    torch.manual_seed(0)
    net = shape.network()
    loop = steps.Loop(net, shape.schema, shape.batches(net, torch.device("cpu"), False), False)
    losses = []
    for _ in range(30):
        loop.step()
        losses.append(loop.loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_rows_come_from_the_programs_in_turn(monkeypatch):
    monkeypatch.setattr(shapes, "BATCHES", 2)
    order = []
    monkeypatch.setattr(steps.Loop, "step", lambda self: order.append(type(self.net).__name__))
    monkeypatch.setattr(steps, "trainer_steps", lambda *_: [1.0])
    monkeypatch.setattr(steps, "peak_memory", lambda *_: 0)
    rows = measure(SMALL["gps_zinc"](), torch.device("cpu"), False, 3, Peaks(1.0, 1.0))
    assert [type(row) for row in rows] == 3 * [Row]
    assert order[4:10] == 3 * ["GraphTransformer", "PyGNetwork"]

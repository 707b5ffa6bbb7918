"""The benchmark: which networks it times, how it interleaves them, what it writes."""

import json
import sys

import pytest
import torch
from torch import nn

from gt.bench import __main__ as program
from gt.bench import shapes, steps
from gt.bench.show import changes, read
from gt.bench.steps import COMPILED, TRAINER, WARM_UP, Row, measure
from gt.graph import path_graphs
from gt.lottery.compare import Peaks
from gt.lottery.workloads import random_graphs

SMALL = {
    "gps_molhiv": lambda: shapes.gps("GPS-molhiv", "gated_gcn", shapes.gated, 3),
    "gps_zinc": lambda: shapes.gps("GPS-ZINC", "gine", shapes.gine, 3),
    "gpt_small": lambda: shapes.text(16, 1, 2, 8, 3),
}


def test_suggested_names_are_all_shapes():
    assert set(program.NAMES) == set(shapes.SHAPES)


@pytest.mark.parametrize("name", SMALL)
def test_network_and_rival_have_equal_output_shapes(name, monkeypatch):
    monkeypatch.setattr(shapes, "BATCHES", 2)
    shape = SMALL[name]()
    net, rival = shape.network(), shape.rival[1]()
    for batch in shape.batches(net, torch.device("cpu"), False):
        assert net(batch).shape == rival(batch).shape
        assert shape.count(batch) in (3, 24)
    assert [parameter.numel() for parameter in rival.parameters()]


def test_pytorch_gpt_matches_ours_in_size_and_causality():
    """Causal attention, and a parameter count within 2 % of ours."""
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


def test_large_graph_networks_read_only_along_edges(monkeypatch):
    monkeypatch.setattr(shapes, "random_graphs", lambda sizes, degree, seed: random_graphs([40], 2, seed))
    shape = shapes.large()
    net = shape.network().eval()
    (batch, *_), rival = shape.batches(net, torch.device("cpu"), False), shape.rival[1]().eval()
    # a node that no other node reads
    unread = int((torch.bincount(batch.edge_index[0], minlength=40) == 0).nonzero()[0])
    with torch.no_grad():
        before = [network(batch) for network in (net, rival)]
        batch.x[unread] = (batch.x[unread] + 1) % 16
        after = [network(batch) for network in (net, rival)]
    for old, new in zip(before, after, strict=True):
        assert (old != new).any(1).nonzero().flatten().tolist() == [unread]


def test_results_are_written_read_and_compared(tmp_path, monkeypatch, capsys):
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
    output = capsys.readouterr().out
    assert f"picture  {tmp_path / 'bench.png'}" in output
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


def test_loop_reduces_the_loss(monkeypatch):
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


def test_networks_are_timed_in_turn(monkeypatch):
    monkeypatch.setattr(shapes, "BATCHES", 2)
    order = []
    monkeypatch.setattr(steps.Loop, "step", lambda self: order.append(type(self.net).__name__))
    monkeypatch.setattr(steps, "trainer_steps", lambda *_: [1.0])
    monkeypatch.setattr(steps, "peak_memory", lambda *_: 0)
    rows = measure(SMALL["gps_zinc"](), torch.device("cpu"), False, 3, Peaks(1.0, 1.0))
    assert [type(row) for row in rows] == 3 * [Row]
    assert order[2 * WARM_UP : 2 * WARM_UP + 6] == 3 * ["GraphTransformer", "PyGNetwork"]


def test_compiled_network_is_timed_on_batches_of_one_shape(monkeypatch):
    monkeypatch.setattr(shapes, "BATCHES", 2)
    monkeypatch.setattr(steps, "trainer_steps", lambda *_: [1.0])
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda part, mode, **_: compiled.append(mode))
    shape = SMALL["gps_zinc"]()
    rows = measure(shape, torch.device("cpu"), False, 1, Peaks(1.0, 1.0), "reduce-overhead")
    assert [row.program for row in rows] == ["gt", TRAINER, COMPILED, "GPSConv"]
    assert set(compiled) == {"reduce-overhead"}
    batches = shape.batches(shape.network(), torch.device("cpu"), False, static=True)
    assert len({(batch.num_graphs, batch.num_nodes, batch.num_edges, batch.max_nodes) for batch in batches}) == 1

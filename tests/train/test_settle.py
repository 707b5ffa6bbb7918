"""Close calls among attention backends: timed once, cached and applied, without affecting what a run computes."""

import json
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from gt.attention import Demand, choose, dispatch
from gt.attention.settled import case_key, close_calls, fastest
from gt.layers import attention_layers
from gt.masks import Complete, Hops
from gt.train.callbacks import settle
from gt.train.callbacks.settle import cache_cases, read_cases, time_close_calls
from tests.graphs import random_batch
from tests.models.test_all_models import SIZES, batch_of, encoded, every_model, graphs, network
from tests.small_runs import train, write_graphs

SOON = "callbacks.backends.steps=1"


def test_settled_backend_overrides_the_estimate(monkeypatch):
    monkeypatch.setattr(dispatch, "explain", lambda pairs, demand: {"dense": 1.0, "sparse": 2.0, "sdpa": "cannot"})
    small, large = (Complete()(random_batch(sizes)) for sizes in ((5, 4), (50, 40)))
    assert choose(small, Demand()) == "dense"
    settled = frozenset({(case_key(small, Demand()), "sparse"), (case_key(large, Demand()), "sdpa")})
    assert choose(small, Demand(settled=settled)) == "sparse"
    assert choose(small, Demand(settled=settled, backend="sdpa")) == "sdpa"
    assert choose(small, Demand(settled=settled, heads=2)) == "dense"
    # a backend that cannot be used is not chosen, whatever the record says
    assert choose(large, Demand(settled=settled)) == "dense"
    assert choose(Hops(1)(small.batch), Demand(settled=settled)) == "dense"


def test_batches_of_similar_sizes_share_a_key():
    def key(*sizes, mask=None, **options):
        return case_key((mask or Complete())(random_batch(sizes)), Demand(**options))

    assert key(20, 20, 9) == key(20, 19, 10)
    assert key(20, 20, 9) != key(40, 9)
    assert key(20, 20, 9) != key(20, 20, 9, mask=Hops(1))
    assert key(20, 20, 9) != key(20, 20, 9, dropout=True)
    assert key(20, 20) != key(20, 19)  # graphs of equal size need no padding
    assert key(20, 20, backend="dense", settled=frozenset({("a", "b")})) == key(20, 20)


def test_close_calls_are_within_a_factor_of_best():
    assert close_calls({"a": 1.4, "b": 1.0, "c": 2.0, "d": "no", "e": float("inf")}) == ["b", "a"]
    assert close_calls({"a": 1.0}) == ["a"]
    assert close_calls({"a": float("inf"), "b": "no", "c": float("inf")}) == ["a"]


def test_expected_backend_wins_unless_clearly_beaten():
    assert fastest({"dense": [1.0, 9.0, 1.1], "sdpa": [1.0, 1.05, 1.2]}) == "dense"
    assert fastest({"dense": [1.0, 0.5, 1.1], "sdpa": [0.8, 0.9, 1.2]}) == "sdpa"
    assert fastest({"dense": [1.0]}) == "dense"


@every_model
def test_timing_leaves_network_unchanged(name, monkeypatch):
    """Every attention layer of every model can be timed."""
    monkeypatch.setattr(settle, "close_calls", lambda _: ["dense", "sparse"])
    monkeypatch.setattr(settle, "SETTLING", (1, 1, 0.0))
    net = deepcopy(network(name)).float().train()
    batch = batch_of(encoded(net, graphs(*SIZES)))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    timed = dict(time_close_calls(net, [batch, batch], False, torch.enable_grad))
    assert net.training
    assert bool(timed) == bool(attention_layers(net))
    assert all(set(times) == {"dense", "sparse"} for times in timed.values())
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    for _, layer in attention_layers(net):
        assert layer.backend == "auto"
        assert not layer.used
    assert list(time_close_calls(net, [batch], False, torch.enable_grad, cached=timed)) == []


@pytest.fixture
def timing(monkeypatch, tmp_path):
    """Makes every choice a close call that the sparse backend wins; records what is timed."""
    timed = []

    def fake_side_by_side(steps, *_):
        timed.append(list(steps))
        for step in steps.values():
            step()
        return {name: [0.001 if name == "sparse" else 0.002] for name in steps}

    monkeypatch.setattr(settle, "close_calls", lambda _: ["dense", "sparse"])
    monkeypatch.setattr(settle, "side_by_side", fake_side_by_side)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return timed


def test_timed_backend_is_used_and_cached(timing, tmp_path, capsys):
    data = write_graphs(tmp_path)
    train(tmp_path / "table", *data)  # too few steps to pay off
    assert not timing
    assert not (tmp_path / "table" / settle.RECORD).exists()
    train(tmp_path / "a", *data, SOON)
    output = capsys.readouterr().out
    assert "sparse (1.00 ms a layer) rather than dense (2.00 ms)" in output
    assert "attention in layer 0: sparse" in output
    cases = json.loads((tmp_path / "a" / settle.RECORD).read_text())
    assert len(cases) == len(timing) > 0
    assert set(cases.values()) == {"sparse"}
    count = len(timing)
    train(tmp_path / "b", *data, SOON)
    assert len(timing) == count
    assert "rather than" not in capsys.readouterr().out
    assert json.loads((tmp_path / "b" / settle.RECORD).read_text()) == cases
    train(tmp_path / "c", *data, SOON, "+model.block.attention.backend=dense")
    assert not (tmp_path / "c" / settle.RECORD).exists()


def test_resumed_run_keeps_its_backends(timing, tmp_path, capsys):
    data = [*write_graphs(tmp_path), "optim/schedule=constant"]
    train(tmp_path / "timed", *data, SOON)
    train(tmp_path / "table", *data)
    for path in (tmp_path / "cache" / "gt").glob("settled-cpu-*.json"):
        path.unlink()
    timing.clear()
    for name, layers in (("timed", {"sparse"}), ("table", set())):
        record = tmp_path / name / settle.RECORD
        capsys.readouterr()
        train(tmp_path / name, *data, SOON, "trainer.max_epochs=3", resume=True)
        (backends,) = re.findall("attention in layer 0: (.*)", capsys.readouterr().out)
        assert ("sparse" in backends) == (name == "timed")
        assert (set(json.loads(record.read_text()).values()) if record.exists() else set()) == layers
    assert not timing


def test_first_cached_choice_wins(tmp_path):
    path = tmp_path / "new" / "settled.json"
    assert read_cases(path) == {}
    assert cache_cases(path, {"a": "dense"}) == {"a": "dense"}
    assert cache_cases(path, {"a": "sparse", "b": "sdpa"}) == {"a": "dense", "b": "sdpa"}
    assert read_cases(path) == {"a": "dense", "b": "sdpa"}
    path.write_text(path.read_text().replace(torch.__version__, "1.0"))
    assert read_cases(path) == {}
    path.write_text('{"torch": 1')
    assert read_cases(path) == {}
    assert cache_cases(path, {"a": "sparse"}) == read_cases(path) == {"a": "sparse"}


def test_unwritable_cache_is_ignored(tmp_path):
    Path(tmp_path / "file").write_text("")
    assert cache_cases(tmp_path / "file" / "settled.json", {"a": "dense"}) == {"a": "dense"}

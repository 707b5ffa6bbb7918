"""The map between GNN and Transformer: its cells, and how they are run and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

import train
from gt import spectrum
from gt.cli.config_files import CONFIGS
from gt.cli.spectrum import Grid, pool, run
from gt.cli.spectrum.grid import AXES, Cell, Setting
from gt.cli.spectrum.plan import CELLS
from gt.layers import GatedGCN
from gt.layers.block import attention_layers
from gt.masks import Causal, Complete, Hops, Window
from gt.schema import Schema
from gt.train.network import build, network_config
from tests.cli.spectrum_results import run_result
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture
from tests.small_runs import write_graphs

MASKS = {
    "hops": (Hops(2), Complete()),
    "one_hop": (Hops(2), Complete()),
    "window": (Window(2), Complete()),
    "causal": (Window(2) & Causal(), Causal()),
    "causal_window": (Window(2) & Causal(), Causal()),
}


def network(*overrides: str):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=["experiment=spectrum", "encoding=none", "model.depth=2", *overrides])
    return build(network_config(cfg), Schema(node_vocab=(4,))), cfg.seed


@pytest.mark.parametrize("mask", AXES)
def test_cell_has_its_masks_and_branches(mask):
    """Between the corners both branches, blended by the weight of the cell; at the corners a single branch."""
    axis, (limited, unlimited) = AXES[mask], MASKS[mask]
    for radius, expected in ((2, limited), (None, unlimited)):
        net, seed = network(*Cell(Setting(0.25, radius), 7).overrides(axis))
        assert net.masks == [expected, expected]
        assert (net.blend_weights(), seed) == ([0.25, 0.25], 7)
        assert not any(name.endswith("logit") for name, _ in net.named_parameters())
        corner, _ = network(*Cell(Setting(1.0, radius), 0).overrides(axis))
        assert corner.masks == [expected, expected]
        assert [len(attention_layers(each)) for each in (net, corner)] == [2, 2]
        assert [sum(isinstance(part, GatedGCN) for part in each.modules()) for each in (net, corner)] == [2, 0]
    gnn, _ = network(*Cell(Setting(0.0, None), 0).overrides(axis))
    assert attention_layers(gnn) == []
    assert sum(isinstance(part, GatedGCN) for part in gnn.modules()) == 2


def test_settings_without_attention_share_one_cell():
    grid = Grid([None, 2, 0, 2], [1, 0, 0.5], seeds=2)
    assert grid.settings == [(0.0, None), *((weight, radius) for weight in (0.5, 1.0) for radius in (0, 2, None))]
    assert [cell.seed for cell in grid.cells] == 7 * [0] + 7 * [1]  # after half the runs, every setting has one
    assert len({cell.name for cell in grid.cells}) == 14
    assert len(Grid(quick=True).cells) == 2 * (1 + 2 * 3)
    assert len(Grid().cells) == 3 * (1 + 4 * 5)


@pytest.fixture
def run_map(monkeypatch, tmp_path):
    """Starts a map in this process with fake runs, which write a result; returns the arguments of each run."""
    runs: dict[str, list[str]] = {}

    def run_all(cells, processes, poll):
        runs.update(cells)
        for name, _ in cells:
            (tmp_path / "map" / CELLS / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "map" / CELLS / name / "result.json").write_text(json.dumps(run_result(0.5)))

    monkeypatch.setattr(run, "run_all", run_all)
    monkeypatch.setattr(run, "prepare", lambda *_: None)
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def start(program, *arguments: str) -> dict[str, list[str]]:
        runs.clear()
        GlobalHydra.instance().clear()
        if program == "train":
            monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
            train.command()
        else:
            monkeypatch.setattr(sys, "argv", ["gt.spectrum"])
            spectrum.main(arguments)
        return dict(runs)

    return start


SMALL = ("data=graph_files", "data.path=graphs.jsonl", "spectrum.weights=[0,0.5,1]", "spectrum.radii=[0,null]")


def test_both_commands_run_only_missing_cells(run_map, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_graphs(tmp_path)
    arguments = [*SMALL, "model.width=32", f"hydra.sweep.dir={tmp_path / 'map'}", "spectrum.seeds=2"]
    first = run_map("train", "-m", "experiment=spectrum", *arguments)
    assert len(first) == 2 * (1 + 2 * 2)
    for name, overrides in first.items():
        assert "experiment=spectrum" in overrides
        assert "model.width=32" in overrides
        assert not any(word.startswith(("spectrum.", "-m")) for word in overrides)
        assert f"cells/{name}" in overrides[-1]
    assert "spectrum.png" in capsys.readouterr().out
    cells = tmp_path / "map" / CELLS
    assert run_map("gt.spectrum", *arguments) == {}

    (cells / "blend-0_seed-1" / "result.json").unlink()
    started = cells / "radius-0_blend-0.5_seed-0"
    (started / "result.json").unlink()
    (started / "checkpoints").mkdir()
    (started / "checkpoints" / "last.ckpt").touch()
    resumed = run_map("train", "experiment=spectrum", *arguments)
    assert resumed == {"blend-0_seed-1": first["blend-0_seed-1"], started.name: [f"resume={started}"]}

    added = run_map("gt.spectrum", f"resume={tmp_path / 'map'}", "spectrum.seeds=3")
    assert len(added) == 5
    assert all(name.endswith("_seed-2") for name in added)
    with pytest.raises(SystemExit):
        run_map("gt.spectrum", *arguments, "model.depth=7")
    assert "model.depth=7" in capsys.readouterr().err
    (cells / "blend-0_seed-1" / "result.json").unlink()
    assert run_map("train", "-m", f"resume={tmp_path / 'map'}") == {"blend-0_seed-1": first["blend-0_seed-1"]}


def test_map_of_text_uses_windows(run_map, tmp_path):
    arguments = ("data=python_text", "spectrum.weights=[0,1]", "spectrum.radii=[3,null]", "spectrum.quick=true")
    runs = run_map("gt.spectrum", *arguments, "spectrum.seeds=1", f"hydra.sweep.dir={tmp_path / 'map'}")
    assert {name: [word for word in words if "mask" in word] for name, words in runs.items()} == {
        "blend-0_seed-0": [],
        "radius-3_blend-1_seed-0": ["mask=causal_window", "mask.masks.0.width=3"],
        "radius-all_blend-1_seed-0": ["mask=causal"],
    }
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=runs["radius-3_blend-1_seed-0"])
    assert instantiate(cfg.mask, _convert_="all") == Window(3) & Causal()
    assert (cfg.trainer.limit_train_batches, cfg.trainer.max_steps) == (100, 400)
    # the dataset's own interval is 500 steps
    assert (cfg.trainer.val_check_interval, cfg.trainer.check_val_every_n_epoch) == (1.0, 1)


def test_map_of_a_preset_keeps_its_settings(run_map, tmp_path):
    arguments = ("experiment=gps_molhiv", "spectrum.weights=[0]", "spectrum.quick=true")
    runs = run_map("gt.spectrum", *arguments, f"hydra.sweep.dir={tmp_path / 'map'}")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=runs["blend-0_seed-0"])
    assert cfg.model.depth == 10
    assert cfg.model.block.attention is None


FAKE = """
import json, os, sys, time
from pathlib import Path

words = dict(word.split("=", 1) for word in sys.argv[1:])
folder = Path(words["folder"])
folder.mkdir(parents=True, exist_ok=True)
(folder / "pid").write_text(str(os.getpid()))
if words["end"] == "wrong":
    print("a warning", file=sys.stderr)
    sys.exit("error: mend me")
if words["end"] == "killed":
    os.kill(os.getpid(), 9)
time.sleep(float(words["end"]))
(folder / "threads").write_text(os.environ["OMP_NUM_THREADS"])
"""


@pytest.fixture
def fake_runs(monkeypatch, tmp_path):
    """A program that replaces train.py and ends as its argument ``end`` says."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(pool, "TRAIN", tmp_path / "fake.py")
    return lambda **ends: [(name, [f"folder={tmp_path / name}", f"end={end}"]) for name, end in ends.items()]


@pytest.mark.parametrize(("setting", "threads"), [("", "3"), ("2", "2")])
def test_runs_share_cores_and_survive_failures_of_others(setting, threads, fake_runs, monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "cpus", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", setting) if setting else monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ended = {}
    pool.run_all(
        fake_runs(a="0.1", b="wrong", c="killed", d="0.1"), 2, lambda run: run and ended.update({run.name: run})
    )
    assert {name: run.error for name, run in ended.items()} == {
        "a": "", "b": "mend me", "c": "killed by SIGKILL", "d": ""}  # fmt: skip
    assert [(tmp_path / name / "threads").read_text() for name in "ad"] == [threads, threads]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_exception_stops_all_runs(fake_runs, tmp_path):
    class Stop(BaseException):
        pass

    def poll(run):
        if all((tmp_path / name / "pid").exists() for name in "ab"):
            raise Stop

    with pytest.raises(Stop):
        pool.run_all(fake_runs(a="60", b="60", c="60"), 2, poll)
    assert not any(alive(int((tmp_path / name / "pid").read_text())) for name in "ab")
    assert not (tmp_path / "c").exists()


def test_killed_map_takes_its_runs_with_it(fake_runs, tmp_path):
    code = (
        "from pathlib import Path; from gt.cli.spectrum import pool; "
        f"pool.TRAIN = Path({str(tmp_path / 'fake.py')!r}); "
        f"pool.run_all({fake_runs(a='60')!r}, 1, lambda run: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=CONFIGS.parent)
    pid = tmp_path / "a" / "pid"
    try:
        while not (pid.exists() and pid.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 10
    while alive(int(pid.read_text())) and Path(f"/proc/{pid.read_text()}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_small_map_end_to_end(tmp_path):
    arguments = ("data=graph_files", "encoding=none", "model.width=8", "model.depth=1", "model/norm=batch",
             "trainer=cpu", "trainer.max_epochs=2", "spectrum.weights=[0,0.5,1]", "spectrum.radii=[0,null]",
             "spectrum.seeds=1", "spectrum.processes=2", f"hydra.sweep.dir={tmp_path / 'map'}")  # fmt: skip
    command = [sys.executable, "-m", "gt.spectrum", *arguments, *write_graphs(tmp_path)]
    process = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert len(list(tmp_path.glob(f"map/{CELLS}/*/result.json"))) == 5
    assert (tmp_path / "map" / "spectrum.png").exists()
    assert f"picture  {tmp_path / 'map' / 'spectrum.png'}" in process.stdout
    assert "graph_files graphs: best " in process.stdout

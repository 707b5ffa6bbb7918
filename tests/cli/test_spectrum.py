"""The map between GNN and Transformer: its cells, how they are run, their scores, and the picture."""

import csv
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from scipy.stats import ttest_rel

import train
from gt import spectrum
from gt.cli.arguments import parse_overrides
from gt.cli.config_files import CONFIGS
from gt.cli.spectrum import Grid, pool, run
from gt.cli.spectrum.grid import AXES, Cell, Setting
from gt.cli.spectrum.picture import Map, figure_of, figure_of_several
from gt.cli.spectrum.plan import CELLS, Plan, read
from gt.cli.spectrum.scores import Scored
from gt.cli.spectrum.show import show
from gt.layers import GatedGCN
from gt.layers.block import attention_layers
from gt.masks import Causal, Complete, Hops, Window
from gt.schema import Schema
from gt.train.network import build, network_config
from tests.cli.test_sweep import restore_logging  # noqa: F401  a fixture
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


def run_result(valid: float, test: float | None = None, seconds: float | None = 0.01, mode: str = "max") -> dict:
    return {"split": "test", "criterion": "score", "mode": mode, "best_valid": valid, "baseline": {"score": 0.1},
            "scores": {"score": valid if test is None else test}, "parameters": 100,
            "seconds_per_batch": seconds}  # fmt: skip


SMALL = ("data=graph_files", "data.path=graphs.jsonl", "spectrum.weights=[0,0.5,1]", "spectrum.radii=[0,null]")


def test_both_commands_run_only_missing_cells(run_map, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_graphs(tmp_path)
    arguments = [*SMALL, "model.width=32", f"hydra.sweep.dir={tmp_path / 'map'}", "spectrum.seeds=2"]
    first = run_map("train", "-m", "experiment=spectrum", *arguments)
    assert len(first) == 2 * (1 + 2 * 2)
    for name, arguments in first.items():
        assert "experiment=spectrum" in arguments
        assert "model.width=32" in arguments
        assert not any(word.startswith(("spectrum.", "-m")) for word in arguments)
        assert f"cells/{name}" in arguments[-1]
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


GNN, SET, TRANSFORMER, BETWEEN = Setting(0.0, None), Setting(1.0, 0), Setting(1.0, None), Setting(0.5, 2)


def scores_of(cells: dict, mode: str = "max", **facts) -> Scored:
    """The scores of a map, from the validation and test score of each run of a cell."""
    return Scored(
        {
            (setting, seed): run_result(*values, mode=mode) | facts
            for setting, runs in cells.items()
            for seed, values in enumerate(runs)
        }
    )


def test_best_cell_is_selected_by_validation():
    table = {GNN: [(0.80, 0.6), (0.82, 0.6)], BETWEEN: [(0.70, 0.9), (0.72, 0.9)]}
    assert scores_of(table).best == GNN
    assert scores_of(table, mode="min").best == BETWEEN
    assert scores_of({GNN: [(math.nan, 0.9)], BETWEEN: [(0.1, 0.1)]}).best == BETWEEN
    verdict = scores_of(table).verdict("data", AXES["hops"])
    assert "GNN corner" in verdict
    assert "test score 0.6000" in verdict


@pytest.mark.parametrize("mode", ["max", "min"])
def test_verdict_distinguishes_differences_from_noise(mode):
    sign = 1 if mode == "max" else -1
    better = [(sign * value, sign * value) for value in (0.80, 0.82, 0.81)]
    clear = [(sign * 0.5, sign * (value - gap)) for value, gap in ((0.80, 0.30), (0.82, 0.31), (0.81, 0.32))]
    unclear = [(sign * 0.5, sign * (value - gap)) for value, gap in ((0.80, 0.05), (0.82, -0.04), (0.81, 0.02))]
    verdict = scores_of({BETWEEN: better, GNN: clear, TRANSFORMER: unclear}, mode).verdict("data", AXES["hops"])
    first, gnn, transformer = verdict.split("; ")
    assert "a share of 0.5 of attention, to all within 2 hops" in first
    assert (
        "0.3100 [0.2852, 0.3348] better than the GNN, which is more than noise (53.7 standard errors, 3 seeds)" in gnn
    )
    assert transformer.startswith("0.0100 [-0.1")
    assert "better than the Transformer, which is not more than noise (0.4 standard errors" in transformer


def test_verdict_of_equal_differences_for_all_seeds():
    verdict = scores_of({BETWEEN: [(1.0, 1.0)] * 3, GNN: [(0.5, 0.25)] * 3}).verdict("data", AXES["hops"])
    assert "0.7500 better than the GNN, with each of 3 seeds" in verdict


def test_noise_verdict_matches_paired_t_test():
    draw, verdicts = np.random.default_rng(0), []
    for _ in range(60):
        seeds, gap = int(draw.integers(2, 6)), float(draw.uniform(0, 3))
        ours, theirs = draw.normal(gap, 1, seeds), draw.normal(0, 1, seeds)
        table = {BETWEEN: [(9.0, value) for value in ours], GNN: [(0.0, value) for value in theirs]}
        exceeds_noise = "which is more than noise" in scores_of(table).verdict("data", AXES["hops"])
        assert exceeds_noise == bool(ttest_rel(ours, theirs).pvalue < 0.05)
        verdicts.append(exceeds_noise)
    assert 5 < sum(verdicts) < 55


def test_verdict_is_paired_by_seed():
    three, one = [(0.9, 0.5), (0.9, 0.6), (0.9, 0.7)], [(0.5, 0.49)]
    verdict = scores_of({BETWEEN: three, GNN: one}).verdict("data", AXES["hops"])
    assert "0.0100 better than the GNN (one seed" in verdict
    assert "whether this exceeds the noise is unknown" in verdict
    assert "which is" not in verdict
    assert "the same as the GNN" in scores_of({BETWEEN: three, GNN: [(0.1, 0.5)]}).verdict("data", AXES["hops"])


def test_verdict_without_test_split():
    verdict = scores_of({GNN: [(0.5,)]}, split="valid").verdict("data", AXES["hops"])
    assert "valid score 0.5000 (the split used for selection)" in verdict


@pytest.fixture
def map_folder(tmp_path) -> Path:
    """A map with one unfinished cell: the Transformer is best in validation, a cell between the corners in the test."""
    grid = {"radii": [0, 2, None], "weights": [0, 0.5, 1], "seeds": 2}
    plan = Plan("data", "hops", [], ["experiment=spectrum"], [], grid)
    plan.save(tmp_path)
    for cell in plan.cells:
        weight, radius = cell.setting
        if (weight, radius) == (0.5, 0):
            continue
        reach = 3 if radius is None else radius
        values = (0.6 + 0.1 * weight + 0.01 * reach, 0.9 if weight == 0.5 else 0.5 + 0.1 * weight + 0.02 * cell.seed)
        folder = tmp_path / CELLS / cell.name
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(run_result(*values, seconds=0.001 * (1 + 10 * weight))))
    failed = tmp_path / CELLS / "radius-0_blend-0.5_seed-0"
    failed.mkdir()
    (failed / "failure.json").write_text(json.dumps({"overrides": ["mask.hops=0"], "reason": "out of memory"}))
    return tmp_path


def test_picture_shows_scores_costs_and_marks(map_folder):
    plan = read(map_folder)
    table = Scored({(cell.setting, cell.seed): run for cell, run in plan.results(map_folder).items()})
    figure = figure_of(Map(table, Grid(**plan.grid), plan.axis, "data"))
    scores, costs = figure.axes[:2]
    for axes, value in ((scores, "0.6100\n± 0.0141"), (costs, "11 ms")):
        texts = {text.get_text(): text.get_position() for text in axes.texts}
        shown = [text.get_position() for text in axes.texts if text.get_text() == value]
        assert {(x, round(y)) for x, y in shown} == {(2, 0), (2, 1), (2, 2)}  # attention only
        assert texts["best, Transformer"][0] == 2
        assert round(texts["best, Transformer"][1]) == 2
        assert texts["GNN"][0] == 0  # one box over all rows
        assert [box.get_height() for box in axes.patches if box.get_x() == -0.5] == [3]
        assert (texts["set"][0], round(texts["set"][1])) == (2, 0)
        hatched = [box.get_xy() for box in axes.patches if box.get_hatch()]
        assert hatched == [(0.5, -0.5)]
        assert [box.get_x() for box in axes.patches if not box.get_fill()] == [pytest.approx(1.53)]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "2", "all nodes"]
    assert "Transformer corner" in figure.get_suptitle()


def test_unfinished_map_is_shown(map_folder, capsys):
    spectrum.main([str(map_folder)])
    output = capsys.readouterr().out
    assert (map_folder / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    assert "out of memory" in output
    assert f"2 of 14 cells are missing; resume with: python -m gt.spectrum resume={map_folder}" in output
    rows = list(csv.DictReader((map_folder / "spectrum.csv").open()))
    assert [(row["blend"], row["radius"]) for row in rows] == [
        ("0.0", ""), ("0.5", "2"), ("0.5", "all"), ("1.0", "0"), ("1.0", "2"), ("1.0", "all")]  # fmt: skip
    last = rows[-1]
    assert last["mark"] == "best Transformer"
    assert float(last["test_mean"]) == pytest.approx(0.61)
    assert float(last["test_deviation"]) == pytest.approx(np.std([0.6, 0.62], ddof=1))
    assert float(last["seconds_per_batch"]) == pytest.approx(0.011)


def test_map_folder_with_special_characters(map_folder, capsys, monkeypatch):
    folder = map_folder.rename(map_folder.with_name("my map, lr=1 [a]"))
    try:
        spectrum.main([str(folder)])
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "resume with" in line)
        arguments = shlex.split(line.partition("python -m gt.spectrum ")[2])
        overrides = spectrum.command_line(arguments)
        (folder_override,) = (word for word in overrides if word.startswith("hydra.sweep.dir="))
        assert parse_overrides([folder_override])[0].value() == str(folder)
    finally:
        folder.rename(map_folder)


def test_maps_in_one_picture_have_separate_colours(map_folder, tmp_path, capsys, monkeypatch):
    plan = read(map_folder)
    runs = {(cell.setting, cell.seed): each for cell, each in plan.results(map_folder).items()}
    first = Map(Scored(runs), Grid(**plan.grid), plan.axis, "one")
    worse = {
        cell: each | {"mode": "min", "scores": {"score": 100 * each["scores"]["score"]}} for cell, each in runs.items()
    }
    figure = figure_of_several(
        [first, first._replace(scored=Scored(worse), name="other"), first._replace(name="third")], 2
    )
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title().partition("\n")[0] for axes in panels] == ["one", "other", "third"]
    assert "Transformer corner" in panels[0].get_title()
    assert "GNN corner" in panels[1].get_title()
    assert [next(text.get_text() for text in axes.texts if "best" in text.get_text()) for axes in panels[:2]] == [
        "best, Transformer",
        "best, GNN",
    ]
    faces = [{box.get_x(): box.get_facecolor() for box in axes.patches if box.get_height() == 3} for axes in panels]
    assert faces[0] == faces[2] != faces[1]  # the GNN is the worst of one map and the best of the other
    assert len([axes for axes in figure.axes if not axes.axison]) == 1  # the empty fourth panel

    monkeypatch.chdir(tmp_path)
    spectrum.main([str(map_folder), str(map_folder), "--out", "both.png"])
    output = capsys.readouterr().out
    assert output.count("data: best in the Transformer corner") == 2
    assert "picture  both.png" in output
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")


def test_map_without_finished_cells_is_not_drawn(map_folder, capsys):
    for path in map_folder.glob(f"{CELLS}/*/result.json"):
        path.unlink()
    show(read(map_folder), map_folder)
    assert "14 of 14 cells are missing" in capsys.readouterr().out
    assert not (map_folder / "spectrum.png").exists()


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

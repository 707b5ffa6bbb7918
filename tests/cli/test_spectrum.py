"""The map between GNN and Transformer: its cells, how they are run, what is read off them, and the picture."""

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
from tests.cli.test_sweep import own_logging  # noqa: F401  a fixture
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
def test_a_cell_is_the_network_of_its_place(mask):
    """Between the corners both branches, with the share of the cell; in them one branch alone."""
    axis, (limited, unlimited) = AXES[mask], MASKS[mask]
    for radius, expected in ((2, limited), (None, unlimited)):
        net, seed = network(*Cell(Setting(0.25, radius), 7).overrides(axis))
        assert net.masks == [expected, expected]
        assert (net.blend_weights(), seed) == ([0.25, 0.25], 7)
        assert not any(name.endswith("logit") for name, _ in net.named_parameters())
        alone, _ = network(*Cell(Setting(1.0, radius), 0).overrides(axis))
        assert alone.masks == [expected, expected]
        assert [len(attention_layers(each)) for each in (net, alone)] == [2, 2]
        assert [sum(isinstance(part, GatedGCN) for part in each.modules()) for each in (net, alone)] == [2, 0]
    gnn, _ = network(*Cell(Setting(0.0, None), 0).overrides(axis))
    assert attention_layers(gnn) == []
    assert sum(isinstance(part, GatedGCN) for part in gnn.modules()) == 2


def test_without_attention_every_radius_is_one_cell():
    grid = Grid([None, 2, 0, 2], [1, 0, 0.5], seeds=2)
    assert grid.settings == [(0.0, None), *((weight, radius) for weight in (0.5, 1.0) for radius in (0, 2, None))]
    assert [cell.seed for cell in grid.cells] == 7 * [0] + 7 * [1]  # stopped halfway, each has one run
    assert len({cell.name for cell in grid.cells}) == 14
    assert len(Grid(quick=True).cells) == 2 * (1 + 2 * 3)
    assert len(Grid().cells) == 3 * (1 + 4 * 5)


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Starts a map in this process, whose runs are only written down, and leave a result; returns their arguments."""
    runs: dict[str, list[str]] = {}

    def run_all(cells, processes, look):
        runs.update(cells)
        for name, _ in cells:
            (tmp_path / "map" / CELLS / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "map" / CELLS / name / "result.json").write_text(json.dumps(result(0.5)))

    monkeypatch.setattr(run, "run_all", run_all)
    monkeypatch.setattr(run, "prepare", lambda *_: None)
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def start(program, *words: str) -> dict[str, list[str]]:
        runs.clear()
        GlobalHydra.instance().clear()
        if program == "train":
            monkeypatch.setattr(sys, "argv", ["train.py", *words])
            train.command()
        else:
            monkeypatch.setattr(sys, "argv", ["gt.spectrum"])
            spectrum.main(words)
        return dict(runs)

    return start


def result(valid: float, test: float | None = None, seconds: float | None = 0.01, mode: str = "max") -> dict:
    return {"split": "test", "criterion": "score", "mode": mode, "best_valid": valid, "baseline": {"score": 0.1},
            "scores": {"score": valid if test is None else test}, "parameters": 100,
            "seconds_per_batch": seconds}  # fmt: skip


SMALL = ("data=graph_files", "data.path=graphs.jsonl", "spectrum.weights=[0,0.5,1]", "spectrum.radii=[0,null]")


def test_either_command_runs_each_cell_once_and_later_what_is_missing(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_graphs(tmp_path)
    words = [*SMALL, "model.width=32", f"hydra.sweep.dir={tmp_path / 'map'}", "spectrum.seeds=2"]
    first = command("train", "-m", "experiment=spectrum", *words)
    assert len(first) == 2 * (1 + 2 * 2)
    for name, arguments in first.items():
        assert "experiment=spectrum" in arguments
        assert "model.width=32" in arguments
        assert not any(word.startswith(("spectrum.", "-m")) for word in arguments)
        assert f"cells/{name}" in arguments[-1]
    assert "spectrum.png" in capsys.readouterr().out
    cells = tmp_path / "map" / CELLS
    assert command("gt.spectrum", *words) == {}

    (cells / "blend-0_seed-1" / "result.json").unlink()
    begun = cells / "radius-0_blend-0.5_seed-0"
    (begun / "result.json").unlink()
    (begun / "checkpoints").mkdir()
    (begun / "checkpoints" / "last.ckpt").touch()
    again = command("train", "experiment=spectrum", *words)
    assert again == {"blend-0_seed-1": first["blend-0_seed-1"], begun.name: [f"resume={begun}"]}

    more = command("gt.spectrum", f"resume={tmp_path / 'map'}", "spectrum.seeds=3")
    assert len(more) == 5
    assert all(name.endswith("_seed-2") for name in more)
    with pytest.raises(SystemExit):
        command("gt.spectrum", *words, "model.depth=7")
    assert "model.depth=7" in capsys.readouterr().err
    (cells / "blend-0_seed-1" / "result.json").unlink()
    assert command("train", "-m", f"resume={tmp_path / 'map'}") == {"blend-0_seed-1": first["blend-0_seed-1"]}


def test_a_text_is_a_map_of_windows(command, tmp_path):
    text = ("data=python_text", "spectrum.weights=[0,1]", "spectrum.radii=[3,null]", "spectrum.quick=true")
    runs = command("gt.spectrum", *text, "spectrum.seeds=1", f"hydra.sweep.dir={tmp_path / 'map'}")
    assert {name: [word for word in words if "mask" in word] for name, words in runs.items()} == {
        "blend-0_seed-0": [],
        "radius-3_blend-1_seed-0": ["mask=causal_window", "mask.masks.0.width=3"],
        "radius-all_blend-1_seed-0": ["mask=causal"],
    }
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=runs["radius-3_blend-1_seed-0"])
    assert instantiate(cfg.mask, _convert_="all") == Window(3) & Causal()
    assert (cfg.trainer.limit_train_batches, cfg.trainer.max_steps) == (100, 400)
    assert (cfg.trainer.val_check_interval, cfg.trainer.check_val_every_n_epoch) == (1.0, 1)  # its own is 500 steps


def test_a_map_of_a_recipe_is_one_of_its_settings(command, tmp_path):
    recipe = ("experiment=gps_molhiv", "spectrum.weights=[0]", "spectrum.quick=true")
    runs = command("gt.spectrum", *recipe, f"hydra.sweep.dir={tmp_path / 'map'}")
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
def fake(monkeypatch, tmp_path):
    """A program in the place of train.py, which does as its word ``end`` says."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(pool, "TRAIN", tmp_path / "fake.py")
    return lambda **ends: [(name, [f"folder={tmp_path / name}", f"end={end}"]) for name, end in ends.items()]


@pytest.mark.parametrize(("told", "threads"), [("", "3"), ("2", "2")])
def test_runs_share_the_cores_and_one_that_fails_stops_no_other(told, threads, fake, monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "cpus", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", told) if told else monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ended = {}
    pool.run_all(fake(a="0.1", b="wrong", c="killed", d="0.1"), 2, lambda run: run and ended.update({run.name: run}))
    assert {name: run.error for name, run in ended.items()} == {
        "a": "", "b": "mend me", "c": "killed by SIGKILL", "d": ""}  # fmt: skip
    assert [(tmp_path / name / "threads").read_text() for name in "ad"] == [threads, threads]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_early_end_stops_the_runs_and_starts_no_other(fake, tmp_path):
    class Stop(BaseException):
        pass

    def look(run):
        if all((tmp_path / name / "pid").exists() for name in "ab"):
            raise Stop

    with pytest.raises(Stop):
        pool.run_all(fake(a="60", b="60", c="60"), 2, look)
    assert not any(alive(int((tmp_path / name / "pid").read_text())) for name in "ab")
    assert not (tmp_path / "c").exists()


def test_a_map_that_is_killed_takes_its_runs_with_it(fake, tmp_path):
    code = (
        "from pathlib import Path; from gt.cli.spectrum import pool; "
        f"pool.TRAIN = Path({str(tmp_path / 'fake.py')!r}); "
        f"pool.run_all({fake(a='60')!r}, 1, lambda run: None)"
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


def scored(cells: dict, mode: str = "max", **facts) -> Scored:
    """A map of so many runs a cell: for each a validation value, and what the test says."""
    return Scored(
        {
            (setting, seed): result(*values, mode=mode) | facts
            for setting, runs in cells.items()
            for seed, values in enumerate(runs)
        }
    )


def test_the_best_cell_is_chosen_by_validation_and_reported_on_test():
    table = {GNN: [(0.80, 0.6), (0.82, 0.6)], BETWEEN: [(0.70, 0.9), (0.72, 0.9)]}
    assert scored(table).best == GNN
    assert scored(table, mode="min").best == BETWEEN
    assert scored({GNN: [(math.nan, 0.9)], BETWEEN: [(0.1, 0.1)]}).best == BETWEEN
    said = scored(table).verdict("data", AXES["hops"])
    assert "GNN corner" in said
    assert "test score 0.6000" in said


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_clear_difference_is_more_than_noise_and_a_small_one_is_not(mode):
    sign = 1 if mode == "max" else -1
    better = [(sign * value, sign * value) for value in (0.80, 0.82, 0.81)]
    clear = [(sign * 0.5, sign * (value - gap)) for value, gap in ((0.80, 0.30), (0.82, 0.31), (0.81, 0.32))]
    unclear = [(sign * 0.5, sign * (value - gap)) for value, gap in ((0.80, 0.05), (0.82, -0.04), (0.81, 0.02))]
    said = scored({BETWEEN: better, GNN: clear, TRANSFORMER: unclear}, mode).verdict("data", AXES["hops"])
    first, gnn, transformer = said.split("; ")
    assert "a share of 0.5 of attention, to all within 2 hops" in first
    assert (
        "0.3100 [0.2852, 0.3348] better than the GNN, which is more than noise (53.7 standard errors, 3 seeds)" in gnn
    )
    assert transformer.startswith("0.0100 [-0.1")
    assert "better than the Transformer, which is not more than noise (0.4 standard errors" in transformer


def test_a_difference_that_is_the_same_with_each_seed_is_said_so():
    said = scored({BETWEEN: [(1.0, 1.0)] * 3, GNN: [(0.5, 0.25)] * 3}).verdict("data", AXES["hops"])
    assert "0.7500 better than the GNN, with each of 3 seeds" in said


def test_more_than_noise_is_what_a_paired_t_test_says():
    draw, verdicts = np.random.default_rng(0), []
    for _ in range(60):
        seeds, gap = int(draw.integers(2, 6)), float(draw.uniform(0, 3))
        ours, theirs = draw.normal(gap, 1, seeds), draw.normal(0, 1, seeds)
        table = {BETWEEN: [(9.0, value) for value in ours], GNN: [(0.0, value) for value in theirs]}
        verdict = "which is more than noise" in scored(table).verdict("data", AXES["hops"])
        assert verdict == bool(ttest_rel(ours, theirs).pvalue < 0.05)
        verdicts.append(verdict)
    assert 5 < sum(verdicts) < 55


def test_pairs_are_of_the_same_seed_and_one_says_nothing():
    three, one = [(0.9, 0.5), (0.9, 0.6), (0.9, 0.7)], [(0.5, 0.49)]
    said = scored({BETWEEN: three, GNN: one}).verdict("data", AXES["hops"])
    assert "0.0100 better than the GNN (one seed" in said
    assert "whether this exceeds the noise is unknown" in said
    assert "which is" not in said
    assert "the same as the GNN" in scored({BETWEEN: three, GNN: [(0.1, 0.5)]}).verdict("data", AXES["hops"])


def test_where_there_is_no_test_split_the_sentence_says_so():
    said = scored({GNN: [(0.5,)]}, split="valid").verdict("data", AXES["hops"])
    assert "valid score 0.5000 (the split used for selection)" in said


@pytest.fixture
def map_folder(tmp_path) -> Path:
    """A finished map but for one cell: the Transformer is best in validation, a cell between in the test."""
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
        (folder / "result.json").write_text(json.dumps(result(*values, seconds=0.001 * (1 + 10 * weight))))
    failed = tmp_path / CELLS / "radius-0_blend-0.5_seed-0"
    failed.mkdir()
    (failed / "failure.json").write_text(json.dumps({"overrides": ["mask.hops=0"], "reason": "out of memory"}))
    return tmp_path


def test_the_picture_holds_scores_costs_and_marks(map_folder):
    plan = read(map_folder)
    table = Scored({(cell.setting, cell.seed): each for cell, each in plan.results(map_folder).items()})
    figure = figure_of(Map(table, Grid(**plan.grid), plan.axis, "data"))
    scores, costs = figure.axes[:2]
    for axes, value in ((scores, "0.6100\n± 0.0141"), (costs, "11 ms")):
        texts = {text.get_text(): text.get_position() for text in axes.texts}
        shown = [text.get_position() for text in axes.texts if text.get_text() == value]
        assert {(x, round(y)) for x, y in shown} == {(2, 0), (2, 1), (2, 2)}  # attention alone
        assert texts["best, Transformer"][0] == 2
        assert round(texts["best, Transformer"][1]) == 2
        assert texts["GNN"][0] == 0  # one box, as high as all
        assert [box.get_height() for box in axes.patches if box.get_x() == -0.5] == [3]
        assert (texts["set"][0], round(texts["set"][1])) == (2, 0)
        hatched = [box.get_xy() for box in axes.patches if box.get_hatch()]
        assert hatched == [(0.5, -0.5)]
        assert [box.get_x() for box in axes.patches if not box.get_fill()] == [pytest.approx(1.53)]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "2", "all nodes"]
    assert "Transformer corner" in figure.get_suptitle()


def test_a_map_is_shown_again_from_what_is_finished(map_folder, capsys):
    spectrum.main([str(map_folder)])
    said = capsys.readouterr().out
    assert (map_folder / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    assert "out of memory" in said
    assert f"2 of 14 cells are missing; resume with: python -m gt.spectrum resume={map_folder}" in said
    rows = list(csv.DictReader((map_folder / "spectrum.csv").open()))
    assert [(row["blend"], row["radius"]) for row in rows] == [
        ("0.0", ""), ("0.5", "2"), ("0.5", "all"), ("1.0", "0"), ("1.0", "2"), ("1.0", "all")]  # fmt: skip
    last = rows[-1]
    assert last["mark"] == "best Transformer"
    assert float(last["test_mean"]) == pytest.approx(0.61)
    assert float(last["test_deviation"]) == pytest.approx(np.std([0.6, 0.62], ddof=1))
    assert float(last["seconds_per_batch"]) == pytest.approx(0.011)


def test_a_map_in_a_folder_of_any_name_is_shown_and_goes_on(map_folder, capsys, monkeypatch):
    place = map_folder.rename(map_folder.with_name("my map, lr=1 [a]"))
    try:
        spectrum.main([str(place)])
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "resume with" in line)
        words = shlex.split(line.partition("python -m gt.spectrum ")[2])
        given = spectrum.command_line(words)
        (where,) = (word for word in given if word.startswith("hydra.sweep.dir="))
        assert parse_overrides([where])[0].value() == str(place)
    finally:
        place.rename(map_folder)


def test_several_maps_are_one_picture_each_in_its_own_colours(map_folder, tmp_path, capsys, monkeypatch):
    plan = read(map_folder)
    runs = {(cell.setting, cell.seed): each for cell, each in plan.results(map_folder).items()}
    drawn = Map(Scored(runs), Grid(**plan.grid), plan.axis, "one")
    worse = {
        place: each | {"mode": "min", "scores": {"score": 100 * each["scores"]["score"]}}
        for place, each in runs.items()
    }
    figure = figure_of_several(
        [drawn, drawn._replace(scored=Scored(worse), name="other"), drawn._replace(name="third")], 2
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
    assert len([axes for axes in figure.axes if not axes.axison]) == 1  # the fourth place

    monkeypatch.chdir(tmp_path)
    spectrum.main([str(map_folder), str(map_folder), "--out", "both.png"])
    said = capsys.readouterr().out
    assert said.count("data: best in the Transformer corner") == 2
    assert "picture  both.png" in said
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")


def test_of_a_map_without_a_finished_cell_nothing_is_drawn(map_folder, capsys):
    for path in map_folder.glob(f"{CELLS}/*/result.json"):
        path.unlink()
    show(read(map_folder), map_folder)
    assert "14 of 14 cells are missing" in capsys.readouterr().out
    assert not (map_folder / "spectrum.png").exists()


@pytest.mark.slow
def test_a_small_map_from_the_command_to_the_picture(tmp_path):
    small = ("data=graph_files", "encoding=none", "model.width=8", "model.depth=1", "model/norm=batch",
             "trainer=cpu", "trainer.max_epochs=2", "spectrum.weights=[0,0.5,1]", "spectrum.radii=[0,null]",
             "spectrum.seeds=1", "spectrum.processes=2", f"hydra.sweep.dir={tmp_path / 'map'}")  # fmt: skip
    command = [sys.executable, "-m", "gt.spectrum", *small, *write_graphs(tmp_path)]
    done = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob(f"map/{CELLS}/*/result.json"))) == 5
    assert (tmp_path / "map" / "spectrum.png").exists()
    assert f"picture  {tmp_path / 'map' / 'spectrum.png'}" in done.stdout
    assert "graph_files graphs: best " in done.stdout

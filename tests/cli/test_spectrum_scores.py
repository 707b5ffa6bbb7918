"""The scores of a map between GNN and Transformer: best cell, verdict, tables and pictures."""

import csv
import json
import math
import shlex
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from gt import spectrum
from gt.cli.arguments import parse_overrides
from gt.cli.spectrum import Grid
from gt.cli.spectrum.grid import AXES, Setting
from gt.cli.spectrum.picture import Map, figure_of, figure_of_several
from gt.cli.spectrum.plan import CELLS, Plan, read
from gt.cli.spectrum.scores import Scored
from gt.cli.spectrum.show import show
from tests.cli.spectrum_results import run_result
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture

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
        key: each | {"mode": "min", "scores": {"score": 100 * each["scores"]["score"]}} for key, each in runs.items()
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

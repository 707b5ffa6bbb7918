"""A sweep goes on when a job of it fails, and ranks what finished however it ends."""

import errno
import json
import logging
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from scipy import stats

import gt.train.run
import train
from gt.cli.settings import failures, job_results, ranked
from gt.cli.sweep import Ranking, show
from gt.cli.sweep_tables import Outcome
from gt.errors import UserError


@pytest.fixture(autouse=True)
def own_logging():
    """Hydra gives the root logger handlers that print where this test's output goes."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def sweep(monkeypatch, folder: Path, *overrides: str) -> int:
    """The exit code of a sweep that runs in this process."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *overrides, f"hydra.sweep.dir={folder}"])
    GlobalHydra.instance().clear()
    threads = torch.get_num_threads()
    try:
        train.command()
    except SystemExit as end:
        return end.code
    finally:
        torch.set_num_threads(threads)
    return 0


def outcome(value: float) -> dict:
    scores = {"accuracy": value}
    return {"split": "test", "criterion": "accuracy", "mode": "max", "best_valid": value, "scores": scores,
            "baseline": scores, "overrides": [f"seed={value}", "encoding=[rwse]"]}  # fmt: skip


def test_the_jobs_after_one_that_diverges_run_and_it_is_ranked_as_failed(monkeypatch, tmp_path, capsys):
    (tmp_path / "input.txt").write_text("".join(f"{a} and {b} make {a + b};\n" for a in range(9) for b in range(9)))
    small = ("data=text", f"data.path={tmp_path}/input.txt", "data.context=8", "model.width=8", "model.depth=1",
             "model.block.attention.heads=1", "logger=csv", "trainer=cpu", "debug=smoke",
             "trainer.gradient_clip_val=null")  # fmt: skip
    code = sweep(monkeypatch, tmp_path / "sweep", *small, "optim.lr=1e-3,1e30,2e-3")
    assert code != 0
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert {result["job"] for result in job_results(tmp_path / "sweep")} == {"0", "2"}
    (failed,) = failures(tmp_path / "sweep")
    assert failed["job"] == "1"
    assert "optim.lr=1e+30" in failed["overrides"]
    assert "the loss is" in failed["reason"]
    kept = (tmp_path / "sweep" / "ranking.txt").read_text()
    for text in (said.out, kept):
        assert all(f"optim.lr={rate}" in text.replace("\n", "") for rate in ("0.001", "1e+30", "0.002"))
        assert "the loss is" in text
    assert said.err.splitlines()[-1].startswith("error: ")


@pytest.fixture
def jobs(monkeypatch):
    """Runs that train nothing: the job with seed n ends as the n-th of these says."""

    def install(*ends):
        def run(cfg):
            end = ends[cfg.seed]
            if isinstance(end, BaseException):
                raise end
            (Path(gt.train.run.HydraConfig.get().runtime.output_dir) / "result.json").write_text(
                json.dumps(outcome(end))
            )
            return end

        monkeypatch.setattr(gt.train.run, "run", run)

    return install


@pytest.mark.parametrize("end", [UserError("mend me"), OSError(28, "No space", "a.txt"), ZeroDivisionError("a bug")])
def test_whatever_a_job_raises_the_others_run(end, jobs, monkeypatch, tmp_path, capsys):
    jobs(0.1, end, 0.3)
    assert sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert [result["best_valid"] for result in job_results(tmp_path)] == [0.1, 0.3]
    assert [failed["job"] for failed in failures(tmp_path)] == ["1"]
    said = capsys.readouterr()
    assert "encoding=[rwse]" in said.out
    of_job, of_sweep = said.err.splitlines()  # and nothing of Hydra's own
    assert all(line.startswith("error: ") for line in (of_job, of_sweep))
    assert str(end.args[-1]) in of_job


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 130), (SystemExit(130), 130), (SystemExit(143), 143)])
def test_a_sweep_that_is_stopped_ranks_what_finished(end, code, jobs, monkeypatch, tmp_path, capsys):
    jobs(0.1, end, 0.3)
    assert sweep(monkeypatch, tmp_path, "seed=0,1,2") == code
    assert [result["best_valid"] for result in job_results(tmp_path)] == [0.1]
    assert "0.1000" in (tmp_path / "ranking.txt").read_text()
    assert "0.1000" in capsys.readouterr().out


def test_a_sweep_of_which_nothing_finishes_says_why(jobs, monkeypatch, tmp_path, capsys):
    jobs(UserError("this"), UserError("that"))
    assert sweep(monkeypatch, tmp_path, "seed=0,1") == 1
    kept = (tmp_path / "ranking.txt").read_text()
    assert "this" in kept
    assert "that" in kept


def test_a_sweep_that_goes_on_without_a_failure_ends_with_0_and_forgets_the_first(jobs, monkeypatch, tmp_path):
    jobs(UserError("this"), 0.2)
    assert sweep(monkeypatch, tmp_path, "seed=0,1") == 1
    jobs(0.1, 0.2)
    assert again(monkeypatch, tmp_path) == 0
    assert failures(tmp_path) == []
    assert "this" not in (tmp_path / "ranking.txt").read_text()


def test_a_ranking_that_finds_no_room_is_named_and_leaves_the_one_before(jobs, monkeypatch, tmp_path):
    jobs(0.1)
    assert sweep(monkeypatch, tmp_path, "seed=0") == 0
    (tmp_path / "ranking.txt").write_text("the one before")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        show(tmp_path)
    assert error.value.filename == str(tmp_path / "ranking.txt")
    assert (tmp_path / "ranking.txt").read_text() == "the one before"


@pytest.mark.parametrize("other", [["seed=2"], ["sweep=optuna", "optim.lr=1,2"]])
def test_a_folder_that_holds_a_sweep_takes_no_other(other, jobs, monkeypatch, tmp_path, capsys):
    jobs(0.1, 0.2, 0.9)
    assert sweep(monkeypatch, tmp_path, "seed=0,1") == 0
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert sweep(monkeypatch, tmp_path, *other) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path} already holds a sweep: continue it with python train.py -m resume={tmp_path}, or choose "
        "another hydra.sweep.dir\n"
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_a_failed_job_keeps_no_network_alive(jobs, monkeypatch, tmp_path):
    alive, counts = [], []

    class Network:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    def run(cfg):
        counts.append(len(alive))
        network = Network()
        raise UserError(f"{type(network).__name__} does not fit")

    monkeypatch.setattr(gt.train.run, "run", run)
    assert sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert counts == [0, 0, 0]


def test_a_job_that_failed_and_was_resumed_is_ranked(tmp_path):
    for job in "01":
        (tmp_path / job).mkdir()
        (tmp_path / job / "failure.json").write_text(json.dumps({"overrides": ["seed=1"], "reason": "disk full"}))
    (tmp_path / "1" / "result.json").write_text(json.dumps(outcome(0.5)))
    assert [failed["job"] for failed in show(tmp_path)] == ["0"]
    assert [result["job"] for result in job_results(tmp_path)] == ["1"]


def test_a_command_that_never_became_a_sweep_ranks_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Ranking, "folder", tmp_path)  # of a sweep before, in the same process
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text(json.dumps(outcome(0.5)))
    assert sweep(monkeypatch, tmp_path, "modle=gps") == 1
    assert capsys.readouterr().out == ""


def result(job: int, *overrides: str, valid: float | None = 0.5, test: float = 0.5, mode: str = "max") -> dict:
    return {"split": "test", "criterion": "accuracy", "mode": mode, "best_valid": valid, "scores": {"accuracy": test},
            "baseline": {"accuracy": 0.25}, "overrides": list(overrides), "job": str(job)}  # fmt: skip


def keep(folder: Path, results: list[dict]) -> None:
    for each in results:
        (folder / each["job"]).mkdir()
        (folder / each["job"] / "result.json").write_text(json.dumps(each))


def test_runs_that_differ_in_seeds_and_folds_alone_are_one_row_with_mean_and_deviation(tmp_path, capsys):
    valid, final = [0.91, 0.62, 0.77, 0.70], [0.81, 0.64, 0.75, 0.73]
    repeats = ["seed=1", "data.source.fold=3", "+data.source.split_seed=2", "seed=4"]
    keep(
        tmp_path,
        [
            result(n, "model=gcn", repeat, valid=v, test=t)
            for n, (repeat, v, t) in enumerate(zip(repeats, valid, final, strict=True))
        ]
        + [result(4, "seed=1", "model=gin", valid=0.8, test=0.6)],
    )
    show(tmp_path)
    rows = (tmp_path / "ranking.txt").read_text().splitlines()
    (best,) = (row for row in rows if "model=gin" in row and "0.8000" in row and "seed" not in row)
    (several,) = (row for row in rows if "±" in row)
    assert rows.index(best) < rows.index(several)  # by the mean, though the best single run is among the others
    cells = [cell.strip() for cell in several.strip("│ ").split("│")]
    mean_and_deviation = [f"{np.mean(v):.4f} ± {np.std(v, ddof=1):.4f}" for v in (valid, final)]
    low, high = stats.t.interval(0.95, 3, np.mean(final), stats.sem(final))
    numbers = [*mean_and_deviation, f"[{low:.4f}, {high:.4f}]", "0.8100", "0.2500"]
    assert cells == ["2", "0 1 2 3", "model=gcn", "4", *numbers]
    for repeat, v, t in zip(repeats, valid, final, strict=True):
        assert any(repeat in row and f"{v:.4f}" in row and f"{t:.4f}" in row for row in rows)
    assert capsys.readouterr().out.count("±") == 2


def test_parameters_are_whole_numbers_also_as_means_over_seeds(tmp_path):
    results = [result(n, f"seed={n}") | {"parameters": 71_155 + n, "seconds_per_batch": 0.0123456} for n in (0, 1)]
    keep(tmp_path, results)
    show(tmp_path)
    (row,) = (row for row in (tmp_path / "ranking.txt").read_text().splitlines() if "±" in row)
    assert [cell.strip() for cell in row.strip("│ ").split("│")][-2:] == ["0.01235", "71,156"]


@pytest.mark.parametrize(("mode", "order"), [("max", "2013"), ("min", "1023")])
def test_settings_are_ranked_by_validation_whatever_its_value(mode, order):
    """A validation of exactly 0 is one; an undefined one comes last; without any the final score stands in."""
    found = ranked(
        [
            result(0, "a=0", valid=0.0, test=0.9, mode=mode),
            result(1, "a=1", valid=-0.5, test=0.1, mode=mode),
            result(2, "a=2", valid=None, test=0.3, mode=mode),
            result(3, "a=3", valid=float("nan"), test=1.0, mode=mode),
        ]
    )
    assert "".join(job["job"] for jobs in found for job in jobs) == order


def test_scores_by_other_criteria_are_not_held_against_one_another(tmp_path):
    by_loss = {"criterion": "loss", "mode": "min", "scores": {"loss": 0.4}, "baseline": {"loss": 0.7}}
    by_error = {"criterion": "mae", "mode": "min", "scores": {"mae": 0.1}, "baseline": {"mae": 0.3}}
    others = [(0, "loss", 0.6, by_loss), (1, "loss", 0.5, by_loss), (2, "mae", 0.2, by_error)]
    jobs = [result(n, f"criterion={name}", f"a={n}", valid=valid) | more for n, name, valid, more in others]
    jobs += [result(n, "criterion=accuracy", f"a={n}", valid=n / 10, test=n / 10) for n in (3, 4)]
    keep(tmp_path, jobs)
    show(tmp_path)
    rows = [row.strip("│ ").split("│") for row in (tmp_path / "ranking.txt").read_text().splitlines() if "│" in row]
    places = {cells[1].strip(): [cells[n].strip() for n in (0, 4, 5, 6)] for cells in rows}
    assert list(places) == ["2", "4", "3", "1", "0"]
    assert places["2"] == ["1", "mae", "0.2000", "0.1000"]
    assert places["3"] == ["2", "accuracy", "0.3000", "0.3000"]
    assert places["1"] == ["1", "loss", "0.5000", "0.4000"]
    assert "Only settings measured by mae are drawn" in (tmp_path / "ranking.html").read_text()


def test_a_setting_given_up_after_a_lucky_seed_is_not_the_best(tmp_path, capsys):
    jobs = [result(n, f"a={n}", "seed=0", valid=valid) for n, valid in ((0, 0.9), (1, 0.5), (2, 0.8))]
    jobs += [result("1-1", "a=1", "seed=1"), result("3-1", "a=2", "seed=1", valid=0.6)]
    keep(tmp_path, jobs)
    for trial in "02":  # the second was drawn again, and that trial ran to its end
        pruned = {"overrides": [f"a={trial}", "seed=1"], "reason": "0.1 after 2 validations"}
        (tmp_path / f"{trial}-1").mkdir()
        (tmp_path / f"{trial}-1" / "pruned.json").write_text(json.dumps(pruned))
    show(tmp_path)
    best, middle, last = (tmp_path / "ranking.txt").read_text().split("best first")[1].splitlines()[4:7]
    assert "a=2" in best
    assert "a=1" in middle
    assert "1, 1 pruned" in last
    assert "pruned" not in best
    assert "a=2" in capsys.readouterr().out.splitlines()[-1]


def test_a_fold_that_went_by_its_loss_is_not_averaged_with_the_others_scores():
    folds = [result(fold, "optim.lr=1", f"data.source.fold={fold}", valid=0.8) for fold in range(3)]
    folds[0] |= {"criterion": "loss", "mode": "min", "best_valid": 7.0}
    whole = [result(3 + fold, "optim.lr=2", f"data.source.fold={fold}", valid=0.6) for fold in range(3)]
    first, last = ranked([*folds, *whole])
    assert [job["overrides"][0] for job in (first[0], last[0])] == ["optim.lr=2", "optim.lr=1"]
    assert {(job["criterion"], job["mode"]) for job in last} == {(whole[0]["criterion"], whole[0]["mode"])}
    assert [math.isnan(job["best_valid"]) for job in last] == [True, False, False]


def test_jobs_are_listed_by_their_numbers(tmp_path):
    keep(tmp_path, [result(n, f"seed={n}") for n in (10, 2, 0)])
    assert [each["job"] for each in job_results(tmp_path)] == ["0", "2", "10"]


def test_a_deviation_of_undefined_scores_is_undefined(tmp_path):
    keep(tmp_path, [result(n, f"seed={n}", test=value) for n, value in enumerate((0.5, float("nan")))])
    show(tmp_path)
    assert "nan ± nan" in (tmp_path / "ranking.txt").read_text()


def again(monkeypatch, folder: Path, *words: str) -> int:
    """The exit code of a sweep that goes on in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", f"resume={folder}", *words])
    GlobalHydra.instance().clear()
    try:
        train.command()
    except SystemExit as end:
        return end.code
    return 0


def test_a_sweep_that_goes_on_runs_only_what_is_missing(jobs, monkeypatch, tmp_path, capsys):
    jobs(0.1, UserError("mend me"), KeyboardInterrupt(), 0.4)
    assert sweep(monkeypatch, tmp_path, "seed=0,1,2,3") == 130
    (tmp_path / "2" / "checkpoints").mkdir()
    (tmp_path / "2" / "checkpoints" / "last.ckpt").write_text("")
    seen = []
    monkeypatch.setattr(gt.train.run, "run", lambda cfg: seen.append((cfg.seed, cfg.resume)) or math.nan)
    assert again(monkeypatch, tmp_path) == 0
    assert seen == [(1, None), (2, str(tmp_path / "2")), (3, None)]
    jobs(9.0, 0.2, 0.3, UserError("now this"))
    assert again(monkeypatch, tmp_path) == 1
    assert [result["best_valid"] for result in job_results(tmp_path)] == [0.1, 0.2, 0.3]
    assert [failed["job"] for failed in failures(tmp_path)] == ["3"]
    capsys.readouterr()
    assert again(monkeypatch, tmp_path, "optim.lr=1") == 1
    assert "optim.lr=1" in capsys.readouterr().err


def test_a_process_that_is_lost_fails_its_job_alone(jobs, monkeypatch, tmp_path):
    jobs(0.1, SystemExit(1), 0.3)
    assert sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert [failed["job"] for failed in failures(tmp_path)] == ["1"]
    assert [result["job"] for result in job_results(tmp_path)] == ["0", "2"]


def test_scores_of_the_validation_have_one_column_where_there_is_no_test():
    for split, columns in (("test", ["valid accuracy", "test accuracy"]), ("valid", ["valid accuracy"])):
        both = [outcome(value) | {"split": split, "job": str(n)} for n, value in enumerate((0.5, 0.25))]
        runs, settings = Outcome(ranked(both), []).sheets()
        for sheet in (runs, settings):
            assert [name for name in sheet.names if name.endswith("accuracy")] == columns
            assert all(len(row) == len(sheet.names) for row in sheet.rows)

"""Sweeps: failed jobs do not stop the others, and the finished jobs are ranked however the sweep ends."""

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
def restore_logging():
    """Restore the root logger, as Hydra adds handlers that print to the captured output of the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def run_sweep(monkeypatch, folder: Path, *overrides: str) -> int:
    """Run a sweep in this process; returns its exit code."""
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


def fake_result(value: float) -> dict:
    scores = {"accuracy": value}
    return {"split": "test", "criterion": "accuracy", "mode": "max", "best_valid": value, "scores": scores,
            "baseline": scores, "overrides": [f"seed={value}", "encoding=[rwse]"]}  # fmt: skip


def test_diverging_job_is_ranked_as_failed(monkeypatch, tmp_path, capsys):
    (tmp_path / "input.txt").write_text("".join(f"{a} and {b} make {a + b};\n" for a in range(9) for b in range(9)))
    small = ("data=text", f"data.path={tmp_path}/input.txt", "data.context=8", "model.width=8", "model.depth=1",
             "model.block.attention.heads=1", "logger=csv", "trainer=cpu", "debug=smoke",
             "trainer.gradient_clip_val=null")  # fmt: skip
    code = run_sweep(monkeypatch, tmp_path / "sweep", *small, "optim.lr=1e-3,1e30,2e-3")
    assert code != 0
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert {job["job"] for job in job_results(tmp_path / "sweep")} == {"0", "2"}
    (failed,) = failures(tmp_path / "sweep")
    assert failed["job"] == "1"
    assert "optim.lr=1e+30" in failed["overrides"]
    assert "the loss is" in failed["reason"]
    saved = (tmp_path / "sweep" / "ranking.txt").read_text()
    for text in (output.out, saved):
        assert all(f"optim.lr={rate}" in text.replace("\n", "") for rate in ("0.001", "1e+30", "0.002"))
        assert "the loss is" in text
    assert output.err.splitlines()[-1].startswith("error: ")


@pytest.fixture
def fake_jobs(monkeypatch):
    """Replace the runs by fake ones: the job with seed n returns or raises the n-th of the given outcomes."""

    def install(*ends):
        def run(cfg):
            end = ends[cfg.seed]
            if isinstance(end, BaseException):
                raise end
            (Path(gt.train.run.HydraConfig.get().runtime.output_dir) / "result.json").write_text(
                json.dumps(fake_result(end))
            )
            return end

        monkeypatch.setattr(gt.train.run, "run", run)

    return install


@pytest.mark.parametrize("end", [UserError("mend me"), OSError(28, "No space", "a.txt"), ZeroDivisionError("a bug")])
def test_errors_of_a_job_do_not_stop_the_others(end, fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(0.1, end, 0.3)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert [job["best_valid"] for job in job_results(tmp_path)] == [0.1, 0.3]
    assert [failed["job"] for failed in failures(tmp_path)] == ["1"]
    output = capsys.readouterr()
    assert "encoding=[rwse]" in output.out
    job_error, sweep_error = output.err.splitlines()  # and no message of Hydra's own
    assert all(line.startswith("error: ") for line in (job_error, sweep_error))
    assert str(end.args[-1]) in job_error


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 130), (SystemExit(130), 130), (SystemExit(143), 143)])
def test_stopped_sweep_ranks_its_finished_jobs(end, code, fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(0.1, end, 0.3)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2") == code
    assert [job["best_valid"] for job in job_results(tmp_path)] == [0.1]
    assert "0.1000" in (tmp_path / "ranking.txt").read_text()
    assert "0.1000" in capsys.readouterr().out


def test_ranking_without_finished_jobs_lists_the_reasons(fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(UserError("this"), UserError("that"))
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1") == 1
    ranking = (tmp_path / "ranking.txt").read_text()
    assert "this" in ranking
    assert "that" in ranking


def test_successful_resumption_clears_earlier_failures(fake_jobs, monkeypatch, tmp_path):
    fake_jobs(UserError("this"), 0.2)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1") == 1
    fake_jobs(0.1, 0.2)
    assert resume_sweep(monkeypatch, tmp_path) == 0
    assert failures(tmp_path) == []
    assert "this" not in (tmp_path / "ranking.txt").read_text()


def test_full_disk_keeps_the_previous_ranking(fake_jobs, monkeypatch, tmp_path):
    fake_jobs(0.1)
    assert run_sweep(monkeypatch, tmp_path, "seed=0") == 0
    (tmp_path / "ranking.txt").write_text("the one before")

    def raise_disk_full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", raise_disk_full)
    with pytest.raises(OSError, match="No space left") as error:
        show(tmp_path)
    assert error.value.filename == str(tmp_path / "ranking.txt")
    assert (tmp_path / "ranking.txt").read_text() == "the one before"


@pytest.mark.parametrize("other", [["seed=2"], ["sweep=optuna", "optim.lr=1,2"]])
def test_folder_of_another_sweep_is_rejected(other, fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(0.1, 0.2, 0.9)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1") == 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run_sweep(monkeypatch, tmp_path, *other) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path} already holds a sweep: continue it with python train.py -m resume={tmp_path}, or choose "
        "another hydra.sweep.dir\n"
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_failed_job_frees_its_network(fake_jobs, monkeypatch, tmp_path):
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
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert counts == [0, 0, 0]


def test_failed_job_that_later_finished_is_ranked(tmp_path):
    for job in "01":
        (tmp_path / job).mkdir()
        (tmp_path / job / "failure.json").write_text(json.dumps({"overrides": ["seed=1"], "reason": "disk full"}))
    (tmp_path / "1" / "result.json").write_text(json.dumps(fake_result(0.5)))
    assert [failed["job"] for failed in show(tmp_path)] == ["0"]
    assert [job["job"] for job in job_results(tmp_path)] == ["1"]


def test_rejected_command_ranks_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Ranking, "folder", tmp_path)  # of an earlier sweep in the same process
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text(json.dumps(fake_result(0.5)))
    assert run_sweep(monkeypatch, tmp_path, "modle=gps") == 1
    assert capsys.readouterr().out == ""


def job_result(job: int, *overrides: str, valid: float | None = 0.5, test: float = 0.5, mode: str = "max") -> dict:
    return {"split": "test", "criterion": "accuracy", "mode": mode, "best_valid": valid, "scores": {"accuracy": test},
            "baseline": {"accuracy": 0.25}, "overrides": list(overrides), "job": str(job)}  # fmt: skip


def write_results(folder: Path, results: list[dict]) -> None:
    for job in results:
        (folder / job["job"]).mkdir()
        (folder / job["job"] / "result.json").write_text(json.dumps(job))


def test_seeds_and_folds_of_a_setting_share_a_row(tmp_path, capsys):
    valid, final = [0.91, 0.62, 0.77, 0.70], [0.81, 0.64, 0.75, 0.73]
    repeats = ["seed=1", "data.source.fold=3", "+data.source.split_seed=2", "seed=4"]
    write_results(
        tmp_path,
        [
            job_result(n, "model=gcn", repeat, valid=v, test=t)
            for n, (repeat, v, t) in enumerate(zip(repeats, valid, final, strict=True))
        ]
        + [job_result(4, "seed=1", "model=gin", valid=0.8, test=0.6)],
    )
    show(tmp_path)
    rows = (tmp_path / "ranking.txt").read_text().splitlines()
    (best,) = (row for row in rows if "model=gin" in row and "0.8000" in row and "seed" not in row)
    (repeated,) = (row for row in rows if "±" in row)
    assert rows.index(best) < rows.index(repeated)  # by the mean, although the best single run is of the other setting
    cells = [cell.strip() for cell in repeated.strip("│ ").split("│")]
    mean_and_deviation = [f"{np.mean(v):.4f} ± {np.std(v, ddof=1):.4f}" for v in (valid, final)]
    low, high = stats.t.interval(0.95, 3, np.mean(final), stats.sem(final))
    numbers = [*mean_and_deviation, f"[{low:.4f}, {high:.4f}]", "0.8100", "0.2500"]
    assert cells == ["2", "0 1 2 3", "model=gcn", "4", *numbers]
    for repeat, v, t in zip(repeats, valid, final, strict=True):
        assert any(repeat in row and f"{v:.4f}" in row and f"{t:.4f}" in row for row in rows)
    assert capsys.readouterr().out.count("±") == 2


def test_mean_parameter_counts_are_integers(tmp_path):
    results = [job_result(n, f"seed={n}") | {"parameters": 71_155 + n, "seconds_per_batch": 0.0123456} for n in (0, 1)]
    write_results(tmp_path, results)
    show(tmp_path)
    (row,) = (row for row in (tmp_path / "ranking.txt").read_text().splitlines() if "±" in row)
    assert [cell.strip() for cell in row.strip("│ ").split("│")][-2:] == ["0.01235", "71,156"]


@pytest.mark.parametrize(("mode", "order"), [("max", "2013"), ("min", "1023")])
def test_settings_are_ranked_by_validation_score(mode, order):
    """A validation score of 0 counts as one; an undefined score comes last; without any, the final score is used."""
    settings = ranked(
        [
            job_result(0, "a=0", valid=0.0, test=0.9, mode=mode),
            job_result(1, "a=1", valid=-0.5, test=0.1, mode=mode),
            job_result(2, "a=2", valid=None, test=0.3, mode=mode),
            job_result(3, "a=3", valid=float("nan"), test=1.0, mode=mode),
        ]
    )
    assert "".join(job["job"] for jobs in settings for job in jobs) == order


def test_settings_are_ranked_within_their_criterion(tmp_path):
    by_loss = {"criterion": "loss", "mode": "min", "scores": {"loss": 0.4}, "baseline": {"loss": 0.7}}
    by_error = {"criterion": "mae", "mode": "min", "scores": {"mae": 0.1}, "baseline": {"mae": 0.3}}
    settings = [(0, "loss", 0.6, by_loss), (1, "loss", 0.5, by_loss), (2, "mae", 0.2, by_error)]
    jobs = [job_result(n, f"criterion={name}", f"a={n}", valid=valid) | more for n, name, valid, more in settings]
    jobs += [job_result(n, "criterion=accuracy", f"a={n}", valid=n / 10, test=n / 10) for n in (3, 4)]
    write_results(tmp_path, jobs)
    show(tmp_path)
    rows = [row.strip("│ ").split("│") for row in (tmp_path / "ranking.txt").read_text().splitlines() if "│" in row]
    cells_by_job = {cells[1].strip(): [cells[n].strip() for n in (0, 4, 5, 6)] for cells in rows}
    assert list(cells_by_job) == ["2", "4", "3", "1", "0"]
    assert cells_by_job["2"] == ["1", "mae", "0.2000", "0.1000"]
    assert cells_by_job["3"] == ["2", "accuracy", "0.3000", "0.3000"]
    assert cells_by_job["1"] == ["1", "loss", "0.5000", "0.4000"]
    assert "Only settings measured by mae are drawn" in (tmp_path / "ranking.html").read_text()


def test_pruned_setting_with_a_lucky_seed_is_not_best(tmp_path, capsys):
    jobs = [job_result(n, f"a={n}", "seed=0", valid=valid) for n, valid in ((0, 0.9), (1, 0.5), (2, 0.8))]
    jobs += [job_result("1-1", "a=1", "seed=1"), job_result("3-1", "a=2", "seed=1", valid=0.6)]
    write_results(tmp_path, jobs)
    for trial in "02":  # the setting of trial 2 was drawn again, and trial 3 was completed
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


def test_fold_with_another_criterion_is_not_averaged():
    folds = [job_result(fold, "optim.lr=1", f"data.source.fold={fold}", valid=0.8) for fold in range(3)]
    folds[0] |= {"criterion": "loss", "mode": "min", "best_valid": 7.0}
    comparable = [job_result(3 + fold, "optim.lr=2", f"data.source.fold={fold}", valid=0.6) for fold in range(3)]
    first, last = ranked([*folds, *comparable])
    assert [job["overrides"][0] for job in (first[0], last[0])] == ["optim.lr=2", "optim.lr=1"]
    assert {(job["criterion"], job["mode"]) for job in last} == {(comparable[0]["criterion"], comparable[0]["mode"])}
    assert [math.isnan(job["best_valid"]) for job in last] == [True, False, False]


def test_jobs_are_sorted_by_number(tmp_path):
    write_results(tmp_path, [job_result(n, f"seed={n}") for n in (10, 2, 0)])
    assert [job["job"] for job in job_results(tmp_path)] == ["0", "2", "10"]


def test_deviation_of_undefined_scores_is_undefined(tmp_path):
    write_results(tmp_path, [job_result(n, f"seed={n}", test=value) for n, value in enumerate((0.5, float("nan")))])
    show(tmp_path)
    assert "nan ± nan" in (tmp_path / "ranking.txt").read_text()


def resume_sweep(monkeypatch, folder: Path, *words: str) -> int:
    """Resume a sweep in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", f"resume={folder}", *words])
    GlobalHydra.instance().clear()
    try:
        train.command()
    except SystemExit as end:
        return end.code
    return 0


def test_resumed_sweep_runs_only_missing_jobs(fake_jobs, monkeypatch, tmp_path, capsys):
    fake_jobs(0.1, UserError("mend me"), KeyboardInterrupt(), 0.4)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2,3") == 130
    (tmp_path / "2" / "checkpoints").mkdir()
    (tmp_path / "2" / "checkpoints" / "last.ckpt").write_text("")
    started = []
    monkeypatch.setattr(gt.train.run, "run", lambda cfg: started.append((cfg.seed, cfg.resume)) or math.nan)
    assert resume_sweep(monkeypatch, tmp_path) == 0
    assert started == [(1, None), (2, str(tmp_path / "2")), (3, None)]
    fake_jobs(9.0, 0.2, 0.3, UserError("now this"))
    assert resume_sweep(monkeypatch, tmp_path) == 1
    assert [job["best_valid"] for job in job_results(tmp_path)] == [0.1, 0.2, 0.3]
    assert [failed["job"] for failed in failures(tmp_path)] == ["3"]
    capsys.readouterr()
    assert resume_sweep(monkeypatch, tmp_path, "optim.lr=1") == 1
    assert "optim.lr=1" in capsys.readouterr().err


def test_lost_process_fails_only_its_job(fake_jobs, monkeypatch, tmp_path):
    fake_jobs(0.1, SystemExit(1), 0.3)
    assert run_sweep(monkeypatch, tmp_path, "seed=0,1,2") == 1
    assert [failed["job"] for failed in failures(tmp_path)] == ["1"]
    assert [job["job"] for job in job_results(tmp_path)] == ["0", "2"]


def test_validation_scores_have_one_column_without_test_split():
    for split, columns in (("test", ["valid accuracy", "test accuracy"]), ("valid", ["valid accuracy"])):
        jobs = [fake_result(value) | {"split": split, "job": str(n)} for n, value in enumerate((0.5, 0.25))]
        runs, settings = Outcome(ranked(jobs), []).sheets()
        for sheet in (runs, settings):
            assert [name for name in sheet.names if name.endswith("accuracy")] == columns
            assert all(len(row) == len(sheet.names) for row in sheet.rows)

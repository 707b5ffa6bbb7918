"""The ranking of a sweep: means over seeds and folds, order of settings, criteria, and pruned settings."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from gt.cli.settings import job_results, ranked
from gt.cli.sweep import show
from gt.cli.sweep_tables import Outcome
from tests.cli.sweeps import fake_result, job_result, write_results


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


def test_validation_scores_have_one_column_without_test_split():
    for split, columns in (("test", ["valid accuracy", "test accuracy"]), ("valid", ["valid accuracy"])):
        jobs = [fake_result(value) | {"split": split, "job": str(n)} for n, value in enumerate((0.5, 0.25))]
        runs, settings = Outcome(ranked(jobs), []).sheets()
        for sheet in (runs, settings):
            assert [name for name in sheet.names if name.endswith("accuracy")] == columns
            assert all(len(row) == len(sheet.names) for row in sheet.rows)

"""``seeds=`` and ``against=``: repeated runs, their means and confidence intervals, and paired differences."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from gt.cli.command import prepare_arguments
from gt.cli.composing import compose_config
from gt.cli.intervals import Estimate, describe_gap, difference
from gt.cli.settings import gap, ranked, reference
from gt.errors import UserError
from tests.cli.sweeps import job_result, restore_logging, run_sweep, write_results  # noqa: F401
from tests.small_runs import TINY, weights, write_graphs


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_intervals_match_scipy(n: int) -> None:
    draw = np.random.default_rng(n)
    ours, theirs = draw.normal(0.3, 2, n), draw.normal(0, 1, n)
    estimate = Estimate.of(ours.tolist())
    assert (estimate.low, estimate.high) == pytest.approx(stats.t.interval(0.95, n - 1, ours.mean(), stats.sem(ours)))
    assert estimate.error == pytest.approx(stats.sem(ours))
    order = draw.permutation(n)  # pairs are matched by key
    gap = difference(dict(enumerate(ours)), {int(key): theirs[key] for key in order} | {n + 1: 9.0})
    test = stats.ttest_rel(ours, theirs)
    interval = test.confidence_interval(0.95)
    assert gap is not None
    assert (gap.n, gap.low, gap.high) == (n, pytest.approx(interval.low), pytest.approx(interval.high))
    assert gap.is_noise == (test.pvalue > 0.05)


def test_no_interval_of_one_run_or_without_pairs() -> None:
    assert Estimate.of([0.5]).mean == 0.5
    for values in ([math.inf, 1.0], [math.inf, math.inf], [math.inf, -math.inf], [math.nan, math.inf]):
        assert not math.isfinite(Estimate.of(values).mean)
        assert math.isnan(Estimate.of(values).low)
    assert math.isnan(Estimate.of([0.5]).low)
    assert difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("gaps", "mode", "word", "is_noise"),
    [
        ((0.02, 0.03, 0.04), "max", "better", False),
        ((0.02, 0.03, 0.04), "min", "worse", False),
        ((-0.02, -0.03, -0.04), "min", "better", False),
        ((-0.02, 0.01, 0.04), "max", "better", True),
    ],
)
def test_difference_is_described_in_words(gaps: tuple[float, ...], mode: str, word: str, is_noise: bool) -> None:
    text = describe_gap(Estimate.of(gaps), mode, "the old one")  # type: ignore[arg-type]
    low, high = sorted(abs(end) * np.sign(np.mean(gaps) * end) for end in stats.t.interval(
        0.95, 2, np.mean(gaps), stats.sem(gaps)))  # fmt: skip
    assert text.startswith(f"{abs(np.mean(gaps)):.4f} [{low:.4f}, {high:.4f}] {word} than the old one, over 3 seeds")
    assert ("noise" in text) == is_noise


def test_comparison_is_paired_by_seed(tmp_path: Path) -> None:
    # with a setting of the same sweep, or with another sweep
    ours, theirs = [0.5, 0.7, 0.6], [0.4, 0.65, 0.5]
    results = [job_result(n, f"seed={n}", "mask.hops=1", "data.k=2", test=v) for n, v in enumerate(ours)]
    results += [job_result(3 + n, "mask.hops=null", "data.k=2", f"seed={n}", test=v) for n, v in enumerate(theirs)]
    settings = ranked(results)
    base = reference("data.source.k=2 mask.hops=null", settings)
    assert base is not None
    assert [job["scores"]["accuracy"] for job in base] == theirs
    assert reference("mask.hops=2", settings) is None
    write_results(tmp_path, results[3:])
    for others in (base, reference(str(tmp_path), settings)):
        assert others is not None
        estimate = gap([job for job in results if job not in base], others)
        assert estimate is not None
        assert estimate.mean == pytest.approx(np.mean(np.subtract(ours, theirs)))
    assert gap(results[:2], [results[5]]) is None  # no seed in common
    assert gap(results[:3], [job | {"criterion": "f1"} for job in results[3:]]) is None


def prepare(*arguments: str) -> list[str]:
    return prepare_arguments(list(arguments))


def test_seeds_expand_to_consecutive_seeds() -> None:
    assert prepare("seeds=3", "optim.lr=0.1") == ["-m", "seed=range(0,3)", "optim.lr=0.1"]
    assert prepare("-m", "mask.hops=1,2", "seed=4", "seeds=2") == ["-m", "seed=range(4,6)", "mask.hops=1,2"]
    assert prepare("--seeds=1") == ["-m", "seed=range(0,1)"]
    assert "seed" not in " ".join(prepare("seeds=3", "--cfg", "job"))  # --cfg shows a single run


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seeds=0.5", "seeds"),
        ("seeds=many", "seeds"),
        ("seeds=-1", "seeds"),
        ("seeds=3 seed=1,2", "seed=1,2"),
        ("seeds=3 seed=4294967295", "seed=4294967295"),
        ("seeds=3 resume=somewhere", "resume"),
        ("seeds=3 hydra.run.dir=here", r"hydra\.sweep\.dir"),
        ("seeds=3 --run", "--run"),
        ("against=mask.hops=1", "seeds=5"),
        ("-m mask.hops=1,2 against=mask.hops=3", "mask.hops=1, mask.hops=2"),
        ("-m mask.hops=1,2 against=mask.hop=1", r"mask\.hops"),
        ("-m mask.hops=1,2 optim.lr=0.1,0.2 seeds=2 against=mask.hops=1", r"optim\.lr=VALUE"),
        ("seeds=3 against=nowhere", "nowhere"),
        ("seeds=3 against=.", "seeds=5"),
    ],
)
def test_invalid_seeds_or_comparison_is_reported(line: str, message: str, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare(*line.split())


def test_random_edges_depend_on_the_seed() -> None:
    for mask in ("random_edges", "exphormer", "bigbird"):
        assert [each.seed for each in compose_config([f"mask={mask}", "seed=7"]).mask.masks if "seed" in each] == [7]


def test_against_is_passed_to_the_ranking(tmp_path: Path) -> None:
    *_, argument = prepare("-m", "mask.hops=1,null", "optim.lr=1e-3,1e-2", "against=optim.lr=0.001 mask.hops=null")
    assert argument == '++hydra.callbacks.ranking.against="optim.lr=0.001 mask.hops=null"'
    write_results(tmp_path, [job_result(0, "seed=0")])
    assert prepare("seeds=2", f"against={tmp_path}")[-1] == f'++hydra.callbacks.ranking.against="{tmp_path}"'


def test_three_seeds_end_to_end_with_one_failure(monkeypatch, tmp_path, capsys) -> None:
    small = [*TINY, *write_graphs(tmp_path)]
    (first := tmp_path / "first").mkdir()
    write_results(first, [job_result(n, f"seed={n}", test=0.25) for n in (0, 1)])
    (broken := tmp_path / "sweep" / "1").mkdir(parents=True)
    (broken / "checkpoints").write_text("")  # a file in place of the folder of checkpoints
    assert run_sweep(monkeypatch, tmp_path / "sweep", *small, "seeds=3", "mask.hops=0", f"against={first}") == 1
    output = capsys.readouterr().out
    assert "2, 1 failed" in output
    scores = {
        job: json.loads((tmp_path / "sweep" / job / "result.json").read_text())["scores"]["accuracy"] for job in "02"
    }
    first_weights, last_weights = (weights(tmp_path / "sweep" / job) for job in "02")
    assert not any(torch.equal(first_weights[name], last_weights[name]) for name in first_weights if "map" in name)
    (row,) = csv.DictReader((tmp_path / "sweep" / "ranking.csv").open())
    assert float(row["final mean"]) == pytest.approx((scores["0"] + scores["2"]) / 2)
    assert (row["runs"], row["failed"], row["pairs"]) == ("2", "1", "1")  # only seed 0 has finished in both
    assert float(row["difference mean"]) == pytest.approx(scores["0"] - 0.25)
    runs = list(csv.DictReader((tmp_path / "sweep" / "runs.csv").open()))
    assert [float(run["accuracy"]) for run in runs] == [scores["0"], scores["2"]]
    page = (tmp_path / "sweep" / "ranking.html").read_text()
    assert all(word in page for word in ("failed jobs", "1 failed", "data:image/png", "by one run of each"))
    for name in ("ranking.csv", "runs.csv", "ranking.html", "ranking.txt"):
        assert str(tmp_path / "sweep" / name) in output

"""The keys of a sweep: importance, Pareto front, pictures, and the report with the command that reruns the best job."""

import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from gt.cli.settings import ranked
from gt.cli.sweep_keys import cost, front, importance, positions, values_by_key
from gt.cli.sweep_pictures import _ticks, pictures, short
from gt.errors import UserError
from gt.sweep import main
from tests.cli.sweeps import job_result, write_results


def make_jobs(count: int = 30) -> list[dict]:
    """Jobs whose scores depend on the learning rate, hardly on the depth, and not on the mask."""
    draw = np.random.default_rng(0)
    jobs = []
    for number in range(count):
        rate, depth, hops = 10 ** draw.uniform(-5, -1), draw.integers(2, 7), draw.choice(["1", "2", "null"])
        score = 1 - (math.log10(rate) + 3) ** 2 / 4 + depth / 50
        words = ("data=text", f"optim.lr={rate:.6g}", f"model.depth={depth}", f"mask.hops={hops}", "seed=1")
        job = job_result(number, *words, valid=score, test=score)
        jobs.append(job | {"seconds_per_batch": 0.01 * float(depth), "parameters": int(1000 * depth)})
    return jobs


def test_importance_finds_the_relevant_key():
    shares = importance(ranked(make_jobs()))
    assert next(iter(shares)) == "optim.lr"
    assert shares["optim.lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert importance(ranked(make_jobs(7))) == {}


def test_differing_values_and_their_positions():
    settings = ranked([job_result(0, "a=1", "b=x", "data.source.k=5"), job_result(1, "a=10", "b=x")])
    assert values_by_key(settings) == {"a": ["1", "10"], "data.k": ["5", "-"]}
    assert positions(["1", "10", "100"]) == ([0, 1, 2], [])
    assert positions(["1", "2", "4"]) == ([1, 2, 4], [])
    assert positions(["null", "10", "2"]) == ([2, 1, 0], ["2", "10", "null"])


def test_pareto_front_matches_brute_force():
    draw = np.random.default_rng(1)
    points = draw.integers(0, 6, (25, 2))
    for mode, sign in (("max", 1), ("min", -1)):
        jobs = [
            job_result(n, f"a={n}", valid=float(score), mode=mode) | {"parameters": int(price)}
            for n, (score, price) in enumerate(points)
        ]
        settings = ranked([*jobs, job_result(25, "a=25", valid=math.nan, mode=mode) | {"parameters": 0}])
        found = {int(settings[place][0]["job"]) for place in front(settings, "parameters")}
        expected = {
            n for n, (s, c) in enumerate(points)
            if not any(sign * t >= sign * s and d <= c and (t, d) != (s, c) for t, d in points)
        }  # fmt: skip
        assert found == expected
    assert math.isnan(cost([job_result(0)], "parameters"))


def test_sweep_is_ranked_and_reported_again(tmp_path: Path, capsys):
    jobs = make_jobs(12)
    write_results(tmp_path, jobs)
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "pruned.json").write_text(json.dumps({"overrides": ["optim.lr=9"], "reason": "fell behind"}))
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": ["-m", "--config-dir", "conf", "data=text"]}))
    main([str(tmp_path), "--against", jobs[0]["overrides"][1]])
    output = capsys.readouterr().out
    assert "fell behind" in output
    assert "importance" in output
    best = max(jobs, key=lambda job: job["best_valid"])
    assert shlex.join(["python", "train.py", "--config-dir", "conf", *best["overrides"]]) in output
    ranking = (tmp_path / "ranking.txt").read_text()
    for wrong, message in (("optim.lrr=9", "optim.lr"), ("optim.lr=123", "optim.lr="), ("nowhere", "folder")):
        with pytest.raises(UserError, match=message):
            main([str(tmp_path), "--against", wrong])
    assert (tmp_path / "ranking.txt").read_text() == ranking
    page = (tmp_path / "ranking.html").read_text()
    assert page.count("data:image/png") == 5
    assert "http" not in page
    assert {name for side, name in re.findall(r'<th( class="words")?>([^<]+)</th>', page) if side} == {
        "jobs", "job", "overrides", "difference", "key", "reason"
    }  # fmt: skip
    assert (tmp_path / "ranking.csv").read_text().count("\n") == 13
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        main([str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    "jobs", [[job_result(0)], [job_result(0, "a=1"), job_result(1, "a=2", valid=math.nan)], make_jobs(3)]
)
def test_pictures_of_few_jobs(jobs):
    assert set(pictures(ranked(jobs), {})) <= {
        "settings, one line each", "score by key", "score against parameters", "score against seconds a batch"
    }  # fmt: skip


def test_no_picture_of_an_unknown_cost():
    assert set(pictures(ranked([job_result(n, f"a={n}") | {"seconds_per_batch": None} for n in range(4)]), {})) == {
        "score by key"
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0.001", "0.01", "0.1"], ["0.001", "0.01", "0.1"]),
        (["0.00122961", "0.00125207", "0.00126356", "0.01", "0.1"], None),  # three would overlap
        (["32", "64", "128"], ["32", "64", "128"]),
        (["7"], ["7"]),
    ],
)
def test_axis_ticks_do_not_overlap(values, expected):
    places, names = _ticks(values)
    if expected:
        assert names == expected
    else:
        assert len(names) == 4
        assert np.diff(places).min() > 0.2 * (max(places) - min(places))


@pytest.mark.parametrize(
    ("key", "statement"),
    [
        ("seed", "variation between seeds"),
        ("data.source.fold", "differ in their split"),
        ("data.source.split_seed", "differ in their split"),
    ],
)
def test_page_states_the_source_of_variation(key: str, statement: str, tmp_path: Path):
    write_results(tmp_path, [job_result(n, f"{key}={n}") for n in range(3)])
    main([str(tmp_path)])
    page = (tmp_path / "ranking.html").read_text()
    assert [words in page for words in ("variation between seeds", "differ in their split")].count(True) == 1
    assert statement in page


def test_labels_shorten_keys_before_values():
    line = "model.block.dropout=0.1 optim.lr=0.003 +model.block.attention.heads=8"
    assert short(line, 80) == line
    assert short(line, 40) == "dropout=0.1 lr=0.003 +heads=8"
    assert short(line, 20) == "dropout=0.1 lr=0...."
    assert short("$x") == r"\$x"

"""What a sweep's keys did: importance, the Pareto front, pictures, the command that runs the best again."""

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
from tests.cli.test_sweep import keep, result


def swept(count: int = 30) -> list[dict]:
    """Scores that go by the learning rate, hardly by the depth, and not by the mask."""
    draw = np.random.default_rng(0)
    jobs = []
    for number in range(count):
        rate, depth, hops = 10 ** draw.uniform(-5, -1), draw.integers(2, 7), draw.choice(["1", "2", "null"])
        score = 1 - (math.log10(rate) + 3) ** 2 / 4 + depth / 50
        words = ("data=text", f"optim.lr={rate:.6g}", f"model.depth={depth}", f"mask.hops={hops}", "seed=1")
        job = result(number, *words, valid=score, test=score)
        jobs.append(job | {"seconds_per_batch": 0.01 * float(depth), "parameters": int(1000 * depth)})
    return jobs


def test_what_matters_is_told_from_what_does_not():
    shares = importance(ranked(swept()))
    assert next(iter(shares)) == "optim.lr"
    assert shares["optim.lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert importance(ranked(swept(7))) == {}


def test_values_that_differ_by_key_and_where_they_lie():
    settings = ranked([result(0, "a=1", "b=x", "data.source.k=5"), result(1, "a=10", "b=x")])
    assert values_by_key(settings) == {"a": ["1", "10"], "data.k": ["5", "-"]}
    assert positions(["1", "10", "100"]) == ([0, 1, 2], [])
    assert positions(["1", "2", "4"]) == ([1, 2, 4], [])
    assert positions(["null", "10", "2"]) == ([2, 1, 0], ["2", "10", "null"])


def test_the_front_by_brute_force():
    draw = np.random.default_rng(1)
    points = draw.integers(0, 6, (25, 2))
    for mode, sign in (("max", 1), ("min", -1)):
        jobs = [
            result(n, f"a={n}", valid=float(score), mode=mode) | {"parameters": int(price)}
            for n, (score, price) in enumerate(points)
        ]
        settings = ranked([*jobs, result(25, "a=25", valid=math.nan, mode=mode) | {"parameters": 0}])
        kept = {int(settings[place][0]["job"]) for place in front(settings, "parameters")}
        expected = {
            n for n, (s, c) in enumerate(points)
            if not any(sign * t >= sign * s and d <= c and (t, d) != (s, c) for t, d in points)
        }  # fmt: skip
        assert kept == expected
    assert math.isnan(cost([result(0)], "parameters"))


def test_a_sweep_is_shown_again(tmp_path: Path, capsys):
    jobs = swept(12)
    keep(tmp_path, jobs)
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "pruned.json").write_text(json.dumps({"overrides": ["optim.lr=9"], "reason": "fell behind"}))
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": ["-m", "--config-dir", "conf", "data=text"]}))
    main([str(tmp_path), "--against", jobs[0]["overrides"][1]])
    said = capsys.readouterr().out
    assert "fell behind" in said
    assert "importance" in said
    best = max(jobs, key=lambda job: job["best_valid"])
    assert shlex.join(["python", "train.py", "--config-dir", "conf", *best["overrides"]]) in said
    ranking = (tmp_path / "ranking.txt").read_text()
    for wrong, right in (("optim.lrr=9", "optim.lr"), ("optim.lr=123", "optim.lr="), ("nowhere", "folder")):
        with pytest.raises(UserError, match=right):
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


@pytest.mark.parametrize("jobs", [[result(0)], [result(0, "a=1"), result(1, "a=2", valid=math.nan)], swept(3)])
def test_pictures_of_little(jobs):
    assert set(pictures(ranked(jobs), {})) <= {
        "settings, one line each", "score by key", "score against parameters", "score against seconds a batch"
    }  # fmt: skip


def test_no_picture_of_a_cost_that_is_not_known():
    assert set(pictures(ranked([result(n, f"a={n}") | {"seconds_per_batch": None} for n in range(4)]), {})) == {
        "score by key"
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0.001", "0.01", "0.1"], ["0.001", "0.01", "0.1"]),
        (["0.00122961", "0.00125207", "0.00126356", "0.01", "0.1"], None),  # three would be printed over one another
        (["32", "64", "128"], ["32", "64", "128"]),
        (["7"], ["7"]),
    ],
)
def test_marks_of_an_axis_are_apart(values, expected):
    places, names = _ticks(values)
    if expected:
        assert names == expected
    else:
        assert len(names) == 4
        assert np.diff(places).min() > 0.2 * (max(places) - min(places))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("seed", "variation between seeds"),
        ("data.source.fold", "differ in their split"),
        ("data.source.split_seed", "differ in their split"),
    ],
)
def test_the_page_says_what_its_intervals_are_of(key: str, said: str, tmp_path: Path):
    keep(tmp_path, [result(n, f"{key}={n}") for n in range(3)])
    main([str(tmp_path)])
    page = (tmp_path / "ranking.html").read_text()
    assert [words in page for words in ("variation between seeds", "differ in their split")].count(True) == 1
    assert said in page


def test_names_in_a_picture_lose_their_keys_before_their_values():
    line = "model.block.dropout=0.1 optim.lr=0.003 +model.block.attention.heads=8"
    assert short(line, 80) == line
    assert short(line, 40) == "dropout=0.1 lr=0.003 +heads=8"
    assert short(line, 20) == "dropout=0.1 lr=0...."
    assert short("$x") == r"\$x"

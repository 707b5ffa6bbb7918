"""Sweeps whose trials Optuna chooses: parallel, resumed, failed and pruned trials, and means over seeds."""

import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from gt.cli import trials
from gt.cli.composing import compose_config
from gt.cli.settings import failures, job_results, ranked
from gt.cli.spectrum import pool
from gt.cli.sweep import Ranking, ranking
from gt.cli.trials.run import Sweep, sweep
from gt.cli.trials.search import split
from gt.errors import UserError
from gt.train.job import Pruned
from gt.train.study import FILES, STUDY, curve, load, report, storage, trial_of
from tests.small_runs import TINY, train, write_graphs

ROOT = Path(__file__).parents[2]
# replaces train.py: the score is the learning rate
FAKE = """
import json, os, sys, time
from pathlib import Path
words = [word for word in sys.argv[1:] if "=" in word]
values = dict(word.split("=", 1) for word in words)
run = Path((values.get("resume") or values["hydra.run.dir"]).strip('"'))
run.mkdir(parents=True, exist_ok=True)
if values.get("stage") == "prepare":
    (run / "prepared.json").write_text(json.dumps({"criterion": "accuracy", "mode": "max"}))
    sys.exit()
begun = run / "begun.json"
if not begun.exists():
    begun.write_text(json.dumps(words))
words = json.loads(begun.read_text())
values = dict(word.split("=", 1) for word in words)
lr, started = float(values.get("optim.lr", 0)), time.time()
while lr == 9 and time.time() < started + 30 and len(list(run.parent.glob("*/begun.json"))) < 2:
    time.sleep(0.05)  # until another one has begun
if lr == 13:
    sys.exit("error: out of luck")
if lr == 5 and "resume" not in sys.argv[1]:  # stops at once, for good
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "last.ckpt").touch()
    time.sleep(60)
score = float("nan") if lr == 7 else lr + 10 * float(values.get("seed", 0))
(run / "result.json").write_text(json.dumps({
    "split": "test", "criterion": "accuracy", "mode": "max", "best_valid": score, "scores": {"accuracy": score},
    "baseline": {"accuracy": 0.25}, "parameters": int(lr * lr),
    "seconds_per_batch": None if lr == 8 else 0.1,
    "overrides": [word for word in words if not word.startswith("hydra.")]}))
"""


@pytest.fixture
def fake_sweep(tmp_path, monkeypatch):
    """Replaces the runs by fake ones; returns a function that runs a sweep in a folder."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(pool, "TRAIN", tmp_path / "fake.py")
    monkeypatch.setattr(trials.run, "TRAIN", tmp_path / "fake.py")

    def run(folder: Path, *words: str, resumes: bool = False) -> optuna.Study:
        cfg = compose_config([word for word in words if "sweep" in word])
        hydra = {"sweep": {"dir": str(folder)}, "callbacks": {"ranking": {"resumes": resumes}}}
        cfg = OmegaConf.create({"sweep": cfg.sweep, "seed": 0, "hydra": hydra})
        sweep(cfg, ["-m", *words])
        return load(folder / FILES[cfg.sweep.storage])

    return run


def test_two_workers_share_a_grid_with_failures(fake_sweep, tmp_path, monkeypatch, capsys):
    study = fake_sweep(tmp_path / "a", "sweep=optuna", "sweep/sampler=grid", "sweep.workers=2", "optim.lr=9,13,7,3")
    states = {trial.params["optim.lr"]: trial.state for trial in study.trials}
    complete, fail = TrialState.COMPLETE, TrialState.FAIL
    assert states == {"9": complete, "13": fail, "7": fail, "3": complete}
    assert study.best_value == 9
    assert study.trials[0].duration > study.trials[1].datetime_start - study.trials[0].datetime_start
    (failed,) = failures(tmp_path / "a")
    assert failed["reason"] == "out of luck"
    assert "optim.lr=13" in failed["overrides"]
    monkeypatch.setattr(Ranking, "folder", None)
    with (
        pytest.raises(UserError, match=r"of the jobs failed: 1; failed trials are not retried.*sweep\.trials"),
        ranking(),
    ):
        Ranking.folder = tmp_path / "a"
    output = capsys.readouterr().out
    assert all(f"optim.lr={value}" in output for value in (3, 7, 9, 13))


@pytest.mark.parametrize("kind", FILES)
def test_stopped_sweep_resumes_to_its_total(kind, fake_sweep, monkeypatch, tmp_path):
    arguments = ("sweep=optuna", "sweep/sampler=grid", f"sweep.storage={kind}", "optim.lr=1,5,3,2", "sweep.trials=3")
    polls = itertools.count()
    monkeypatch.setattr(trials.run.time, "sleep", lambda seconds: stop_at_checkpoint())

    def stop_at_checkpoint() -> None:
        if (tmp_path / "a" / "1" / "checkpoints" / "last.ckpt").exists() or next(polls) > 1e6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fake_sweep(tmp_path / "a", *arguments)
    monkeypatch.undo()
    (tmp_path / "a" / "0" / "mark").touch()
    monkeypatch.setattr(pool, "TRAIN", tmp_path / "fake.py")
    study = fake_sweep(tmp_path / "a", *arguments, resumes=True)
    assert [trial.value for trial in study.trials if trial.state == TrialState.COMPLETE] == [1, 5, 3]
    assert [trial.state for trial in study.trials].count(TrialState.WAITING) == 1
    assert (tmp_path / "a" / "0" / "mark").exists()
    study = fake_sweep(tmp_path / "a", *arguments[:-1], "sweep.trials=4", resumes=True)
    assert [trial.value for trial in study.trials] == [1, 5, 3, 2]


@pytest.mark.parametrize("kind", FILES)
def test_sweep_killed_while_sampling_is_resumed(kind, fake_sweep, tmp_path):
    arguments = ("sweep=optuna", "sweep/sampler=grid", f"sweep.storage={kind}", "optim.lr=1,2,3", "model.width=4,8")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FILES[kind]).touch()
    fake_sweep(tmp_path / "a", *arguments, "sweep.trials=2")
    study = load(tmp_path / "a" / FILES[kind])
    study._pop_waiting_trial_id()  # as `ask` does before it samples
    trial = optuna.trial.Trial(study, study._pop_waiting_trial_id())
    trial._suggest("optim.lr", CategoricalDistribution(["1", "2", "3"]))
    if kind == "journal":
        with open(tmp_path / "a" / FILES[kind], "a") as file:
            file.write('{"op_code":5,"worker_id')  # a half-written entry
    study = fake_sweep(tmp_path / "a", *arguments, resumes=True)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    drawn = [(int(trial.params["optim.lr"]), int(trial.params["model.width"])) for trial in study.trials]
    assert drawn == list(itertools.product((1, 2, 3), (4, 8)))


def test_journal_lock_of_a_killed_writer_is_taken_over(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    path = Path("a") / FILES["journal"]
    storage(path)._backend._lock.acquire()
    stored = storage(path)
    stored._backend._lock.grace_period = 0.2
    create = threading.Thread(target=optuna.create_study, kwargs={"study_name": STUDY, "storage": stored}, daemon=True)
    create.start()
    create.join(10)
    assert load(path).trials == []


def test_repeated_values_reuse_earlier_results(fake_sweep, tmp_path, capsys):
    arguments = (
        "sweep=optuna",
        "sweep/sampler=random",
        "sweep.trials=6",
        "sweep.seeds=2",
        "optim.lr=1,2",
        "sweep.workers=2",
    )
    study = fake_sweep(tmp_path / "a", "sweep=optuna", *arguments)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    assert [trial.value for trial in study.trials] == [int(trial.params["optim.lr"]) + 5 for trial in study.trials]
    assert "as trial 0" in capsys.readouterr().out
    jobs = job_results(tmp_path / "a")
    assert 4 <= len(jobs) <= 6  # concurrent trials do not see each other's results
    repeated = [job | {"job": f"9-{job['job']}"} for job in jobs]
    assert [len(setting) for setting in ranked([*jobs, *repeated])] == [2, 2]


@pytest.mark.parametrize("kind", FILES)
def test_concurrent_commands_sample_different_values(kind, fake_sweep, tmp_path):
    search = instantiate(compose_config(["sweep=optuna", f"sweep.storage={kind}"]).sweep)
    common, swept = split(["optim.lr=interval(0.0,1.0)"])
    sweeps = [Sweep(tmp_path / "a", search, [], common, swept, seed=0) for _ in range(4)]
    drawn = [sweep.study.ask(sweep.space).params["optim.lr"] for sweep in sweeps for _ in range(3)]
    assert len(set(drawn)) == 12
    single = Sweep(tmp_path / "b", search, [], common, swept, seed=0)
    assert [single.study.ask(single.space).params["optim.lr"] for _ in range(3)] == drawn[:3]


def test_value_of_a_trial_is_the_mean_over_seeds(fake_sweep, tmp_path):
    study = fake_sweep(
        tmp_path / "a", "sweep=optuna", "sweep.trials=2", "sweep.seeds=3", "optim.lr=range(1,3)", "seed=4"
    )
    assert [trial.value for trial in study.trials] == [trial.params["optim.lr"] + 10 for trial in study.trials]
    seeds = {line for job in job_results(tmp_path / "a") for line in job["overrides"] if "seed" in line}
    assert seeds == {"seed=0", "seed=1", "seed=2"}  # from the composed seed


def test_score_and_cost_are_two_objectives(fake_sweep, tmp_path):
    words = ("sweep=optuna", "sweep/sampler=nsga2", "sweep.cost=parameters", "sweep.trials=3", "optim.lr=range(1,5)")
    study = fake_sweep(tmp_path / "a", *words)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert all(trial.values == [trial.params["optim.lr"], trial.params["optim.lr"] ** 2] for trial in study.trials)


def test_unknown_cost_is_reported(fake_sweep, tmp_path, capsys):
    fake_sweep(tmp_path / "a", "sweep=optuna", "sweep/sampler=grid", "sweep.cost=seconds_per_batch", "optim.lr=8,3")
    assert "failed: its seconds_per_batch is nan" in capsys.readouterr().out


def create_study(path: Path, direction: str = "maximize") -> optuna.Study:
    optuna.create_study(study_name=STUDY, storage=storage(path), direction=direction)
    return load(path, pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0))


@pytest.mark.parametrize("kind", FILES.values())
def test_trials_are_pruned_by_the_mean_over_runs(kind, tmp_path):
    """Against the median of running means, computed by hand."""
    study, draw = create_study(tmp_path / kind), np.random.default_rng(0)
    curves = draw.random((6, 2, 4)).cumsum(axis=2)  # trials, runs, validations; improving with each validation
    for number, runs in enumerate(curves):
        assert study.ask().number == number
        for run, validation in itertools.product(range(2), range(4)):
            mean = runs[: run + 1, validation].mean()
            others = curves[:number, : run + 1, validation].mean(axis=1)
            prune = report(study, number, run, validation + 1, runs[run, validation])
            assert report(study, number, run, validation + 1, -1.0) == prune  # reported again by a resumed run
            assert prune == (number >= 2 and bool(mean < np.median(others)))
            assert curve(study.trials[number], run)[validation + 1] == pytest.approx(mean)
        study.tell(number, runs[:, -1].mean())  # every trial is completed, for comparison
    assert trial_of(Path("a/7-2")) == (7, 2)
    assert trial_of(Path("a/7")) == (7, 0)
    assert trial_of(Path("a/prepare")) is None


def test_run_below_the_median_is_pruned(tmp_path):
    folder, pruning = tmp_path / "sweep", "+callbacks.pruning"
    folder.mkdir()
    study = create_study(folder / FILES["sqlite"])
    for number in range(3):
        study.ask()
        for validation in (1, 2, 3):
            report(study, number, 0, validation, 2.0)  # more than any accuracy
        study.tell(number, 2.0)
    study.ask()
    arguments = [*write_graphs(tmp_path), *[f"{pruning}.{name}=null" for name in ("monitor", "mode", "dirpath")],
             f"{pruning}._target_=gt.train.callbacks.Pruning", f"{pruning}.pruner.n_startup_trials=2",
             f"{pruning}.pruner._target_=optuna.pruners.MedianPruner", "trainer.max_epochs=4"]  # fmt: skip
    with pytest.raises(Pruned, match="after 1 validation"):
        train(folder / "3", *arguments)
    assert list(load(folder / FILES["sqlite"]).trials[3].intermediate_values) == [1]


@pytest.mark.slow
def test_sweep_killed_twice_completes_all_trials(tmp_path):
    arguments = [*TINY, *write_graphs(tmp_path), "trainer.max_epochs=8", "sweep=optuna", "sweep.workers=2",
             "sweep.trials=12", "optim.lr=tag(log, interval(1e-6, 1e-1))", "model.width=4,8",
             "callbacks.pruning.pruner.n_startup_trials=2", f"hydra.sweep.dir={tmp_path}/sweep"]  # fmt: skip
    exit_codes = {signal.SIGKILL: -9, signal.SIGTERM: 143}
    for stop_signal, finished in ((signal.SIGKILL, 3), (signal.SIGTERM, 6), (None, 12)):
        process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *arguments], cwd=ROOT)
        arguments = ["-m", f"resume={tmp_path}/sweep"]
        path, finished_trials = tmp_path / "sweep" / FILES["sqlite"], 0
        while stop_signal is not None and finished_trials < finished and process.poll() is None:
            time.sleep(1)
            finished_trials = sum(trial.state.is_finished() for trial in load(path).trials) if path.exists() else 0
        if stop_signal is not None:
            os.kill(process.pid, stop_signal)
            assert process.wait(60) == exit_codes[stop_signal]
    assert process.wait(600) == 0
    states = [trial.state for trial in load(path).trials]
    assert len(states) == 12
    assert states.count(TrialState.PRUNED) >= 2
    assert states.count(TrialState.COMPLETE) == 12 - states.count(TrialState.PRUNED)
    assert math.isfinite(fmean(job["best_valid"] for job in job_results(tmp_path / "sweep")))

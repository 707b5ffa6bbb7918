"""Runs that get a signal at a given moment, and their comparison with other runs."""

import json
import os
import time
from pathlib import Path

import pytest
import torch

import gt.train.run
from gt.train.interrupts import SAME_SIGNAL
from gt.train.report import history
from tests.small_runs import train, weights


@pytest.fixture(autouse=True, scope="module")
def short_report():
    """Replace the report, whose figures take longer than these runs."""

    def write(folder, *rest):
        (folder / "report.html").write_text("")
        return folder / "report.html"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gt.train.run, "write_report", write)
        yield


def signal_at_call(patch, owner, name: str, call: int, signum: int, times: int = 1) -> None:
    """Send a signal to this process in the given call of a function, counted from 1."""
    original, calls = getattr(owner, name), []

    def function(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            for number in range(times):
                time.sleep(number * 1.2 * SAME_SIGNAL)
                os.kill(os.getpid(), signum)
        return original(*args, **kwargs)

    patch.setattr(owner, name, function)


def train_until_signal(moment, signum: int, folder: Path, *overrides: str) -> None:
    """Train until the signal is sent at the given moment, and check the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        signal_at_call(patch, *moment, signum)
        with pytest.raises(SystemExit) as stop:
            train(folder, *overrides)
    assert stop.value.code == 128 + signum


def assert_same_run(folder: Path, uninterrupted: Path) -> None:
    """Check that weights, the best checkpoint, scores and loss curves are those of the other run, bit by bit."""
    for name in ("last", "best"):
        one, other = weights(folder, name), weights(uninterrupted, name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]), key
    results = [json.loads((each / "result.json").read_text()) for each in (folder, uninterrupted)]
    assert results[0]["scores"] == results[1]["scores"]
    assert results[0]["best_valid"] == results[1]["best_valid"]
    for loss in ("valid/loss", "train/loss"):
        curves = [history(each)[["step", loss]].dropna() for each in (folder, uninterrupted)]
        assert curves[0].to_numpy().tolist() == curves[1].to_numpy().tolist(), loss

"""Sweeps run in this process, and made-up results of jobs."""

import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import train


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
    """The ``result.json`` of a job, with one value for all scores."""
    scores = {"accuracy": value}
    return {"split": "test", "criterion": "accuracy", "mode": "max", "best_valid": value, "scores": scores,
            "baseline": scores, "overrides": [f"seed={value}", "encoding=[rwse]"]}  # fmt: skip


def job_result(job: int, *overrides: str, valid: float | None = 0.5, test: float = 0.5, mode: str = "max") -> dict:
    """The ``result.json`` of a numbered job."""
    return {"split": "test", "criterion": "accuracy", "mode": mode, "best_valid": valid, "scores": {"accuracy": test},
            "baseline": {"accuracy": 0.25}, "overrides": list(overrides), "job": str(job)}  # fmt: skip


def write_results(folder: Path, results: list[dict]) -> None:
    """Write the folders of finished jobs."""
    for job in results:
        (folder / job["job"]).mkdir()
        (folder / job["job"] / "result.json").write_text(json.dumps(job))

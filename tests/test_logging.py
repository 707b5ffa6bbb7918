"""Weights & Biases, offline, and what loggers are told of a run."""

import re

import wandb

from gt.train.logging import sync_line, wandb_logger
from tests.small_runs import train, write_graphs


def test_two_runs_in_one_process_warn_of_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    lines = []
    for name in "ab":
        (tmp_path / name).mkdir()
        logger = wandb_logger("gt", name, str(tmp_path / name))
        logger.log_metrics({"loss": 1.0})
        lines.append(sync_line(logger))
        wandb.finish()
    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert all(line.startswith(f"wandb sync {tmp_path / name}") for name, line in zip("ab", lines, strict=True))


def test_words_of_the_data_may_look_like_interpolations(tmp_path):
    overrides, path = write_graphs(tmp_path), tmp_path / "graphs.jsonl"
    path.write_text(re.sub(r'(?<="kind": )(\d)', '"${\'\\1"', path.read_text()))
    train(tmp_path / "run", *overrides, "trainer.max_epochs=1")
    (told,) = (tmp_path / "run").rglob("hparams.yaml")
    assert "gt.masks.Hops" in told.read_text()

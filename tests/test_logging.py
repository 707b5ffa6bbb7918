"""Weights & Biases, offline."""

import wandb

from gt.train.logging import sync_line, wandb_logger


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

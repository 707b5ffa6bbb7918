"""Loggers: Weights & Biases offline and unreachable, how its runs end, hyperparameters, and no logger."""

import re
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import wandb

import gt.train.logging
import gt.train.run
from gt.doctor import dashboards
from gt.train.interrupts import Interrupted
from gt.train.job import Pruned
from gt.train.logging import finish, sync_line, wandb_logger
from tests.small_runs import train, write_graphs
from tests.wandb_records import records


def test_two_runs_in_one_process_give_no_warnings(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    lines = []
    for name in "ab":
        (tmp_path / name).mkdir()
        logger = wandb_logger("gt", name, str(tmp_path / name))
        logger.log_metrics({"loss": 1.0})
        lines.append(sync_line(logger))
        wandb.finish()
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert all(line.startswith(f"wandb sync {tmp_path / name}") for name, line in zip("ab", lines, strict=True))


def test_disabled_wandb_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    train(tmp_path / "run", *write_graphs(tmp_path), "logger=default", "trainer.max_epochs=1")
    finish()
    assert "upload with" not in capsys.readouterr().out
    assert not list(tmp_path.rglob("*wandb*"))
    assert list(dashboards()) == [("W&B", "off, by WANDB_MODE")]


def test_unreachable_server_logs_offline(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # no server listens here
    monkeypatch.setattr(gt.train.logging, "CONNECT_TIMEOUT", 1.0)
    logger = wandb_logger("gt", "a", str(tmp_path))
    logger.log_metrics({"loss": 1.0})
    assert sync_line(logger).startswith(f"wandb sync {tmp_path}")
    finish()
    assert re.fullmatch(r"W&B cannot be reached, the run is logged offline: .+\n", capfd.readouterr().out)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_upload_that_times_out_is_left_for_later(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = wandb_logger("gt", "a", str(tmp_path))
    line, original = (logger.experiment, sync_line(logger))[1], wandb.finish

    def finish_then_time_out(**options):
        original(**options)
        raise TimeoutError

    monkeypatch.setattr(wandb, "finish", finish_then_time_out)
    finish()
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "raised", "code"),
    [(None, None, 0), (ValueError, ValueError, 1), (Interrupted(15), SystemExit, 1), (Pruned("worse"), Pruned, 0)],
)
def test_exit_code_of_failed_and_stopped_runs(error, raised, code, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    if error:
        monkeypatch.setattr(gt.train.run, "finish", Mock(side_effect=error))
    with pytest.raises(raised) if raised else nullcontext():
        train(tmp_path / "run", *write_graphs(tmp_path), "logger=default", "trainer.max_epochs=1")
    assert records(tmp_path / "run")[-1].exit.exit_code == code


def test_data_values_resembling_interpolations_are_logged(tmp_path):
    overrides, path = write_graphs(tmp_path), tmp_path / "graphs.jsonl"
    path.write_text(re.sub(r'(?<="kind": )(\d)', '"${\'\\1"', path.read_text()))
    train(tmp_path / "run", *overrides, "trainer.max_epochs=1")
    (hparams,) = (tmp_path / "run").rglob("hparams.yaml")
    assert "gt.masks.Hops" in hparams.read_text()


def test_training_without_logger(tmp_path):
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.max_epochs=1", "logger.csv=null")
    assert (tmp_path / "run" / "report.html").exists()

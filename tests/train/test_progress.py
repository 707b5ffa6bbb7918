"""Progress without a terminal: a line now and then in long epochs, and only the scores of short ones."""

import io
import itertools
import json
import re
import sys
from types import SimpleNamespace

import pytest

import gt.train.callbacks.progress
import gt.train.run
from gt.data.files import print_line
from gt.train.callbacks.progress import Progress
from gt.train.report import history
from gt.train.task import Task
from tests.small_runs import train, write_graphs


@pytest.fixture
def clock(monkeypatch):
    """A clock that only steps advance, each by a given number of seconds."""
    now = SimpleNamespace(seconds=1000.0, training=0.0, evaluation=0.0)
    monkeypatch.setattr(gt.train.callbacks.progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    for name in ("training_step", "validation_step", "test_step"):
        monkeypatch.setattr(Task, name, advancing(name, now))
    monkeypatch.setattr(gt.train.run, "write_report", lambda folder, *rest: folder / "report.html")
    return now


def advancing(name: str, now: SimpleNamespace):
    original, indices = getattr(Task, name), itertools.count()

    def step(*args):
        seconds = now.training if name == "training_step" else now.evaluation
        now.seconds += seconds(next(indices)) if callable(seconds) else seconds
        return original(*args)

    return step


def progress_lines(output: str) -> list[tuple[str, int]]:
    """The phase and the batch of each progress line within an epoch."""
    return [(m[1] or "training", int(m[2])) for m in re.finditer(r"(validation |test |)batch (\d+)/\d+", output)]


def test_long_epoch_reports_every_half_minute(clock, tmp_path, capsys):
    clock.training = 4.0
    train(tmp_path / "run", *write_graphs(tmp_path, train=200), "trainer.max_epochs=2")
    output = capsys.readouterr().out
    assert progress_lines(output) == 2 * [("training", batch) for batch in (3, 11, 19)]  # at 12, 44 and 76 s of 100
    assert "train/loss" in next(line for line in output.splitlines() if "batch 3/25" in line)


def test_each_step_logs_its_own_loss(tmp_path, monkeypatch):
    losses, logged = [], []

    def on_batch_end(task, outputs, batch, index):
        losses.append(float(outputs["loss"]))
        logged.append(float(task.trainer.callback_metrics["train/loss"]))
        task.trainer.should_stop = task.trainer.global_step == 8  # as trainer.max_time does

    monkeypatch.setattr(Task, "on_train_batch_end", on_batch_end)
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.log_every_n_steps=5")
    assert logged == pytest.approx(losses)
    assert len(set(logged)) == 8
    assert list(history(tmp_path / "run")["train/loss"].dropna()) == pytest.approx([losses[4], losses[7]])


def test_long_evaluation_reports_progress(clock, tmp_path, capsys):
    clock.evaluation = 5.0
    train(tmp_path / "run", *write_graphs(tmp_path, valid=90, test=54), "trainer.max_epochs=1")
    assert progress_lines(capsys.readouterr().out) == [("validation ", 3), ("test ", 3)]


def test_short_epoch_reports_only_its_validation(clock, tmp_path, capsys):
    clock.training = 2.3
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.max_epochs=3")
    output = capsys.readouterr().out
    assert progress_lines(output) == []
    assert len(re.findall(r"^epoch \d/3 .*valid/loss", output, re.MULTILINE)) == 3


class WriteRecorder(io.StringIO):
    """A terminal that records each write: lines of two processes may interleave between writes."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, text: str) -> int:
        self.writes += [text] if text else []
        return len(text)


@pytest.mark.parametrize("report", [print_line, lambda line: Progress()._print(line)], ids=["print_line", "progress"])
def test_line_and_newline_are_one_write(report, monkeypatch):
    terminal = WriteRecorder()
    monkeypatch.setattr(sys, "stdout", terminal)
    report("waiting")
    assert terminal.writes == ["waiting\n"]


def test_finished_run_reports_nothing_left_to_train(tmp_path, capsys):
    data = write_graphs(tmp_path)
    train(tmp_path / "run", *data)
    capsys.readouterr()
    train(tmp_path / "run", *data, resume=True)
    output = capsys.readouterr().out
    assert output.count("nothing left to train") == 1
    assert all(str(tmp_path / "run" / name) in output for name in ("checkpoints/best.ckpt", "report.html"))
    train(tmp_path / "run", *data, "trainer.max_epochs=3", resume=True)
    assert "nothing left to train" not in capsys.readouterr().out


def test_seconds_per_batch_exclude_warm_up_and_validation(clock, tmp_path):
    clock.evaluation = 50.0
    clock.training = lambda step: 60.0 if step < 3 else 9.0 if step >= 10 else 2.0 + step % 2  # five batches an epoch
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.max_epochs=3", "trainer.val_check_interval=2")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["seconds_per_batch"] == pytest.approx(2.6)  # 3, 2 | 3, 2, 3, 2, 3 | 9: the median of 2.5, 2.6, 9
    assert result["parameters"] > 100

"""Off a terminal a run says now and then how far it is, and a short one only what it measured."""

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
    """A clock that only steps move, each by so many seconds."""
    now = SimpleNamespace(seconds=1000.0, training=0.0, evaluation=0.0)
    monkeypatch.setattr(gt.train.callbacks.progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    for name in ("training_step", "validation_step", "test_step"):
        monkeypatch.setattr(Task, name, timed(name, now))
    monkeypatch.setattr(gt.train.run, "write_report", lambda folder, *rest: folder / "report.html")
    return now


def timed(name: str, now: SimpleNamespace):
    before, counts = getattr(Task, name), itertools.count()

    def step(*args):
        seconds = now.training if name == "training_step" else now.evaluation
        now.seconds += seconds(next(counts)) if callable(seconds) else seconds
        return before(*args)

    return step


def places(said: str) -> list[tuple[str, int]]:
    """What each line within an epoch is about, and at which batch."""
    return [(m[1] or "training", int(m[2])) for m in re.finditer(r"(validation |test |)batch (\d+)/\d+", said)]


def test_a_long_epoch_is_told_every_half_minute(clock, tmp_path, capsys):
    clock.training = 4.0
    train(tmp_path / "run", *write_graphs(tmp_path, train=200), "trainer.max_epochs=2")
    said = capsys.readouterr().out
    assert places(said) == 2 * [("training", batch) for batch in (3, 11, 19)]  # after 12, 44 and 76 of 100 seconds
    assert "train/loss" in next(line for line in said.splitlines() if "batch 3/25" in line)


def test_each_step_is_told_its_own_loss(tmp_path, monkeypatch):
    own, told = [], []

    def end(task, outputs, batch, index):
        own.append(float(outputs["loss"]))
        told.append(float(task.trainer.callback_metrics["train/loss"]))
        task.trainer.should_stop = task.trainer.global_step == 8  # as trainer.max_time stops a training

    monkeypatch.setattr(Task, "on_train_batch_end", end)
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.log_every_n_steps=5")
    assert told == pytest.approx(own)
    assert len(set(told)) == 8
    assert list(history(tmp_path / "run")["train/loss"].dropna()) == pytest.approx([own[4], own[7]])


def test_a_long_evaluation_is_told_too(clock, tmp_path, capsys):
    clock.evaluation = 5.0
    train(tmp_path / "run", *write_graphs(tmp_path, valid=90, test=54), "trainer.max_epochs=1")
    assert places(capsys.readouterr().out) == [("validation ", 3), ("test ", 3)]


def test_a_short_epoch_has_no_line_but_that_of_its_validation(clock, tmp_path, capsys):
    clock.training = 2.3
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.max_epochs=3")
    said = capsys.readouterr().out
    assert places(said) == []
    assert len(re.findall(r"^epoch \d/3 .*valid/loss", said, re.MULTILINE)) == 3


class Writes(io.StringIO):
    """A terminal that keeps each write: the lines of two processes may mix between two of them."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def write(self, text: str) -> int:
        self.kept += [text] if text else []
        return len(text)


@pytest.mark.parametrize("tell", [print_line, lambda line: Progress()._print(line)], ids=["say", "progress"])
def test_a_line_is_one_write_with_its_end(tell, monkeypatch):
    terminal = Writes()
    monkeypatch.setattr(sys, "stdout", terminal)
    tell("waiting")
    assert terminal.kept == ["waiting\n"]


def test_a_finished_run_says_that_nothing_is_left_to_train(tmp_path, capsys):
    data = write_graphs(tmp_path)
    train(tmp_path / "run", *data)
    capsys.readouterr()
    train(tmp_path / "run", *data, resume=True)
    said = capsys.readouterr().out
    assert said.count("nothing left to train") == 1
    assert all(str(tmp_path / "run" / name) in said for name in ("checkpoints/best.ckpt", "report.html"))
    train(tmp_path / "run", *data, "trainer.max_epochs=3", resume=True)
    assert "nothing left to train" not in capsys.readouterr().out


def test_a_batch_takes_what_it_takes_in_most_epochs_without_warm_up_and_validation(clock, tmp_path):
    clock.evaluation = 50.0
    clock.training = lambda step: 60.0 if step < 3 else 9.0 if step >= 10 else 2.0 + step % 2  # five batches an epoch
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.max_epochs=3", "trainer.val_check_interval=2")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["seconds_per_batch"] == pytest.approx(2.6)  # 3, 2 | 3, 2, 3, 2, 3 | 9: the median of 2.5, 2.6, 9
    assert result["parameters"] > 100

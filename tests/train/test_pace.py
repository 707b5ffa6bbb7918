"""Logged training speed, update sizes and gradient norms."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import gt.train.callbacks.pace
from gt.train.task import Task
from tests.small_runs import train, weights, write_graphs


def read_log(folder):
    return pd.read_csv(next(folder.rglob("metrics.csv")))


def test_update_size_is_relative_to_trained_weights(tmp_path, monkeypatch):
    """Plain gradient descent moves weights by the rate times the clipped gradient."""
    before = {}
    on_start = Task.on_train_start
    monkeypatch.setattr(Task, "on_train_start", lambda self: (before.update(copy_parameters(self)), on_start(self)))
    sgd = ["optim.optimizer._target_=torch.optim.SGD", "~optim.optimizer.betas", "~optim.optimizer.fused"]
    plain = ["optim.lr=0.1", "optim.weight_decay=0", "optim.warmup=0", "trainer.gradient_clip_val=0.01"]
    train(tmp_path / "run", *write_graphs(tmp_path, train=8), *sgd, *plain, "trainer.max_epochs=1")
    after = {name: value for name, value in weights(tmp_path / "run").items() if name in before}
    update = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm()
    trained = [name for name in before if not torch.equal(after[name], before[name])]
    norm = torch.cat([before[name].flatten() for name in trained]).norm()
    (row,) = read_log(tmp_path / "run").dropna(subset="optim/update_to_weight").to_dict("records")
    assert row["optim/update_to_weight"] == pytest.approx(float(update / norm), rel=0.05)
    assert row["optim/gradient_norm"] > 0.01  # before clipping


def copy_parameters(task):
    return {f"net.{name}": parameter.detach().clone() for name, parameter in task.net.named_parameters()}


def test_speed_excludes_validation_time(tmp_path, monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(gt.train.callbacks.pace, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    original_step = Task.training_step

    def slow_step(self, batch, index):
        now.seconds += 2.0
        return original_step(self, batch, index)

    def slow_validation(self):
        now.seconds += 1000.0

    monkeypatch.setattr(Task, "training_step", slow_step)
    monkeypatch.setattr(Task, "on_validation_epoch_start", slow_validation)
    overrides = ["trainer.log_every_n_steps=2", "trainer.val_check_interval=1"]
    train(tmp_path / "run", *write_graphs(tmp_path, train=32), *overrides, "trainer.max_epochs=1")
    speeds = read_log(tmp_path / "run")["speed/graphs_per_s"].dropna()
    assert speeds.tolist() == pytest.approx([4.0, 4.0])  # two steps of eight graphs, two seconds each

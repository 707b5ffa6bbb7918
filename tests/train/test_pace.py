"""How fast a training goes and how far its steps move the weights, as loggers are told."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import gt.train.callbacks.pace
from gt.train.task import Task
from tests.small_runs import train, weights, write_graphs


def logged(folder):
    return pd.read_csv(next(folder.rglob("metrics.csv")))


def test_a_step_is_measured_by_the_weights_that_it_moves(tmp_path, monkeypatch):
    """Plain descent moves weights by the rate times the gradient, which is clipped to 1."""
    before = {}
    start = Task.on_train_start
    monkeypatch.setattr(Task, "on_train_start", lambda self: (before.update(copied(self)), start(self)))
    sgd = ["optim.optimizer._target_=torch.optim.SGD", "~optim.optimizer.betas", "~optim.optimizer.fused"]
    plain = ["optim.lr=0.1", "optim.weight_decay=0", "optim.warmup=0", "trainer.gradient_clip_val=0.01"]
    train(tmp_path / "run", *write_graphs(tmp_path, train=8), *sgd, *plain, "trainer.max_epochs=1")
    after = {name: value for name, value in weights(tmp_path / "run").items() if name in before}
    step = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm()
    trained = [name for name in before if not torch.equal(after[name], before[name])]
    length = torch.cat([before[name].flatten() for name in trained]).norm()
    (row,) = logged(tmp_path / "run").dropna(subset="optim/update_to_weight").to_dict("records")
    assert row["optim/update_to_weight"] == pytest.approx(float(step / length), rel=0.05)
    assert row["optim/gradient_norm"] > 0.01  # as it was before it was clipped


def copied(task):
    return {f"net.{name}": parameter.detach().clone() for name, parameter in task.net.named_parameters()}


def test_speed_is_counted_since_the_step_that_was_logged_before(tmp_path, monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(gt.train.callbacks.pace, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    step = Task.training_step

    def slow(self, batch, place):
        now.seconds += 2.0
        return step(self, batch, place)

    def validated(self):
        now.seconds += 1000.0

    monkeypatch.setattr(Task, "training_step", slow)
    monkeypatch.setattr(Task, "on_validation_epoch_start", validated)
    overrides = ["trainer.log_every_n_steps=2", "trainer.val_check_interval=1"]
    train(tmp_path / "run", *write_graphs(tmp_path, train=32), *overrides, "trainer.max_epochs=1")
    speeds = logged(tmp_path / "run")["speed/graphs_per_s"].dropna()
    assert speeds.tolist() == pytest.approx([4.0, 4.0])  # two steps of eight graphs, two seconds each

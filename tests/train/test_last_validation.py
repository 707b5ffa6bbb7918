"""Training that ends between two validations: the last step is validated too, and can be the best."""

import signal

import pytest
import torch

from gt.train.interrupts import Interrupted
from gt.train.report import history
from gt.train.task import Task
from tests.small_runs import train, weights, write_graphs

BY_STEPS = ["trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=4"]
CONSTANT_RATE = ["trainer.max_epochs=-1", "optim.warmup=0", "optim/schedule=constant"]


def validated_steps(folder):
    """The steps after which there was a validation, counted from 1."""
    log = history(folder)
    return [int(step) + 1 for step in log.loc[log["valid/loss"].notna(), "step"]]


@pytest.mark.parametrize(
    ("steps", "options", "expected"),
    [
        (1, [], [1]),
        (3, [], [3]),
        (5, [], [5]),
        (7, [], [5, 7]),
        (10, [], [5, 10]),
        (4, ["trainer.accumulate_grad_batches=2"], [3, 4]),
        (3, ["trainer.accumulate_grad_batches=2"], [3]),
        (3, BY_STEPS, [3]),
        (9, BY_STEPS, [4, 8]),
        (4, ["trainer.val_check_interval=2"], [2, 4]),
        (3, ["trainer.limit_train_batches=4"], [3]),
        (3, ["trainer.max_epochs=1"], [3]),
        (8, ["trainer.check_val_every_n_epoch=3"], [8]),
        (10, ["trainer.check_val_every_n_epoch=3", "trainer.val_check_interval=2"], [10]),
        (12, ["trainer.check_val_every_n_epoch=2"], [10, 12]),
    ],
)
def test_last_step_is_validated(steps, options, expected, tmp_path):
    train(tmp_path / "run", *write_graphs(tmp_path), *CONSTANT_RATE, f"trainer.max_steps={steps}", *options)
    assert validated_steps(tmp_path / "run") == expected
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    assert (tmp_path / "run" / "result.json").exists()


def test_extended_run_matches_uninterrupted_run(tmp_path):
    data = write_graphs(tmp_path)
    train(tmp_path / "whole", *data, *CONSTANT_RATE, "trainer.max_steps=12")
    train(tmp_path / "part", *data, *CONSTANT_RATE, "trainer.max_steps=7")
    train(tmp_path / "part", *data, *CONSTANT_RATE, "trainer.max_steps=12", resume=True)
    extended, uninterrupted = weights(tmp_path / "part"), weights(tmp_path / "whole")
    assert all(torch.equal(extended[name], value) for name, value in uninterrupted.items())


def test_interrupted_last_validation_is_repeated(tmp_path, monkeypatch):
    data = [*write_graphs(tmp_path), *CONSTANT_RATE, "trainer.max_steps=7"]
    train(tmp_path / "whole", *data)
    original, calls = Task.validation_step, []

    def interrupted(task, batch, batch_idx):
        calls.append(batch_idx)
        if len(calls) == 4:
            raise Interrupted(signal.SIGTERM)
        return original(task, batch, batch_idx)

    monkeypatch.setattr(Task, "validation_step", interrupted)
    with pytest.raises(SystemExit):
        train(tmp_path / "part", *data)
    monkeypatch.undo()
    train(tmp_path / "part", *data, resume=True)
    assert validated_steps(tmp_path / "part") == validated_steps(tmp_path / "whole") == [5, 7]
    for name in ("best", "last"):
        resumed, uninterrupted = weights(tmp_path / "part", name), weights(tmp_path / "whole", name)
        assert all(torch.equal(resumed[key], value) for key, value in uninterrupted.items())

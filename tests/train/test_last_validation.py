"""Steps that end a training before a validation is due: what they led to is validated, and can be the best."""

import signal

import pytest
import torch

from gt.train.interrupts import Interrupted
from gt.train.report import history
from gt.train.task import Task
from tests.small_runs import train, weights, write_graphs

COUNTED = ["trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=4"]
STEADY = ["trainer.max_epochs=-1", "optim.warmup=0", "optim/schedule=constant"]


def validated(folder):
    """The numbers of the steps after which there was a validation."""
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
        (3, COUNTED, [3]),
        (9, COUNTED, [4, 8]),
        (4, ["trainer.val_check_interval=2"], [2, 4]),
        (3, ["trainer.limit_train_batches=4"], [3]),
        (3, ["trainer.max_epochs=1"], [3]),
        (8, ["trainer.check_val_every_n_epoch=3"], [8]),
        (10, ["trainer.check_val_every_n_epoch=3", "trainer.val_check_interval=2"], [10]),
        (12, ["trainer.check_val_every_n_epoch=2"], [10, 12]),
    ],
)
def test_the_last_step_is_validated(steps, options, expected, tmp_path):
    train(tmp_path / "run", *write_graphs(tmp_path), *STEADY, f"trainer.max_steps={steps}", *options)
    assert validated(tmp_path / "run") == expected
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    assert (tmp_path / "run" / "result.json").exists()


def test_a_longer_training_goes_on_from_there_as_if_it_had_never_stopped(tmp_path):
    data = write_graphs(tmp_path)
    train(tmp_path / "whole", *data, *STEADY, "trainer.max_steps=12")
    train(tmp_path / "part", *data, *STEADY, "trainer.max_steps=7")
    train(tmp_path / "part", *data, *STEADY, "trainer.max_steps=12", resume=True)
    part, whole = weights(tmp_path / "part"), weights(tmp_path / "whole")
    assert all(torch.equal(part[name], value) for name, value in whole.items())


def test_one_that_is_cut_short_is_repeated(tmp_path, monkeypatch):
    data = [*write_graphs(tmp_path), *STEADY, "trainer.max_steps=7"]
    train(tmp_path / "whole", *data)
    evaluate, seen = Task.validation_step, []

    def interrupted(task, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == 4:
            raise Interrupted(signal.SIGTERM)
        return evaluate(task, batch, batch_idx)

    monkeypatch.setattr(Task, "validation_step", interrupted)
    with pytest.raises(SystemExit):
        train(tmp_path / "part", *data)
    monkeypatch.undo()
    train(tmp_path / "part", *data, resume=True)
    assert validated(tmp_path / "part") == validated(tmp_path / "whole") == [5, 7]
    for name in ("best", "last"):
        part, whole = weights(tmp_path / "part", name), weights(tmp_path / "whole", name)
        assert all(torch.equal(part[key], value) for key, value in whole.items())

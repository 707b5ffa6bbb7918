"""Averages of the weights: what is averaged, saved, gone on from, and tested."""

import json
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

import gt
from gt.train.callbacks import SaveLast, WeightAverage
from gt.train.interrupts import Interrupted
from tests.small_runs import configured, train, write_graphs
from tests.test_resume import Stop, StopAt, assert_equal, fit

DECAY = 0.8


class Track(pl.Callback):
    """The average of the weights after each step, worked out by hand."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.average = {name: value.clone() for name, value in pl_module.net.named_parameters()}
        self.step = 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *more: Any) -> None:
        if trainer.global_step > self.step:
            first, self.step = self.step == 0, trainer.global_step
            for name, value in pl_module.net.named_parameters():
                # the first update takes the weights as they are
                self.average[name] = value.clone() if first else DECAY * self.average[name] + (1 - DECAY) * value


def test_the_network_ends_as_the_average_of_its_steps(tmp_path):
    track = Track()
    task = fit(tmp_path, [track, WeightAverage(DECAY)], accumulate_grad_batches=4)
    for name, value in task.net.named_parameters():
        torch.testing.assert_close(value, track.average[name].detach())


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("stop", [2, 4, 6, 14])
def test_a_run_goes_on_to_the_same_average_wherever_it_stops(tmp_path, accumulate, stop):
    whole = fit(tmp_path, [WeightAverage(DECAY)], accumulate_grad_batches=accumulate)
    plain = fit(tmp_path, accumulate_grad_batches=accumulate)
    with pytest.raises(Stop):
        fit(tmp_path, [WeightAverage(DECAY), StopAt(stop, tmp_path / "last.ckpt")], accumulate_grad_batches=accumulate)
    resumed = fit(tmp_path, [WeightAverage(DECAY)], ckpt=tmp_path / "last.ckpt", accumulate_grad_batches=accumulate)
    assert_equal(resumed, whole)
    with pytest.raises(AssertionError):
        assert_equal(whole, plain)


class InterruptValidation(pl.Callback):
    def on_validation_batch_end(self, trainer: pl.Trainer, *more: Any) -> None:
        if trainer.current_epoch == 1 and not trainer.sanity_checking:
            raise Interrupted(15)


def test_what_an_interrupted_validation_saves_goes_on_to_the_same_average(tmp_path):
    whole = fit(tmp_path, [WeightAverage(DECAY)])
    with pytest.raises(Interrupted):
        fit(tmp_path, [WeightAverage(DECAY), InterruptValidation(), SaveLast(str(tmp_path))])
    resumed = fit(tmp_path, [WeightAverage(DECAY), SaveLast(str(tmp_path))], ckpt=tmp_path / "last.ckpt")
    assert_equal(resumed, whole)


def test_the_average_is_what_a_run_keeps_and_tests(tmp_path):
    # a network that learns fast, and an average of its first steps that hardly moves
    data = write_graphs(tmp_path)
    options = [*data, "callbacks=[default,ema]", "optim.lr=0.1", "callbacks.average.decay=0.9999"]
    train(tmp_path / "run", *options, "trainer.max_epochs=3")
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    moved = [not torch.equal(value, saved["current_model_state"][name]) for name, value in saved["state_dict"].items()]
    assert any(moved)
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["scores"]
    task = gt.load(tmp_path / "run")
    for name, value in task.net.state_dict().items():
        assert torch.equal(value, saved["state_dict"][f"net.{name}"])
    assert scores["loss"] == pytest.approx(loss_of(task, tmp_path, data), rel=1e-5)


def loss_of(task: Any, folder: Any, data: list[str]) -> float:
    """The loss of a task on the test split."""
    with configured(folder / "again", *data) as cfg:
        module = instantiate(cfg.data)
    module.open([])
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    return trainer.test(task, datamodule=module, verbose=False)[0]["test/loss"]

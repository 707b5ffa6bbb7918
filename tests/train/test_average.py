"""Weight averaging (EMA and SWA): what is averaged, validated, saved, resumed and tested."""

import json
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

import gt
from gt.errors import UserError
from gt.train.callbacks import NormStatistics, SaveLast, StochasticWeightAverage, WeightAverage
from gt.train.feed import Feed
from gt.train.interrupts import Interrupted
from tests.small_runs import configured, train, write_graphs
from tests.train.test_resume import Stop, StopAt, assert_equal, fit

DECAY = 0.8
AVERAGES = {"exponential": partial(WeightAverage, DECAY), "mean of the last": partial(StochasticWeightAverage, 0.6)}


class ReferenceAverage(pl.Callback):
    """Computes the exponential moving average of the weights after each step by its definition."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.average = {name: value.clone() for name, value in pl_module.net.named_parameters()}
        self.step = 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *more: Any) -> None:
        if trainer.global_step > self.step:
            updates, self.step = self.step, trainer.global_step
            # the first update takes the weights as they are
            kept = min(self.decay, (1 + updates) / (10 + updates)) if updates else 0.0
            for name, value in pl_module.net.named_parameters():
                self.average[name] = kept * self.average[name] + (1 - kept) * value


@pytest.mark.parametrize("decay", [0.2, 0.35, 0.999])
def test_training_ends_with_the_exponential_average(tmp_path, decay):
    reference = ReferenceAverage(decay)
    task = fit(tmp_path, [reference, WeightAverage(decay)], accumulate_grad_batches=4)
    assert reference.step > 5
    for name, value in task.net.named_parameters():
        torch.testing.assert_close(value, reference.average[name].detach())


class RecordWeights(pl.Callback):
    """Records the weights after each optimiser step, and the validated weights with the number of steps before."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self.validated: list[tuple[int, dict[str, torch.Tensor]]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *more: Any) -> None:
        if trainer.global_step > len(self.steps):
            self.steps.append(copy_weights(pl_module))

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Any, *more: Any) -> None:
        self.validated.append((trainer.global_step, copy_weights(pl_module)))


def copy_weights(task: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in task.net.named_parameters()}


@pytest.mark.parametrize(("start", "accumulate"), [(0.75, 1), (0.5, 4), (0.0, 1), (0.99, 3)])
def test_swa_is_the_mean_of_the_last_steps(tmp_path, start, accumulate):
    averaged, plain = RecordWeights(), RecordWeights()
    task = fit(tmp_path, [averaged, StochasticWeightAverage(start)], accumulate_grad_batches=accumulate)
    fit(tmp_path, [plain], accumulate_grad_batches=accumulate)  # without an average; training is the same
    total = len(plain.steps)
    last = plain.steps[int(start * total) :]
    assert 0 < len(last) <= total
    for name, value in task.net.named_parameters():
        expected = torch.stack([each[name].double() for each in last]).mean(0)
        torch.testing.assert_close(value.detach().double(), expected, rtol=1e-5, atol=1e-6)
        # training continues from the network's own weights, which are validated before the start, then the mean so far
        assert all(torch.equal(one[name], two[name]) for one, two in zip(averaged.steps, plain.steps, strict=True))
        for step, weights in averaged.validated:
            members = plain.steps[int(start * total) : step] or plain.steps[step - 1 : step]
            expected = torch.stack([each[name].double() for each in members]).mean(0)
            torch.testing.assert_close(weights[name].double(), expected, rtol=1e-5, atol=1e-6)


# the second epoch has 14 batches; the mean starts at the 12th
@pytest.mark.parametrize(
    ("name", "accumulate", "stop"),
    [("exponential", accumulate, stop) for accumulate in (1, 4) for stop in (2, 4, 6, 14)]
    + [("mean of the last", 1, 4), ("mean of the last", 1, 13), ("mean of the last", 4, 14)],
)
def test_resumed_run_reaches_the_same_average(tmp_path, name, accumulate, stop):
    average = AVERAGES[name]
    uninterrupted = fit(tmp_path, [average()], accumulate_grad_batches=accumulate)
    plain = fit(tmp_path, accumulate_grad_batches=accumulate)
    with pytest.raises(Stop):
        fit(tmp_path, [average(), StopAt(stop, tmp_path / "last.ckpt")], accumulate_grad_batches=accumulate)
    resumed = fit(tmp_path, [average()], ckpt=tmp_path / "last.ckpt", accumulate_grad_batches=accumulate)
    assert_equal(resumed, uninterrupted)
    with pytest.raises(AssertionError):
        assert_equal(uninterrupted, plain)


class InterruptValidation(pl.Callback):
    def on_validation_batch_end(self, trainer: pl.Trainer, *more: Any) -> None:
        if trainer.current_epoch == 1 and not trainer.sanity_checking:
            raise Interrupted(15)


@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)
@pytest.mark.parametrize("others", [(), (partial(NormStatistics, 2),)])
def test_resuming_from_interrupted_validation_keeps_the_average(tmp_path, average, others):
    def callbacks() -> list[pl.Callback]:
        return [*(make() for make in others), average()]

    uninterrupted = fit(tmp_path, callbacks())
    with pytest.raises(Interrupted):
        fit(tmp_path, [*callbacks(), InterruptValidation(), SaveLast(str(tmp_path))])
    resumed = fit(tmp_path, [*callbacks(), SaveLast(str(tmp_path))], ckpt=tmp_path / "last.ckpt")
    assert_equal(resumed, uninterrupted)


def test_extended_run_averages_its_own_last_steps(tmp_path):
    constant_rate = {"optim": {"warmup": 0, "schedule": partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)}}
    uninterrupted = fit(tmp_path, [StochasticWeightAverage(0.6)], max_epochs=6, **constant_rate)
    with pytest.raises(Stop):
        fit(tmp_path, [StochasticWeightAverage(0.6), StopAt(14, tmp_path / "last.ckpt")], max_epochs=2, **constant_rate)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["averaging_state"]["n_averaged"] == 12
    resumed = fit(tmp_path, [StochasticWeightAverage(0.6)], ckpt=tmp_path / "last.ckpt", max_epochs=6, **constant_rate)
    assert_equal(resumed, uninterrupted)


def test_run_ending_before_swa_starts_keeps_plain_weights(tmp_path):
    class StopAfterEpoch(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            trainer.should_stop = True

    plain, averaged = (
        fit(tmp_path, [StopAfterEpoch()]),
        fit(tmp_path, [StochasticWeightAverage(), StopAfterEpoch(), SaveLast(str(tmp_path))]),
    )
    assert_equal(averaged, plain)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], value) for name, value in plain.state_dict().items())


def test_invalid_averages_are_rejected(tmp_path):
    with pytest.raises(UserError, match="leave ema or swa out"):
        fit(tmp_path, [StochasticWeightAverage(), WeightAverage()])
    endless = {"schedule": partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0), "warmup": 0}
    with pytest.raises(UserError, match=r"callbacks=swa .* set trainer\.max_epochs"):
        fit(tmp_path, [StochasticWeightAverage()], optim=endless, max_epochs=-1)
    with pytest.raises(ValueError, match="start must be 0 or more and below 1"):
        StochasticWeightAverage(1.0)


@pytest.mark.parametrize(
    "overrides",
    [
        # an average that hardly moves from the first steps
        ["callbacks=[default,ema]", "callbacks.average.decay=0.9999"],
        ["callbacks=[default,swa]", "callbacks.swa.start=0.2"],
    ],
)
def test_average_is_saved_and_tested(tmp_path, overrides):
    data = write_graphs(tmp_path)
    train(tmp_path / "run", *data, *overrides, "optim.lr=0.1", "trainer.max_epochs=3")  # a rate that trains fast
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    differs = [
        not torch.equal(value, saved["current_model_state"][name]) for name, value in saved["state_dict"].items()
    ]
    assert any(differs)
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["scores"]
    task = gt.load(tmp_path / "run")
    for name, value in task.net.state_dict().items():
        assert torch.equal(value, saved["state_dict"][f"net.{name}"])
    assert scores["loss"] == pytest.approx(compute_test_loss(task, tmp_path, data), rel=1e-5)


def compute_test_loss(task: Any, folder: Any, data: list[str]) -> float:
    """The loss of a network on the test split."""
    with configured(folder / "again", *data) as cfg:
        module = instantiate(cfg.data)
    module.open([])
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    return trainer.test(task, datamodule=Feed(module), verbose=False)[0]["test/loss"]

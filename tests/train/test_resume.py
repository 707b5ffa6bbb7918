"""Resuming a run: bit by bit from the last optimiser step, and under the settings that it is now given."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, ReduceLROnPlateau, SequentialLR

from gt.data.graphs import GraphData
from gt.data.packed import Graphs
from gt.data.source import Source
from gt.errors import UserError
from gt.layers import GINE, Attention, ParallelBlock
from gt.metrics import metrics
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.callbacks import SaveLast
from gt.train.checkpoint_io import CheckpointFiles
from gt.train.feed import Feed
from gt.train.optim import Optimisation
from gt.train.resume import changes, check_network
from gt.train.task import Task
from tests.data.test_batching import pack
from tests.graphs import random_graph

SCHEMA = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3, max_nodes=9)


@pytest.fixture(autouse=True)
def one_thread():
    """Steps are so small that a second thread only slows them down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Random(Source):
    """Random graphs, made in memory: 14 training batches."""

    name = "random"

    def __init__(self, root: Path) -> None:
        self.root = root

    def key(self) -> dict[str, Any]:
        return {}

    def build(self) -> Graphs:
        graphs = pack([random_graph(1 + n % 9, n) for n in range(64)])
        graphs.schema, graphs.splits = SCHEMA, {"train": np.arange(56), "valid": np.arange(56, 64)}
        return graphs


class Stop(Exception):
    pass


class StopAt(pl.Callback):
    """Saves a checkpoint and stops after the given number of batches of the second epoch."""

    def __init__(self, batches: int, path: Path) -> None:
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx + 1 == self.batches:
            trainer.save_checkpoint(self.path)
            raise Stop


class Rates(pl.Callback):
    """Records the learning rate of each optimiser step."""

    def __init__(self) -> None:
        self.rates: dict[int, float] = {}

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.rates[trainer.global_step] = optimizer.param_groups[0]["lr"]


def make_task(width: int = 8, **options: Any) -> Task:
    torch.manual_seed(0)
    # batch norm, whose statistics change with each batch, and dropout, which is drawn anew for each
    block = partial(ParallelBlock, local=GINE, attention=partial(Attention, heads=2), dropout=0.1)
    net = GraphTransformer(SCHEMA, width, 2, block)
    return Task(net, SCHEMA, *metrics(SCHEMA), Optimisation(**options))


def fit(root: Path, callbacks: Any = (), ckpt: Path | None = None, optim: Any = None, width: int = 8, **options: Any):
    """Train from a checkpoint or from scratch; returns the task."""
    task = make_task(width, **(optim or {}))
    data = GraphData(Random(root), batch_size=4)
    data.open([])
    trainer = pl.Trainer(
        callbacks=list(callbacks), enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, default_root_dir=root,
        plugins=[CheckpointFiles()], use_distributed_sampler=False, num_sanity_val_steps=0,
        **{"max_epochs": 3} | options,
    )  # fmt: skip
    trainer.fit(task, datamodule=Feed(data), ckpt_path=ckpt, weights_only=True)
    return task


def assert_equal(task: Task, expected_task: Task) -> None:
    for (name, value), expected in zip(task.state_dict().items(), expected_task.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("stop", [2, 4, 6, 13, 14])  # of 14: the last accumulated step takes two
def test_resumed_run_reaches_identical_weights(tmp_path, accumulate, stop):
    uninterrupted = fit(tmp_path, accumulate_grad_batches=accumulate)
    with pytest.raises(Stop):
        fit(tmp_path, [StopAt(stop, tmp_path / "last.ckpt")], accumulate_grad_batches=accumulate)
    resumed = fit(tmp_path, ckpt=tmp_path / "last.ckpt", accumulate_grad_batches=accumulate)
    assert_equal(resumed, uninterrupted)


class SaveAtValidation(pl.Callback):
    """Saves a checkpoint at each validation of the second epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            batches = trainer.fit_loop.epoch_loop.batch_progress.current.processed
            trainer.save_checkpoint(self.folder / f"{batches}.ckpt")


@pytest.mark.parametrize(("every", "accumulate"), [(3, 4), (7, 1), (7, 4)])  # 7: also validated at the end of the epoch
def test_run_resumes_identically_from_any_validation(tmp_path, every, accumulate):
    options = {"accumulate_grad_batches": accumulate, "val_check_interval": every}
    uninterrupted = fit(tmp_path, [SaveAtValidation(tmp_path)], **options)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) == 14 // every
    for path in paths:
        assert_equal(fit(tmp_path, ckpt=path, **options), uninterrupted)


def test_validation_within_accumulated_step_counts_once(tmp_path):
    """A checkpoint saved at it repeats the batches of the step, and the validation with them."""
    schedule = partial(ReduceLROnPlateau, patience=0, threshold=1e9)  # no validation but the first is an improvement

    def run(ckpt: Path | None = None, batches: int = 99) -> tuple[EarlyStopping, list[float]]:
        stopping = EarlyStopping("valid/loss", patience=99, min_delta=1e9)
        callbacks = [rates := Rates(), stopping, StopAt(batches, tmp_path / "last.ckpt"), SaveAtValidation(tmp_path)]
        options = {"accumulate_grad_batches": 4, "val_check_interval": 5, "max_epochs": 2}
        with nullcontext() if batches > 14 else pytest.raises(Stop):
            fit(tmp_path, callbacks, ckpt, {"schedule": schedule, "warmup": 0}, **options)
        return stopping, [rate for step, rate in rates.rates.items() if step >= 5]

    uninterrupted, expected = run()
    at_validation = (tmp_path / "5.ckpt").rename(tmp_path / "at_validation.ckpt")
    run(batches=7)
    for path in (at_validation, tmp_path / "last.ckpt"):
        stopping, rates = run(path)
        assert (stopping.wait_count, rates) == (uninterrupted.wait_count, expected)


def test_extended_schedule_matches_uninterrupted_run(tmp_path):
    with pytest.raises(Stop):
        fit(tmp_path, [StopAt(6, tmp_path / "last.ckpt")])
    settings = {
        "optim": {
            "lr": 3e-4,
            "warmup": 5,
            "final": 0.1,
            "weight_decay": 0.1,
            "optimizer": partial(torch.optim.AdamW, betas=(0.8, 0.9)),
        },
        "max_epochs": 6,
    }
    uninterrupted, resumed = Rates(), Rates()
    fit(tmp_path, [uninterrupted], **settings)
    task = fit(tmp_path, [resumed], ckpt=tmp_path / "last.ckpt", **settings)
    assert sorted(resumed.rates) == list(range(20, 84))
    assert resumed.rates == {step: uninterrupted.rates[step] for step in range(20, 84)}
    assert uninterrupted.rates[83] < uninterrupted.rates[60] < uninterrupted.rates[20]  # it does not rise again
    group, vectors = task.trainer.optimizers[0].param_groups
    assert (group["weight_decay"], vectors["weight_decay"], group["betas"]) == (0.1, 0.0, (0.8, 0.9))


def test_max_steps_schedule_matches_uninterrupted_run(tmp_path):
    with pytest.raises(Stop):
        fit(tmp_path, [StopAt(6, tmp_path / "last.ckpt")])
    uninterrupted, resumed = Rates(), Rates()
    fit(tmp_path, [uninterrupted], max_epochs=-1, max_steps=30)
    fit(tmp_path, [resumed], ckpt=tmp_path / "last.ckpt", max_epochs=-1, max_steps=30)
    assert resumed.rates == {step: uninterrupted.rates[step] for step in range(20, 30)}


CONSTANT = {"warmup": 0, "final": 1.0}


@pytest.mark.parametrize("longer", [{"max_steps": 25}, {"max_epochs": 3}, {"max_steps": 31, "max_epochs": -1}])
@pytest.mark.parametrize(("steps", "every"), [(9, 14), (6, 3), (14, 14), (20, 5)])  # of 14 an epoch; 6: validated there
def test_run_continues_beyond_max_steps(tmp_path, steps, every, longer):
    options = {"optim": CONSTANT, "val_check_interval": every}
    uninterrupted = fit(tmp_path, **options, **longer)
    fit(tmp_path, [SaveLast(str(tmp_path))], **options, max_steps=steps)
    resumed = fit(tmp_path, [SaveLast(str(tmp_path))], ckpt=tmp_path / "last.ckpt", **options, **longer)
    assert_equal(resumed, uninterrupted)
    assert (resumed.trainer.global_step, resumed.trainer.current_epoch) == (
        uninterrupted.trainer.global_step,
        uninterrupted.trainer.current_epoch,
    )


def test_run_continues_after_two_limits_within_epoch(tmp_path):
    options = {"optim": CONSTANT, "accumulate_grad_batches": 4}  # four steps an epoch, the last one of two batches
    uninterrupted = fit(tmp_path, **options)
    fit(tmp_path, [SaveLast(str(tmp_path))], **options, max_steps=5)
    fit(tmp_path, [SaveLast(str(tmp_path))], ckpt=tmp_path / "last.ckpt", **options, max_steps=7)
    assert_equal(fit(tmp_path, ckpt=tmp_path / "last.ckpt", **options), uninterrupted)


def test_more_patience_completes_the_stopped_epoch(tmp_path):
    def callbacks(patience: int) -> list[pl.Callback]:
        return [EarlyStopping("valid/loss", patience=patience, min_delta=1e9), SaveLast(str(tmp_path))]

    options = {"optim": CONSTANT, "val_check_interval": 4}
    uninterrupted = fit(tmp_path, **options)
    stopped = fit(tmp_path, callbacks(4), **options)
    assert stopped.trainer.global_step == 14 + 8  # the fifth validation
    assert_equal(fit(tmp_path, callbacks(99), ckpt=tmp_path / "last.ckpt", **options), uninterrupted)


def test_length_already_exceeded_is_rejected(tmp_path):
    with pytest.raises(Stop):
        fit(tmp_path, [StopAt(6, tmp_path / "last.ckpt")])
    with pytest.raises(UserError, match=r"trainer\.max_steps=19: .* 20 steps"):
        fit(tmp_path, ckpt=tmp_path / "last.ckpt", max_steps=19)
    with pytest.raises(UserError, match=r"trainer\.max_epochs=0: .* 1 epochs"):
        fit(tmp_path, ckpt=tmp_path / "last.ckpt", max_epochs=0)


def test_different_number_of_processes_is_rejected(tmp_path):
    """As when ``trainer.devices=auto`` takes all GPUs of another machine."""
    with pytest.raises(Stop):
        fit(tmp_path, [StopAt(6, tmp_path / "last.ckpt")])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["processes"] == 1
    torch.save(saved | {"processes": 4}, tmp_path / "four.ckpt")
    with pytest.raises(UserError, match=r"by 4 processes .* with 1, .*trainer\.devices=4"):
        fit(tmp_path, ckpt=tmp_path / "four.ckpt")
    auto, two = (OmegaConf.create({"trainer": {"devices": devices}}) for devices in ("auto", 2))
    assert changes(auto, two) == ["trainer.devices=2, was auto"]


def test_checkpoint_of_different_network_is_rejected(tmp_path):
    with pytest.raises(Stop):
        fit(tmp_path, [StopAt(2, tmp_path / "last.ckpt")])
    with pytest.raises(UserError, match=r"different network.*nodes\.table\.weight .*\(10, 8\).*\(10, 16\)"):
        fit(tmp_path, ckpt=tmp_path / "last.ckpt", width=16)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    task = make_task()
    task.hparams["config"] = {"mask": {"hops": 2}}
    saved["hyper_parameters"]["config"] = {"mask": {"hops": 1}}
    with pytest.raises(UserError, match=r"mask\.hops is 1 there and 2 here"):
        task.on_load_checkpoint(saved)


def test_norm_formerly_from_pytorch_is_the_same_network(tmp_path):
    """Earlier versions used PyTorch's RMSNorm."""
    with pytest.raises(Stop):
        fit(tmp_path, [StopAt(2, tmp_path / "last.ckpt")])
    configs = [{"model": {"norm": {"_target_": name}}} for name in ("torch.nn.RMSNorm", "gt.norms.RMSNorm")]
    before, now = map(OmegaConf.create, configs)
    assert changes(before, now) == []
    saved, task = torch.load(tmp_path / "last.ckpt", weights_only=True), make_task()
    saved["hyper_parameters"]["config"], task.hparams["config"] = configs
    check_network(task, saved)


def test_resumed_early_stopping_uses_new_patience(tmp_path):
    def stopping(patience: int) -> EarlyStopping:
        return EarlyStopping("valid/loss", patience=patience)

    with pytest.raises(Stop):
        fit(tmp_path, [stopping(50), StopAt(6, tmp_path / "last.ckpt")])
    callback = stopping(1)
    fit(tmp_path, [callback], ckpt=tmp_path / "last.ckpt", optim={"lr": 1e-30}, max_epochs=9)
    assert callback.patience == 1
    assert callback.stopped_epoch > 0


@pytest.mark.parametrize(("steps", "warmup", "final"), [(100, 0.05, 0.0), (40, 7, 0.1), (3, 0.5, 0.0), (2, 0.05, 0.0)])
def test_schedule_matches_pytorch_warm_up_and_cosine(steps, warmup, final):
    net = torch.nn.Linear(2, 2)
    schedule = Optimisation(0.1, warmup=warmup, final=final).configure(net, steps)["lr_scheduler"]["scheduler"]
    warmup_steps = max(1, int(warmup if warmup >= 1 else warmup * steps))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    schedules = [
        LinearLR(optimizer, 1 / (warmup_steps + 1), total_iters=warmup_steps),
        CosineAnnealingLR(optimizer, max(1, steps - warmup_steps), 0.1 * final),
    ]
    expected = SequentialLR(optimizer, schedules, [warmup_steps])
    for _ in range(steps):
        assert schedule.get_last_lr()[0] == pytest.approx(expected.get_last_lr()[0], abs=1e-12)
        schedule.optimizer.step()
        optimizer.step()
        schedule.step()
        expected.step()
    for _ in range(2):  # beyond its end it stays constant
        schedule.step()
        assert schedule.get_last_lr()[0] == pytest.approx(0.1 * final)

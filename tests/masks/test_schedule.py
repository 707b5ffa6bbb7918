"""Scheduled masks, in training and in checkpoints; masks from configuration files."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

import gt
from gt.cli.config import check
from gt.cli.config_files import CONFIGS
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.errors import UserError, one_line
from gt.graph import GraphBatch
from gt.masks import Causal, Complete, Hops, PerHead, Schedule, Union, VirtualNodes, by_head, by_layer
from gt.metrics import metrics
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.feed import Feed
from gt.train.interrupts import Interrupted
from gt.train.logging import quiet
from gt.train.network import build, network_config
from gt.train.optim import Optimisation
from gt.train.task import Task
from tests.graphs import random_batch, random_graph
from tests.masks.test_virtual_models import BLOCKS

SCHEMA = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3, max_nodes=64)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 100])
def test_radii_share_training_equally(count):
    mask = Hops(schedule=list(range(count)))
    for epochs in (count, 10 * count):
        seen = [mask.at(epoch / epochs) for epoch in range(epochs)]
        assert seen == [Hops(radius) for radius in range(count) for _ in range(epochs // count)]
    assert mask.at(1.0) == Hops(count - 1)


def test_schedules_hold_any_mask_but_do_not_combine():
    masks = [Hops(1) | Causal(), PerHead((Hops(1), Causal())), Complete()]
    assert [Schedule(masks).at(progress) for progress in (0.0, 0.5, 1.0)] == masks
    assert hash(Schedule(masks)) == hash(Schedule(tuple(masks)))
    assert Hops(schedule=(1, None)) == Schedule([Hops(1), Complete()])
    for kind in (Union, PerHead):
        with pytest.raises(ValueError, match="Schedule"):
            kind((Causal(), Hops(schedule=(1, None))))


def test_invalid_schedules_are_rejected():
    for options in ({"hops": 1, "schedule": [1]}, {"schedule": []}):
        with pytest.raises(ValueError, match="a schedule needs at least one radius and replaces hops"):
            Hops(**options)
    with pytest.raises(ValueError, match="at least one mask"):
        Schedule([])
    with pytest.raises(ValueError, match="hops must be 0 or more, not -1"):
        Hops(schedule=[1, -1])


def scheduled_net() -> GraphTransformer:
    torch.manual_seed(0)
    return GraphTransformer(SCHEMA, 16, 2, BLOCKS["attention"], [Hops(schedule=[0, 1, None]), Hops(2)]).eval()


@torch.no_grad()
def test_model_applies_the_current_masks():
    net, batch, outputs = scheduled_net(), random_batch((6, 9)), []
    for progress, expected in ((0.0, Hops(0)), (0.4, Hops(1)), (1.0, Hops(None)), (0.1, Hops(0))):
        net.set_progress(progress)
        assert net.masks == [expected, Hops(2)]
        assert net.masks_in_use == {expected, Hops(2)}
        outputs.append(net(batch))
        net.scheduled, schedules = net.masks, net.scheduled  # the same masks without a schedule
        torch.testing.assert_close(net(batch), outputs[-1])
        net.scheduled = schedules
    assert torch.equal(outputs[0], outputs[3])
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[1], outputs[2])


class FiveBatches:
    """Data with 5 batches."""

    def loader(self, split):
        return range(5)


def fake_trainer(epochs, steps, accumulate=1):
    return SimpleNamespace(
        datamodule=SimpleNamespace(data=FiveBatches()), max_epochs=epochs, max_steps=steps, limit_train_batches=1.0,
        accumulate_grad_batches=accumulate, num_training_batches=5, log_every_n_steps=20,
        current_epoch=0, global_step=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((4, -1), lambda epoch, step: epoch / 4),
        ((4, -1, 2), lambda epoch, step: epoch / 4),
        ((4, 15), lambda epoch, step: epoch / 3),
        ((-1, 20), lambda epoch, step: step / 20),
        ((None, 20), lambda epoch, step: step / 20),
    ],
)
def test_progress_follows_epochs_or_steps(given, expected, monkeypatch):
    task = Task(scheduled_net(), SCHEMA, *metrics(SCHEMA))
    fake = fake_trainer(*given)
    monkeypatch.setattr(Task, "trainer", property(lambda self: fake))
    monkeypatch.setattr(Task, "current_epoch", property(lambda self: fake.current_epoch))
    task.on_train_start()
    (callback,) = task.configure_callbacks()
    for step in range(15):
        fake.current_epoch, fake.global_step = step // 5, step // fake.accumulate_grad_batches
        if step % 5 == 0:
            callback.on_train_epoch_start(fake, task)
        callback.on_train_batch_start(fake, task, None, step % 5)
        assert task.net.progress == pytest.approx(expected(fake.current_epoch, fake.global_step))


def test_schedule_requires_finite_training():
    task = Task(scheduled_net(), SCHEMA, *metrics(SCHEMA))
    (callback,) = task.configure_callbacks()
    with pytest.raises(UserError, match=r"^mask\.schedule .* set trainer\.max_epochs or max_steps"):
        callback.on_fit_start(fake_trainer(-1, -1), task)


# ---- whole runs


class MaskRecorder(pl.Callback):
    """Records the mask of each step and what its batch is prepared for; may stop at a step, with a checkpoint."""

    def __init__(self, stop: int | None = None, path: Path | None = None) -> None:
        self.stop, self.path = stop, path
        self.seen, self.ready = [], []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.seen.append(pl_module.net.masks[0])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.ready.append(set(batch.memo))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.stop:
            trainer.save_checkpoint(self.path)
            raise Interrupted(2)


def fit(text: Path, limits: dict, watch: MaskRecorder, ckpt_path: Path | None = None):
    torch.manual_seed(0)
    data = LanguageData(Text(str(text)), context=16, batch_size=8)
    data.open([])
    net = GraphTransformer(
        data.schema, 16, 2, BLOCKS["attention"], [Hops(schedule=[0, 1, None]), Causal()], dropout=0.1
    )
    data.readings = net.readings
    task = Task(net, data.schema, *data.measures(), optim=Optimisation(lr=0.01))
    runner = pl.Trainer(
        accelerator="cpu", callbacks=[watch], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0, limit_val_batches=2,
        **limits,
    )  # fmt: skip
    with contextlib.suppress(Interrupted):
        runner.fit(task, datamodule=Feed(data), ckpt_path=ckpt_path)
    return runner, task, data


@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_steps": 12, "max_epochs": -1}], ids=str)
def test_resumed_run_is_bitwise_equal(limits, tmp_path):
    quiet()
    text = tmp_path / "input.txt"
    text.write_text("".join(f"{a} and {b} make {a + b};\n" for a in range(6) for b in range(6)))
    uninterrupted = MaskRecorder()
    _, task, data = fit(text, limits, uninterrupted)
    steps = len(data.loader("train"))
    assert steps == 4
    assert uninterrupted.seen == [Hops(0)] * 4 + [Hops(1)] * 4 + [Hops(None)] * 4
    assert [Hops(1) in ready for ready in uninterrupted.ready[6:8]] == [True, True]  # prepared for the current masks
    for stop in (2, 4, 7, 8):  # in the middle and at the end of an epoch
        path = tmp_path / f"{stop}.ckpt"
        first, second = MaskRecorder(stop, path), MaskRecorder()
        fit(text, limits, first)
        runner, resumed, data = fit(text, limits, second, path)
        assert first.seen + second.seen == uninterrupted.seen
        for name, value in task.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name
        runner.validate(resumed, datamodule=Feed(data), ckpt_path=path, verbose=False)
        assert resumed.net.masks[0] == uninterrupted.seen[stop - 1]  # the masks in use when the checkpoint was saved
        assert torch.load(path, weights_only=True)["progress"] == resumed.net.progress


def test_loaded_checkpoint_keeps_its_current_masks(tmp_path):
    schema = Schema(node_vocab=(5, 5), outputs=3)
    cfg = compose_config("model=transformer", "mask=hops", "mask.schedule=[0,1,null]", "encoding=none")
    config, batch = network_config(cfg), random_batch((6, 9))
    for progress in (0.0, 0.4, 0.9):
        task = Task(build(config, schema), schema, *metrics(schema), config=config).eval()
        task.net.set_progress(progress)
        checkpoint = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
        task.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, tmp_path / "saved.ckpt")
        loaded = gt.load(tmp_path / "saved.ckpt")
        assert loaded.net.masks == task.net.masks
        assert torch.equal(loaded(batch), task(batch))
    del checkpoint["progress"]  # as in versions without schedules
    torch.save(checkpoint, tmp_path / "saved.ckpt")
    assert gt.load(tmp_path / "saved.ckpt").net.progress == 0.0


# ---- configuration files

CHOICES = sorted(path.stem for path in (CONFIGS / "mask").glob("*.yaml"))


def compose_config(*overrides: str):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=list(overrides))
    check(cfg)
    return cfg


def compose_net(*overrides: str):
    return build(network_config(compose_config("encoding=[degree]", *overrides)), SCHEMA)


@pytest.mark.parametrize("model", ["gps", "transformer", "gcn", "gt", "interleaved"])
@pytest.mark.parametrize("choice", CHOICES)
def test_every_configured_mask_trains(choice, model):
    net = compose_net(f"model={model}", f"mask={choice}")
    batch = GraphBatch.from_data_list([random_graph(n, n) for n in (12, 1, 5)])
    out = net(batch)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_radii_by_layer_and_by_head():
    assert by_layer([1, None]) == [Hops(1), Hops(None)]
    assert by_head([0, 2]) == PerHead((Hops(0), Hops(2)))
    assert compose_net("mask=by_layer", "mask.hops=[1,2,null]", "model.depth=3").masks == [Hops(1), Hops(2), Hops(None)]
    assert compose_net("model=gps", "mask=by_head", "mask.hops=[0,1,2,null]").masks == [by_head([0, 1, 2, None])] * 4
    assert compose_net("mask=hops", "mask.schedule=[1,null]").scheduled == [Schedule([Hops(1), Complete()])] * 4
    assert isinstance(compose_net("mask=exphormer", "mask.masks.1.degree=6").masks[0], Union)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("mask=by_layer", "mask.hops=[1,2]"), "2 masks for 4 blocks"),
        (
            ("model=gps", "mask=by_head", "mask.hops=[1,2]"),
            "the mask of block 0 has 2 heads, its attention has 4",
        ),
        (("mask=by_head", "mask.hops=3"), "mask.hops=3 has the wrong type: it should be a list"),
        (("mask=hops", "mask.schedule=[a]"), "wrong type"),
        (("mask=hops", "mask.hops=1", "mask.schedule=[1]"), "replaces hops"),
        (("mask=exphormer", "mask.masks.1.degree=3"), "must be even"),
    ],
)
def test_configuration_errors_are_one_line(overrides, message, capsys):
    with pytest.raises(SystemExit), one_line():
        compose_net(*overrides)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_all_scheduled_masks_are_checked_against_the_model():
    with pytest.raises(ValueError, match="3 heads"):
        GraphTransformer(SCHEMA, 16, 1, BLOCKS["attention"], Schedule([Hops(1), by_head([1, 2, 2])]))
    net = GraphTransformer(SCHEMA, 16, 1, BLOCKS["attention"], Schedule([Hops(1), Hops(1) | VirtualNodes(2)]))
    assert net.virtual_nodes == 2


def test_network_without_schedule_has_no_callback():
    assert (
        Task(GraphTransformer(SCHEMA, 16, 1, BLOCKS["attention"]), SCHEMA, *metrics(SCHEMA)).configure_callbacks() == []
    )

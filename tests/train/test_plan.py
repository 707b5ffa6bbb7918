"""The plan of a training run: its measured step against the network, and its model of many devices against formulas."""

from statistics import fmean
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F

from gt.train.plan import (
    BACKWARD,
    BETWEEN,
    INSIDE,
    LATENCY,
    Step,
    all_reduce,
    measure_steps,
    on_single_device,
    saved_activations,
    step_seconds,
    table,
)
from gt.train.task import Task
from tests.small_runs import configured, train, write_graphs

STEP = Step(1000, 4000, 4000, 8000, 10_000, 10**6, 0.01, 32)


class Perceptron(nn.Module):
    """A two-layer perceptron on the kind of each node, summed over each graph."""

    def __init__(self, kinds: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(kinds, width), nn.Linear(width, outputs)

    def forward(self, batch):
        of_nodes = self.second(self.first(F.one_hot(batch.x[:, 0], self.first.in_features).float()).relu())
        return of_nodes.new_zeros(batch.num_graphs, of_nodes.shape[1]).index_add(0, batch.batch, of_nodes)


def test_activations_are_counted_once_without_weights():
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3), nn.ReLU())
    x = torch.randn(11, 5)
    with saved_activations(net) as sizes:
        net(x).sum()
    assert sum(sizes.values()) == 4 * 11 * (5 + 7 + 3)  # the inputs of both linear layers, and the output


def test_measured_step_matches_network(tmp_path):
    with configured(tmp_path / "run", *write_graphs(tmp_path), "trainer=fsdp", "trainer.devices=8") as cfg:
        single = on_single_device(cfg)
        assert (single.trainer.strategy, single.trainer.devices) == ("auto", 1)
        data, optim = instantiate(cfg.data), instantiate(cfg.optim, _convert_="all")
    data.open([])
    net = Perceptron(data.schema.node_vocab[0], 16, data.schema.outputs)
    task = Task(net, data.schema, *data.measures(), optim)
    step = measure_steps(task, data, pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    sizes = [batch.num_nodes for batch in data.loader("train")]
    nodes = max(sizes)
    assert (step.parameters, step.weights, step.gradients) == (parameters, 4 * parameters, 4 * parameters)
    assert step.optimiser == 4 * (2 * parameters + 4)  # two moments of each, and a step count of each of four tensors
    first, second = net.first.weight.numel(), net.second.weight.numel()
    assert step.flops == round(2 * fmean(sizes) * (2 * first + 3 * second))  # the inputs need no gradient
    assert step.activations >= 4 * nodes * (net.first.in_features + net.second.in_features)
    assert step.size == 8
    assert step.seconds > 0


def test_largest_batch_leaves_room_for_state_and_reserve():
    assert STEP.fitting(20_000) == 32 * (18_000 - 16_000) // 10_000
    assert STEP.fitting(10_000) == 0


def test_all_reduce_overlaps_with_backward_pass():
    assert all_reduce(10**9, 1) == 0
    assert all_reduce(10**9, 2) == pytest.approx(10**9 / INSIDE + 2 * LATENCY)
    rings = 2 * (7 / 8) * 10**9 / INSIDE + 2 * (3 / 4) * 10**9 / BETWEEN
    assert all_reduce(10**9, 32) == pytest.approx(rings + 10 * LATENCY)
    assert step_seconds(STEP, 512) == STEP.seconds
    large = Step(10**9, 0, 4 * 10**9, 0, 0, 0, 0.03, 32)
    assert step_seconds(large, 32) == pytest.approx(0.03 + all_reduce(4 * 10**9, 32) - BACKWARD * 0.03)


def test_epoch_length_follows_trainer_settings():
    """Ten batches of 32, of which each device takes at most six, four to a step; a batch takes 10 ms."""
    data = SimpleNamespace(loader=lambda split: range(10), dataset=lambda split: range(320))
    rows = list(zip(*(column.cells for column in table(STEP, data, make_trainer(1, 1.0)).columns), strict=True))
    assert rows[0][:7] == ("1", "32", "0 ms", "10 ms", "100 ms", "3,200", "100%")
    rows = list(zip(*(column.cells for column in table(STEP, data, make_trainer(4, 6)).columns), strict=True))
    assert (rows[0][1], *rows[0][3:7]) == ("128", "40 ms", "60 ms", "3,200", "100%")
    assert (rows[1][1], *rows[1][3:7]) == ("256", "40 ms", "50 ms", "6,400", "100%")  # five batches each
    assert table(STEP, data, make_trainer(1, 0.5)).row_count == 10  # half of a single batch is none


def make_trainer(accumulate: int, limit: int | float) -> pl.Trainer:
    return pl.Trainer(accumulate_grad_batches=accumulate, limit_train_batches=limit, accelerator="cpu", logger=False)


def test_data_are_prepared_without_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    train(tmp_path / "run", *write_graphs(tmp_path), "stage=prepare", "trainer=multinode")
    assert "ready after" in capsys.readouterr().out


def test_plan_is_printed_without_training(tmp_path, capsys):
    train(tmp_path / "run", *write_graphs(tmp_path), "stage=plan", "trainer=multinode", "trainer.accelerator=cpu")
    output = capsys.readouterr().out
    for word in ("parameters", "weights", "activations of 8 samples", "FLOP", "data.batch_size=", "512", "fsdp"):
        assert word in output, word
    assert not (tmp_path / "run" / "checkpoints").exists()

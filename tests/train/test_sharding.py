"""Activation checkpointing and sharding: training as without them, and what cannot be sharded is rejected."""

import copy
from functools import partial
from types import SimpleNamespace
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from gt.errors import UserError
from gt.layers import Attention, FeedForward, GatedGCN, ParallelBlock
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.callbacks import ActivationCheckpointing, WeightAverage
from gt.train.optim import Optimisation
from gt.train.sharding import Sharded
from tests.graphs import random_batch
from tests.parallel.ranks import run_on_ranks


def train_step(net, batch):
    """The gradients and statistics after a step, and the number of tensors saved for its backward pass."""
    saved = []
    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        loss = net(batch).square().sum()
    count = len(saved)
    loss.backward()
    return [p.grad for p in net.parameters() if p.grad is not None], list(net.buffers()), count


def test_activation_checkpointing_only_saves_fewer_tensors():
    schema, batch = Schema((5, 5), edge_vocab=(3,), outputs=2), random_batch((4, 1, 6))
    block = partial(ParallelBlock, local=GatedGCN, attention=Attention, feed_forward=FeedForward, dropout=0.3)
    torch.manual_seed(0)
    net = GraphTransformer(schema, 16, 3, partial(block, norm=nn.BatchNorm1d))
    checkpointed = copy.deepcopy(net)
    ActivationCheckpointing().setup(SimpleNamespace(strategy=None), SimpleNamespace(net=checkpointed), "fit")
    gradients, statistics, saved = train_step(net, batch)
    *checkpointed_results, fewer = train_step(checkpointed, batch)
    torch.testing.assert_close(checkpointed_results, [gradients, statistics], rtol=0, atol=0)
    assert fewer < saved / 2
    assert checkpointed.state_dict().keys() == net.state_dict().keys()


def test_checkpointing_rejects_model_without_blocks():
    with pytest.raises(UserError, match="activation_checkpointing"):
        ActivationCheckpointing().setup(None, SimpleNamespace(net=nn.Linear(1, 1)), "fit")


@pytest.mark.parametrize(
    ("callbacks", "loss", "objectives", "message"),
    [
        ([WeightAverage()], None, {}, "leave ema and swa out"),
        ([], nn.Linear(1, 1), {}, "this loss has parameters"),
        ([], None, {"mask_nodes": nn.Linear(1, 1)}, "objectives have parameters"),
    ],
)
def test_unshardable_training_is_rejected_early(callbacks, loss, objectives, message):
    """It is rejected before any callback is set up."""

    class Unshardable(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.loss, self.objectives = loss, objectives

        def configure_model(self):
            raise AssertionError

        def training_step(self, batch):
            return None

        def configure_optimizers(self):
            return None

        def train_dataloader(self):
            return []

    trainer = pl.Trainer(
        accelerator="cpu", devices=1, strategy=Sharded(), callbacks=callbacks, logger=False, max_epochs=1
    )
    with pytest.raises(UserError, match=message):
        trainer.fit(Unshardable())


def test_optimiser_that_cannot_step_shards_is_rejected(monkeypatch):
    fused = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1, fused=True)
    monkeypatch.setattr(ModelParallelStrategy, "setup_optimizers", lambda self, trainer: self._optimizers.append(fused))
    with pytest.raises(UserError, match=r"SGD .* optim\.optimizer\.fused=false"):
        Sharded().setup_optimizers(None)


def make_muon(net, steps):
    """A Muon optimiser for a network, and a function that takes some steps with it."""
    optimisation = Optimisation(lr=0.01, weight_decay=0.1, optimizer=partial(torch.optim.Muon, momentum=0.9))
    optimizer = optimisation.configure(net, 10)["optimizer"]

    def train():
        for step in range(steps):
            optimizer.zero_grad()
            net(torch.full((4, 3), 1.0 + step)).square().sum().backward()
            optimizer.step()

    return optimizer, train


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def train_shards_with_muon(rank, world):
    """The weights and momenta after steps on shards of a network, the last two after a checkpoint was loaded."""
    net = two_layers()
    fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
    strategy, state = Sharded(), None
    Sharded.is_global_zero = rank == 0
    for steps in (3, 2):
        optimizer, train = make_muon(net, steps)
        strategy.optimizers = [optimizer]
        with mock.patch.object(ModelParallelStrategy, "setup_optimizers"):
            strategy.setup_optimizers(None)
        if state is not None:
            strategy.load_optimizer_state_dict({"optimizer_states": state})
        train()
        state = [strategy.optimizer_state(optimizer)]
        dist.broadcast_object_list(state)
    return {name: value.full_tensor() for name, value in net.state_dict().items()}, state[0]["state"]


def test_muon_on_shards_matches_whole_network(tmp_path):
    net, state = two_layers(), None
    for steps in (3, 2):
        optimizer, train = make_muon(net, steps)
        if state is not None:
            optimizer.load_state_dict(state)
        train()
        state = copy.deepcopy(optimizer.state_dict())
    for weights, moments in run_on_ranks(2, tmp_path, train_shards_with_muon):
        torch.testing.assert_close(weights, dict(net.state_dict()))
        torch.testing.assert_close(moments, state["state"])


@pytest.fixture
def mesh():
    """The mesh of a single process, whose shard is the whole network."""
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("data_parallel",))
    destroy_process_group()


class ScaledLinear(nn.Module):
    """A linear layer, multiplied by a scalar parameter."""

    def __init__(self):
        super().__init__()
        self.map, self.scale = nn.Linear(3, 1), nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * self.map(x)


def make_sharded(mesh, monkeypatch, make_optimizer):
    """The strategy of a sharded network, with an optimiser, and the network."""
    strategy, task = Sharded(), nn.Module()
    task.net = ScaledLinear()
    monkeypatch.setattr(Sharded, "is_global_zero", True)
    monkeypatch.setattr(Sharded, "device_mesh", {"data_parallel": mesh["data_parallel"]})
    strategy._lightning_module = task
    strategy.shard(task.net)
    strategy.optimizers = [make_optimizer(task.net.parameters())]
    return strategy, task.net


def take_steps(net, optimizer):
    torch.manual_seed(0)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()


def task_state(net):
    """The weights of a network as its task saves them."""
    return {f"net.{name}": value for name, value in net.state_dict().items()}


OPTIMISERS = [torch.optim.AdamW, torch.optim.NAdam, partial(torch.optim.SGD, lr=0.01, momentum=0.9)]


@pytest.mark.parametrize("make_optimizer", OPTIMISERS)
def test_scalar_parameter_is_saved_whole_and_resharded(make_optimizer, mesh, monkeypatch):
    strategy, sharded = make_sharded(mesh, monkeypatch, make_optimizer)
    whole = ScaledLinear()
    whole.load_state_dict({"scale": sharded.scale.full_tensor()[0]}, strict=False)
    whole.map.load_state_dict({name: value.full_tensor() for name, value in sharded.map.state_dict().items()})
    optimizer = make_optimizer(whole.parameters())
    take_steps(whole, optimizer)
    take_steps(sharded, strategy.optimizers[0])
    torch.testing.assert_close(dict(strategy.lightning_module_state_dict()), task_state(whole))
    actual, expected = strategy.optimizer_state(strategy.optimizers[0]), copy.deepcopy(optimizer.state_dict())
    torch.testing.assert_close(actual["state"], expected["state"])

    restored, sharded = make_sharded(mesh, monkeypatch, make_optimizer)  # resumes from what any strategy saves
    restored.load_model_state_dict({"state_dict": task_state(whole)})
    restored.load_optimizer_state_dict({"optimizer_states": [expected]})
    assert isinstance(sharded.scale, DTensor)
    take_steps(whole, optimizer)
    take_steps(sharded, restored.optimizers[0])
    torch.testing.assert_close(dict(restored.lightning_module_state_dict()), task_state(whole))


def test_scalar_saved_as_vector_is_loaded(mesh, monkeypatch):
    strategy, sharded = make_sharded(mesh, monkeypatch, torch.optim.AdamW)
    take_steps(sharded, strategy.optimizers[0])
    state, moments = strategy.lightning_module_state_dict(), strategy.optimizer_state(strategy.optimizers[0])
    checkpoint = {
        "state_dict": state | {"net.scale": state["net.scale"][None]},
        "optimizer_states": [copy.deepcopy(moments)],
    }
    [index] = [n for n, values in moments["state"].items() if not values["exp_avg"].dim()]
    values = checkpoint["optimizer_states"][0]["state"][index]
    values |= {name: values[name][None] for name in ("exp_avg", "exp_avg_sq")}
    restored, _ = make_sharded(mesh, monkeypatch, torch.optim.AdamW)
    restored.load_model_state_dict(checkpoint)
    restored.load_optimizer_state_dict(checkpoint)
    torch.testing.assert_close(dict(restored.lightning_module_state_dict()), dict(state))
    torch.testing.assert_close(restored.optimizer_state(restored.optimizers[0])["state"], moments["state"])

"""What is computed again is what was kept before; what cannot be shared out is refused."""

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
from tests.parallel.ranks import on_ranks


def step(net, batch):
    """The gradients and statistics after a step; how many tensors were kept for it."""
    kept = []
    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        loss = net(batch).square().sum()
    count = len(kept)
    loss.backward()
    return [p.grad for p in net.parameters() if p.grad is not None], list(net.buffers()), count


def test_computing_blocks_again_changes_nothing_but_what_is_kept():
    schema, batch = Schema((5, 5), edge_vocab=(3,), outputs=2), random_batch((4, 1, 6))
    block = partial(ParallelBlock, local=GatedGCN, attention=Attention, feed_forward=FeedForward, dropout=0.3)
    torch.manual_seed(0)
    net = GraphTransformer(schema, 16, 3, partial(block, norm=nn.BatchNorm1d))
    again = copy.deepcopy(net)
    ActivationCheckpointing().setup(SimpleNamespace(strategy=None), SimpleNamespace(net=again), "fit")
    gradients, statistics, kept = step(net, batch)
    *same, fewer = step(again, batch)
    torch.testing.assert_close(same, [gradients, statistics], rtol=0, atol=0)
    assert fewer < kept / 2
    assert again.state_dict().keys() == net.state_dict().keys()


def test_a_model_without_blocks_is_refused():
    with pytest.raises(UserError, match="activation_checkpointing"):
        ActivationCheckpointing().setup(None, SimpleNamespace(net=nn.Linear(1, 1)), "fit")


@pytest.mark.parametrize(
    ("callbacks", "loss", "objectives", "why"),
    [
        ([WeightAverage()], None, {}, "leave ema and swa out"),
        ([], nn.Linear(1, 1), {}, "this loss has parameters"),
        ([], None, {"mask_nodes": nn.Linear(1, 1)}, "objectives have parameters"),
    ],
)
def test_what_cannot_be_shared_out_is_refused_before_callbacks_are_set_up(callbacks, loss, objectives, why):
    class Asked(pl.LightningModule):
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
    with pytest.raises(UserError, match=why):
        trainer.fit(Asked())


def test_an_optimiser_that_cannot_step_parts_is_refused(monkeypatch):
    fused = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1, fused=True)
    monkeypatch.setattr(ModelParallelStrategy, "setup_optimizers", lambda self, trainer: self._optimizers.append(fused))
    with pytest.raises(UserError, match=r"SGD .* optim\.optimizer\.fused=false"):
        Sharded().setup_optimizers(None)


def by_muon(net, steps):
    """Makes the optimiser of a network; returns what takes some steps with it."""
    optimisation = Optimisation(lr=0.01, weight_decay=0.1, optimizer=partial(torch.optim.Muon, momentum=0.9))
    optimizer = optimisation.configure(net, 10)["optimizer"]

    def train():
        for number in range(steps):
            optimizer.zero_grad()
            net(torch.full((4, 3), 1.0 + number)).square().sum().backward()
            optimizer.step()

    return optimizer, train


def two_maps():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def muon_on_parts(rank, world):
    """The weights and momenta after some steps on parts of a network, two of them after a checkpoint was loaded."""
    net = two_maps()
    fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
    strategy, state = Sharded(), None
    Sharded.is_global_zero = rank == 0
    for steps in (3, 2):
        optimizer, train = by_muon(net, steps)
        strategy.optimizers = [optimizer]
        with mock.patch.object(ModelParallelStrategy, "setup_optimizers"):
            strategy.setup_optimizers(None)
        if state is not None:
            strategy.load_optimizer_state_dict({"optimizer_states": state})
        train()
        state = [strategy.optimizer_state(optimizer)]
        dist.broadcast_object_list(state)
    return {name: value.full_tensor() for name, value in net.state_dict().items()}, state[0]["state"]


def test_muon_steps_parts_as_it_does_the_whole(tmp_path):
    net, state = two_maps(), None
    for steps in (3, 2):
        optimizer, train = by_muon(net, steps)
        if state is not None:
            optimizer.load_state_dict(state)
        train()
        state = copy.deepcopy(optimizer.state_dict())
    for weights, moments in on_ranks(2, tmp_path, muon_on_parts):
        torch.testing.assert_close(weights, dict(net.state_dict()))
        torch.testing.assert_close(moments, state["state"])


@pytest.fixture
def mesh():
    """That of a single process, whose parts are the whole."""
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("data_parallel",))
    destroy_process_group()


class Scaled(nn.Module):
    """A map, and a single number that it is multiplied by."""

    def __init__(self):
        super().__init__()
        self.map, self.scale = nn.Linear(3, 1), nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * self.map(x)


def shared_out(mesh, monkeypatch, make):
    """The strategy of a network that is shared out, with an optimiser of its own."""
    strategy, task = Sharded(), nn.Module()
    task.net = Scaled()
    monkeypatch.setattr(Sharded, "is_global_zero", True)
    monkeypatch.setattr(Sharded, "device_mesh", {"data_parallel": mesh["data_parallel"]})
    strategy._lightning_module = task
    strategy.shard(task.net)
    strategy.optimizers = [make(task.net.parameters())]
    return strategy, task.net


def stepped(net, optimizer):
    torch.manual_seed(0)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()


def kept(net):
    """The weights of a network in the state of its task."""
    return {f"net.{name}": value for name, value in net.state_dict().items()}


OPTIMISERS = [torch.optim.AdamW, torch.optim.NAdam, partial(torch.optim.SGD, lr=0.01, momentum=0.9)]


@pytest.mark.parametrize("make", OPTIMISERS)
def test_a_single_number_is_kept_as_one_and_shared_out_again(make, mesh, monkeypatch):
    strategy, parts = shared_out(mesh, monkeypatch, make)
    whole = Scaled()
    whole.load_state_dict({"scale": parts.scale.full_tensor()[0]}, strict=False)
    whole.map.load_state_dict({name: value.full_tensor() for name, value in parts.map.state_dict().items()})
    alone = make(whole.parameters())
    stepped(whole, alone)
    stepped(parts, strategy.optimizers[0])
    torch.testing.assert_close(dict(strategy.lightning_module_state_dict()), kept(whole))
    found, expected = strategy.optimizer_state(strategy.optimizers[0]), copy.deepcopy(alone.state_dict())
    torch.testing.assert_close(found["state"], expected["state"])

    other, parts = shared_out(mesh, monkeypatch, make)  # goes on from what any strategy keeps
    other.load_model_state_dict({"state_dict": kept(whole)})
    other.load_optimizer_state_dict({"optimizer_states": [expected]})
    assert isinstance(parts.scale, DTensor)
    stepped(whole, alone)
    stepped(parts, other.optimizers[0])
    torch.testing.assert_close(dict(other.lightning_module_state_dict()), kept(whole))


def test_a_single_number_that_was_kept_as_a_vector_is_loaded(mesh, monkeypatch):
    strategy, parts = shared_out(mesh, monkeypatch, torch.optim.AdamW)
    stepped(parts, strategy.optimizers[0])
    state, moments = strategy.lightning_module_state_dict(), strategy.optimizer_state(strategy.optimizers[0])
    before = {
        "state_dict": state | {"net.scale": state["net.scale"][None]},
        "optimizer_states": [copy.deepcopy(moments)],
    }
    [number] = [n for n, values in moments["state"].items() if not values["exp_avg"].dim()]
    values = before["optimizer_states"][0]["state"][number]
    values |= {name: values[name][None] for name in ("exp_avg", "exp_avg_sq")}
    other, _ = shared_out(mesh, monkeypatch, torch.optim.AdamW)
    other.load_model_state_dict(before)
    other.load_optimizer_state_dict(before)
    torch.testing.assert_close(dict(other.lightning_module_state_dict()), dict(state))
    torch.testing.assert_close(other.optimizer_state(other.optimizers[0])["state"], moments["state"])

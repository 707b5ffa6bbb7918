"""What is computed again is what was kept before; what cannot be shared out is refused."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn

from gt.errors import UserError
from gt.layers import Attention, FeedForward, GatedGCN, ParallelBlock
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.callbacks import ActivationCheckpointing, WeightAverage
from gt.train.sharding import Sharded
from tests.graphs import random_batch


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


def test_what_cannot_be_shared_out_is_refused():
    plain = SimpleNamespace(loss=None)
    with pytest.raises(UserError, match="leave ema and swa out"):
        Sharded().setup(SimpleNamespace(callbacks=[WeightAverage()], lightning_module=plain))
    with pytest.raises(UserError, match="loss"):
        Sharded().setup(SimpleNamespace(callbacks=[], lightning_module=SimpleNamespace(loss=nn.Linear(1, 1))))


def test_an_optimiser_that_cannot_step_parts_is_refused(monkeypatch):
    fused = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1, fused=True)
    monkeypatch.setattr(ModelParallelStrategy, "setup_optimizers", lambda self, trainer: self._optimizers.append(fused))
    with pytest.raises(UserError, match=r"SGD .* optim\.optimizer\.fused=false"):
        Sharded().setup_optimizers(None)

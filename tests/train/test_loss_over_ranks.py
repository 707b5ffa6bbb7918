"""How the processes of a training agree on the loss of a step."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gt import metrics
from gt.graph import path_graphs
from gt.schema import Schema
from gt.train.not_finite import StepContext
from gt.train.steps import LOGGED
from gt.train.task import Task


class Results(dict):
    """Lightning's store of logged values."""

    def update_metrics(self, key, value, batch_size):
        self[key] = value


def test_the_loss_is_summed_over_processes_without_a_barrier(monkeypatch):
    """At a barrier NCCL has the CPU wait for the GPU, in the middle of each step."""
    schema = Schema(level="node", kind="regression", outputs=1)
    net = nn.Module()
    net.forward = lambda batch: batch.x * 2
    task = Task(net, schema, *metrics.metrics(schema))
    batch = path_graphs([2, 3])
    batch.x, batch.y = torch.randn(5, 1), torch.randn(5, 1)
    other = torch.tensor([[7.0, 11.0]])  # sum and count of another process
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(other))
    monkeypatch.setattr(torch.distributed, "barrier", lambda **options: pytest.fail("a barrier"))
    task._trainer = SimpleNamespace(
        world_size=2, accumulate_grad_batches=1, is_last_batch=True, val_check_batch=1, _results=Results({LOGGED: None})
    )
    task._context = StepContext(batch, 0, 0, 0)
    loss = task.training_step(batch, 0)
    own = task.parts(batch)[0][1]
    torch.testing.assert_close(task.trainer._results[LOGGED], (own + 7) / 16)
    torch.testing.assert_close(loss, own * 2 / 16)

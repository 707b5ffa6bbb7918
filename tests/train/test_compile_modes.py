"""Modes of compilation: step marks, gradients outside of CUDA graphs, the mode on a GPU, large graphs on a CPU."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gt.data.large.nodes import refuse_dense
from gt.errors import UserError
from gt.graph import path_graphs
from gt.layers import Attention, ParallelBlock
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train import compile as compiling
from gt.train.checkpoint_files import read
from gt.train.compile import Compiled
from gt.train.steps import Steps
from tests.small_runs import train, write_graphs


@pytest.fixture
def eager(monkeypatch):
    """Compile nothing."""
    monkeypatch.setattr(nn.Module, "compile", lambda part, **options: None)


def network(depth: int = 3) -> GraphTransformer:
    return GraphTransformer(Schema(node_vocab=(4,)), 8, depth, partial(ParallelBlock, attention=Attention))


@pytest.mark.parametrize(("mode", "marks"), [("default", 0), ("reduce-overhead", 2), ("max-autotune", 2)])
def test_each_pass_begins_one_step(mode, marks, eager, monkeypatch):
    """Without a mark, each block begins a step without gradients, and may overwrite what the block before computed."""
    calls = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: calls.append(1))
    net, batch = network(), path_graphs([3, 2])
    batch.x = torch.zeros(5, 1, dtype=torch.long)
    compiled = Compiled(net, mode)
    net(batch)
    net.eval()(batch)
    assert len(calls) == marks
    compiled.undo()
    net(batch)
    assert len(calls) == marks


def test_accumulated_gradients_outlive_the_next_replay(eager, tmp_path, monkeypatch):
    """A graph is replayed for each batch, so the gradient it leaves in its memory lasts until the next one."""

    def invalidate(self, *arguments):
        for gradient in left:  # as a replay does
            gradient.fill_(torch.nan)
        left.clear()

    left: list[torch.Tensor] = []
    after_backward = Steps.on_after_backward

    def leave(self):
        replayed = self._context.index % 2 == 0 and self.trainer.compiled is not None
        left.extend(p.grad for p in self.net.blocks.parameters() if replayed and p.grad is not None)
        after_backward(self)

    monkeypatch.setattr(Steps, "on_after_backward", leave)
    options = [*write_graphs(tmp_path), "trainer.accumulate_grad_batches=2", "data.static=true"]
    options += ["optim.optimizer._target_=torch.optim.SGD", "~optim.optimizer.betas"]
    train(tmp_path / "eager", *options)
    monkeypatch.setattr(Compiled, "_begin_pass", invalidate)
    train(tmp_path / "compiled", *options, "trainer.compile=reduce-overhead")
    weights = [read(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("eager", "compiled")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(("device", "mode"), [("cpu", "default"), ("cuda", "reduce-overhead")])
def test_true_uses_cuda_graphs_on_a_gpu(device, mode, eager, tmp_path):
    (tmp_path / "compile.json").write_text(json.dumps({"as it is": 2.0, "compiled": 1.0}))
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer = SimpleNamespace(compile=True, compiled=None, strategy=strategy)
    message = compiling.compile_network(trainer, network(), SimpleNamespace(), tmp_path)
    assert mode in message
    assert trainer.compiled.replays == (mode == "reduce-overhead")


def test_a_large_graph_is_not_compiled_to_a_dense_matrix(eager):
    net = network()
    Compiled(net)
    with pytest.raises(UserError, match=r"200,000 nodes .* trainer\.compile=false"):
        refuse_dense(path_graphs([200_000]), net.readings())
    refuse_dense(path_graphs([20]), net.readings())

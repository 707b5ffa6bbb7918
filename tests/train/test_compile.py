"""torch.compile: the same results, no backends that cannot be traced, and used only where it is faster."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gt.attention import Demand, choose, prepare
from gt.data.graphs import GraphData
from gt.data.large.sampling import Clusters
from gt.errors import UserError
from gt.layers import Attention, FeedForward, GatedGCN, ParallelBlock
from gt.losses import loss
from gt.masks import Complete, Hops
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train import compile as compiling
from gt.train.checkpoint_files import read
from gt.train.compile import Compiled
from tests.data.test_batch_sampler import open_data
from tests.graphs import random_batch
from tests.small_runs import train, write_graphs


def build_gps(schema: Schema, depth: int, backend: str = "auto") -> GraphTransformer:
    block = partial(
        ParallelBlock,
        local=GatedGCN,
        attention=partial(Attention, heads=2, backend=backend),
        feed_forward=partial(FeedForward, ratio=2),
        norm=nn.BatchNorm1d,
    )
    return GraphTransformer(schema, 8, depth, block, mask=Complete())


def train_losses(data, net: GraphTransformer, steps: int) -> list[float]:
    """The training loss of each of some steps."""
    optimizer, out, data.readings = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), [], net.readings
    while len(out) < steps:
        loader = data.loader("train")
        loader.sampler.set_epoch(0)
        for batch in loader:
            cost = loss(data.schema, net(batch), batch.y)
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
            out.append(cost.item())
    return out[:steps]


@pytest.mark.parametrize("code_generation", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiled_network_trains_to_the_same_numbers(code_generation, tmp_path, monkeypatch):
    """With tracing alone, which is quick, and with generated code."""
    if not code_generation:
        original = nn.Module.compile
        monkeypatch.setattr(nn.Module, "compile", lambda part, mode, **kw: original(part, backend="aot_eager", **kw))
    monkeypatch.setattr("gt.data.static.MAX_SHAPES", 2)
    depth, steps = (2, 20) if code_generation else (1, 3)
    data = open_data(tmp_path, static=True)
    torch.manual_seed(0)
    net = build_gps(data.schema, depth)
    twin = build_gps(data.schema, depth)
    twin.load_state_dict(net.state_dict())
    torch._dynamo.reset()
    compiled = Compiled(net)
    torch.testing.assert_close(train_losses(data, net, steps), train_losses(data, twin, steps), rtol=1e-5, atol=1e-5)
    assert net.state_dict().keys() == twin.state_dict().keys()
    assert "break" not in compiled.summary()
    for (name, value), expected in zip(net.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5, msg=name)
    assert all(not layer.used for layer in compiled.layers)  # backends are counted only in layers that are not compiled
    compiled.undo()
    train_losses(data, net, 1)
    assert all(layer.used for layer in compiled.layers)


def test_backends_that_cannot_be_traced_are_excluded():
    batch = random_batch((2000, 1500), density=0.001)
    plain = choose(Hops(1)(batch), Demand())
    assert plain in ("sparse", "listed")
    assert choose(Hops(1)(batch), Demand(compiled=True)) not in ("sparse", "native", "listed", "triton")
    net = build_gps(Schema(node_vocab=(4,)), 1)
    compiled = Compiled(net)
    assert {demand.compiled for _, demand in net.readings()} == {True}
    compiled.undo()
    assert {demand.compiled for _, demand in net.readings()} == {False}
    with pytest.raises(UserError, match="sparse"):
        Compiled(build_gps(Schema(node_vocab=(4,)), 1, "sparse"))


def test_batch_without_cached_indices_is_traced_in_one_graph(monkeypatch):
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda part, mode, **kw: original(part, backend="eager", **kw))
    batch = random_batch((3, 5))
    batch.x = batch.x[:, :1] * 0
    torch._dynamo.reset()
    net = build_gps(Schema(node_vocab=(4,)), 1)
    compiled = Compiled(net)
    for mask, demand in net.readings():
        prepare(mask(batch), demand)  # as a loader does
    for index in ("edge_mask", "slot", "rowptr"):
        vars(batch).pop(index)
    net(batch)
    assert compiled.summary() == "compiled 1 graph"


class CompiledStub(compiling.Compiled):
    """Compiles nothing, so that tests are fast."""

    def __init__(self, net: nn.Module, mode: str = "default") -> None:
        self.layers, self.parts, self.mode = [], [], mode
        self.hook = net.register_forward_pre_hook(lambda *_: None)


@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_true_compiles_only_if_faster(seconds, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compiling, "Compiled", CompiledStub)
    times = iter([{"as it is": 0.2, "compiled": seconds}])
    monkeypatch.setattr(compiling, "time_steps", lambda *_: next(times))
    static = []
    monkeypatch.setattr(GraphData, "go_by_shapes", lambda self, on: static.append(on))
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.compile=true", "trainer.max_epochs=1")
    output = capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "compile.json").read_text())["compiled"] == seconds
    assert f"{1e3 * seconds:.1f} ms compiled, 200.0 ms as it is" in output
    assert static == ([True] if seconds < 0.2 else [True, False])
    assert ("blocks are compiled" in output, "not compiled" in output) == (seconds < 0.2, seconds > 0.2)
    assert not any("orig_mod" in name for name in read(tmp_path / "run" / "checkpoints" / "best.ckpt")["state_dict"])


def test_timing_leaves_the_network_unchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "Compiled", CompiledStub)
    data = open_data(tmp_path, static=True)
    net = build_gps(data.schema, 1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    batch = next(iter(data.loader("train")))
    state = torch.random.get_rng_state()
    times = compiling.time_steps(net, lambda: batch, torch.enable_grad, "default")
    assert set(times) == {"as it is", "compiled"}
    assert all(seconds > 0 for seconds in times.values())
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_unsupported_compile_options_are_rejected(tmp_path, monkeypatch):
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(compile="default", world_size=2, strategy=strategy)
    with pytest.raises(UserError, match="Clusters"):
        compiling.compile_network(trainer, nn.Linear(1, 1), SimpleNamespace(sampler=Clusters()), tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    trainer.compile = True
    with pytest.raises(UserError, match=r"trainer\.compile=default"):
        compiling.compile_network(trainer, nn.Linear(1, 1), object(), tmp_path)

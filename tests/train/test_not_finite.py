"""Non-finite losses and gradients: layer and samples are named, the batch is saved for replay or the step skipped."""

import re
import signal
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gt
import gt.train.run
from gt.data.batching import gather
from gt.data.store import open_or_build
from gt.errors import UserError
from gt.graph import WHOLE_DEGREES, GraphBatch, path_graphs
from gt.layers import Attention
from gt.train.not_finite import StepContext, _replay, all_finite
from gt.train.report import history
from gt.train.task import Task
from tests.small_runs import train, weights, write_graphs
from tests.train.signals import assert_same_run, short_report, train_until_signal  # noqa: F401  a fixture

OPTIONS = ("callbacks.last.minutes=0", "model.block.dropout=0.2", "optim.lr=1e-2", "model.depth=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    return write_graphs(tmp_path_factory.mktemp("graphs"))


@contextmanager
def broken_attention(*places: tuple[int, int], gradient: bool = False):
    """Make the first attention layer output NaN, or its gradients NaN, at the given (epoch, batch) of training."""
    original_forward, original_start = Attention.forward, Task.on_train_batch_start
    seen: list[tuple[int, int, GraphBatch]] = []

    def on_train_batch_start(task, batch, index):
        seen.append((task.current_epoch, index, batch))
        return original_start(task, batch, index)

    def forward(self, *arguments):
        out = original_forward(self, *arguments)
        if seen and seen[-1][:2] in places and self.training and self is first_attention[0]:
            if gradient:
                out["x"].register_hook(lambda grad: grad * torch.nan)
            else:
                out["x"] = out["x"] * torch.nan
        return out

    def training_step(task, batch, index):
        first_attention[:] = [next(module for module in task.net.modules() if isinstance(module, Attention))]
        return original_step(task, batch, index)

    first_attention, original_step = [None], Task.training_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Attention, "forward", forward)
        patch.setattr(Task, "on_train_batch_start", on_train_batch_start)
        patch.setattr(Task, "training_step", training_step)
        yield seen


def replay(path: Path) -> torch.Tensor:
    """The outputs for a saved batch, recomputed as docs/tutorials/cluster.md describes."""
    saved = torch.load(path, weights_only=True)
    task = gt.load(path).train()
    torch.manual_seed(saved["seed"])
    return task.net(GraphBatch(**saved["batch"]))


def test_layer_and_samples_are_named_and_batch_saved(data, tmp_path):
    run = tmp_path / "run"
    with broken_attention((1, 3)) as seen, pytest.raises(UserError) as caught:
        train(run, *data, *OPTIONS)
    message = str(caught.value)
    assert "the loss is nan in epoch 1, batch 3: first in blocks.0.attention (Attention)" in message
    assert str(run / "not_finite.ckpt") in message
    saved = torch.load(run / "not_finite.ckpt", weights_only=True)
    assert ", ".join(map(str, saved["samples"])) in message
    graphs = open_or_build(next(Path(data[1].partition("=")[2]).glob("stores/*/facts.json")).parent, None)
    gathered = gather(graphs, graphs.splits["train"][saved["samples"]])
    assert torch.equal(gathered.x, seen[-1][2].x)
    assert torch.equal(saved["batch"]["x"], seen[-1][2].x)
    assert torch.equal(saved["batch"]["y"], gathered.y)
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8  # of finished steps


@pytest.mark.parametrize("clip", ["1.0", "null", "0.5 +trainer.gradient_clip_algorithm=value"])
def test_layer_with_non_finite_gradient_is_named(clip, data, tmp_path):
    clipping = f"trainer.gradient_clip_val={clip}".split()
    with broken_attention((0, 2), gradient=True), pytest.raises(UserError) as caught:
        train(tmp_path / "run", *data, *OPTIONS, *clipping)
    message = str(caught.value)
    assert "gradients are not finite in epoch 0, batch 2: first in the backward pass of blocks.0.attention" in message


def test_non_finite_weights_are_reported(data, tmp_path):
    with pytest.raises(UserError, match=r"first in nodes\.table \(EmbeddingBag\), whose weights are not finite"):
        train(tmp_path / "run", *data, "optim.lr=1e38", "trainer.gradient_clip_val=null", "optim.warmup=0")


def test_replay_keeps_degrees_of_the_whole_graph():
    """A batch with sampled neighbours stores the degrees in the whole graph, and so does its replay."""
    batch = path_graphs([3])
    batch.memo[WHOLE_DEGREES] = torch.tensor([[4, 5, 6], [7, 8, 9]])
    replayed = GraphBatch(**_replay(StepContext(batch, 0, 0, 1), ())["batch"])
    assert torch.equal(torch.stack(replayed.whole_degrees), batch.memo[WHOLE_DEGREES])


def test_loss_above_limit_is_replayed_exactly(data, tmp_path, monkeypatch):
    seen, total_loss = [], gt.train.task.losses.total_loss
    monkeypatch.setattr(
        gt.train.task.losses, "total_loss", lambda *args: (seen.append(args[1].detach()), total_loss(*args))[1]
    )
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"loss is .* epoch 0, batch 0: the largest output is \S+, of \w+") as caught:
        train(run, *data, *OPTIONS, "optim.loss_limit=1e-3")
    assert "optim.skip" in str(caught.value)
    torch.testing.assert_close(replay(run / "not_finite.ckpt"), seen[-1])


@pytest.mark.parametrize("options", [(), ("trainer.accumulate_grad_batches=2",), ("optim=adam",)])
def test_skipped_step_changes_no_weights(options, data, tmp_path, capsys):
    run = tmp_path / "run"
    steps = (1, 2) if options and "accumulate" in options[0] else (2, 3)
    with broken_attention((0, 2)):
        train(run, *data, *OPTIONS, *options, "callbacks.last.keep=99", "optim.skip=1")
    assert "step skipped, 1 of optim.skip=1: the loss is nan in epoch 0, batch 2" in capsys.readouterr().out
    states = {}
    for path in (run / "checkpoints").glob("*.ckpt"):
        saved = torch.load(path, weights_only=True)
        if "waiting" not in saved:
            states.setdefault(saved["global_step"], saved["state_dict"])
    before, after = (states[step] for step in steps)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(value.isfinite().all() for value in states[max(states)].values())
    assert len(states) > 3


def test_number_of_skipped_steps_is_limited(data, tmp_path, capsys):
    with (
        broken_attention((0, 1), (0, 3), (1, 0)),
        pytest.raises(UserError, match=r"epoch 1, batch 0.* skip more steps with optim\.skip"),
    ):
        train(tmp_path / "run", *data, *OPTIONS, "optim.skip=2")
    assert len(re.findall("step skipped", capsys.readouterr().out)) == 2


def test_run_with_skipped_step_resumes_identically(data, tmp_path):
    options = (*data, *OPTIONS[1:], "optim.skip=1", "trainer.accumulate_grad_batches=2")
    with broken_attention((0, 2)):
        train(tmp_path / "whole", *options)
        train_until_signal((Task, "training_step", 3), signal.SIGTERM, tmp_path / "run", *options)  # in a skipped step
        train(tmp_path / "run", *options, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert weights(tmp_path / "run").keys()
    assert history(tmp_path / "run")["train/loss"].isna().any()


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_skips_step_with_excessive_loss(fused, monkeypatch):
    """As with 16-mixed on a GPU, where Lightning unscales gradients before clipping, unless the optimiser is fused."""
    net = torch.nn.Linear(2, 1)
    task, scaler = Task.__new__(Task), torch.amp.GradScaler("cpu", init_scale=4.0)
    torch.nn.Module.__init__(task)
    task.net, task._step_buffers = net, {}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=fused)
    plugin = SimpleNamespace(scaler=scaler, main_params=lambda optimizer: net.parameters())
    trainer = SimpleNamespace(precision_plugin=plugin, is_last_batch=True, accumulate_grad_batches=1)
    monkeypatch.setattr(Task, "trainer", trainer)
    monkeypatch.setattr(Task, "device", torch.device("cpu"))
    task._context, task.optim = SimpleNamespace(index=0), None
    for skips in (False, True, True, False):
        before = [p.detach().clone() for p in net.parameters()]
        task._skips_step = skips
        optimizer.zero_grad()
        scaler.scale(net(torch.ones(3, 2)).sum()).backward()
        if not fused:
            scaler.unscale_(optimizer)
        task.configure_gradient_clipping(optimizer, 1.0, "norm")
        scaler.step(optimizer)
        scaler.update()
        assert all(torch.equal(p, old) == skips for p, old in zip(net.parameters(), before, strict=True))
        assert all(p.isfinite().all() for p in net.parameters())
        assert not task._skips_step


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_all_finite_detects_inf_and_nan(dtype):
    gradients = [torch.randn(3, 2, dtype=dtype), torch.zeros(0, dtype=dtype), torch.randn((), dtype=dtype)]
    before = [each.clone() for each in gradients]
    assert all_finite([])
    assert all_finite(gradients)
    for bad in (torch.inf, -torch.inf, torch.nan):
        assert not all_finite([*gradients, torch.tensor([[1.0, bad]], dtype=dtype)])
    assert all(torch.equal(a, b) for a, b in zip(gradients, before, strict=True))
    mixed = [*gradients, torch.ones(2, dtype=torch.float16)]
    assert all_finite(mixed)
    mixed[-1][1] = torch.nan
    assert not all_finite(mixed)

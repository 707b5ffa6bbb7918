"""Every kind of custom setting, from a folder outside the package: training, resuming, predicting."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import gt.data.__main__
import gt.generate
import gt.predict
import train
from gt.errors import UserError
from gt.losses import format_score
from gt.train.construct import import_object
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture

MODULE = '''
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric
from pytorch_lightning import Callback

from gt.encodings.base import Encoding
from gt.masks.base import Mask


@dataclass(frozen=True)
class Ring(Mask):
    """A node reads itself and as many after it, around the end of its graph."""

    size: int

    def keys(self, batch):
        node = torch.arange(batch.num_nodes)
        first, count = batch.ptr[batch.batch], batch.sizes[batch.batch]
        read = [first + (batch.position + step) % count for step in range(self.size + 1)]
        return torch.unique(torch.cat([node * batch.num_nodes + other for other in read]))


class Likelihood(nn.Module):
    """Of a normal distribution whose deviation is learned."""

    def __init__(self, start=0.0):
        super().__init__()
        self.log_deviation = nn.Parameter(torch.tensor(start))

    def forward(self, prediction, target):
        return (0.5 * ((prediction - target) / self.log_deviation.exp()) ** 2 + self.log_deviation).mean()


class Largest(Metric):
    """The largest absolute error."""

    higher_is_better = False

    def __init__(self):
        super().__init__()
        self.add_state("most", torch.tensor(0.0), dist_reduce_fx="max")

    def update(self, prediction, target):
        self.most = torch.maximum(self.most, (prediction - target).abs().max())

    def compute(self):
        return self.most


def stairs(optimizer, total_steps, steps=2):
    """The learning rate falls by half, so many times."""
    return LambdaLR(optimizer, lambda step: 0.5 ** int(steps * step / total_steps))


class Near(Encoding):
    """The place of a node, and how far apart the ends of edges and pairs are."""

    writes = ("x", "e", "p")

    def build(self, width, schema):
        self.maps = nn.ModuleDict({stream: nn.Linear(1, width) for stream in self.writes})

    def nodes(self, batch):
        return self.maps["x"](batch.position[:, None].float())

    def edges(self, batch):
        source, target = batch.position[batch.edge_index]
        return self.maps["e"]((target - source)[:, None].float())

    def pairs(self, pairs):
        source, target = pairs.batch.position[pairs.edges]
        return self.maps["p"]((target - source)[:, None].float())


class Stop(Callback):
    """Fails when an epoch begins."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("stopped on purpose")


class Notes(Callback):
    """Writes the global step at each epoch's end into a file."""

    def __init__(self, dirpath, start=0):
        self.dirpath, self.start = dirpath, start

    def on_train_epoch_end(self, trainer, module):
        with open(f"{self.dirpath}-notes.txt", "a") as file:
            print(self.start + trainer.global_step, file=file)
'''
SOURCE = '''
import numpy as np

from gt.data.source import Source
from gt.data.packed import Graphs, pointers
from gt.schema import Schema


class Stars(Source):
    """Whether a star has an even number of rays."""

    name = "stars"

    def __init__(self, count: int):
        self.count = count

    def key(self):
        return {"count": self.count}

    def build(self):
        rays = 1 + np.arange(self.count) % 5
        ends = [np.stack([np.arange(1, n + 1), np.zeros(n, np.int64)]) for n in rays]
        splits = np.split(np.arange(self.count), [self.count // 2, 3 * self.count // 4])
        return Graphs(
            node_ptr=pointers(rays + 1),
            edge_ptr=pointers(2 * rays),
            edge_index=np.concatenate([np.concatenate([end, end[::-1]], axis=1) for end in ends], axis=1),
            nodes={"x": np.zeros((int((rays + 1).sum()), 1), np.int64)},
            graphs={"y": (rays % 2 == 0).astype(np.int64)},
            splits=dict(zip(("train", "valid", "test"), splits, strict=True)),
            schema=Schema(node_vocab=(1,), outputs=2, max_nodes=6),
        ).sort_edges()
'''
SMALL = ["data=graph_files", "data.path=graphs.jsonl", "data.target=size", "model.width=8", "model.depth=1",
         "encoding=none", "model.block.attention.heads=1", "logger=csv", "trainer=cpu", "data.batch_size=16",
         "trainer.log_every_n_steps=1"]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, outside the project, with modules, a configuration file and data."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "stars.py").write_text(SOURCE)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "stars.yaml").write_text(
        "defaults:\n  - batching: graphs\n  - _self_\nsource:\n  _target_: stars.Stars\n  count: 40\n"
    )
    graphs = [
        {
            "graph": {"size": 100.0 + 5 * (n % 7)},
            "nodes": [{"id": i, "kind": "xy"[i % 2]} for i in range(2 + n % 7)],
            "links": [{"source": i, "target": i + 1} for i in range(1 + n % 7)],
        }
        for n in range(60)
    ]
    (tmp_path / "graphs.jsonl").write_text("".join(json.dumps(graph) + "\n" for graph in graphs))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    yield tmp_path
    for name in ("mine", "stars"):
        sys.modules.pop(name, None)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    train.command()


def saved_weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


LOSS = ["loss._target_=mine.Likelihood", "loss.start=0.5"]
METRIC = ["metrics.largest._target_=mine.Largest"]
SETTINGS = {
    "mine": [
        "mask._target_=mine.Ring", "mask.size=1", *LOSS, *METRIC, "optim.schedule._target_=mine.stairs",
        "optim.schedule.steps=3", "callbacks.notes._target_=mine.Notes", "callbacks.notes.dirpath=null",
        "encoding.near._target_=mine.Near", "model.block.attention.edges=true",
    ],
    "SGD": ["optim.optimizer._target_=torch.optim.SGD", "optim.optimizer.momentum=0.9", "loss=huber", "loss.delta=2.0",
            "metrics=[r2,rmse]"],
    "Muon": ["optim.optimizer._target_=torch.optim.Muon", "optim/schedule=constant"],
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_custom_settings_train_resume_and_predict(name, folder, monkeypatch):
    """A run that fails and is resumed ends with the weights of an uninterrupted run."""
    arguments = [*SMALL, *SETTINGS[name], "trainer.max_epochs=3"]
    command(monkeypatch, *arguments, "hydra.run.dir=straight")
    with pytest.raises(SystemExit):
        command(
            monkeypatch, *arguments, "callbacks.stop._target_=mine.Stop", "callbacks.stop.epoch=1", "hydra.run.dir=run"
        )
    interrupted = saved_weights(folder / "run")
    command(monkeypatch, "resume=run", "callbacks.stop=null")
    uninterrupted, resumed = saved_weights(folder / "straight"), saved_weights(folder / "run")
    assert uninterrupted.keys() == resumed.keys()
    assert all(torch.equal(resumed[key], uninterrupted[key]) for key in uninterrupted)
    assert any(not torch.equal(resumed[key], interrupted[key]) for key in interrupted)
    gt.predict.main(["run", *(["--trust"] if name == "mine" else []), "--split", "test", "--device", "cpu"])
    assert len(pd.read_csv(folder / "run" / "predictions-test.csv")) == 6
    if name != "mine":
        return
    assert (folder / "run" / "checkpoints-notes.txt").read_text().split() == ["3", "6", "9"]
    assert {key for key in uninterrupted if key.startswith("net.encodings")} == {
        f"net.encodings.0.maps.{stream}.{kind}" for stream in "xep" for kind in ("weight", "bias")
    }


def test_custom_source_trains_resumes_predicts_and_is_inspected(folder, monkeypatch, capsys):
    arguments = ["--config-dir", "conf", "data=stars", *SMALL[3:], "hydra.run.dir=run"]
    command(monkeypatch, *arguments, "trainer.max_epochs=1")
    command(monkeypatch, "resume=run", "trainer.max_epochs=2")
    gt.predict.main(["run", "--trust", "--device", "cpu"])
    table = pd.read_csv(folder / "run" / "predictions-test.csv")
    assert table["target"].tolist() == [int((1 + n % 5) % 2 == 0) for n in range(30, 40)]
    gt.predict.main(["run", "hydra.searchpath=[conf]", "data=stars", "data.count=7", "--trust", "--device", "cpu"])
    assert len(pd.read_csv(folder / "run" / "predictions-all.csv")) == 7
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["gt.data", "inspect", "stars", "hydra.searchpath=[conf]", "data.count=12"])
    gt.data.__main__.main()
    assert "12" in capsys.readouterr().out


@pytest.mark.parametrize("program", [gt.predict, gt.generate, gt.data.__main__])
def test_programs_import_from_the_working_directory(program, folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gt", "inspect", "nothing"] if program is gt.data.__main__ else ["gt", "nothing"])
    with pytest.raises((UserError, OSError)):
        program.main(*([["nothing"]] if program is gt.predict else []))
    assert import_object("mine.Ring").__name__ == "Ring"


def test_custom_loss_is_trained_and_custom_metric_reported(folder, monkeypatch, capsys):
    custom = [*LOSS, *METRIC, "metrics.mae._target_=torchmetrics.regression.MeanAbsoluteError"]
    command(monkeypatch, *SMALL, *custom, "trainer.max_epochs=3", "optim.lr=0.01", "hydra.run.dir=run")
    assert saved_weights(folder / "run")["loss.log_deviation"] != 0.5
    result = json.loads((folder / "run" / "result.json").read_text())
    assert (result["criterion"], result["mode"]) == ("largest", "min")
    assert set(result["scores"]) == set(result["baseline"]) == {"loss", "largest", "mae"}
    with pytest.raises(UserError, match=r"mine\.Likelihood, mine\.Largest"):
        gt.predict.main(["run", "--device", "cpu"])
    capsys.readouterr()
    gt.predict.main(["run", "--trust", "--device", "cpu"])
    table = pd.read_csv(folder / "run" / "predictions-test.csv")
    errors = (table["prediction"] - table["target"]).abs()
    assert result["scores"]["largest"] == pytest.approx(errors.max(), rel=1e-5)
    assert f"largest {format_score(errors.max())}  mae {format_score(errors.mean())}" in capsys.readouterr().out
    log_deviation = saved_weights(folder / "run", "best")["loss.log_deviation"]
    units = gt.load(folder / "run").schema
    error = torch.tensor(errors.to_numpy()) / units.scale[0]
    expected = (0.5 * (error / log_deviation.exp()) ** 2 + log_deviation).mean()
    assert result["scores"]["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_resuming_accepts_a_new_metric_but_no_new_loss(folder, monkeypatch, capsys):
    command(monkeypatch, *SMALL, "trainer.max_epochs=1", "hydra.run.dir=run", "criterion=loss")
    command(monkeypatch, "resume=run", "trainer.max_epochs=2", "metrics.largest._target_=mine.Largest")
    assert json.loads((folder / "run" / "result.json").read_text())["criterion"] == "loss"
    capsys.readouterr()
    gt.predict.main(["run", "--trust", "--device", "cpu"])
    assert "largest" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command(monkeypatch, "resume=run", "trainer.max_epochs=3", "loss._target_=mine.Likelihood")
    (line,) = capsys.readouterr().err.splitlines()
    assert "loss._target_=mine.Likelihood" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["metrics=[f1]"], "metrics.f1: it cannot score"),
        (["metrics=[accuracy]"], "metrics.accuracy: it cannot score"),
        (["metrics=[f2]"], "'r2'"),
        (["loss=hubert"], "'huber'"),
        (["loss=huber", "loss.delta=-1"], "loss"),
        (["loss=cross_entropy"], "loss: CrossEntropyLoss does not suit"),
        (["loss=bce"], "loss: BCEWithLogitsLoss does not suit"),
        (["loss=l1", "loss.reduction=none"], "loss"),
        (["metrics.mae._target_=torchmetrics.regression.CosineSimilarity"], "metrics.mae"),
        (["metrics.loss._target_=torchmetrics.regression.R2Score"], "metrics.loss"),
        (["metrics=[mae]", "criterion=mea"], "'mae'"),
    ],
)
def test_unsuitable_loss_or_metric_is_reported_in_one_line(arguments, message, folder, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, *SMALL, *arguments, "hydra.run.dir=run", "debug=smoke")
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_metrics_take_the_class_count_from_the_data(folder, monkeypatch):
    text = (folder / "graphs.jsonl").read_text()
    for n in range(7):
        text = text.replace(f'"size": {100.0 + 5 * n}', f'"size": "{"abcdefg"[n]}"')
    (folder / "graphs.jsonl").write_text(text)
    options = ["metrics=[f1,balanced_accuracy,mcc]", "loss=cross_entropy", "loss.label_smoothing=0.1"]
    command(monkeypatch, *SMALL, *options, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert set(json.loads((folder / "run" / "result.json").read_text())["scores"]) == {
        "loss", "f1", "balanced_accuracy", "mcc",
    }  # fmt: skip


def test_ranking_metrics_require_two_classes(folder, monkeypatch, capsys):
    text = (folder / "graphs.jsonl").read_text()
    two_classes, three_classes = text, text
    for n in range(7):
        two_classes = two_classes.replace(f'"size": {100.0 + 5 * n}', f'"size": "{"ab"[n % 2]}"')
        three_classes = three_classes.replace(f'"size": {100.0 + 5 * n}', f'"size": "{"abc"[n % 3]}"')
    (folder / "graphs.jsonl").write_text(two_classes)
    command(monkeypatch, *SMALL, "metrics=[auroc,ap]", "trainer.max_epochs=1", "hydra.run.dir=run")
    result = json.loads((folder / "run" / "result.json").read_text())
    assert result["criterion"] == "auroc"
    assert set(result["scores"]) == {"loss", "auroc", "ap"}
    (folder / "graphs.jsonl").write_text(three_classes)
    with pytest.raises(SystemExit):
        command(monkeypatch, *SMALL, "metrics=[auroc]", "trainer.max_epochs=1", "hydra.run.dir=other")
    assert "metrics.auroc: it cannot score a target that is one of 3 classes" in capsys.readouterr().err

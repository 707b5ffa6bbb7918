"""The trivial baseline: scored on the samples on which the run is; the advice to a run that does not beat it."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch_geometric.data import Data

from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData
from gt.data.own.pyg import PyG
from gt.layers import GINE, ParallelBlock
from gt.losses import Criterion
from gt.model import GraphTransformer
from gt.train.baseline import Evaluated, baseline, defined_criterion, losing_metric, reasons
from gt.train.feed import Feed
from gt.train.task import Task
from tests.data.modules import make_data
from tests.data.own.pyg_datasets import CollatedDataset
from tests.small_runs import train, write_graphs


class Paths(CollatedDataset):
    """Paths of 2 to 9 nodes, so that batches are of similar size; the targets are given, or the graph's index."""

    def __init__(self, targets: list[float] | None = None, size: float = 1.0) -> None:
        graphs = []
        for n in range(60):
            position = torch.arange(2 + n % 8)
            y = torch.tensor([[float(n) if targets is None else targets[n]]])
            edges = torch.stack([position[1:], position[:-1]])
            graphs.append(Data(x=size * (0.5 + position[:, None]), edge_index=edges, y=y))
        super().__init__(graphs)


def open_paths(folder: Path, targets: list[float] | None = None, size: float = 1.0, **options: Any) -> DataModule:
    make = partial(Paths, targets, size)
    data = make_data(GraphData, PyG, make, root=str(folder), fractions=(0.4, 0.3, 0.3), **options, batch_size=3)
    data.open([])
    return data


@pytest.mark.parametrize(("limit", "batches"), [(None, 3), (1.0, 3), (1, 1), (2, 2), (99, 3), (0.7, 2)])
def test_evaluated_samples_match_lightning(tmp_path: Path, limit: float | None, batches: int) -> None:
    data = open_paths(tmp_path)
    net = GraphTransformer(data.schema, 8, 1, partial(ParallelBlock, local=GINE))
    task = Task(net, data.schema, *data.measures())
    seen: list[float] = []
    update = task._evaluate

    def record(stage: str, batch: Any, index: int) -> None:
        seen.extend(batch.y.flatten().tolist())
        update(stage, batch, index)

    task._evaluate = record  # type: ignore[method-assign]
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "use_distributed_sampler": False}
    trainer = pl.Trainer(accelerator="cpu", limit_test_batches=limit, **quiet)
    trainer.test(task, datamodule=Feed(data), verbose=False)
    evaluated = Evaluated(data, "test", limit)
    assert sorted(evaluated.targets().flatten().tolist()) == sorted(seen)
    assert (evaluated.batches, evaluated.total) == (batches, 3)
    constant = float(data.targets("train").median())
    assert baseline(data, evaluated.targets())["mae"] == pytest.approx(np.abs(np.array(seen) - constant).mean())


def test_evaluated_samples_of_several_processes(tmp_path: Path) -> None:
    data, double = (open_paths(tmp_path, eval_batch_size=size) for size in (4, 8))
    assert len(Evaluated(data, "test", None, world=2).targets()) == 18
    part = Evaluated(data, "test", 1, world=2)
    assert part.batches == 2
    assert sorted(part.targets().tolist()) == sorted(Evaluated(double, "test", 1).targets().tolist())


AUROC, LOSS = Criterion("auroc", "max"), Criterion("loss", "min")


def test_undefined_criterion_falls_back_to_loss(tmp_path: Path) -> None:
    two_classes = open_paths(tmp_path / "both", [float(n % 2) for n in range(60)], kind="binary")
    assert defined_criterion(AUROC, Evaluated(two_classes, "valid")) == AUROC
    valid = set(two_classes.graphs.splits["valid"].tolist())
    single_class = open_paths(tmp_path / "one", [1.0 if n in valid else float(n % 2) for n in range(60)], kind="binary")
    assert defined_criterion(AUROC, Evaluated(single_class, "valid")) == LOSS
    first = next(iter(two_classes.batches("valid")))  # the only one validated below
    seen = {int(two_classes.graphs.splits["valid"][n]) for n in first.samples}
    single_in_batch = open_paths(
        tmp_path / "part", [1.0 if n in seen else float(n % 2) for n in range(60)], kind="binary"
    )
    assert defined_criterion(AUROC, Evaluated(single_in_batch, "valid")) == AUROC
    assert defined_criterion(AUROC, Evaluated(single_in_batch, "valid", 1)) == LOSS


@pytest.mark.parametrize(
    ("criterion", "score", "constant", "name"),
    [
        ("auroc", 0.6, 0.5, ""),
        ("auroc", 0.5, 0.5, "auroc"),
        ("auroc", 0.4, 0.5, "auroc"),
        ("mae", 0.4, 0.5, ""),
        ("mae", 0.5, 0.4, "mae"),
        ("auroc", math.nan, math.nan, "loss"),
    ],
)
def test_losing_metric(criterion: str, score: float, constant: float, name: str) -> None:
    mode = "min" if criterion == "mae" else "max"
    result = {"criterion": criterion, "mode": mode}
    result |= {"scores": {"loss": 2.0, criterion: score}, "baseline": {"loss": 1.0, criterion: constant}}
    assert losing_metric(result, result["baseline"]) == name


def loss_log(*losses: float) -> pd.DataFrame:
    return pd.DataFrame({"step": range(len(losses)), "valid/loss": losses})


def advised_options(
    data: DataModule,
    steps: int = 5000,
    losses: tuple[float, ...] = (3.0, 1.0, 2.0),
    length: str = "trainer.max_epochs",
) -> set[str]:
    """The options that the reasons mention."""
    words = " ".join(reasons(data, steps, loss_log(*losses), length)).replace(":", " ").replace(",", " ").split()
    return {word.split("=")[0] for word in words if word.startswith(("data.", "trainer.", "optim."))}


def test_only_applicable_reasons_are_given(tmp_path: Path) -> None:
    suitable = open_paths(tmp_path / "fine")
    assert advised_options(suitable) == set()
    assert advised_options(suitable, steps=12) == {"trainer.max_epochs", "data.batch_size"}
    assert advised_options(suitable, losses=(3.0, 2.0, 1.0)) == {"trainer.max_epochs"}
    assert advised_options(suitable, steps=12, length="trainer.max_steps") == {"trainer.max_steps"}
    assert advised_options(suitable, losses=(3.0, 2.0, 1.0), length="trainer.max_steps") == {"trainer.max_steps"}
    assert advised_options(suitable, losses=(1.0, 2.0, 3.0)) == {"optim.lr"}
    assert advised_options(suitable, losses=()) == set()
    assert advised_options(open_paths(tmp_path / "by nodes", batch_nodes=90), steps=12) == {
        "trainer.max_epochs",
        "data.batch_nodes",
    }
    assert "only 1 step: " in " ".join(reasons(suitable, 1, loss_log()))
    assert "24 training samples" in " ".join(reasons(suitable, 5000, loss_log()))


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (["trainer.max_epochs=2"], "trainer.max_epochs, or"),
        (["trainer.max_epochs=9", "trainer.max_steps=3"], "trainer.max_steps"),
        (["trainer.max_epochs=9", "callbacks.early_stopping.patience=1"], "callbacks.early_stopping.patience"),
        (["trainer.max_epochs=9", "+trainer.max_time={milliseconds: 1}"], "trainer.max_time"),
        (["trainer.max_epochs=2", "callbacks.early_stopping.patience=1"], "trainer.max_epochs, or"),
        (
            [
                "trainer.max_epochs=9",
                "callbacks.early_stopping.monitor=valid/loss",
                "callbacks.early_stopping.mode=min",
                "+callbacks.early_stopping.stopping_threshold=1e9",
            ],
            "callbacks.early_stopping.stopping_threshold",
        ),
    ],
)
def test_advice_names_the_option_that_ended_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], option: str
) -> None:
    train(tmp_path / "run", *write_graphs(tmp_path), "optim.lr=1e-30", "optim.warmup=0", *options)
    out = capsys.readouterr().out
    assert f": {'change' if option.endswith('_threshold') else 'raise'} {option}" in out.replace("\n", " ")
    early = [line for line in out.splitlines() if line.startswith("ended early, after ")]
    assert early == [] if option.startswith(("trainer.max_steps", "trainer.max_epochs")) else early[0].endswith(option)


@pytest.mark.parametrize(
    ("targets", "size", "options", "option"),
    [
        ([10 ** (n / 10) for n in range(60)], 1.0, {}, "data.log"),
        (None, 1.0, {"normalise": False}, "data.normalise"),
        (None, 90.0, {"standardise": False}, "data.standardise"),
        ([10 ** (n / 10) for n in range(60)], 1.0, {"log": True}, None),
        (None, 90.0, {}, None),
        (None, 1.0, {"standardise": False}, None),
    ],
)
def test_reasons_about_scaling_of_features_and_targets(
    tmp_path: Path, targets: Any, size: float, options: Any, option: str | None
) -> None:
    assert advised_options(open_paths(tmp_path, targets, size, **options)) == ({option} if option else set())


def test_single_class_training_split_is_a_reason(tmp_path: Path) -> None:
    data = open_paths(tmp_path, [0.0] * 60, kind="binary")
    assert any("one class" in reason for reason in reasons(data, 5000, loss_log()))

"""The trivial baseline is measured on the samples of the run's score; a run that it beats is told likely reasons."""

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
from tests.data.modules import over
from tests.data.own.pyg_datasets import Kept
from tests.small_runs import train, write_graphs


class Paths(Kept):
    """Paths of 2 to 9 nodes, so that batches are of like size; a target for each, given or its number."""

    def __init__(self, targets: list[float] | None = None, size: float = 1.0) -> None:
        graphs = []
        for n in range(60):
            place = torch.arange(2 + n % 8)
            y = torch.tensor([[float(n) if targets is None else targets[n]]])
            edges = torch.stack([place[1:], place[:-1]])
            graphs.append(Data(x=size * (0.5 + place[:, None]), edge_index=edges, y=y))
        super().__init__(graphs)


def paths(folder: Path, targets: list[float] | None = None, size: float = 1.0, **options: Any) -> DataModule:
    make = partial(Paths, targets, size)
    data = over(GraphData, PyG, make, root=str(folder), fractions=(0.4, 0.3, 0.3), **options, batch_size=3)
    data.open([])
    return data


@pytest.mark.parametrize(("limit", "batches"), [(None, 3), (1.0, 3), (1, 1), (2, 2), (99, 3), (0.7, 2)])
def test_what_is_evaluated_is_what_lightning_evaluates(tmp_path: Path, limit: float | None, batches: int) -> None:
    data = paths(tmp_path)
    net = GraphTransformer(data.schema, 8, 1, partial(ParallelBlock, local=GINE))
    task = Task(net, data.schema, *data.measures())
    seen: list[float] = []
    update = task._evaluate

    def remember(stage: str, batch: Any, place: int) -> None:
        seen.extend(batch.y.flatten().tolist())
        update(stage, batch, place)

    task._evaluate = remember  # type: ignore[method-assign]
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "use_distributed_sampler": False}
    trainer = pl.Trainer(accelerator="cpu", limit_test_batches=limit, **quiet)
    trainer.test(task, datamodule=Feed(data), verbose=False)
    found = Evaluated(data, "test", limit)
    assert sorted(found.targets().flatten().tolist()) == sorted(seen)
    assert (found.batches, found.total) == (batches, 3)
    constant = float(data.targets("train").median())
    assert baseline(data, found.targets())["mae"] == pytest.approx(np.abs(np.array(seen) - constant).mean())


def test_what_several_processes_evaluate_is_counted_together(tmp_path: Path) -> None:
    data, twice = (paths(tmp_path, eval_batch_size=size) for size in (4, 8))
    assert len(Evaluated(data, "test", None, world=2).targets()) == 18
    part = Evaluated(data, "test", 1, world=2)
    assert part.batches == 2
    assert sorted(part.targets().tolist()) == sorted(Evaluated(twice, "test", 1).targets().tolist())


AUROC, LOSS = Criterion("auroc", "max"), Criterion("loss", "min")


def test_a_criterion_that_the_validated_samples_leave_undefined_gives_way_to_the_loss(tmp_path: Path) -> None:
    both = paths(tmp_path / "both", [float(n % 2) for n in range(60)], kind="binary")
    assert defined_criterion(AUROC, Evaluated(both, "valid")) == AUROC
    valid = set(both.graphs.splits["valid"].tolist())
    one = paths(tmp_path / "one", [1.0 if n in valid else float(n % 2) for n in range(60)], kind="binary")
    assert defined_criterion(AUROC, Evaluated(one, "valid")) == LOSS
    first = next(iter(both.batches("valid")))  # of which one batch alone is looked at
    seen = {int(both.graphs.splits["valid"][n]) for n in first.samples}
    part = paths(tmp_path / "part", [1.0 if n in seen else float(n % 2) for n in range(60)], kind="binary")
    assert defined_criterion(AUROC, Evaluated(part, "valid")) == AUROC
    assert defined_criterion(AUROC, Evaluated(part, "valid", 1)) == LOSS


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
def test_which_runs_the_baseline_beats(criterion: str, score: float, constant: float, name: str) -> None:
    mode = "min" if criterion == "mae" else "max"
    result = {"criterion": criterion, "mode": mode}
    result |= {"scores": {"loss": 2.0, criterion: score}, "baseline": {"loss": 1.0, criterion: constant}}
    assert losing_metric(result, result["baseline"]) == name


def log(*losses: float) -> pd.DataFrame:
    return pd.DataFrame({"step": range(len(losses)), "valid/loss": losses})


def named(
    data: DataModule,
    steps: int = 5000,
    losses: tuple[float, ...] = (3.0, 1.0, 2.0),
    length: str = "trainer.max_epochs",
) -> set[str]:
    """The options that the reasons speak of."""
    words = " ".join(reasons(data, steps, log(*losses), length)).replace(":", " ").replace(",", " ").split()
    return {word.split("=")[0] for word in words if word.startswith(("data.", "trainer.", "optim."))}


def test_only_reasons_that_apply_are_named(tmp_path: Path) -> None:
    fine = paths(tmp_path / "fine")
    assert named(fine) == set()
    assert named(fine, steps=12) == {"trainer.max_epochs", "data.batch_size"}
    assert named(fine, losses=(3.0, 2.0, 1.0)) == {"trainer.max_epochs"}
    assert named(fine, steps=12, length="trainer.max_steps") == {"trainer.max_steps"}
    assert named(fine, losses=(3.0, 2.0, 1.0), length="trainer.max_steps") == {"trainer.max_steps"}
    assert named(fine, losses=(1.0, 2.0, 3.0)) == {"optim.lr"}
    assert named(fine, losses=()) == set()
    assert named(paths(tmp_path / "by nodes", batch_nodes=90), steps=12) == {"trainer.max_epochs", "data.batch_nodes"}
    assert "only 1 step: " in " ".join(reasons(fine, 1, log()))
    assert "24 training samples" in " ".join(reasons(fine, 5000, log()))


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
def test_a_run_that_was_short_is_told_what_ended_it(
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
def test_reasons_in_the_numbers(tmp_path: Path, targets: Any, size: float, options: Any, option: str | None) -> None:
    assert named(paths(tmp_path, targets, size, **options)) == ({option} if option else set())


def test_a_training_split_of_one_class_is_a_reason(tmp_path: Path) -> None:
    data = paths(tmp_path, [0.0] * 60, kind="binary")
    assert any("one class" in reason for reason in reasons(data, 5000, log()))

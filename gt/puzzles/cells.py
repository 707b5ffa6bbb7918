"""Cells of the grid: a network is trained until it solves the puzzle, or for the epochs that its row allows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from pytorch_lightning.callbacks import EarlyStopping

from gt.cli.command import check_command
from gt.cli.composing import compose_config
from gt.data.datamodule import DataModule
from gt.data.parallel import parallel_map
from gt.puzzles.grid import Cell
from gt.train.feed import Feed
from gt.train.job import read_json, write_json
from gt.train.logging import quiet
from gt.train.network import build, encodings_of, network_config
from gt.train.task import Task

SOLVED = 0.99  # test accuracy
STOP_ACCURACY = 0.995  # validation accuracy at which training stops


@dataclass(frozen=True)
class Result:
    """The result of a cell.

    Attributes:
        accuracy: on the labelled nodes of the test split.
        chance: accuracy of guessing.
        epochs, seconds: epochs and duration of training, including set-up.
    """

    accuracy: float
    chance: float
    epochs: int
    seconds: float

    @property
    def solved(self) -> bool:
        return self.accuracy >= SOLVED

    @property
    def skill(self) -> float:
        """Accuracy rescaled from chance (0) to perfect (1)."""
        return (self.accuracy - self.chance) / (1 - self.chance)


def train(overrides: list[str]) -> Result:
    """Train like ``python train.py`` with these overrides, but without writing files."""
    started = time.monotonic()
    quiet()
    cfg = compose_config(check_command(overrides))
    pl.seed_everything(cfg.seed, verbose=False)
    data: DataModule = instantiate(cfg.data)
    data.open(encodings_of(cfg))
    config, (measures, criterion) = network_config(cfg), data.measures()
    net: Any = build(config, data.schema)
    data.readings = partial(net.readings, "cpu", False)
    task = Task(net, data.schema, measures, criterion, instantiate(cfg.optim, _convert_="all"), config, cfg.seed)
    trainer = pl.Trainer(
        max_epochs=cfg.trainer.max_epochs,
        accelerator="cpu",
        gradient_clip_val=cfg.trainer.gradient_clip_val,
        callbacks=[
            EarlyStopping(
                "valid/accuracy", patience=cfg.trainer.max_epochs, mode="max", stopping_threshold=STOP_ACCURACY
            )
        ],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(task, datamodule=Feed(data))
    (measured,) = trainer.test(task, datamodule=Feed(data), verbose=False)
    chance = 1 / data.schema.outputs  # classes are balanced
    return Result(measured["test/accuracy"], chance, trainer.current_epoch, time.monotonic() - started)


def path_of(cell: Cell, folder: Path) -> Path:
    """The file with the result of a cell."""
    return folder / "cells" / f"{cell.name}.json"


def cached_result(cell: Cell, folder: Path) -> Result | None:
    """The cached result of a cell, if it was trained with exactly the same overrides."""
    path = path_of(cell, folder)
    record = read_json(path) if path.exists() else {}
    return Result(**record["result"]) if record.get("overrides") == cell.overrides else None


def measure(cell: Cell, folder: Path) -> Result:
    """Train a cell and cache its result."""
    result = train(cell.overrides)
    write_json(path_of(cell, folder), {"overrides": cell.overrides, "result": vars(result)})
    return result


def results(cells: Sequence[Cell], folder: Path, processes: int | None = None) -> dict[Cell, Result]:
    """The results of all cells, in order; cells cached in the folder are not trained again.

    Args:
        processes: number of parallel trainings, each on one thread; None: the number of CPUs of this process.
    """
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    finished = {cell: result for cell in cells if (result := cached_result(cell, folder))}
    missing = [cell for cell in cells if cell not in finished]
    if finished:
        print(f"{len(finished)} of {len(cells)} cells are cached in {folder / 'cells'}; remove it to retrain them")
    trained = parallel_map(partial(measure, folder=folder), missing, processes, "training")
    finished |= dict(zip(missing, trained, strict=True))
    return {cell: finished[cell] for cell in cells}

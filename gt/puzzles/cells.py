"""One cell: a network trained on a puzzle until it solves it, or for as many epochs as its row allows."""

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
from gt.cli.composing import composed
from gt.data.datamodule import DataModule
from gt.data.parallel import mapped
from gt.puzzles.grid import Cell
from gt.train.feed import Feed
from gt.train.job import read_json, write_json
from gt.train.logging import quiet
from gt.train.network import build, encodings_of, network_config
from gt.train.task import Task

SOLVED = 0.99  # test accuracy
ENOUGH = 0.995  # validation accuracy at which training stops


@dataclass(frozen=True)
class Result:
    """What came of a cell.

    Attributes:
        accuracy: on the test split, of the nodes that are asked.
        chance: what a guess scores.
        epochs, seconds: of training, the seconds with all that it takes to begin.
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
        """How much of the way from chance, 0, to 1 it went."""
        return (self.accuracy - self.chance) / (1 - self.chance)


def train(overrides: list[str]) -> Result:
    """What ``python train.py`` with these overrides does, without its files."""
    started = time.monotonic()
    quiet()
    cfg = composed(check_command(overrides))
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
            EarlyStopping("valid/accuracy", patience=cfg.trainer.max_epochs, mode="max", stopping_threshold=ENOUGH)
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
    chance = 1 / data.schema.outputs  # every answer is as frequent as any other
    return Result(measured["test/accuracy"], chance, trainer.current_epoch, time.monotonic() - started)


def path_of(cell: Cell, folder: Path) -> Path:
    """Where the result of a cell is kept."""
    return folder / "cells" / f"{cell.name}.json"


def kept(cell: Cell, folder: Path) -> Result | None:
    """The result of a cell that an earlier run has finished, with the very same overrides."""
    path = path_of(cell, folder)
    facts = read_json(path) if path.exists() else {}
    return Result(**facts["result"]) if facts.get("overrides") == cell.overrides else None


def measure(cell: Cell, folder: Path) -> Result:
    """Train a cell and keep its result."""
    result = train(cell.overrides)
    write_json(path_of(cell, folder), {"overrides": cell.overrides, "result": vars(result)})
    return result


def results(cells: Sequence[Cell], folder: Path, processes: int | None = None) -> dict[Cell, Result]:
    """The result of every cell, in their order; those that the folder keeps are not trained again.

    Args:
        processes: how many train at a time, each on one thread; None takes the CPUs that this process may use.
    """
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    known = {cell: result for cell in cells if (result := kept(cell, folder))}
    missing = [cell for cell in cells if cell not in known]
    if known:
        print(f"{len(known)} of {len(cells)} cells are kept in {folder / 'cells'}; remove it to train them anew")
    trained = mapped(partial(measure, folder=folder), missing, processes, "training")
    known |= dict(zip(missing, trained, strict=True))
    return {cell: known[cell] for cell in cells}

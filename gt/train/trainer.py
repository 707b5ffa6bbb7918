"""The trainer of a run, and the parts of a configuration that it is given."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import Logger

from gt.errors import UserError
from gt.train.checkpoint_io import CheckpointFiles
from gt.train.construct import constructing
from gt.train.interrupts import without_handlers
from gt.train.launch import check_started
from gt.train.logging import quiet
from gt.train.precision import HalfWeights
from gt.train.trust import trusted

MEASURED = ("valid/", "train/")  # how the names begin of what a run measures while it trains


def instances(section: DictConfig | None, facts: dict[str, Any]) -> list[Any]:
    """The objects of a section's entries; what an entry leaves null and only the run knows is filled in."""
    entries = [entry for entry in (section or {}).values() if entry is not None]
    return [instantiate(e, **{k: v for k, v in facts.items() if k in e and e[k] is None}) for e in entries]


def make_trainer(config: DictConfig, callbacks: list[pl.Callback], loggers: list[Logger], folder: Path) -> pl.Trainer:
    """Lightning's trainer; this project's loaders share out their samples themselves."""
    for callback in callbacks:
        if not isinstance(callback, pl.Callback):
            name = type(callback).__name__
            raise UserError(f"callbacks: a {name} is no pytorch_lightning.Callback: derive it from that")
    plugins: list[Any] = [CheckpointFiles(), *instantiate(config.get("plugins") or [], _convert_="all")]
    precision: dict[str, Any] = {}
    if not loggers:  # Lightning refuses to train with a monitor that nobody listens to
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    if str(config.precision).startswith("16-true"):
        raise UserError(
            "trainer.precision=16-true cannot be trained: AdamW's steps vanish in it; choose bf16-true or 16-mixed"
        )
    if config.precision == "bf16-true":
        precision, plugins = {"precision": None}, [*plugins, HalfWeights("bf16-true")]
    trainer: pl.Trainer = instantiate(
        config,
        **precision,
        plugins=plugins,
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=str(folder),
        enable_model_summary=False,
        use_distributed_sampler=False,
        _convert_="all",
    )
    check_started(trainer.num_devices, trainer.num_nodes)
    without_handlers(trainer)
    return trainer


def rehearse_trainer(cfg: DictConfig) -> None:
    """Make the trainer and its callbacks once, before all else is imported; those of one's own are left for later.

    Raises:
        UserError: one of them refuses what it is given.
    """
    quiet()
    known = {"monitor": "valid/loss", "mode": "min", "dirpath": "."}
    parts = {name: part for name, part in (cfg.get("callbacks") or {}).items() if part}
    callbacks = {name: part for name, part in parts.items() if trusted(part._target_)}  # others may measure anything
    for name, part in callbacks.items():
        monitor = part.get("monitor")
        if monitor and len(callbacks) == len(parts) and not str(monitor).startswith(MEASURED):
            raise UserError(
                f"callbacks.{name}.monitor={monitor}: what is measured is called {' or '.join(MEASURED)} and its name"
            )
    with constructing(cfg):
        instances(OmegaConf.create(callbacks), known)
        make_trainer(cfg.trainer, [], [], Path())

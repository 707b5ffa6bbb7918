"""Creates the trainer of a run, its callbacks and its loggers from the configuration."""

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

METRIC_PREFIXES = ("valid/", "train/")  # of the metrics logged during training


def instances(section: DictConfig | None, defaults: dict[str, Any]) -> list[Any]:
    """Instantiate a section's entries, filling values that are null with defaults that only the run knows."""
    entries = [entry for entry in (section or {}).values() if entry is not None]
    return [instantiate(e, **{k: v for k, v in defaults.items() if k in e and e[k] is None}) for e in entries]


def make_trainer(config: DictConfig, callbacks: list[pl.Callback], loggers: list[Logger], folder: Path) -> pl.Trainer:
    """Create Lightning's trainer, without its distributed sampler, as the loaders shard their samples themselves."""
    for callback in callbacks:
        if not isinstance(callback, pl.Callback):
            name = type(callback).__name__
            raise UserError(f"callbacks: a {name} is not a pytorch_lightning.Callback: subclass it")
    plugins: list[Any] = [CheckpointFiles(), *instantiate(config.get("plugins") or [], _convert_="all")]
    precision: dict[str, Any] = {}
    if not loggers:  # Lightning raises if there is a monitor but no logger
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    if str(config.precision).startswith("16-true"):
        raise UserError(
            "trainer.precision=16-true cannot be trained: AdamW's steps underflow; choose bf16-true or 16-mixed"
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
    """Create the trainer and its built-in callbacks as a check, before anything else is imported.

    Raises:
        UserError: one of them rejects its arguments.
    """
    quiet()
    defaults = {"monitor": "valid/loss", "mode": "min", "dirpath": "."}
    parts = {name: part for name, part in (cfg.get("callbacks") or {}).items() if part}
    callbacks = {name: part for name, part in parts.items() if trusted(part._target_)}  # others may log any metric
    for name, part in callbacks.items():
        monitor = part.get("monitor")
        if monitor and len(callbacks) == len(parts) and not str(monitor).startswith(METRIC_PREFIXES):
            raise UserError(
                f"callbacks.{name}.monitor={monitor}: the names of metrics begin with {' or '.join(METRIC_PREFIXES)}"
            )
    with constructing(cfg):
        instances(OmegaConf.create(callbacks), defaults)
        make_trainer(cfg.trainer, [], [], Path())

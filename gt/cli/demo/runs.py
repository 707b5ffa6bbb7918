"""The runs of a demonstration, each made by ``train.py``."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from gt.cli.command import check_command
from gt.cli.composing import compose_config
from gt.cli.config_files import CONFIGS
from gt.cli.new_data import run_config
from gt.data.datamodule import DataModule
from gt.data.files import discard
from gt.encodings import Encoding
from gt.errors import UserError
from gt.train.checkpoint import load
from gt.train.construct import constructing
from gt.train.job import RESULT, read_json, write_json
from gt.train.network import encodings_of
from gt.train.task import Task

# attention among all nodes of a graph, which learns about edges from encodings only
COMPLETE = ("model=transformer", "mask=hops", "mask.hops=null", "logger=csv")
SETTINGS = "settings.json"


def settings(arguments: Sequence[str], defaults: Sequence[str]) -> list[str]:
    """The overrides of a complete Transformer, on the data of the command line or else of the demonstration."""
    return [*COMPLETE, *(() if any(word.startswith("data=") for word in arguments) else defaults), *arguments]


def begin(folder: Path, overrides: Sequence[str]) -> DictConfig:
    """Record the settings of the runs in a folder, and return the configuration composed from them.

    Raises:
        UserError: the folder holds runs with other settings, or the settings are invalid.
    """
    cfg = compose_config(check_command(list(overrides)))
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / SETTINGS
    differs = record.is_file() and read_json(record) != list(overrides)
    if differs and any(folder.glob(f"*/{RESULT}")):
        raise UserError(f"{folder} holds runs with other settings: choose another folder with --out")
    write_json(record, list(overrides))
    return cfg


def train_once(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The result of the run in a folder, which is trained from scratch unless it has finished.

    Raises:
        SystemExit: it fails; the error has been printed.
    """
    if not (folder / RESULT).is_file():
        discard(folder)
        arguments = sys.argv
        sys.argv = ["train.py", *overrides, f"hydra.run.dir={folder}"]
        try:
            runpy.run_path(str(CONFIGS.parent / "train.py"), run_name="train")["command"]()
        finally:
            sys.argv = arguments
    return read_json(folder / RESULT)


def open_run(folder: Path, encodings: Sequence[Encoding] | None = None) -> tuple[Task, DataModule]:
    """The best model of a run and its data, optionally with other encodings that produce the same arrays."""
    task, cfg = load(folder), run_config(folder, [], trust=False)
    with constructing(cfg):
        data: DataModule = instantiate(cfg.data)
    data.open(encodings_of(task.hparams["config"]) if encodings is None else encodings)
    return task, data

"""Runs of a demonstration, each as ``train.py`` makes it."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from gt.cli.command import check_command
from gt.cli.composing import composed
from gt.cli.config_files import CONFIGS
from gt.cli.new_data import configured
from gt.data.datamodule import DataModule
from gt.data.files import discard
from gt.encodings import Encoding
from gt.errors import UserError
from gt.train.checkpoint import load
from gt.train.construct import constructing
from gt.train.job import RESULT, read_json, write_json
from gt.train.network import encodings_of
from gt.train.task import Task

# attention alone, among all nodes of a graph: of edges it knows what encodings tell
COMPLETE = ("model=transformer", "mask=hops", "mask.hops=null", "logger=csv")
SETTINGS = "settings.json"


def settings(words: Sequence[str], usual: Sequence[str]) -> list[str]:
    """Overrides of a complete Transformer on data of one's own, or else on those of the demonstration."""
    return [*COMPLETE, *(() if any(word.startswith("data=") for word in words) else usual), *words]


def begin(folder: Path, overrides: Sequence[str]) -> DictConfig:
    """Keep in a folder under which settings its runs are made, and return the configuration that they come to.

    Raises:
        UserError: it holds runs under others, or there are no such settings.
    """
    cfg = composed(check_command(list(overrides)))
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / SETTINGS
    others = kept.is_file() and read_json(kept) != list(overrides)
    if others and any(folder.glob(f"*/{RESULT}")):
        raise UserError(f"{folder} holds runs under other settings: choose another folder by --out")
    write_json(kept, list(overrides))
    return cfg


def trained(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The result of a run in a folder, which is made there, anew unless it is finished.

    Raises:
        SystemExit: it fails, and has said why.
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


def opened(folder: Path, encodings: Sequence[Encoding] | None = None) -> tuple[Task, DataModule]:
    """The best model of a run and its data, perhaps with other encodings that give arrays of the same names."""
    task, cfg = load(folder), configured(folder, [], trust=False)
    with constructing(cfg):
        data: DataModule = instantiate(cfg.data)
    data.open(encodings_of(task.hparams["config"]) if encodings is None else encodings)
    return task, data

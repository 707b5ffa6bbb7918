"""Run folders made without training: a configuration, and a checkpoint of a network with random weights."""

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

import gt
from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData
from gt.predict import main
from gt.train.network import build, network_config
from gt.train.task import Task
from tests.data.modules import make_data

CONFIGS = Path(gt.__path__[0]).parent / "configs"
REST = {
    "optim": {"_target_": "gt.train.optim.Optimisation"},
    "trainer": {"_target_": "pytorch_lightning.Trainer"},
    "seed": 0,
}


@cache
def network(*overrides: str) -> dict[str, Any]:
    """The configuration of a small network that reads nodes, edges and structure."""
    small = ("model.width=16", "model.depth=1", "encoding=none")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return network_config(compose("train", [*small, *overrides]))


def run_folder(folder: Path, data: DataModule, config: dict[str, Any], net: dict[str, Any]) -> Path:
    """Open ``data`` and write the folder of a run on them; ``config`` is the ``data`` section of its configuration."""
    torch.manual_seed(1)
    data.open([])
    task = Task(build(net, data.schema), data.schema, *data.measures(), config=net)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    task.trainer = trainer
    trainer.strategy.connect(task)
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"data": config, **net, **REST}), folder / ".hydra" / "config.yaml")
    trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt")
    return folder


def write_run(
    folder: Path,
    source: type,
    net: dict[str, Any] | None = None,
    module: type[DataModule] = GraphData,
    **options: Any,
) -> Path:
    """Write the folder of a run on a source of a user's own data, below ``folder``."""
    options = {"root": str(folder / "root"), **options}
    data = make_data(module, source, **options)
    module_options = {field.name for field in fields(module)} & options.keys()
    config = {
        "_target_": f"{module.__module__}.{module.__name__}",
        "source": {"_target_": f"{source.__module__}.{source.__name__}"}
        | {name: value for name, value in options.items() if name not in module_options},
    } | {name: options[name] for name in module_options}
    return run_folder(folder / "run", data, config, net or network())


def predictions(run: Path, *arguments: str) -> pd.DataFrame:
    """The table that ``python -m gt.predict`` writes, every cell as a string."""
    out = run.parent / "predicted.csv"
    main([str(run), "--device", "cpu", "--out", str(out), *arguments])
    return pd.read_csv(out, dtype=str, keep_default_na=False)


def float_columns(table: pd.DataFrame, *columns: str) -> Any:
    """Columns of a table as an array of floats."""
    return table[list(columns)].astype(float).to_numpy()

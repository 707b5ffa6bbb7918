"""Restores a trained task from a checkpoint. Invalid files are reported before Lightning is imported."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gt.errors import UserError, first_line
from gt.schema import Schema
from gt.train.checkpoint_files import BEST, LAST, read
from gt.train.network import build
from gt.train.trust import check_trusted

if TYPE_CHECKING:
    from gt.train.task import Task

T = TypeVar("T", bound="Task")
ARTIFACT = re.compile(r"(?:[\w.-]+/){0,2}[\w.-]+:[\w.-]+")  # entity/project/name:version


def checkpoint_in(path: Path) -> Path:
    """The path itself, or the best checkpoint if it is a run's folder.

    Raises:
        UserError: the folder has no checkpoint.
    """
    if not path.is_dir():
        return path
    candidates = [path / "checkpoints" / name for name in (BEST, LAST)]
    for checkpoint in candidates:
        if checkpoint.is_file():
            return checkpoint
    raise UserError(f"{path} is not a run, or has no checkpoint yet: there is no {candidates[0]}")


def downloaded(name: str) -> Path:
    """The cached checkpoint of a Weights & Biases artifact, such as ``entity/project/model-ID:best``.

    Raises:
        UserError: W&B has no such artifact or cannot be reached, or the artifact does not hold exactly one checkpoint.
    """
    import wandb  # late: takes a second, and is rarely needed

    try:
        folder = Path(wandb.Api().artifact(name).download())
    except Exception as error:  # connections and their libraries raise all kinds of exceptions
        reason = first_line(error)
        raise UserError(f"there is no file {name}, and no such artifact of W&B: {reason}") from None
    checkpoints = sorted(folder.rglob("*.ckpt"))
    if len(checkpoints) != 1:
        raise UserError(f"{folder}, the artifact {name}, holds {len(checkpoints)} checkpoints instead of one")
    return checkpoints[0]


def load(path: str | Path, trust: bool = False) -> "Task":
    """Load a trained task from a checkpoint, or from the best one in a run's folder, on the CPU and in eval mode.

    Nothing is unpickled, and only classes of trusted modules, such as this package and ``torch.nn``, are instantiated,
    unless ``trust`` allows any.

    Args:
        path: checkpoint, run folder, or name of a W&B artifact with its version, see `downloaded`.
        trust: whether to import classes that are not part of this program or its libraries.

    Raises:
        UserError: no such file, damaged, not a checkpoint of this program, or it refers to an untrusted name.
    """
    saved, config, schema = contents(path, trust)
    from gt.train.task import Task

    return restored(Task, saved, config, schema)


def contents(path: str | Path, trust: bool = False) -> tuple[dict[str, Any], dict[str, Any], Schema]:
    """What `load` reads: the checkpoint, its network configuration and its data schema."""
    path = downloaded(str(path)) if ARTIFACT.fullmatch(str(path)) and not Path(path).exists() else Path(path)
    path = checkpoint_in(path)
    saved = read(path)
    try:
        config, schema = saved["hyper_parameters"]["config"], Schema.from_dict(saved["hyper_parameters"]["schema"])
    except Exception as error:
        raise UserError(f"{path} is not a checkpoint of this program: {first_line(error)}") from error
    check_trusted(config, path, trust)
    return saved, config, schema


def restored(kind: type[T], saved: dict[str, Any], config: dict[str, Any], schema: Schema) -> T:
    """A task of the given class from the `contents` of a checkpoint, on the CPU and in eval mode."""
    from gt.metrics import metrics

    supervised = saved["hyper_parameters"].get("supervised", 1.0)  # absent from checkpoints of earlier versions
    task = kind(build(config, schema), schema, *metrics(schema), config=config, supervised=supervised)
    state = {name: value for name, value in saved["state_dict"].items() if name.startswith("net.")}  # not the loss
    task.load_state_dict(state, strict=False)
    task.on_load_checkpoint(saved | {"state_dict": state})
    return task.eval()

"""From a checkpoint back to a trained task. What is wrong with a file is said before Lightning is imported."""

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
    """The checkpoint at a path, of a run's folder the best one.

    Raises:
        UserError: a folder without one.
    """
    if not path.is_dir():
        return path
    known = [path / "checkpoints" / name for name in (BEST, LAST)]
    for checkpoint in known:
        if checkpoint.is_file():
            return checkpoint
    raise UserError(f"{path} is no run, or has no checkpoint yet: there is no {known[0]}")


def downloaded(name: str) -> Path:
    """The checkpoint in an artifact of Weights & Biases, such as ``entity/project/model-ID:best``, as W&B caches it.

    Raises:
        UserError: W&B does not know it, or cannot be reached; or it holds no checkpoint, or several.
    """
    import wandb  # late: it takes a second, which few need

    try:
        folder = Path(wandb.Api().artifact(name).download())
    except Exception as error:  # whatever the network and its libraries lead to
        why = first_line(error)
        raise UserError(f"there is no file {name}, and no such artifact of W&B: {why}") from None
    checkpoints = sorted(folder.rglob("*.ckpt"))
    if len(checkpoints) != 1:
        raise UserError(f"{folder}, the artifact {name}, holds {len(checkpoints)} checkpoints where one is needed")
    return checkpoints[0]


def load(path: str | Path, trust: bool = False) -> "Task":
    """A trained task from a checkpoint, or the best of a run's folder, on the CPU and in eval mode.

    Nothing is unpickled, and of the names that the file asks to be built only those of this package and of
    ``torch.nn`` are, unless ``trust`` says that the file may call anything.

    Args:
        path: of either; or the name of an artifact of W&B with its version, see `downloaded`.
        trust: whether parts that do not come with this program may be imported.

    Raises:
        UserError: no such file, damaged, not a checkpoint of this program, or an untrusted name in it.
    """
    saved, config, schema = contents(path, trust)
    from gt.train.task import Task

    return restored(Task, saved, config, schema)


def contents(path: str | Path, trust: bool = False) -> tuple[dict[str, Any], dict[str, Any], Schema]:
    """What `load` reads: the checkpoint, and of it the network's configuration and the schema of the data."""
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
    """The `contents` of a checkpoint as a task of some kind, on the CPU and in eval mode."""
    from gt.metrics import metrics

    supervised = saved["hyper_parameters"].get("supervised", 1.0)  # those of an earlier version do not say
    task = kind(build(config, schema), schema, *metrics(schema), config=config, supervised=supervised)
    state = {name: value for name, value in saved["state_dict"].items() if name.startswith("net.")}  # but for the loss
    task.load_state_dict(state, strict=False)
    task.on_load_checkpoint(saved | {"state_dict": state})
    return task.eval()

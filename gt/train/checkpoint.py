"""From configuration to network, and from a checkpoint back to a trained task."""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from gt.errors import UserError, first_line
from gt.metrics import metrics
from gt.schema import Schema, several
from gt.train.checkpoint_files import BEST, LAST, read
from gt.train.construct import Refused, constructing, imported
from gt.train.low_rank import add_low_rank
from gt.train.task import Task

T = TypeVar("T", bound=Task)
ARTIFACT = re.compile(r"(?:[\w.-]+/){0,2}[\w.-]+:[\w.-]+")  # entity/project/name:version
PARTS = ("model", "mask", "encoding")  # the groups of a configuration that define a network
# what a checkpoint or the configuration of a run may ask to be imported and called
TRUSTED = (
    "gt.", "torch.nn.", "torch.optim.", "torch_geometric.datasets.", "torch_geometric.nn.conv.",
    "torch_geometric.nn.aggr.", "torch_geometric.transforms.", "torchmetrics.classification.",
    "torchmetrics.regression.", "pytorch_lightning.",
)  # fmt: skip
FUNCTIONS = (
    "gt.masks.",
    "gt.train.optim.",
    "gt.train.logging.",
)  # where a function may be named too, not classes alone


def network_config(cfg: DictConfig) -> dict[str, Any]:
    """The part of a configuration that defines the network, resolved, in plain containers."""
    resolved: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    lora = (resolved.get("init") or {}).get("lora")
    return {part: resolved.get(part, {}) for part in PARTS} | ({"lora": lora} if lora else {})


def encodings_of(config: Mapping[str, Any] | DictConfig) -> list[Any]:
    """The encodings of a configuration, in the order of their names' appearance."""
    entries = config.get("encoding") or {}
    return [instantiate(entry, _convert_="all") for entry in entries.values() if entry is not None]


def build(config: Mapping[str, Any], schema: Schema) -> nn.Module:
    """The network of a configuration for data of a given schema, weights fresh.

    Raises:
        UserError: a part refuses what it is given, or the parts do not fit together.
    """
    parts = OmegaConf.create(dict(config))
    with constructing(parts):
        mask = parts.mask
        masks = (
            [instantiate(m, _convert_="all") for m in mask]
            if isinstance(mask, ListConfig)
            else instantiate(mask, _convert_="all")
        )
        make, encodings = instantiate(parts.model, _convert_="all"), encodings_of(parts)
        try:
            net = make(schema, mask=masks, encodings=encodings)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise
            raise UserError(f"model: {error}") from error  # the call itself: it takes other arguments
    if rank := config.get("lora"):
        add_low_rank(net, rank)
    return net


def rehearse(config: Mapping[str, Any]) -> nn.Module | None:
    """Build the network once for made-up data: what its parts refuse is then said before the real data are built.

    Parts that do not come with this program may ask for other data, and are left for later: it is then None.

    Raises:
        UserError: a part refuses what it is given, whatever the data.
    """
    anything = Schema(node_vocab=(2,), edge_vocab=(2,), outputs=2, max_nodes=1)
    with torch.random.fork_rng(devices=[]):
        try:
            return build(config, anything)
        except Refused as error:
            if trusted(error.target):
                raise
        except Exception:
            pass
    return None


def _targets(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield str(config["_target_"])
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _targets(value)


def trusted(name: str) -> bool:
    """Whether what a name stands for is defined in one of the trusted modules; no other is imported to find out.

    The name alone does not say: it may lead through a module to what this imports, as ``gt.predict.os.system`` does.
    """
    if name.split(".")[0] not in {module.split(".")[0] for module in TRUSTED}:
        return False
    try:
        thing = imported(name)
        return f"{getattr(thing, '__module__', '')}.".startswith(TRUSTED if inspect.isclass(thing) else FUNCTIONS)
    except UserError:
        return name.startswith(TRUSTED)  # nothing is there: building it says so


def check_trusted(config: Any, path: Path, trust: bool) -> None:
    """Whether all that a configuration, read from a file, asks to import comes with this program or its libraries.

    Raises:
        UserError: it does not, and is not trusted, or is not to be had here; names what would be imported.
    """
    foreign = dict.fromkeys(name for name in _targets(config) if not trusted(name))
    if foreign and not trust:
        raise UserError(
            f"{path} asks to import {several(list(foreign), 6)}: if you know where it comes from, say --trust "
            "(in Python trust=True)"
        )
    for name in foreign:
        try:
            imported(name)
        except UserError as error:
            raise UserError(f"{path}: {error}: Python looks in the folder of the command and in PYTHONPATH") from None


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


def load(path: str | Path, trust: bool = False) -> Task:
    """A trained task from a checkpoint, or the best of a run's folder, on the CPU and in eval mode.

    Nothing is unpickled, and of the names that the file asks to be built only those of this package and of
    ``torch.nn`` are, unless ``trust`` says that the file may call anything.

    Args:
        path: of either; or the name of an artifact of W&B with its version, see `downloaded`.
        trust: whether parts that do not come with this program may be imported.

    Raises:
        UserError: no such file, damaged, not a checkpoint of this program, or an untrusted name in it.
    """
    return load_as(Task, path, trust)


def load_as(kind: type[T], path: str | Path, trust: bool = False) -> T:
    """The same as a task of some kind."""
    path = downloaded(str(path)) if ARTIFACT.fullmatch(str(path)) and not Path(path).exists() else Path(path)
    path = checkpoint_in(path)
    saved = read(path)
    try:
        config, schema = saved["hyper_parameters"]["config"], Schema.from_dict(saved["hyper_parameters"]["schema"])
    except Exception as error:
        raise UserError(f"{path} is not a checkpoint of this program: {first_line(error)}") from error
    check_trusted(config, path, trust)
    task = kind(build(config, schema), schema, *metrics(schema), config=config)
    state = {name: value for name, value in saved["state_dict"].items() if name.startswith("net.")}  # but for the loss
    task.load_state_dict(state, strict=False)
    task.on_load_checkpoint(saved | {"state_dict": state})
    return task.eval()

"""Which names an untrusted file may import and call."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gt.errors import UserError
from gt.schema import format_list
from gt.train.construct import import_object

# modules whose classes a checkpoint or the configuration of a run may instantiate
TRUSTED = (
    "gt.", "torch.nn.", "torch.optim.", "torch_geometric.datasets.", "torch_geometric.nn.conv.",
    "torch_geometric.nn.aggr.", "torch_geometric.transforms.", "torchmetrics.classification.",
    "torchmetrics.regression.", "pytorch_lightning.",
)  # fmt: skip
FUNCTIONS = (
    "gt.masks.",
    "gt.train.optim.",
    "gt.train.logging.",
)  # modules whose functions may be called, too


def _targets(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield str(config["_target_"])
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _targets(value)


def trusted(name: str) -> bool:
    """Whether the object of a name is defined in a trusted module; other packages are not imported to find out.

    The name alone does not tell, as it may reach through a module to its imports: ``gt.predict.os.system``.
    """
    if name.split(".")[0] not in {module.split(".")[0] for module in TRUSTED}:
        return False
    try:
        obj = import_object(name)
        return f"{getattr(obj, '__module__', '')}.".startswith(TRUSTED if inspect.isclass(obj) else FUNCTIONS)
    except UserError:
        return name.startswith(TRUSTED)  # it does not exist: instantiation reports that


def check_trusted(config: Any, path: Path, trust: bool) -> None:
    """Check that a configuration read from a file only refers to trusted names.

    Raises:
        UserError: it refers to others and ``trust`` is not set, or they cannot be imported.
    """
    foreign = dict.fromkeys(name for name in _targets(config) if not trusted(name))
    if foreign and not trust:
        raise UserError(
            f"{path} asks to import {format_list(list(foreign), 6)}: if you trust its source, add --trust "
            "(in Python trust=True)"
        )
    for name in foreign:
        try:
            import_object(name)
        except UserError as error:
            raise UserError(f"{path}: {error}: Python looks in the current folder and in PYTHONPATH") from None

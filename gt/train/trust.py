"""What a file from elsewhere may ask to be imported and called."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gt.errors import UserError
from gt.schema import several
from gt.train.construct import imported

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

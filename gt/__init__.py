"""Everything between a graph neural network and a Transformer, by one knob."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from gt import errors

if TYPE_CHECKING:
    from gt.graph import GraphBatch
    from gt.prediction.trained import load

try:
    __version__ = version("gt-train")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

# imported on first use: the command line answers without PyTorch, and a library user may not need the trainer
LATE = {"GraphBatch": "gt.graph", "load": "gt.prediction.trained"}


def __getattr__(name: str) -> object:
    if name in LATE:
        return getattr(import_module(LATE[name]), name)
    raise AttributeError(f"module 'gt' has no attribute '{name}'")


__all__ = ["GraphBatch", "__version__", "errors", "load"]

"""The spectrum between graph neural networks and Transformers, in one framework."""

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

# imported lazily: the command line starts without PyTorch, and library users may not need the trainer
LAZY = {"GraphBatch": "gt.graph", "load": "gt.prediction.trained"}


def __getattr__(name: str) -> object:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'gt' has no attribute '{name}'")


__all__ = ["GraphBatch", "__version__", "errors", "load"]

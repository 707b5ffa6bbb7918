"""Everything between a graph neural network and a Transformer, by one knob."""

from importlib.metadata import PackageNotFoundError, version

from gt import errors
from gt.graph import GraphBatch

try:
    __version__ = version("gt-train")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> object:
    if name == "load":  # on first use: it brings in the trainer, which a library user may not need
        from gt.checkpoint import load

        return load
    raise AttributeError(f"module 'gt' has no attribute '{name}'")


__all__ = ["GraphBatch", "__version__", "errors", "load"]

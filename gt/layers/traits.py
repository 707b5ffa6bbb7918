"""What the layers of a block say of themselves: how far each looks, what it changes, what messages call it."""

from typing import Any

from torch import nn

from gt.errors import nearest
from gt.layers.base import Composite

READS = ("self", "edges", "pairs", "graph")  # how far a node looks through a layer


def parts_of(block: nn.Module) -> list[nn.Module]:
    """The layers and blends that a block is made of, in all its composites; any other module is one layer."""
    return [part for member in block.members for part in parts_of(member)] if isinstance(block, Composite) else [block]


def norms_of(block: nn.Module) -> list[nn.Module]:
    """The norms of a block and of all composites in it; those within a layer are its own affair."""
    if not isinstance(block, Composite):
        return []
    return [*block.norms, *(norm for member in block.members for norm in norms_of(member))]


def declared(layer: nn.Module, name: str, default: Any) -> Any:
    """What a layer says of itself under a name, or the default.

    What it inherits is not said of it where its class computes something else: a subclass that overrides ``forward``
    has to say it again.
    """
    if name in vars(layer):
        return vars(layer)[name]
    for kind in type(layer).__mro__:
        if name in vars(kind):
            return vars(kind)[name]
        if "forward" in vars(kind):
            break
    return default


def name_of(layer: nn.Module) -> str:
    """What messages call a layer: by its class, or by a ``name`` that it has."""
    return str(declared(layer, "name", type(layer).__name__))


def reads_of(layer: nn.Module) -> str:
    """How far a node looks through one layer, see `gt.layers.Layer`.

    Raises:
        ValueError: it says something else.
    """
    reads: str = declared(layer, "reads", "graph")
    if reads not in READS:
        raise ValueError(f"{name_of(layer)}.reads is {reads!r}: {nearest(reads, READS)}")
    return reads


def writes_of(layer: nn.Module) -> tuple[str, ...]:
    """The streams that one layer changes, see `Layer`."""
    return declared(layer, "writes", ("x",))


def uses_mask(block: nn.Module) -> bool:
    """Whether what a block computes may depend on its mask."""
    return any(
        reads_of(part) == "pairs" or (reads_of(part) == "graph" and declared(part, "reads_mask", True))
        for part in parts_of(block)
    )

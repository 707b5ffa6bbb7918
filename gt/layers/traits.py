"""The declared traits of a block's layers: how far each looks, what it changes, its name in messages."""

from typing import Any

from torch import nn

from gt.errors import nearest
from gt.layers.base import Composite

READS = ("self", "edges", "pairs", "graph")  # how far a node looks through a layer


def parts_of(block: nn.Module) -> list[nn.Module]:
    """The layers and blends of a block, composites unpacked; any other module counts as one layer."""
    return [part for member in block.members for part in parts_of(member)] if isinstance(block, Composite) else [block]


def norms_of(block: nn.Module) -> list[nn.Module]:
    """The norms of a block and of all composites in it, but not those inside a layer."""
    if not isinstance(block, Composite):
        return []
    return [*block.norms, *(norm for member in block.members for norm in norms_of(member))]


def declared_attribute(layer: nn.Module, name: str, default: Any) -> Any:
    """The attribute that a layer declares under a name, or the default.

    Inherited attributes do not count once a subclass overrides ``forward``, since it computes something else: such a
    class has to declare them again.
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
    """The name of a layer in messages: its ``name`` attribute if it has one, else its class."""
    return str(declared_attribute(layer, "name", type(layer).__name__))


def reads_of(layer: nn.Module) -> str:
    """How far a node looks through one layer, see `gt.layers.Layer`.

    Raises:
        ValueError: ``reads`` has an unknown value.
    """
    reads: str = declared_attribute(layer, "reads", "graph")
    if reads not in READS:
        raise ValueError(f"{name_of(layer)}.reads is {reads!r}: {nearest(reads, READS)}")
    return reads


def writes_of(layer: nn.Module) -> tuple[str, ...]:
    """The streams that one layer changes, see `Layer`."""
    return declared_attribute(layer, "writes", ("x",))


def uses_mask(block: nn.Module) -> bool:
    """Whether what a block computes may depend on its mask."""
    return any(
        reads_of(part) == "pairs" or (reads_of(part) == "graph" and declared_attribute(part, "reads_mask", True))
        for part in parts_of(block)
    )

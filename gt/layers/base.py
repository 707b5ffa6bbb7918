"""What a layer says of itself, for those who run a network in another way than graph by graph."""

from torch import nn


class Layer(nn.Module):
    """A layer that says how far a node looks through it.

    Attributes:
        reads: ``"self"``: a node looks at itself alone; ``"edges"``: at the sources of its edges too; ``"pairs"``: at
            those that its mask allows; ``"graph"``: at any node, which is what a layer does that says nothing.
        positions: whether it goes by the place of a node within its graph.
        parts: the layers that a block is made of.
    """

    reads = "graph"
    positions = False

    @property
    def parts(self) -> list[nn.Module]:
        return [self]


def parts_of(block: nn.Module) -> list[nn.Module]:
    """The layers that a block is made of; any module is one layer unless it says otherwise."""
    return getattr(block, "parts", [block])


def reads_of(layer: nn.Module) -> str:
    """How far a node looks through one layer, see `Layer`."""
    return getattr(layer, "reads", "graph")


def uses_mask(block: nn.Module) -> bool:
    """Whether what a block computes may depend on its mask."""
    return any(reads_of(part) in ("pairs", "graph") for part in parts_of(block))

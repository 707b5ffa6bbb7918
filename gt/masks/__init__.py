"""Who reads whom. A mask is a graph over the nodes of each graph of a batch, apart from any model and any data.

In the pictures row i is the reader, column j the node that is read, on the path graph 0 - 1 - 2 - 3:

    Hops(0)     Hops(1)     Hops(2)     Complete()  Causal()    Window(1)
    # . . .     # # . .     # # # .     # # # #     # . . .     # # . .
    . # . .     # # # .     # # # #     # # # #     # # . .     # # # .
    . . # .     . # # #     # # # #     # # # #     # # # .     . # # #
    . . . #     . . # #     . # # #     # # # #     # # # #     . . # #

    Strided(2)  RandomEdges(1)  Expander(2)  Hops(1) | VirtualNodes(1)
    # . # .     . # . .         . # # .      # # . . #
    . # . #     . . . #         # . . #      # # # . #
    # . # .     . # . .         # . . #      . # # # #
    . # . #     # . . .         . # # .      . . # # #
                                             # # # # #   the virtual node

``a | b`` allows what either allows, ``a & b`` what both do, `PerHead` gives each attention head a mask of its own.
Masks are frozen values: equal masks hash alike, so a batch keeps what each of them said of it.
A new mask is one frozen dataclass with a method ``keys`` or ``allows``.
"""

from gt.masks.base import Intersection, Mask, PerHead, Union
from gt.masks.hops import Hops, by_head, by_layer
from gt.masks.pairs import Pairs
from gt.masks.position import Band, Causal, Complete, Strided, Window
from gt.masks.random import Expander, RandomEdges
from gt.masks.schedule import Schedule
from gt.masks.virtual import VirtualNodes
from gt.masks.wide import WideBatch, with_virtual_nodes

__all__ = [
    "Band",
    "Causal",
    "Complete",
    "Expander",
    "Hops",
    "Intersection",
    "Mask",
    "Pairs",
    "PerHead",
    "RandomEdges",
    "Schedule",
    "Strided",
    "Union",
    "VirtualNodes",
    "WideBatch",
    "Window",
    "by_head",
    "by_layer",
    "with_virtual_nodes",
]

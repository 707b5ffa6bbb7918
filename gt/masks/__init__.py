"""Attention masks: which node reads which within each graph of a batch, independent of model and data.

The pictures show the path graph 0 - 1 - 2 - 3; row i reads column j:

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

``a | b`` allows what either allows, ``a & b`` what both do, `PerHead` gives each attention head its own mask.
Masks are immutable: equal masks hash alike, so a batch caches the pairs of each mask.
A new mask is a frozen dataclass with a method ``keys`` or ``allows``.
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

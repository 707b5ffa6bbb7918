from gt.layers.attention import Attention
from gt.layers.block import Blend, Block, FeedForward, ParallelBlock, SequentialBlock, attention_layers
from gt.layers.dwivedi import EdgeGatedBlock
from gt.layers.local import GCN, GINE, GatedGCN

__all__ = [
    "GCN",
    "GINE",
    "Attention",
    "Blend",
    "Block",
    "EdgeGatedBlock",
    "FeedForward",
    "GatedGCN",
    "ParallelBlock",
    "SequentialBlock",
    "attention_layers",
]

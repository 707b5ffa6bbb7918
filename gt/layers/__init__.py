from gt.layers.attention import Attention
from gt.layers.base import Chain, Composite, Layer, Parallel, Residual, State
from gt.layers.block import Blend, Block, FeedForward, GatedBlend, ParallelBlock, SequentialBlock, attention_layers
from gt.layers.convolution import ConvolutionBlock
from gt.layers.depth import JumpConcatenate, JumpMax
from gt.layers.dwivedi import EdgeGatedBlock
from gt.layers.egt import EGT
from gt.layers.gated import GatedGCN
from gt.layers.grass import GRASS
from gt.layers.grit import GRIT
from gt.layers.linear import LinearAttention, PositiveELU, RandomFeatures
from gt.layers.local import GCN, GINE, EdgeGCN, Smoothing
from gt.layers.pairs import PairBlock
from gt.layers.polynormer import PolynomialAttention, PolynormerBlock
from gt.layers.pyg import PyGConvolution
from gt.layers.recurrent import Mamba2, Recurrent
from gt.layers.san import SAN
from gt.layers.sat import StructureAwareAttention
from gt.layers.sgformer import SGFormerBlock, SimpleAttention
from gt.layers.tokens import NAGphormerBlock, TokenGTBlock
from gt.layers.traits import declared_attribute, name_of, norms_of, parts_of, reads_of, uses_mask, writes_of
from gt.layers.virtual_node import VirtualNode

__all__ = [
    "EGT",
    "GCN",
    "GINE",
    "GRASS",
    "GRIT",
    "SAN",
    "Attention",
    "Blend",
    "Block",
    "Chain",
    "Composite",
    "ConvolutionBlock",
    "EdgeGCN",
    "EdgeGatedBlock",
    "FeedForward",
    "GatedBlend",
    "GatedGCN",
    "JumpConcatenate",
    "JumpMax",
    "Layer",
    "LinearAttention",
    "Mamba2",
    "NAGphormerBlock",
    "PairBlock",
    "Parallel",
    "ParallelBlock",
    "PolynomialAttention",
    "PolynormerBlock",
    "PositiveELU",
    "PyGConvolution",
    "RandomFeatures",
    "Recurrent",
    "Residual",
    "SGFormerBlock",
    "SequentialBlock",
    "SimpleAttention",
    "Smoothing",
    "State",
    "StructureAwareAttention",
    "TokenGTBlock",
    "VirtualNode",
    "attention_layers",
    "declared_attribute",
    "name_of",
    "norms_of",
    "parts_of",
    "reads_of",
    "uses_mask",
    "writes_of",
]
